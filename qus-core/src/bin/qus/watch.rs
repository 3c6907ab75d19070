//! `qus install --watch`: keeps running, re-registers handlers that disappear, and removes them when it ends.
//!
//! For containers that a cluster or compose keeps running. A check only reads the handlers of the kernel; if one is
//! missing, all are installed again. Changes are reported, and each failure once.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use qus_core::binfmt::Binfmt;
use qus_core::install::{InstallOutcome, InstallState};
use qus_core::remove::remove_handlers;
use qus_core::selection::Selection;
use qus_core::text::count;
use qus_core::watch::Watch;

use crate::context::note_user_namespace;
use crate::install::{Args, install_and_report, print_outcome, report, require_all};
use crate::output::message;

pub(crate) fn run(binfmt: &Binfmt, args: &Args, interval: Duration) -> Result<()> {
    // Before anything is registered, so that a signal always removes it again.
    let signals = Signals::block()?;
    let installation = install_and_report(binfmt, args)?;
    if let Err(error) = require_all(&installation) {
        // Those that were registered before remain.
        let is_new = |outcome: &&InstallOutcome| {
            matches!(outcome.state, InstallState::Installed | InstallState::Shadowing)
        };
        let new: Vec<_> = installation.outcomes.iter().filter(is_new).map(|outcome| &*outcome.arch).collect();
        let done = remove_handlers(binfmt, &Selection::new(&new), false, &mut |_| {})?;
        if !done.removed.is_empty() {
            message(format_args!("{} removed again", count(done.removed.len(), "handler")));
        }
        return Err(error);
    }
    let mut watch = Watch::new(installation);
    message(format_args!("checking every {} s; a signal removes the handlers", interval.as_secs()));
    let options = args.options();
    while !signals.arrive_within(interval)? {
        let open_dir = || args.emulators.try_open();
        let report = &mut |event: qus_core::install::InstallEvent<'_>| report(binfmt, event);
        for outcome in watch.check(binfmt, &options, open_dir, report) {
            print_outcome(&outcome, false);
        }
    }
    let selection = Selection { archs: watch.archs().to_vec(), ..Selection::default() };
    let done = remove_handlers(binfmt, &selection, false, &mut note_user_namespace)?;
    message(format_args!("ended by a signal: {} removed", count(done.removed.len(), "handler")));
    Ok(())
}

/// The signals that end this program, which are read here instead of being delivered.
///
/// Process 1 of a container gets no signal that it does not handle.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Self> {
        let mut signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM]);
        // Under `nohup`, closing the terminal must not end the program.
        if !is_ignored(Signal::SIGHUP) {
            signals.add(Signal::SIGHUP);
        }
        let blocked =
            signals.thread_block().and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC));
        blocked.map(Self).context("cannot wait for signals")
    }

    /// Waits; true if one of them arrives, or has arrived before.
    fn arrive_within(&self, interval: Duration) -> Result<bool> {
        // The kernel counts up to 24 days; to check earlier does no harm.
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
