//! The one way to run a program.
//!
//! A command is an argument vector, never a shell string. What is run is written to the step's log
//! in a form that can be pasted, followed by everything it says; on failure the last lines are shown
//! with the log's path. Children, and what they have started, are ended when xtask ends, however it ends, so that no
//! compiler is left running in a folder which the next run wants.

pub(crate) mod keeper;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::invocation::pasteable;
pub(crate) use super::invocation::{InDir, Invocation, sh};

/// Whether a program can be run: by its path, or found in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    which::which(program).is_ok()
}

/// How much of a failed program's output is shown.
const LAST_LINES: usize = 40;

/// Runs a command to its end, its output to `log` and line by line to `on_line`.
///
/// # Errors
/// The program cannot be started, the log cannot be written, or the exit status is not 0; the message
/// then has the last lines of output.
pub(crate) fn run<'a>(cmd: impl Into<Invocation<'a>>, log: &Path, on_line: impl FnMut(&str)) -> Result<()> {
    let cmd = cmd.into();
    let what = cmd.program();
    follow(kept(cmd), &what, log, on_line)
}

/// As [`run`], for a program that is to write no file of more than so many bytes: the kernel ends it then.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_limited<'a>(cmd: impl Into<Invocation<'a>>, log: &Path, bytes: u64) -> Result<()> {
    let cmd = cmd.into();
    let what = cmd.program();
    follow(limited(cmd, Resource::RLIMIT_FSIZE, bytes), &what, log, |_| {})
}

#[expect(unsafe_code, reason = "only pre_exec can set a child's limits")]
fn limited(cmd: Invocation<'_>, resource: Resource, bytes: u64) -> Command {
    let mut command = kept(cmd);
    // SAFETY: as in `prepare_with`.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, bytes, bytes)?)) };
    command
}

fn follow(mut command: Command, what: &str, log: &Path, mut on_line: impl FnMut(&str)) -> Result<()> {
    let mut file = append(log)?;
    writeln!(file, "{}", pasteable(&command))?;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    // It holds the pipe's other ends, and the pipe ends when they do.
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
        // It would go on without us.
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

/// Runs a quick command and returns what it wrote to stdout, without the last newline.
///
/// # Errors
/// As [`run`]; the message has what it wrote to stderr.
pub(crate) fn read<'a>(cmd: impl Into<Invocation<'a>>) -> Result<String> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut text = text(&what, output(cmd)?)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Runs a quick command that is to have no more than so many bytes of address space, and returns all that it wrote to
/// stdout.
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
        bail!("{what} failed ({}): {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("what {what} wrote"))
}

/// Runs a quick command and returns all it wrote, whatever its exit status.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn output<'a>(cmd: impl Into<Invocation<'a>>) -> Result<Output> {
    let cmd = cmd.into();
    let what = cmd.program();
    kept(cmd).stdin(Stdio::null()).output().with_context(|| format!("cannot run {what}"))
}

/// Runs a command whose output belongs to the user: a test runner, a linter.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn interactive<'a>(cmd: impl Into<Invocation<'a>>) -> Result<ExitStatus> {
    let cmd = cmd.into();
    let what = cmd.program();
    kept(cmd).status().with_context(|| format!("cannot run {what}"))
}

/// Runs a program that speaks on a connection, its stdin and stdout, until it ends.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn speak<'a>(cmd: impl Into<Invocation<'a>>, connection: OwnedFd) -> Result<ExitStatus> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare(cmd);
    command.stdin(connection.try_clone()?).stdout(connection).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    // It holds the connection too, which is to end with the program.
    drop(command);
    Ok(child.wait()?)
}

/// Starts a program and does not wait for it; its stderr goes to a file, its stdout nowhere.
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

/// As [`spawn`], for a program that puts SIGTERM off, as unshare does: it is killed when this process ends.
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

/// As [`spawn`], for what goes on when this process has ended, out of reach of the terminal's Ctrl-C.
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

/// Starts a program that is spoken with on its stdin and stdout; its stderr goes to a file.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn converse<'a>(cmd: impl Into<Invocation<'a>>, stderr: impl Into<File>) -> Result<Child> {
    let cmd = cmd.into();
    let what = cmd.program();
    let mut command = prepare(cmd);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.into());
    command.spawn().with_context(|| format!("cannot run {what}"))
}

/// Starts a program that is to be measured, in a process group and an environment of its own. Unlike all others it is
/// not told to end with us: that takes a fork, which is dear where we are large. With `fork` it is told, and what the
/// kernel says of its memory is not what we had when it was started.
///
/// # Errors
/// The program cannot be started.
#[expect(
    clippy::disallowed_methods,
    reason = "a shell's command would change folders, which takes a fork too"
)]
#[expect(unsafe_code, reason = "only pre_exec has the standard library fork")]
pub(crate) fn spawn_bare(
    argv: &[String],
    environment: &[(&str, &str)],
    (stdout, stderr): (File, File),
    fork: bool,
) -> Result<Child> {
    let (program, arguments) = argv.split_first().context("no program was named")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().copied()).process_group(0);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    if fork {
        // SAFETY: as in `prepare_with`.
        unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from)) };
    }
    command.spawn().with_context(|| format!("cannot run {program}"))
}

/// Starts a log anew.
pub(crate) fn start_log(log: &Path) -> Result<()> {
    let folder = log.parent().context("a log lies in a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::File::create(log))
        .map(drop)
        .with_context(|| format!("cannot write {}", log.display()))
}

fn append(log: &Path) -> Result<fs::File> {
    let open = fs::OpenOptions::new().append(true).create(true).open(log);
    open.with_context(|| format!("cannot write {}", log.display()))
}

/// A command that ends when this process ends, with all that it has started.
fn kept(cmd: Invocation<'_>) -> Command {
    let mut command = Command::from(cmd);
    keeper::keep(&mut command);
    command
}

fn prepare(cmd: Invocation<'_>) -> Command {
    prepare_with(cmd, Signal::SIGTERM)
}

/// A command that gets a signal when this process ends.
#[expect(unsafe_code, reason = "only pre_exec can set a parent-death signal")]
fn prepare_with(cmd: Invocation<'_>, at_our_end: Signal) -> Command {
    let mut command = Command::from(cmd);
    // SAFETY: between fork and exec the closure makes two system calls; it allocates nothing and takes
    // no lock.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            Ok(prctl::set_pdeathsig(at_our_end)?)
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
    fn failure_shows_the_end_and_the_log() {
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
    fn a_program_ends_as_if_nobody_were_between() {
        let sh = Shell::new().unwrap();
        let ended = |script: &str| output(cmd!(sh, "sh -c {script}")).unwrap();
        assert_eq!(ended("echo out; echo err >&2; exit 7").stdout, b"out\n");
        assert_eq!(ended("exit 7").status.code(), Some(7));
        for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM] {
            let status = ended(&format!("kill -{} $$", signal as i32)).status;
            assert_eq!(status.signal(), Some(signal as i32), "{status}");
        }
        // What outlives a program and holds its pipe is waited for, and is not ended.
        assert_eq!(ended("(sleep 0.2; echo late) & exit 0").stdout, b"late\n");
        [Signal::SIGTERM, Signal::SIGINT].into_iter().collect::<SigSet>().thread_block().unwrap();
        let blocked = ended("grep SigBlk /proc/self/status").stdout;
        assert!(blocked.ends_with(b"\t0000000000000000\n"), "{}", String::from_utf8_lossy(&blocked));
    }

    #[test]
    fn a_log_that_cannot_be_written_ends_the_program() {
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
