//! `cargo xtask engine`: a throwaway engine, started and stopped by hand.

use std::path::PathBuf;

use anyhow::Result;
use qus_core::hint::hinted;

use crate::base::context::Context;
use crate::base::lock;
use crate::base::output::out;
use crate::base::progress::say;
use crate::engine::serve;
use crate::engine::throwaway::{self, Options, Throwaway};

/// Start, stop and use a throwaway container engine by hand
///
/// Docker, buildx and a registry from Debian's packages, unpacked into the cache, in target/qus/engine and in
/// namespaces of their own; nothing is installed, and a Docker that runs here is left alone. Its containers have
/// no way out of this machine. Needs root.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Start it, and print what `env` does
    Up,
    /// Stop it, and remove all that is left of it, images included
    Down,
    /// Say whether it runs; exit status 1 if it does not
    Status,
    /// Print the variables that have docker use it: eval "$(cargo xtask engine env)"
    Env,
    /// Be process 1 of an engine's namespaces
    #[command(hide = true)]
    Serve { dir: PathBuf },
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let dir = cx.paths.engine();
    let running = || {
        let none = || hinted("no throwaway engine runs here", "to start one, run `cargo xtask engine up`");
        Throwaway::running(&dir).ok_or_else(none)
    };
    match &args.command {
        Command::Up => {
            let _lock = lock::lock(cx.paths.out())?;
            let options = Options { detached: true, ..Options::default() };
            let engine = Throwaway::start(cx, &dir, &options)?;
            say(format_args!("a throwaway engine runs in {}", engine.dir().display()));
            out(&variables(cx, &engine)?)
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
        Command::Env => out(&variables(cx, &running()?)?),
        Command::Serve { dir } => serve::run(&cx.settings, dir),
    }
}

/// For a shell, whose `docker` then speaks with the engine.
fn variables(cx: &Context, engine: &Throwaway) -> Result<String> {
    let mut text = format!("export QUS_REGISTRY='{}'\n", engine.registry());
    for (name, value) in engine.client().variables(&cx.settings)? {
        text += &format!("export {name}='{}'\n", value.to_string_lossy());
    }
    Ok(text)
}
