//! Starts a worker process, sends it requests, and ends it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout};

use anyhow::{Context, Result, bail};
use qus_core::arch::Arch;
use qus_core::namespace;
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::bench::worker::{Answer, Ran, Request};

/// The directories in which workloads run.
#[derive(Debug)]
pub(super) struct BenchRoot {
    /// The guest's root filesystem, which must contain the directories of [`MOUNT_POINTS`].
    pub(super) root: PathBuf,
    /// The directory that is mounted at `/bench` in it.
    pub(super) bench: PathBuf,
}

/// Directories of a root filesystem on which something is mounted.
pub(super) const MOUNT_POINTS: [&str; 5] = ["bench", "dev", "proc", "sys", "tmp"];

/// A worker for one emulator.
pub(super) struct Session {
    child: Child,
    /// Closing it ends the worker.
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// The worker's stderr, with the reason if it ends early.
    stderr: File,
}

impl Session {
    /// Starts a worker and waits until it can run workloads.
    ///
    /// # Errors
    /// The worker's error message, with a hint where the machine does not allow user namespaces.
    pub(super) fn start(arch: &Arch, emulator: &Path, bench_root: &BenchRoot) -> Result<Self> {
        // Runs this program even if the file has been rebuilt meanwhile.
        let xtask = "/proc/self/exe";
        let (name, BenchRoot { root, bench }) = (arch.name, bench_root);
        let stderr = tempfile::tempfile().context("cannot create a temporary file for a worker's stderr")?;
        let worker = cmd!(sh(), "{xtask} bench-worker {name} {emulator} {root} {bench}");
        let mut child = exec::spawn_piped(worker, stderr.try_clone()?)?;
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().context("the worker has no stdout")?);
        let mut session = Self { child, to, from, stderr };
        loop {
            match session.answer()? {
                Answer::Unshared => {
                    namespace::map_all(session.child.id()).context("cannot map users")?;
                    session.send("")?;
                }
                Answer::Ready => return Ok(session),
                _ => bail!("unexpected answer from the worker"),
            }
        }
    }

    /// Runs a workload and waits for its end.
    pub(super) fn run(&mut self, request: &Request) -> Result<Ran> {
        self.send(&serde_json::to_string(request)?)?;
        match self.answer()? {
            Answer::Ran(ran) => Ok(ran),
            Answer::Failed(why) => bail!("{why}"),
            _ => bail!("unexpected answer from the worker"),
        }
    }

    /// Sends a line; if the worker no longer reads, the error is the one that it has printed.
    fn send(&mut self, line: &str) -> Result<()> {
        let to = self.to.as_mut().context("the worker is being ended")?;
        writeln!(to, "{line}").or_else(|_| self.ended())
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            self.ended()?;
        }
        serde_json::from_str(&line).with_context(|| format!("invalid answer from the worker: {line:?}"))
    }

    fn ended(&self) -> Result<()> {
        let mut stderr = String::new();
        let mut file = &self.stderr;
        file.rewind().and_then(|()| file.read_to_string(&mut stderr))?;
        let stderr = stderr.trim().trim_start_matches("error: ");
        bail!("{}", if stderr.is_empty() { "the worker process has ended unexpectedly" } else { stderr })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
