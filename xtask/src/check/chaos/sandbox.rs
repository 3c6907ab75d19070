//! The namespaces in which a command is disturbed: its own handlers, mounts and processes, all of which end with it.
//!
//! Files are in a file system in memory that only the sandbox sees, so that its size is set by the check, and that nothing
//! remains on the disk, whatever ends the check.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err::{self as fs, File};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use qus_core::binfmt::MOUNT_POINT;
use xshell::{Cmd, cmd};

use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::process::until;

/// A user namespace has an instance of binfmt_misc of its own.
const NAMESPACES: [&str; 5] = ["--user", "--map-root-user", "--mount", "--pid", "--fork"];

/// A command line and its environment, the first words of which are those of `env`.
pub(super) type Words = Vec<OsString>;

/// Namespaces with a file system in memory.
pub(super) struct Sandbox {
    /// The parent of process 1. It ends with this process, and process 1 with it.
    holder: Child,
    first: Pid,
    dir: PathBuf,
    /// Messages of the commands.
    logs: PathBuf,
    mounts: BTreeSet<String>,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = kill(self.first, Signal::SIGKILL);
        let _ = self.holder.wait();
    }
}

impl Sandbox {
    /// Creates the namespaces, and mounts the file system at a directory.
    ///
    /// # Errors
    /// A [`Skip`] if this machine does not allow it.
    pub(super) fn new(dir: &Path, logs: &Path) -> Result<Self> {
        let log = logs.join("sandbox");
        let unshare = cmd!(sh(), "unshare {NAMESPACES...} --mount-proc --kill-child sleep infinity");
        let mut holder = exec::spawn_tied(unshare, File::create(&log)?)?;
        let mut first = None;
        until("the namespaces exist", || {
            if holder.try_wait()?.is_some() {
                let why = fs::read_to_string(&log)?;
                bail!(Skip(format!("this machine does not allow the namespaces: {}", why.trim())));
            }
            first = child_of(holder.id()).filter(|first| comm(*first) == "sleep");
            Ok(first.is_some())
        })?;
        let first = first.context("unshare has no child")?;
        let (dir, logs) = (dir.to_owned(), logs.to_owned());
        let mut this = Self { holder, first, dir, logs, mounts: BTreeSet::new() };
        this.tool(&["mount", "-t", "tmpfs", "-o", "mode=0755", "qus-chaos"])?;
        this.run(&["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT].map(Into::into))?.succeeds()?;
        this.mounts = this.all_mounts()?;
        Ok(this)
    }

    /// The directory as processes of the sandbox see it.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory as this process sees it.
    pub(super) fn files(&self) -> PathBuf {
        self.path(&self.dir)
    }

    /// A path of the sandbox, as this process sees it.
    pub(super) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new(&format!("/proc/{}/root", self.first)).join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Changes how the file system is mounted.
    pub(super) fn remount(&self, options: &str) -> Result<()> {
        self.tool(&["mount", "-o", &format!("remount,{options}")])
    }

    /// Runs a command of the system with the directory as its last argument.
    fn tool(&self, words: &[&str]) -> Result<()> {
        let words = words.iter().map(Into::into).chain([self.dir.clone().into()]);
        self.run(&words.collect::<Vec<_>>())?.succeeds().map(drop)
    }

    /// The size of the file system's content in bytes.
    pub(super) fn used(&self) -> Result<u64> {
        let found = statvfs(&self.files())?;
        Ok((found.blocks() - found.blocks_free()) * found.fragment_size())
    }

    fn enter(&self, words: &[OsString]) -> Cmd<'static> {
        let first = self.first.to_string();
        cmd!(sh(), "nsenter --target {first} --user --mount --pid --preserve-credentials -- {words...}")
    }

    /// Runs a command until it ends.
    pub(super) fn run(&self, words: &[OsString]) -> Result<CommandOutput> {
        let what: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Ok(CommandOutput::new(what.join(" "), exec::output(self.enter(words))?))
    }

    /// Starts a command in a process group of its own.
    pub(super) fn start(&self, name: &str, words: &[OsString]) -> Result<Run> {
        let log = self.logs.join(name);
        let child = exec::spawn_detached(self.enter(words), File::create(&log)?)?;
        Ok(Run { child, log })
    }

    /// The mounts that commands have added.
    pub(super) fn added_mounts(&self) -> Result<Vec<String>> {
        Ok(self.all_mounts()?.difference(&self.mounts).cloned().collect())
    }

    /// Place and type of all mounts.
    fn all_mounts(&self) -> Result<BTreeSet<String>> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.first))?;
        let mount = |line: &str| {
            let (place, kind) = line.split_once(" - ")?;
            Some(format!("{} {}", place.split(' ').nth(4)?, kind.split(' ').next()?))
        };
        Ok(text.lines().filter_map(mount).collect())
    }

    /// The names of the processes that commands have left.
    pub(super) fn processes(&self) -> Result<Vec<String>> {
        let namespace = |process: Pid| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let own = namespace(self.first).context("the sandbox has ended")?;
        let numbers =
            fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let processes = numbers.map(Pid::from_raw).filter(|process| *process != self.first);
        Ok(processes
            .filter(|process| namespace(*process).as_ref() == Some(&own) && !is_zombie(*process))
            .map(comm)
            .collect())
    }
}

/// A command that runs in the sandbox.
pub(super) struct Run {
    /// nsenter, which waits for the command.
    child: Child,
    log: PathBuf,
}

impl Run {
    /// Waits until it ends; returns its messages.
    pub(super) fn wait(&mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait()?;
        Ok((status, self.messages()?))
    }

    pub(super) fn messages(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Waits until its messages contain a text.
    pub(super) fn wait_for(&mut self, text: &str) -> Result<()> {
        let log = self.log.clone();
        until(&format!("the messages contain `{text}`"), || {
            let messages = fs::read_to_string(&log)?;
            ensure!(self.child.try_wait()?.is_none(), "it ended without `{text}`: {messages}");
            Ok(messages.contains(text))
        })
    }

    /// Kills the command alone, or the process group, so that no program of it can end the others.
    /// False if it has ended before.
    pub(super) fn kill(&mut self, group: bool) -> Result<bool> {
        let program = child_of(self.child.id()).filter(|_| !group);
        let group = Pid::from_raw(-i32::try_from(self.child.id())?);
        // It may have ended, which its status shows.
        let _ = kill(program.unwrap_or(group), Signal::SIGKILL);
        let status = self.child.wait()?;
        ensure!(status.code().is_none_or(|code| code == 0), "it ended with {status}: {}", self.messages()?);
        Ok(!status.success())
    }

    /// Sends SIGTERM to the command.
    pub(super) fn terminate(&self) -> Result<()> {
        let program = child_of(self.child.id()).context("the command has ended")?;
        Ok(kill(program, Signal::SIGTERM)?)
    }
}

/// The first child of a process.
fn child_of(process: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split(' ').next()?.parse().ok().map(Pid::from_raw)
}

fn comm(process: Pid) -> String {
    fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default().trim().to_owned()
}

fn is_zombie(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.is_empty() || status.contains(") Z ")
}

/// How long processes that lost their parent may take to end.
const ORPHANS: Duration = Duration::from_secs(10);

impl Sandbox {
    /// Waits until all processes have ended; returns the names of those that have not.
    pub(super) fn left_processes(&self) -> Result<Vec<String>> {
        let interval = Duration::from_millis(20);
        for _ in 0..ORPHANS.as_millis() / interval.as_millis() {
            if self.processes()?.is_empty() {
                break;
            }
            thread::sleep(interval);
        }
        self.processes()
    }
}
