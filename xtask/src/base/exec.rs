//! Runs programs. All other modules use these functions.
//!
//! A command is an argument vector, never a shell string. The command is written to the step's log as a line that can
//! be pasted into a shell, followed by its output. On failure, the error contains the last lines and the path of the
//! log. Child processes and their descendants are terminated when xtask ends for any reason, so that no compiler
//! continues in a directory that the next run uses.

pub(crate) mod supervisor;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::invocation::pasteable;
pub(crate) use super::invocation::{InDir, Invocation, quote, sh};

/// Whether a program exists at its path or in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    which::which(program).is_ok()
}

/// The number of output lines shown for a failed program.
const LAST_LINES: usize = 40;

/// Runs a command, and writes its output to `log` and, line by line, to `on_line`.
///
/// # Errors
/// The program cannot be started, the log cannot be written, or the exit status is not 0. In the last case the message
/// contains the last lines of output.
pub(crate) fn run<'a>(cmd: impl Into<Invocation<'a>>, log: &Path, on_line: impl FnMut(&str)) -> Result<()> {
    let cmd = cmd.into();
    let what = cmd.program();
    run_logged(supervised(cmd), &what, log, on_line)
}

/// Like [`run`], with a limit on the size of files that the program writes. The kernel kills the program at the limit.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_limited<'a>(cmd: impl Into<Invocation<'a>>, log: &Path, bytes: u64) -> Result<()> {
    let cmd = cmd.into();
    let what = cmd.program();
    run_logged(limited(cmd, Resource::RLIMIT_FSIZE, bytes), &what, log, |_| {})
}

#[expect(unsafe_code, reason = "only pre_exec can set a child's limits")]
fn limited(cmd: Invocation<'_>, resource: Resource, bytes: u64) -> Command {
    let mut command = supervised(cmd);
    // SAFETY: as in `prepare_with`.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, bytes, bytes)?)) };
    command
}

fn run_logged(mut command: Command, what: &str, log: &Path, mut on_line: impl FnMut(&str)) -> Result<()> {
    let mut file = append(log)?;
    writeln!(file, "{}", pasteable(&command))?;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    // The command holds the write end of the pipe; reading ends only when it is closed.
    drop(command);
    let mut last = VecDeque::new();
    let read = || -> Result<()> {
        for line in BufReader::new(File::from(reader)).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
            on_line(&line);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line.into_owned());
        }
        Ok(())
    };
    if let Err(error) = read() {
        // Otherwise the program would continue without a reader.
        let _ = kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM);
        child.wait()?;
        return Err(error);
    }
    let status = child.wait()?;
    if !status.success() {
        let lines: Vec<_> = last.iter().map(|line| format!("    {line}\n")).collect();
        bail!("{what} failed ({status}); the end of {}:\n{}", log.display(), lines.concat().trim_end());
    }
    Ok(())
}

/// Runs a short command and returns its stdout without the last newline.
///
/// # Errors
/// As [`run`]; the message contains the program's stderr, or the end of its stdout if it wrote nothing there.
pub(crate) fn read<'a>(cmd: impl Into<Invocation<'a>>) -> Result<String> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut text = text(&what, output(cmd)?)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Runs a short command with a limit on its address space, and returns its complete stdout.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_limited<'a>(cmd: impl Into<Invocation<'a>>, bytes: u64) -> Result<String> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = limited(cmd, Resource::RLIMIT_AS, bytes);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {what}"))?;
    text(&what, output)
}

fn text(what: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        // Test programs report failures on stdout.
        let why = match stderr.trim() {
            "" => last_lines(stdout.trim()),
            stderr => stderr,
        };
        bail!("{what} failed ({}): {why}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {what}"))
}

/// The end of a text, [`LAST_LINES`] lines at most.
fn last_lines(text: &str) -> &str {
    let start = text.rmatch_indices('\n').nth(LAST_LINES - 1);
    start.map_or(text, |(newline, _)| &text[newline + 1..])
}

/// Runs a short command and returns its output, whatever the exit status.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn output<'a>(cmd: impl Into<Invocation<'a>>) -> Result<Output> {
    let cmd = cmd.into();
    let what = cmd.program();
    supervised(cmd).stdin(Stdio::null()).output().with_context(|| format!("cannot run {what}"))
}

