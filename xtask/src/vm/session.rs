//! A program in a machine, from the machine's start to the program's end.

use std::fmt;
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{SigSet, Signal};
use qus_core::hint::{self, hinted};
use qus_core::machine::{self, Event, Exited, Request, Run, VERSION};
use qus_core::text::Show;

use crate::base::output::NO_STDOUT;
use crate::base::progress::Bar;
use crate::vm::console::Console;
use crate::vm::machine::Running;
use crate::vm::relay::{self, Output};
use crate::vm::terminal::{self, Raw};

/// Limits of a machine's time.
pub(crate) struct Limits {
    /// Until the kernel has started the first process.
    pub(crate) boot: Duration,
    /// From then on, until the program has ended.
    pub(crate) program: Option<Duration>,
}

/// The exit status when nobody reads the output any more: that of a program that SIGPIPE has killed.
const BROKEN_PIPE: u8 = 128 + 13;

/// The machine could not run the program.
#[derive(Debug)]
pub(crate) struct CannotRun {
    pub(crate) status: u8,
    error: String,
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error.shown())
    }
}

impl std::error::Error for CannotRun {}

/// Runs the program, relays its streams, and returns its exit status.
///
/// # Errors
/// The machine does not start, or ends before the program; the message has the kernel's last lines. Or a [`CannotRun`].
pub(crate) fn run(machine: &mut Running, run: Run, limits: &Limits, verbose: bool) -> Result<u8> {
    let console = Console::follow(machine.console.try_clone()?, verbose);
    let mut control = BufReader::new(machine.control.try_clone()?);
    let bar = Bar::short("starting the machine");
    let started = receive(&mut control, Some(limits.boot), "the machine has not started");
    drop(bar);
    let fault = |error: anyhow::Error| {
        let message = format!("{error:#}{}{}", machine.complaint(), console.last_lines());
        hint::of(&error).map_or_else(|| anyhow!("{message}"), |hint| hinted(&message, hint))
    };
    match started.map_err(fault)? {
        Event::Ready { version: VERSION } => {}
        Event::Ready { version } => bail!("the machine has version {version} of the messages, not {VERSION}"),
        event => bail!("the machine has run nothing ({})", failed(event)?.status),
    }
    let raw = run.terminal.map(|_| Raw::enter()).transpose()?;
    let follows = raw.is_some().then(|| follow_size(machine.control.try_clone()?)).transpose();
    machine::send(&machine.control, &Request::Run(run)).context("cannot send the program to the machine")?;
    follows?;
    relay::start_input(machine.input.try_clone()?)?;
    let output = Output::start(machine.output.try_clone()?, io::stdout(), machine.control.try_clone()?)?;
    let errors = Output::start(machine.error.try_clone()?, io::stderr(), machine.control.try_clone()?)?;
    let ended = receive(&mut control, limits.program, "the program has not ended");
    // What this process prints needs the terminal's own settings.
    drop(raw);
    let unwritten = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe => Ok(BROKEN_PIPE),
        _ => Err(error).context(NO_STDOUT),
    };
    if let Some(error) = output.error().or_else(|| errors.error()) {
        return unwritten(error);
    }
    let Exited { status, output: written, error: errors_written, .. } = failed(ended.map_err(fault)?)?;
    match output.wait(written).and_then(|()| errors.wait(errors_written)) {
        Ok(()) => Ok(status),
        Err(error) => unwritten(error),
    }
}

/// Receives the next message within a time.
fn receive(control: &mut BufReader<UnixStream>, limit: Option<Duration>, late: &str) -> Result<Event> {
    control.get_ref().set_read_timeout(limit)?;
    match machine::receive(control) {
        Ok(Some(event)) => Ok(event),
        Ok(None) => bail!("the machine ended unexpectedly"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let limit = limit.unwrap_or_default().as_secs();
            Err(hinted(
                format_args!("{late} within {limit} s"),
                "a longer `--timeout` or `--boot-timeout` may help",
            ))
        }
        Err(error) => Err(error).context("the machine sends no messages of qus-init"),
    }
}

/// The end of the program that the machine reports.
fn failed(event: Event) -> Result<Exited> {
    match event {
        Event::Exited(exited) => Ok(exited),
        Event::Failed { status, error } => Err(CannotRun { status, error }.into()),
        Event::Ready { .. } => bail!("the machine has started twice"),
    }
}

/// Sends each new size of the terminal. `main` has blocked the signal, so that this thread receives it.
fn follow_size(control: UnixStream) -> Result<()> {
    let signals: SigSet = [Signal::SIGWINCH].into_iter().collect();
    thread::spawn(move || {
        while signals.wait().is_ok() {
            let size = terminal::size(io::stdout());
            if size.is_some_and(|size| machine::send(&control, &Request::Resize(size)).is_err()) {
                return;
            }
        }
    });
    Ok(())
}
