//! `cargo xtask`: builds, checks and releases qus.
//!
//! docs/design.md describes the modules and the rules between them.

mod base;
mod bench;
mod bundle;
mod check;
mod debian;
mod derive;
mod engine;
mod fuzz;
mod qemu;
mod qus;
mod ship;
mod vm;

use std::io;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use qus_core::hint;
use qus_core::terminal::decorate;

use base::context::Context;
use base::error::Usage;
use base::output::out;
use base::progress;

/// Build, check and release qus
///
/// Exit status: 0 success; 1 failure, described on stderr; 2 invalid arguments; 130 interrupted.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Command {
    Bench(bench::command::Args),
    #[command(hide = true)]
    BenchWorker(bench::worker::Args),
    BuildQemu(qemu::args::Args),
    BuildQus(qus::build::Args),
    Bump(qemu::bump::Args),
    Chaos(check::chaos::Args),
    Codegen(derive::codegen::Args),
    Engine(engine::command::Args),
    Fuzz(fuzz::Args),
    Guests(check::guests::Args),
    Images(ship::images::args::Args),
    Plan(ship::plan::Args),
    Release(ship::release::Args),
    Smoke(check::smoke::Args),
    Tarballs(ship::tarballs::Args),
    Test(check::test::Args),
    Vm(vm::command::Args),
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return print_clap_error(&error),
    };
    let handle_signals = || match &command {
        // A thread handles signals, and a multi-threaded process cannot enter a user namespace.
        Command::BenchWorker(_) => Ok(()),
        _ => exit_on_signals().context("cannot install the signal handler"),
    };
    exit_code(handle_signals().and_then(|()| run(&command)))
}

fn exit_code(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(error) => {
            progress::fail(&error);
            ExitCode::from(if hint::find::<Usage>(&error).is_some() { 2 } else { 1 })
        }
    }
}

/// Prints requested help or the version to stdout, and argument errors to stderr.
fn print_clap_error(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return exit_code(out(&decorate(&text, io::stdout())).map(|()| ExitCode::SUCCESS));
    }
    progress::write(&text);
    ExitCode::from(2)
}

/// Starts a thread that waits for terminating signals. Threads started later inherit the blocked signals; child
/// processes start with all signals unblocked.
fn exit_on_signals() -> nix::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    // For whoever waits for it: no thread may receive it otherwise.
    [Signal::SIGWINCH].into_iter().collect::<SigSet>().thread_block()?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            exit_interrupted();
        }
    });
    Ok(())
}

/// No cleanup is needed: child processes end with this process, and incomplete files do not have their final names.
fn exit_interrupted() -> ! {
    // Writing to stderr may block forever if the pipe is full.
    let (done, written) = mpsc::channel();
    thread::spawn(move || {
        vm::terminal::restore();
        progress::say_last("interrupted; run the same command again to resume", || {
            let _ = done.send(());
            thread::park();
        });
    });
    let _ = written.recv_timeout(Duration::from_millis(200));
    std::process::exit(130);
}

fn run(command: &Command) -> Result<ExitCode> {
    let cx = &Context::new()?;
    match command {
        Command::Bench(args) => bench::command::run(cx, args),
        Command::BenchWorker(args) => bench::worker::run(args),
        Command::BuildQemu(args) => engine::nodes::build_qemu(cx, args),
        Command::BuildQus(args) => qus::build::run(cx, args),
        Command::Bump(args) => qemu::bump::run(cx, args),
        Command::Chaos(args) => check::chaos::run(cx, args),
        Command::Codegen(args) => derive::codegen::run(cx, args),
        Command::Engine(args) => engine::command::run(cx, args),
        Command::Fuzz(args) => fuzz::run(cx, args),
        Command::Guests(args) => check::guests::run(cx, args),
        Command::Images(args) => ship::images::run(cx, args),
        Command::Plan(args) => ship::plan::run(cx, args),
        Command::Release(args) => ship::release::run(cx, args),
        Command::Smoke(args) => check::smoke::run(cx, args),
        Command::Tarballs(args) => ship::tarballs::run(cx, args),
        Command::Test(args) => check::test::run(cx, args),
        Command::Vm(args) => return vm::command::run(cx, args),
    }?;
    Ok(ExitCode::SUCCESS)
}