/// Runs a command with inherited output, such as a test runner or a linter.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn interactive<'a>(cmd: impl Into<Invocation<'a>>) -> Result<ExitStatus> {
    let cmd = cmd.into();
    let what = cmd.program();
    supervised(cmd).status().with_context(|| format!("cannot run {what}"))
}

/// Runs a program to completion with its stdin and stdout connected to a socket.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn run_connected<'a>(cmd: impl Into<Invocation<'a>>, connection: OwnedFd) -> Result<ExitStatus> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare(cmd);
    command.stdin(connection.try_clone()?).stdout(connection).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    // The command holds the connection too, which must close when the program ends.
    drop(command);
    Ok(child.wait()?)
}

/// Starts a program without waiting for it; stderr goes to a file, stdout is discarded.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn spawn<'a>(cmd: impl Into<Invocation<'a>>, stderr: impl Into<File>) -> Result<Child> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare(cmd);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.into());
    command.spawn().with_context(|| format!("cannot run {what}"))
}

/// Like [`spawn`], for a program that ignores or delays SIGTERM, such as unshare: it is killed when this process ends.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn spawn_tied<'a>(cmd: impl Into<Invocation<'a>>, stderr: impl Into<File>) -> Result<Child> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare_with(cmd, Signal::SIGKILL);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.into());
    command.spawn().with_context(|| format!("cannot run {what}"))
}

/// Like [`spawn_tied`], for a program that inherits these file descriptors under their numbers.
///
/// # Errors
/// The program cannot be started.
#[expect(unsafe_code, reason = "only pre_exec can make a child inherit file descriptors")]
pub(crate) fn spawn_with<'a>(
    cmd: impl Into<Invocation<'a>>,
    descriptors: &[BorrowedFd<'_>],
    stderr: impl Into<File>,
) -> Result<Child> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare_with(cmd, Signal::SIGKILL);
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let inherit = move || -> io::Result<()> {
        for fd in &raw {
            // SAFETY: the caller keeps the descriptors open; in the child, nothing closes them before exec.
            fcntl(unsafe { BorrowedFd::borrow_raw(*fd) }, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: as in `prepare_with`.
    unsafe { command.pre_exec(inherit) };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.into());
    command.spawn().with_context(|| format!("cannot run {what}"))
}

/// Like [`spawn`], for a program that outlives this process, outside its process group.
///
/// # Errors
/// The program cannot be started.
#[expect(unsafe_code, reason = "only pre_exec can set a signal mask")]
pub(crate) fn spawn_detached<'a>(cmd: impl Into<Invocation<'a>>, stderr: impl Into<File>) -> Result<Child> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = Command::from(cmd);
    // SAFETY: as in `prepare_with`.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.into()).process_group(0);
    command.spawn().with_context(|| format!("cannot run {what}"))
}

/// Starts a program with piped stdin and stdout; stderr goes to a file.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn spawn_piped<'a>(cmd: impl Into<Invocation<'a>>, stderr: impl Into<File>) -> Result<Child> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare(cmd);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.into());
    command.spawn().with_context(|| format!("cannot run {what}"))
}

/// Starts a program to be measured, in its own process group and with its own environment. It gets no parent-death
/// signal, because setting one requires fork(), which is slow for a large parent. With `fork` it gets the signal, and
/// the kernel's memory statistics of the child do not include the parent's memory.
///
/// # Errors
/// The program cannot be started.
#[expect(
    clippy::disallowed_methods,
    reason = "a command of xshell sets the directory, which requires fork() too"
)]
#[expect(unsafe_code, reason = "the standard library forks only with pre_exec")]
pub(crate) fn spawn_bare(
    argv: &[String],
    environment: &[(&str, &str)],
    (stdout, stderr): (File, File),
    fork: bool,
) -> Result<Child> {
    let (program, arguments) = argv.split_first().context("the argument vector is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().copied()).process_group(0);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    if fork {
        // SAFETY: as in `prepare_with`.
        unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from)) };
    }
    command.spawn().with_context(|| format!("cannot run {program}"))
}

