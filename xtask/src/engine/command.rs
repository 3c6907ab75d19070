//! `cargo xtask engine`: starts and stops a throwaway container engine.

use std::path::PathBuf;

use anyhow::Result;
use qus_core::hint::hinted;

use crate::base::context::Context;
use crate::base::exec::quote;
use crate::base::lock;
use crate::base::output::out;
use crate::base::progress::say;
use crate::engine::serve;
use crate::engine::throwaway::{self, Options, Throwaway};

/// Manage a throwaway container engine
///
/// Runs Docker, buildx and a registry from Debian's packages, unpacked into the cache, in separate namespaces. Its data
/// is in target/qus/engine. Nothing is installed, and an existing Docker is not affected. Its containers have no access
/// to the network outside this machine. Requires root.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Start the engine, and print the variables as `env` does
    Up,
    /// Stop the engine, and remove all of its data, including images
    Down,
    /// Show whether the engine is running; exit status 1 if not
    Status,
    /// Print the environment variables that make docker use the engine: eval "$(cargo xtask engine env)"
    Env,
    /// Run as process 1 of the engine's namespaces
    #[command(hide = true)]
    Serve { dir: PathBuf },
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let dir = cx.paths.engine();
    let running = || {
        let none = || hinted("no throwaway engine is running", "to start one, run `cargo xtask engine up`");
        Throwaway::running(&dir).ok_or_else(none)
    };
    match &args.command {
        Command::Up => {
            let _lock = lock::lock(cx.paths.out())?;
            let options = Options { detached: true, ..Options::default() };
            let engine = Throwaway::start(cx, &dir, &options)?;
            say(format_args!("throwaway engine running in {}", engine.dir().display()));
            out(&shell_variables(cx, &engine)?)
        }
        Command::Down => {
            let _lock = lock::lock(cx.paths.out())?;
            match Throwaway::running(&dir) {
                Some(mut engine) => engine.remove(),
                None => throwaway::remove_leftovers(&dir),
            }
        }
        Command::Status => {
            let engine = running()?;
            out(&format!("engine    {}\nregistry  {}\n", engine.dir().display(), engine.registry()))
        }
        Command::Env => out(&shell_variables(cx, &running()?)?),
        Command::Serve { dir } => serve::run(&cx.settings, dir),
    }
}

/// Shell commands that set the environment variables for `docker`.
fn shell_variables(cx: &Context, engine: &Throwaway) -> Result<String> {
    let registry = ("QUS_REGISTRY", engine.registry().into());
    let variables = [registry].into_iter().chain(engine.client().variables(&cx.settings)?);
    Ok(variables.map(|(name, value)| format!("export {name}={}\n", quote(&value))).collect())
}
