//! Terminates a program's descendants when this process ends for any reason.
//!
//! The kernel sends a parent-death signal to children, but not to their descendants; a compiler that keeps running
//! would write to files that the next run uses. A supervisor process therefore runs between xtask and each program. It
//! is a fork of xtask and the subreaper of the program's descendants, and it receives the parent-death signal. It needs
//! no privileges, stays in the process group, so that Ctrl-C and Ctrl-Z of the terminal reach all processes, and exits
//! with the program's status. It holds the locks of xtask, so that the next run starts only when no process of this one
//! writes any more.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, read};

/// The interval between searches for descendants.
const INTERVAL: Duration = Duration::from_millis(10);
/// The number of rounds that send SIGTERM before SIGKILL, and of all rounds.
const TERM_ROUNDS: u32 = 50;
const MAX_ROUNDS: u32 = 500;

/// File descriptors of held locks; −1 for an unused slot.
static LOCKS: [AtomicI32; 16] = [const { AtomicI32::new(NONE) }; 16];
const NONE: RawFd = -1;

/// A lock that supervisors inherit.
pub(crate) struct InheritedLock(RawFd);

impl InheritedLock {
    /// Registers a lock. If all slots are in use, which does not happen, supervisors do not inherit it.
    pub(crate) fn new(lock: &impl AsRawFd) -> Self {
        let fd = lock.as_raw_fd();
        let free =
            |slot: &&AtomicI32| slot.compare_exchange(NONE, fd, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let _ = LOCKS.iter().find(free);
        Self(fd)
    }
}

impl Drop for InheritedLock {
    fn drop(&mut self) {
        for slot in &LOCKS {
            let _ = slot.compare_exchange(self.0, NONE, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// Makes a command run under a supervisor.
#[expect(unsafe_code, reason = "only pre_exec runs code in the child")]
pub(super) fn supervise(command: &mut Command) {
    let parent = getpid();
    // SAFETY: what runs between fork and exec makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || become_supervisor(parent)) };
}

/// Returns in the process that becomes the program; does not return in the supervisor.
#[expect(unsafe_code, reason = "fork() and _exit() are unsafe")]
fn become_supervisor(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    prctl::set_child_subreaper(true)?;
    let signals = [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block()?;
    let supervisor = getpid();
    // SAFETY: this is a process of one thread, and both sides make only system calls.
    match unsafe { fork()? } {
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            if getppid() != supervisor {
                return Err(Errno::ESRCH.into());
            }
            // Whatever this process blocks.
            Ok(SigSet::empty().thread_set_mask()?)
        }
        ForkResult::Parent { child } => {
            let status = watch(child, &signals);
            // SAFETY: _exit() runs no destructors and flushes no buffers of the parent a second time.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Waits until the program or xtask ends; returns the exit status.
fn watch(program: Pid, signals: &SigSet) -> i32 {
    close_all_but_locks();
    let mut interrupted = false;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == program => {
                    if interrupted {
                        terminate_descendants(program);
                    }
                    // Remaining descendants are intended, such as the server of a compiler cache.
                    return status;
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                    terminate_descendants(program);
                    return exit_by_signal(signal);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        match signals.wait() {
            Ok(Signal::SIGTERM) => {
                terminate_descendants(program);
                return exit_by_signal(Signal::SIGTERM);
            }
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // The program receives the signal too, and may ignore it.
            Ok(_) => interrupted = true,
        }
    }
}

/// Terminates all descendants: orphans become children of this process, which is their subreaper.
fn terminate_descendants(program: Pid) {
    for round in 0..MAX_ROUNDS {
        let signal = if round < TERM_ROUNDS { Signal::SIGTERM } else { Signal::SIGKILL };
        if each_child(|pid| kill(pid, signal).unwrap_or_default()).is_err() {
            let _ = kill(program, signal);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        thread::sleep(INTERVAL);
    }
}

fn each_child(mut work: impl FnMut(Pid)) -> nix::Result<()> {
    let list: OwnedFd =
        open(c"/proc/thread-self/children", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // The next round handles children that do not fit into the buffer.
    let mut text = [0; 4096];
    let length = read(&list, &mut text)?;
    let mut pid = 0;
    for byte in &text[..length] {
        match byte {
            b'0'..=b'9' => pid = pid * 10 + i32::from(byte - b'0'),
            _ => {
                work(Pid::from_raw(pid));
                pid = 0;
            }
        }
    }
    Ok(())
}

/// Ends this process by a signal; returns the corresponding exit status if the signal does not end it.
#[expect(unsafe_code, reason = "signal() is unsafe")]
fn exit_by_signal(by: Signal) -> i32 {
    // Only the program's own core dump is useful.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: no handler is installed, only the default restored.
    let _ = unsafe { signal(by, SigHandler::SigDfl) };
    let _ = [by].into_iter().collect::<SigSet>().thread_unblock();
    let _ = kill(getpid(), by);
    128 + by as i32
}

/// Closes all inherited descriptors except locks, so that the pipes close when the program and its parent close them.
fn close_all_but_locks() {
    let mut locks = LOCKS.each_ref().map(|slot| slot.load(Ordering::SeqCst));
    locks.sort_unstable();
    let mut first = 0;
    for lock in locks.into_iter().filter(|lock| *lock != NONE) {
        close(first, lock - 1);
        first = lock + 1;
    }
    close(first, RawFd::MAX);
}

#[expect(unsafe_code, reason = "closes descriptors that no value of this process owns")]
fn close(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: nothing in this process uses these descriptors after this.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            // Before Linux 5.9.
            (first..=last.min(1 << 12)).for_each(|fd| {
                libc::close(fd);
            });
        }
    }
}
