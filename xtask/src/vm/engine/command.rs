//! `cargo xtask vm engine`: starts and stops container engines in machines.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use qus_core::arch::Host;
use qus_core::hint::hinted;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::exec::{self, quote, sh};
use crate::base::output::out;
use crate::base::progress::say;
use crate::base::{files, lock};
use crate::bundle::hosts;
use crate::engine::engine_dir::EngineDir;
use crate::engine::programs::Programs;
use crate::vm::engine::serve::{self, READY, State};
use crate::vm::engine::start::Wanted;
use crate::vm::machine;
use crate::vm::shape::Published;

/// Manage a container engine in a machine, native to another architecture
///
/// docker on this machine uses it like any other engine: its images and containers are those of the machine. Needs no root.
/// Files of this machine are not in it, except for what is sent to a build.
///
/// Exit status: 0 success; 1 failure, described on stderr; 2 invalid arguments.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eval \"$(cargo xtask vm engine up --arch arm64)\"
  docker run --rm debian:trixie uname -m
  cargo xtask vm engine down")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Up(Box<UpArgs>),
    /// Print the environment variables that make docker use the engine: eval "$(cargo xtask vm engine env)"
    Env {
        /// Architecture [default: that of the only engine]
        #[arg(long)]
        arch: Option<&'static Host>,
    },
    /// End the machine, and remove all of its data, including images
    Down {
        /// Architecture [default: all]
        #[arg(long)]
        arch: Option<&'static Host>,
    },
}

/// Start an engine, and print the variables as `env` does
///
/// An engine that runs already is used as it is. Each architecture has one of its own.
#[derive(clap::Args)]
struct UpArgs {
    /// Architecture, such as arm64, arm/v7 or s390x [default: that of this machine]
    #[arg(long)]
    arch: Option<&'static Host>,
    /// Memory in MiB [default: 1024]
    #[arg(long, short, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    memory: Option<u32>,
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Maximum size of images and containers in GiB; what is not used takes no space
    #[arg(long, value_name = "GIB", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=4096))]
    disk: u64,
    /// Make a port that a container publishes reachable at one of this machine's; for its own programs only, unless an
    /// address is given
    #[arg(long, short, value_name = "[ADDRESS:]PORT:PORT[/udp]")]
    publish: Vec<Published>,
    /// End the machine if its engine has not started after this time in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..))]
    boot_timeout: u64,
    /// Run the engine as a child process of this command
    #[arg(long, hide = true)]
    serve: bool,
}

/// The maximum length of a Unix socket's path in bytes.
const SOCKET: usize = 107;

/// The timeout for the end of an engine.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn run(cx: &Context, args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Up(args) if args.serve => {
            serve(cx, args)?;
        }
        Command::Up(args) => return up(cx, args),
        Command::Env { arch } => {
            let (dir, state) = running(cx, *arch)?;
            out(&shell_variables(cx, &dir, &state)?)?;
        }
        Command::Down { arch } => {
            let hosts = arch.map_or_else(|| all(cx), |arch| Ok(vec![machine::find(cx, arch)?.host]))?;
            hosts.into_iter().try_for_each(|host| down(cx, host))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn dir(cx: &Context, host: &Host) -> EngineDir {
    EngineDir::new(&cx.paths.machine_engines().join(host.name))
}

/// The architectures that have a directory.
fn all(cx: &Context) -> Result<Vec<&'static Host>> {
    let machines = cx.data.machines.virtual_machines().map(|machine| machine.host);
    Ok(machines.filter(|host| dir(cx, host).0.exists()).collect())
}

