//! Runs the program.
#![expect(unsafe_code, reason = "pre_exec, and an ioctl without a safe wrapper")]

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use fs_err as fs;
use nix::errno::Errno;
use nix::libc;
use nix::pty::Winsize;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, setgid, setgroups, setsid, setuid};
use qus_core::machine::{self, Exited, Request, Run};

use crate::boot;
use crate::port::Ports;
use crate::relay::{Streams, winsize};
use crate::user;

/// What is searched for programs if the environment has no `PATH`; engines have the same.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program does not exist or cannot be executed.
#[derive(Debug)]
pub(crate) struct CannotRun {
    program: String,
    error: io::Error,
}

impl CannotRun {
    /// The exit status by which shells and engines report it.
    pub(crate) fn status(&self) -> u8 {
        if self.error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run {}: {}", self.program, self.error)
    }
}

impl std::error::Error for CannotRun {}

/// Runs the program to its end, and ends all other processes.
#[expect(clippy::disallowed_methods, reason = "the user has requested this program")]
pub(crate) fn run(run: &Run, ports: Ports, requests: BufReader<File>) -> Result<Exited> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let user = user::find(&run.user, &read("/etc/passwd"), &read("/etc/group"))?;
    let directory = Path::new("/").join(&run.directory);
    fs::create_dir_all(&directory)?;
    let (program, arguments) = run.argv.split_first().context("there is no program to run")?;
    let (mut streams, [stdin, stdout, stderr]) = Streams::start(ports, run.terminal)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env_clear();
    command.env("PATH", PATH).env("HOME", &user.home).env("HOSTNAME", &run.hostname);
    if run.terminal.is_some() {
        command.env("TERM", "xterm");
    }
    command.envs(run.env.iter().filter_map(|variable| variable.split_once('=')));
    let has_terminal = run.terminal.is_some();
    let (uid, gid, groups) = (user.uid, user.gid, user.groups);
    let become_user = move || -> io::Result<()> {
        setsid()?;
        if has_terminal {
            // SAFETY: the argument is a number.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        // So that the program can open /dev/stdout, which is another name of it.
        for fd in 0..3 {
            // SAFETY: the argument is a number of a descriptor that the program has.
            Errno::result(unsafe { libc::fchown(fd, uid.as_raw(), libc::gid_t::MAX) })?;
        }
        setgroups(&groups)?;
        setgid(gid)?;
        Ok(setuid(uid)?)
    };
    // SAFETY: between fork and exec the closure makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(become_user) };
    let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
    // The command holds the program's ends of the pipes, whose closing is the end of its output.
    drop(command);
    let child = child.map_err(|error| CannotRun { program: program.clone(), error })?;
    let child = Pid::from_raw(child.id().try_into()?);
    let terminal = streams.terminal.take();
    thread::spawn(move || obey(requests, child, terminal.as_ref()));
    let status = wait_for(child)?;
    // All others. It fails if there are none.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let (output, error) = streams.finish();
    while wait()?.is_some() {}
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let processor = usage.user_time() + usage.system_time();
    Ok(Exited {
        status,
        output,
        error,
        processor: processor.num_milliseconds().try_into()?,
        // The kernel counts in KiB.
        memory: u64::try_from(usage.max_rss())? << 10,
    })
}

/// Reaps processes until this one ends, and returns its status.
fn wait_for(child: Pid) -> Result<u8> {
    loop {
        let (pid, status) = wait()?.context("the program has vanished")?;
        if pid == child {
            let signal = 128 + libc::WTERMSIG(status);
            let status = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { signal };
            return Ok(status.try_into()?);
        }
    }
}

/// Reaps a process, and returns its status as the kernel reports it; `None` if there is none. nix knows no real-time
/// signals.
fn wait() -> Result<Option<(Pid, libc::c_int)>> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one number.
        match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, 0) }) {
            Ok(pid) => return Ok(Some((Pid::from_raw(pid), status))),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            Err(error) => return Err(error).context("cannot wait for processes"),
        }
    }
}

nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);

/// Does what the host asks for while the program runs.
fn obey(mut requests: BufReader<File>, program: Pid, terminal: Option<&File>) {
    while let Ok(Some(request)) = machine::receive(&mut requests) {
        match request {
            Request::Resize(size) => {
                if let Some(terminal) = terminal {
                    // SAFETY: the descriptor is open, and the kernel reads one `Winsize`.
                    let _ = unsafe { set_size(terminal.as_raw_fd(), &winsize(size)) };
                }
            }
            Request::Signal(number) => {
                // SAFETY: both are numbers. nix has no real-time signals.
                let _ = unsafe { libc::kill(program.as_raw(), number) };
            }
            Request::Renew(renewal) => {
                if let Err(error) = boot::renew(&renewal) {
                    let _ = writeln!(io::stderr(), "qus-init: {error:#}");
                }
            }
            Request::Run(_) | Request::Copy(_) => return,
        }
    }
}
