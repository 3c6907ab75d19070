//! A program in a machine, from the machine's start to the program's end.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use qus_core::machine::{self, Event, Exited, Request, Run};
use qus_core::text::Show;

use crate::base::output::NO_STDOUT;
use crate::vm::machine::Running;
use crate::vm::relay::{self, Output};
use crate::vm::terminal::{self, Raw};

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

/// Runs the program in a machine that waits for it, relays its streams, and returns its exit status.
///
/// # Errors
/// The machine ends before the program; the message has the kernel's last lines. Or a [`CannotRun`].
pub(crate) fn run(machine: &mut Running, run: Run, limit: Option<Duration>) -> Result<u8> {
    let raw = run.terminal.map(|_| Raw::enter()).transpose()?;
    machine.send(&Request::Run(run.into()))?;
    if raw.is_some() {
        follow_size(machine.control()?);
    }
    relay::start_input(machine.input.try_clone()?)?;
    let output = Output::start(machine.output.try_clone()?, io::stdout(), machine.control()?)?;
    let errors = Output::start(machine.error.try_clone()?, io::stderr(), machine.control()?)?;
    let ended = machine.receive(limit, "the program has not ended");
    // What this process prints needs the terminal's own settings.
    drop(raw);
    let unwritten = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe => Ok(BROKEN_PIPE),
        _ => Err(error).context(NO_STDOUT),
    };
    if let Some(error) = output.error().or_else(|| errors.error()) {
        return unwritten(error);
    }
    let Exited { status, output: written, error: errors_written, .. } = exited(ended?)?;
    match output.wait(written).and_then(|()| errors.wait(errors_written)) {
        Ok(()) => Ok(status),
        Err(error) => unwritten(error),
    }
}

/// The end of the program that the machine reports.
fn exited(event: Event) -> Result<Exited> {
    match event {
        Event::Exited(exited) => Ok(exited),
        Event::Failed { status, error } => Err(CannotRun { status, error }.into()),
        Event::Ready { .. } | Event::Copied { .. } => bail!("the machine reports something else"),
    }
}

/// Sends each new size of the terminal. `main` has blocked the signal, so that this thread receives it.
fn follow_size(control: UnixStream) {
    let signals: SigSet = [Signal::SIGWINCH].into_iter().collect();
    thread::spawn(move || {
        while signals.wait().is_ok() {
            let size = terminal::size(io::stdout());
            if size.is_some_and(|size| machine::send(&control, &Request::Resize(size)).is_err()) {
                return;
            }
        }
    });
}