/// The architecture of the machine for programs of this one, or of this machine.
fn host(cx: &Context, arch: Option<&'static Host>) -> Result<&'static Host> {
    let arch = arch.map_or_else(hosts::own, Ok)?;
    Ok(machine::find(cx, arch)?.host)
}

fn up(cx: &Context, args: &UpArgs) -> Result<ExitCode> {
    let host = host(cx, args.arch)?;
    let dir = dir(cx, host);
    let socket = dir.socket();
    ensure!(
        socket.as_os_str().len() <= SOCKET,
        hinted(
            format_args!("the path {} is too long for a socket", socket.display()),
            "set CARGO_TARGET_DIR to a shorter path"
        )
    );
    let _lock = lock::lock_entry(&dir.0)?;
    if let Some(state) = State::read(&dir) {
        say(format_args!(
            "an engine for {host} is running already; `cargo xtask vm engine down --arch {host}` ends it"
        ));
        out(&shell_variables(cx, &dir, &state)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Leftovers of an engine that was killed.
    end(&dir)?;
    fs::create_dir_all(&dir.0)?;
    // Everybody who can connect to the socket controls the engine.
    fs::set_permissions(&dir.0, Permissions::from_mode(0o700))?;
    let (xtask, arguments) = (std::env::current_exe()?, std::env::args_os().skip(1));
    let child = cmd!(sh(), "{xtask}").args(arguments).arg("--serve");
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    let mut child = exec::spawn_piped(child, stderr)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("the child process has no output")?).read_line(&mut line)?;
    if line == READY {
        let state = State::read(&dir).context("the engine has ended")?;
        say(format_args!("engine for {host} running in {}", dir.0.display()));
        out(&shell_variables(cx, &dir, &state)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // It has reported the error.
    let status = child.wait()?;
    end(&dir)?;
    Ok(ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1)))
}

fn serve(cx: &Context, args: &UpArgs) -> Result<()> {
    let host = host(cx, args.arch)?;
    let wanted = Wanted {
        host,
        memory: args.memory,
        processors: args.cpus,
        disk: args.disk << 10,
        published: &args.publish,
        limit: Duration::from_secs(args.boot_timeout),
    };
    serve::run(cx, &dir(cx, host), &wanted)
}

/// The engine of an architecture, or the only one.
fn running(cx: &Context, arch: Option<&'static Host>) -> Result<(EngineDir, State)> {
    let hosts = match arch {
        Some(arch) => vec![machine::find(cx, arch)?.host],
        None => all(cx)?,
    };
    let (mut running, mut ended) = (Vec::new(), String::new());
    for host in hosts {
        let dir = dir(cx, host);
        if let Some(state) = State::read(&dir) {
            running.push((host, dir, state));
        } else if let Some(line) = serve::last_error(&dir) {
            ended += &format!("; that for {host} has ended: {line}");
        }
    }
    let names: Vec<_> = running.iter().map(|(host, ..)| host.name).collect();
    let several = || Usage(format!("engines for {} are running; choose one with --arch", names.join(", ")));
    ensure!(names.len() < 2, several());
    running.pop().map(|(_, dir, state)| (dir, state)).ok_or_else(|| {
        let (of, option) =
            arch.map(|arch| (format!(" for {arch}"), format!(" --arch {arch}"))).unwrap_or_default();
        hinted(
            format_args!("no engine{of} is running in a machine{ended}"),
            format_args!("to start one, run `cargo xtask vm engine up{option}`"),
        )
    })
}

fn down(cx: &Context, host: &Host) -> Result<()> {
    let dir = dir(cx, host);
    let _lock = lock::lock_entry(&dir.0)?;
    end(&dir)
}

/// Ends an engine if it is running, and removes its directory.
fn end(dir: &EngineDir) -> Result<()> {
    if let Some(state) = State::read(dir) {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(state.process.try_into()?), Signal::SIGKILL);
    }
    let start = Instant::now();
    while dir.is_locked() {
        ensure!(start.elapsed() < TIMEOUT, "the engine in {} does not stop", dir.0.display());
        thread::sleep(Duration::from_millis(10));
    }
    files::remove_dir(&dir.0)
}

/// Shell commands that set the environment variables for `docker`.
fn shell_variables(cx: &Context, dir: &EngineDir, state: &State) -> Result<String> {
    let variables = match &state.client {
        Some(programs) => {
            Programs::at(programs).client(&dir.socket(), &dir.client()).variables(&cx.settings)?
        }
        None => vec![("DOCKER_HOST", format!("unix://{}", dir.socket().display()).into())],
    };
    Ok(variables.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect())
}
