//! `cargo xtask`: everything that builds, checks and releases qus. One file per command; README.md in
//! this folder describes the parts and the rules between them.

mod base;
mod bench;
mod bundle;
mod check;
mod debian;
mod derive;
mod engine;
mod qemu;
mod qus;
mod ship;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use qus_core::hint;

use base::context::Context;
use base::error::Usage;
use base::output::out;
use base::progress;

/// Build, check and release qus
///
/// Exit status: 0 done; 1 failed, and stderr says what and why; 2 wrong usage; 130 interrupted.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Command {
    Bench(bench::command::Args),
    #[command(hide = true)]
    BenchWorker(bench::worker::Args),
    BuildQemu(qemu::args::Args),
    BuildQus(qus::build::Args),
    Codegen(derive::codegen::Args),
    Engine(engine::command::Args),
    Images(ship::images::args::Args),
    Plan(ship::plan::Args),
    Smoke(check::smoke::Args),
    Tarballs(ship::tarballs::Args),
    Test(check::test::Args),
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return explain(&error),
    };
    let catch = || match &command {
        // Signals are caught by a thread, and a process with several threads cannot enter a user namespace.
        Command::BenchWorker(_) => Ok(()),
        _ => exit_on_signals().context("cannot catch signals"),
    };
    status(catch().and_then(|()| run(&command)))
}

fn status(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::fail(&error);
            ExitCode::from(if hint::find::<Usage>(&error).is_some() { 2 } else { 1 })
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

/// Starts a thread that waits for the signals that end this process. All other threads are started later and leave them
/// to it; programs are started with no signal blocked.
fn exit_on_signals() -> nix::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            interrupted();
        }
    });
    Ok(())
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
    let cx = &Context::new()?;
    match command {
        Command::Bench(args) => bench::command::run(cx, args),
        Command::BenchWorker(args) => bench::worker::run(args),
        Command::BuildQemu(args) => engine::nodes::build_qemu(cx, args),
        Command::BuildQus(args) => qus::build::run(cx, args),
        Command::Codegen(args) => derive::codegen::run(cx, args),
        Command::Engine(args) => engine::command::run(cx, args),
        Command::Images(args) => ship::images::run(cx, args),
        Command::Plan(args) => ship::plan::run(cx, args),
        Command::Smoke(args) => check::smoke::run(cx, args),
        Command::Tarballs(args) => ship::tarballs::run(cx, args),
        Command::Test(args) => check::test::run(cx, args),
    }
}
