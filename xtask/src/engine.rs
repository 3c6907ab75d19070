//! The container engine that images are built, pushed and tried with, and `cargo xtask engine`.
//!
//! Yours is used if it answers and has a recent buildx; its contexts, builders and configuration stay as they
//! are. Else, as root on a Debian-like system, a throwaway engine is started and removed again.

mod programs;
mod serve;
mod throwaway;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use semver::Version;
use xshell::{Cmd, Shell, cmd};

pub(crate) use throwaway::{Options, Throwaway, mark};

use crate::paths::Paths;
use crate::preflight::which;
use crate::progress::say;
use crate::{cache, exec, out};

/// The oldest buildx that lists builders as JSON and takes all that our bake file has.
const BUILDX: Version = Version::new(0, 13, 0);

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

pub(crate) fn run(sh: &Shell, paths: &Paths, args: &Args) -> Result<()> {
    let dir = paths.engine();
    let running = || {
        let remedy = "no throwaway engine runs here\nremedy: cargo xtask engine up";
        Throwaway::running(&dir).context(remedy)
    };
    match &args.command {
        Command::Up => {
            let _lock = cache::lock(paths.out())?;
            let options = Options { detached: true, ..Options::default() };
            let engine = Throwaway::start(sh, paths, &dir, &options)?;
            say(format_args!("a throwaway engine runs in {}", engine.dir().display()));
            out(&variables(&engine)?)
        }
        Command::Down => {
            let _lock = cache::lock(paths.out())?;
            match Throwaway::running(&dir) {
                Some(mut engine) => engine.remove(),
                None => throwaway::remove_leftovers(sh, &dir),
            }
        }
        Command::Status => {
            let engine = running()?;
            out(&format!("engine    {}\nregistry  {}\n", engine.dir().display(), engine.registry()))
        }
        Command::Env => out(&variables(&running()?)?),
        Command::Serve { dir } => serve::run(sh, dir),
    }
}

/// For a shell, whose `docker` then speaks with the engine.
fn variables(engine: &Throwaway) -> Result<String> {
    let mut text = format!("export QUS_REGISTRY='{}'\n", engine.registry());
    for (name, value) in engine.client().variables()? {
        text += &format!("export {name}='{}'\n", value.to_string_lossy());
    }
    Ok(text)
}

/// A docker client, and what has it speak with a certain engine.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    program: OsString,
    env: Vec<(&'static str, OsString)>,
}

impl Client {
    /// The one that is installed, with the engine that it is set up for.
    pub(crate) fn installed() -> Self {
        Self { program: "docker".into(), env: Vec::new() }
    }

    /// A command of docker.
    pub(crate) fn cmd<'a>(&self, sh: &'a Shell, args: &[&str]) -> Cmd<'a> {
        let program = &self.program;
        let cmd = cmd!(sh, "{program} {args...}");
        self.env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value))
    }

    /// What has another program that calls `docker` use this client.
    pub(crate) fn variables(&self) -> Result<Vec<(&'static str, OsString)>> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folder = Path::new(&self.program).parent().map(Path::to_owned);
        let path = env::join_paths(folder.into_iter().chain(env::split_paths(&path)))?;
        Ok(self.env.iter().cloned().chain([("PATH", path)]).collect())
    }

    /// Sets a further variable for all its commands.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Whether an engine answers.
    pub(crate) fn has_engine(&self, sh: &Shell) -> bool {
        exec::read(self.cmd(sh, &["version", "--format", "{{.Server.Version}}"])).is_ok()
    }
}

/// A client with what it speaks to.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) client: Client,
    /// Stopped when this is dropped, if we have started it.
    _throwaway: Option<Throwaway>,
}

impl Engine {
    /// Yours, or a throwaway one. With a builder named, only its client has to be there.
    ///
    /// # Errors
    /// Why neither can be used, and what to do.
    pub(crate) fn find(sh: &Shell, paths: &Paths, builder: Option<&str>) -> Result<Self> {
        let yours = match usable(sh, builder) {
            Ok(()) => return Ok(Self { client: Client::installed(), _throwaway: None }),
            Err(why) => why,
        };
        if let Some(builder) = builder {
            bail!(
                "the builder {builder} cannot be used: {yours:#}\nremedy: docker with buildx {BUILDX} or newer, and a builder \
                 of that name that answers (docker buildx ls)"
            );
        }
        match Throwaway::start(sh, paths, &paths.engine(), &Options::default()) {
            Ok(engine) => {
                say(format_args!(
                    "using a throwaway engine, since yours cannot be used ({yours:#}); its registry is {}",
                    engine.registry()
                ));
                let client = engine.client();
                Ok(Self { client, _throwaway: Some(engine) })
            }
            Err(error) => bail!(
                "there is no container engine:\n  yours: {yours:#}\n  a throwaway one: {error:#}\nremedy: install and \
                 start Docker with buildx {BUILDX} or newer; or run this as root on Debian"
            ),
        }
    }
}

/// Fails with what keeps the installed client and its engine from being used.
fn usable(sh: &Shell, builder: Option<&str>) -> Result<()> {
    ensure!(which("docker"), "docker is not installed");
    let client = Client::installed();
    let told = exec::read(client.cmd(sh, &["buildx", "version"])).ok().context("docker has no buildx")?;
    let version = buildx_version(&told).with_context(|| format!("buildx tells no version: {told}"))?;
    ensure!(version >= BUILDX, "buildx is {version}, and {BUILDX} is needed");
    match builder {
        Some(builder) => exec::read(client.cmd(sh, &["buildx", "inspect", builder])).map(drop),
        None => exec::read(client.cmd(sh, &["version", "--format", "{{.Server.Version}}"])).map(drop),
    }
}

/// Reads `github.com/docker/buildx v0.13.1 788433953af1`; distributions leave the `v` out and add `+ds1`.
fn buildx_version(told: &str) -> Option<Version> {
    let word = told.split_whitespace().nth(1)?;
    let number = word.trim_start_matches('v').split(['+', '-', '~']).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_buildx() {
        let version = |told| buildx_version(told).map(|version| version.to_string());
        assert_eq!(version("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3").as_deref(), Some("0.13.1"));
        assert_eq!(version("github.com/docker/buildx v0.10.5-docker 1a2b").as_deref(), Some("0.10.5"));
        assert_eq!(version("buildx"), None);
    }
}