/// Creates an empty log file.
pub(crate) fn start_log(log: &Path) -> Result<()> {
    let dir = log.parent().context("the log has no parent directory")?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::File::create(log))
        .map(drop)
        .with_context(|| format!("cannot write {}", log.display()))
}

fn append(log: &Path) -> Result<fs::File> {
    let open = fs::OpenOptions::new().append(true).create(true).open(log);
    open.with_context(|| format!("cannot write {}", log.display()))
}

/// A command that is terminated with its descendants when this process ends.
fn supervised(cmd: Invocation<'_>) -> Command {
    let mut command = Command::from(cmd);
    supervisor::supervise(&mut command);
    command
}

fn prepare(cmd: Invocation<'_>) -> Command {
    prepare_with(cmd, Signal::SIGTERM)
}

/// A command that receives a signal when this process ends.
#[expect(unsafe_code, reason = "only pre_exec can set a parent-death signal")]
fn prepare_with(cmd: Invocation<'_>, death_signal: Signal) -> Command {
    let mut command = Command::from(cmd);
    // SAFETY: between fork and exec the closure makes two system calls; it allocates nothing and takes
    // no lock.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            Ok(prctl::set_pdeathsig(death_signal)?)
        })
    };
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use xshell::{Shell, cmd};

    #[test]
    fn an_error_shows_the_last_lines_and_the_log() {
        let sh = Shell::new().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let script = "for i in $(seq 50); do echo line $i; done; echo to stderr >&2; exit 3";
        let error = run(cmd!(sh, "sh -c {script}"), log.path(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("sh failed (exit status: 3)"), "{error}");
        assert!(error.contains("line 50\n    to stderr") && !error.contains("line 1\n"), "{error}");
        let text = fs::read_to_string(log.path()).unwrap();
        assert!(text.starts_with("$ cd ") && text.contains("sh -c 'for i in"), "{text}");
    }

    #[test]
    fn a_failed_command_is_explained_by_its_output() {
        let sh = Shell::new().unwrap();
        let error = |script: &str| read(cmd!(sh, "sh -c {script}")).unwrap_err().to_string();
        assert_eq!(error("echo out; echo err >&2; exit 3"), "sh failed (exit status: 3): err");
        assert_eq!(error("echo out; exit 3"), "sh failed (exit status: 3): out");
        let last: Vec<_> = (51 - LAST_LINES..=50).map(|line| line.to_string()).collect();
        assert_eq!(error("seq 50; exit 3"), format!("sh failed (exit status: 3): {}", last.join("\n")));
    }

    #[test]
    fn the_supervisor_passes_on_exit_status_and_output() {
        let sh = Shell::new().unwrap();
        let ended = |script: &str| output(cmd!(sh, "sh -c {script}")).unwrap();
        assert_eq!(ended("echo out; echo err >&2; exit 7").stdout, b"out\n");
        assert_eq!(ended("exit 7").status.code(), Some(7));
        for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM] {
            let status = ended(&format!("kill -{} $$", signal as i32)).status;
            assert_eq!(status.signal(), Some(signal as i32), "{status}");
        }
        // A descendant that outlives the program and holds its pipe is waited for, not terminated.
        assert_eq!(ended("(sleep 0.2; echo late) & exit 0").stdout, b"late\n");
        [Signal::SIGTERM, Signal::SIGINT].into_iter().collect::<SigSet>().thread_block().unwrap();
        let blocked = ended("grep SigBlk /proc/self/status").stdout;
        assert!(blocked.ends_with(b"\t0000000000000000\n"), "{}", String::from_utf8_lossy(&blocked));
    }

    #[test]
    fn a_log_write_error_ends_the_program() {
        let sh = Shell::new().unwrap();
        let start = std::time::Instant::now();
        let script = "while sleep 0.1; do echo x; done";
        let error = run(cmd!(sh, "sh -c {script}"), Path::new("/dev/full"), |_| {}).unwrap_err();
        assert!(format!("{error:#}").contains("No space left on device"), "{error:#}");
        assert!(start.elapsed() < std::time::Duration::from_secs(30));
    }

    #[test]
    fn a_missing_program_is_named() {
        let sh = Shell::new().unwrap();
        let error = read(cmd!(sh, "no-such-program --version")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run no-such-program");
    }
}
