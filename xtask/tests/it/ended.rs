//! Interrupted and killed runs leave no processes behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Xtask;

/// Waits for a condition, with a timeout.
fn wait(what: &str, until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < Duration::from_secs(10), "timeout: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a run whose compiler starts a long-running process; returns both processes.
fn start(xtask: &Xtask, compiler: &str) -> (Child, Pid) {
    let (cc, file) = (xtask.path("cc"), xtask.path("pid"));
    let long =
        format!("sh -c 'trap \"\" INT; echo $$ >{0}.partial; mv {0}.partial {0}; sleep 99'", file.display());
    fs::write(&cc, format!("#!/bin/sh\n{}\n", compiler.replace("LONG", &long))).unwrap();
    fs::set_permissions(&cc, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = xtask.command(&["build-qemu", "hexagon"]);
    let child = command.env("CC", &cc).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    wait("the compiler starts", || file.exists());
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    (child, Pid::from_raw(pid))
}

fn is_gone(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

/// In the foreground, in the background, in its own session and so outside of the process group, and ignoring SIGTERM.
const COMPILERS: [&str; 4] = ["LONG", "LONG & wait", "setsid LONG", "trap '' TERM; LONG; LONG"];

#[test]
fn sigkill_ends_all_processes() {
    for compiler in COMPILERS {
        let xtask = Xtask::new();
        let (mut child, pid) = start(&xtask, compiler);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let start = Instant::now();
        wait("the compiler's child ends", || is_gone(pid));
        assert!(start.elapsed() < Duration::from_secs(3), "{compiler}: it took {:?}", start.elapsed());
    }
}

#[test]
fn an_interrupt_ends_all_processes() {
    for (compiler, times) in COMPILERS.into_iter().zip([1, 2, 2, 1]) {
        let xtask = Xtask::new();
        let (mut child, pid) = start(&xtask, compiler);
        let group = Pid::from_raw(-i32::try_from(child.id()).unwrap());
        let start = Instant::now();
        for _ in 0..times {
            // Like Ctrl-C in a terminal.
            let _ = kill(group, Signal::SIGINT);
        }
        let status = child.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{compiler}: it took {:?}", start.elapsed());
        assert_eq!(status.code(), Some(130), "{compiler}: {status}");
        wait("the compiler's child ends", || is_gone(pid));
    }
}

/// Writing to a full pipe blocks.
#[test]
fn an_interrupt_does_not_wait_for_a_blocked_stderr() {
    let xtask = Xtask::new();
    let (_reader, writer) = nix::unistd::pipe().unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&writer, flags).unwrap();
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut child =
        xtask.command(&["build-qemu", "--source", "/no/such/file"]).stderr(writer).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "the run does not block on stderr");
    let start = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
}
