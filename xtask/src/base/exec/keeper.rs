//! Ends whatever a program has started when this process ends, however it ends.
//!
//! The kernel can send a child a signal at its parent's end, but not the children of that child, and a compiler that
//! goes on would write where the next run wants to. So there is a process between us and a program: a fork of this
//! one that runs nothing else, is the subreaper of the program's descendants, and gets the signal. It takes no
//! privileges, stays in the process group, so that the terminal's Ctrl-C and Ctrl-Z reach all, and ends as the program
//! ends. It has our locks for as long as it lives: the next run begins when nobody of this one writes any more.

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

/// How often the descendants are looked for, and how often they are asked to end before they are killed.
const INTERVAL: Duration = Duration::from_millis(10);
const ASKED: u32 = 50;
const AT_MOST: u32 = 500;

/// Descriptors of locks that are held; −1 for none.
static LOCKS: [AtomicI32; 16] = [const { AtomicI32::new(NONE) }; 16];
const NONE: RawFd = -1;

/// A lock that keepers hold too.
pub(crate) struct Held(RawFd);

impl Held {
    /// Beyond a number of locks that is never reached, keepers do not hold it.
    pub(crate) fn new(lock: &impl AsRawFd) -> Self {
        let fd = lock.as_raw_fd();
        let free =
            |slot: &&AtomicI32| slot.compare_exchange(NONE, fd, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let _ = LOCKS.iter().find(free);
        Self(fd)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for slot in &LOCKS {
            let _ = slot.compare_exchange(self.0, NONE, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// Has a command run under a keeper.
#[expect(unsafe_code, reason = "only pre_exec runs something in the child")]
pub(super) fn keep(command: &mut Command) {
    let parent = getpid();
    // SAFETY: what runs between fork and exec makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || become_keeper(parent)) };
}

/// Returns in the process that is to be the program; the keeper does not return.
#[expect(unsafe_code, reason = "to fork, and to end without running destructors")]
fn become_keeper(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    prctl::set_child_subreaper(true)?;
    let signals = [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block()?;
    let keeper = getpid();
    // SAFETY: this is a process of one thread, and both sides go on with system calls alone.
    match unsafe { fork()? } {
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            if getppid() != keeper {
                return Err(Errno::ESRCH.into());
            }
            // Whatever this process blocks.
            Ok(SigSet::empty().thread_set_mask()?)
        }
        ForkResult::Parent { child } => {
            let status = watch(child, &signals);
            // SAFETY: nothing of the parent's may be written or run a second time at the end of this copy of it.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Waits for the program's end, or for that of xtask; returns the exit status.
fn watch(program: Pid, signals: &SigSet) -> i32 {
    close_all_but_locks();
    let mut interrupted = false;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == program => {
                    if interrupted {
                        end_all(program);
                    }
                    // Else what it has left behind, as the server of a compiler cache, was meant to be.
                    return status;
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                    end_all(program);
                    return end_by(signal);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        match signals.wait() {
            Ok(Signal::SIGTERM) => {
                end_all(program);
                return end_by(Signal::SIGTERM);
            }
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // The program has got it too, and ends or does not.
            Ok(_) => interrupted = true,
        }
    }
}

/// Ends all descendants: what loses its parent becomes a child of this process and is seen then.
fn end_all(program: Pid) {
    for round in 0..AT_MOST {
        let signal = if round < ASKED { Signal::SIGTERM } else { Signal::SIGKILL };
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
    // What does not fit is seen the next time.
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

/// Ends this process by a signal; returns the exit status that stands for it if that does not end it.
#[expect(unsafe_code, reason = "to set what a signal does")]
fn end_by(by: Signal) -> i32 {
    // The program's own core dump is the one that tells something.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: no handler is installed, only the default restored.
    let _ = unsafe { signal(by, SigHandler::SigDfl) };
    let _ = [by].into_iter().collect::<SigSet>().thread_unblock();
    let _ = kill(getpid(), by);
    128 + by as i32
}

/// Has the pipes that belong to the program and to its parent end when they are done with them.
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

#[expect(unsafe_code, reason = "descriptors that this copy of a process has by no value")]
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
