//! `qus install --watch`: handlers that are there as long as this program runs, and go with it.
//!
//! For containers that are kept running, by a cluster or by compose. A look only reads what the kernel has;
//! where that is not what was left, all is done again that `install` does. Said are changes, and a failure
//! once.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::context::Context;
use crate::install::{self, Args, Row, State};
use crate::output::say;
use crate::remove;

pub(crate) fn run(context: &Context, args: &Args, interval: Duration) -> Result<()> {
    // Nothing may be registered that a signal does not take away again.
    let signals = Signals::wanted()?;
    let mut fit = install::first(context, args)?;
    let archs: Vec<_> = fit.iter().map(|fit| fit.emulator.arch).collect();
    say(format_args!("looking again every {} s; a signal removes them", interval.as_secs()));
    let mut told: Vec<Row> = Vec::new();
    while !signals.come_within(interval)? {
        if install::stands(&context.binfmt, args, &fit) {
            told.clear();
            continue;
        }
        let (mut rows, now) = install::again(context, args, &archs)
            .unwrap_or_else(|error| (vec![Row::failed("all", format!("{error:#}"))], Vec::new()));
        rows.iter()
            .filter(|row| !matches!(row.state, State::Unchanged | State::Native) && !told.contains(row))
            .for_each(|row| row.say(false));
        rows.retain(|row| row.state == State::Failed);
        // What has failed is missed until it works again.
        if rows.is_empty() {
            fit = now;
        }
        told = rows;
    }
    let removed = remove::ours(context, archs)?;
    say(format_args!("ended by a signal: {} handlers removed", removed.len()));
    Ok(())
}

/// The signals that end this program, which arrive here and nowhere else.
///
/// Process 1 of a container gets no signal that it does not ask for.
struct Signals(SignalFd);

impl Signals {
    fn wanted() -> Result<Self> {
        let mut signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM]);
        // Under `nohup` a terminal that is closed ends nothing.
        if !is_ignored(Signal::SIGHUP) {
            signals.add(Signal::SIGHUP);
        }
        let asked =
            signals.thread_block().and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC));
        asked.map(Self).context("cannot wait for signals")
    }

    /// Waits; true if one of them comes, or has come before.
    fn come_within(&self, interval: Duration) -> Result<bool> {
        // The kernel counts up to 24 days; to look earlier does no harm.
        let timeout = PollTimeout::try_from(interval).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).context("cannot wait for signals"),
        }
    }
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as u32 - 1) & 1 == 1)
}
