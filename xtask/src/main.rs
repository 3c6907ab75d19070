//! `cargo xtask`: everything that builds, checks and releases qus. One file per command; README.md in
//! this folder describes the parts and the rules between them.

mod apt;
mod artefact;
mod bench;
mod build_qemu;
mod build_qus;
mod bundle;
mod cache;
mod codegen;
mod download;
mod engine;
mod exec;
mod guests;
mod hosts;
mod images;
mod parallel;
mod paths;
mod plan;
mod preflight;
mod progress;
mod readme;
mod report;
mod runner;
mod schemas;
mod smoke;
mod source;
mod sysroot;
mod tarballs;
mod test;
mod toolchain;
mod tree;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use xshell::Shell;

use paths::Paths;

/// Build, check and release qus
///
/// Exit status: 0 done; 1 failed, and stderr says what and why; 2 wrong usage; 130 interrupted.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Command {
    Bench(bench::Args),
    #[command(hide = true)]
    BenchWorker(bench::worker::Args),
    BuildQemu(build_qemu::Args),
    BuildQus(build_qus::Args),
    Codegen(codegen::Args),
    Engine(engine::Args),
    Images(images::Args),
    Plan(plan::Args),
    Smoke(smoke::Args),
    Tarballs(tarballs::Args),
    Test(test::Args),
}

/// A request that cannot be meant, as opposed to one that failed.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return explain(&error),
    };
    let catch = || match &command {
        // Signals are caught by a thread, and a process with several threads cannot enter a user namespace.
        Command::BenchWorker(_) => Ok(()),
        _ => ctrlc::set_handler(|| interrupted()).context("cannot catch signals"),
    };
    status(catch().and_then(|()| run(&command)))
}

fn status(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::fail(&error);
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Prints help or version, which were asked for, to standard output; what is wrong with arguments to stderr.
fn explain(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return status(out(&text));
    }
    progress::write(&text);
    ExitCode::from(2)
}

/// Children end with us, and nothing half-done has its final name: there is nothing to clean up.
fn interrupted() -> ! {
    // Where nobody reads stderr, writing to it may take for ever.
    let (done, written) = mpsc::channel();
    thread::spawn(move || {
        progress::say("interrupted: the same command continues where this one stopped");
        let _ = done.send(());
    });
    let _ = written.recv_timeout(Duration::from_millis(200));
    std::process::exit(130);
}

fn run(command: &Command) -> Result<()> {
    dispatch(&Shell::new()?, &Paths::new()?, command)
}

fn dispatch(sh: &Shell, paths: &Paths, command: &Command) -> Result<()> {
    match command {
        Command::Bench(args) => bench::run(sh, paths, args),
        Command::BenchWorker(args) => bench::worker::run(args),
        Command::BuildQemu(args) => build_qemu::run(sh, paths, args),
        Command::BuildQus(args) => build_qus::run(sh, paths, args),
        Command::Codegen(args) => codegen::run(sh, paths, args),
        Command::Engine(args) => engine::run(sh, paths, args),
        Command::Images(args) => images::run(sh, paths, args),
        Command::Plan(args) => plan::run(paths, args),
        Command::Smoke(args) => smoke::run(sh, paths, args),
        Command::Tarballs(args) => tarballs::run(sh, paths, args),
        Command::Test(args) => test::run(sh, paths, args),
    }
}

/// Writes data to standard output. A reader that has seen enough and closed its pipe is no error.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
