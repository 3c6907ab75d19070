//! Our end of the conversation with a worker: started, spoken with, and ended with us.

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

/// Where workloads run.
#[derive(Debug)]
pub(super) struct Place {
    /// The root folder, which has to have the folders that [`FOLDERS`] names.
    pub(super) root: PathBuf,
    /// What is at `/bench` in it.
    pub(super) bench: PathBuf,
}

/// What a root folder is to have for something to be mounted over.
pub(super) const FOLDERS: [&str; 5] = ["bench", "dev", "proc", "sys", "tmp"];

/// A worker for one emulator.
pub(super) struct Session {
    child: Child,
    /// Closed, it tells the worker to end.
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Its stderr: why it has ended.
    said: File,
}

impl Session {
    /// Starts a worker and waits until it can run workloads.
    ///
    /// # Errors
    /// What the worker said, which has a remedy where the machine does not allow such namespaces.
    pub(super) fn start(arch: &Arch, emulator: &Path, place: &Place) -> Result<Self> {
        // This program even where another was built in its place meanwhile.
        let xtask = "/proc/self/exe";
        let (name, Place { root, bench }) = (arch.name, place);
        let said = tempfile::tempfile().context("there is no room for what a worker says")?;
        let worker = cmd!(sh(), "{xtask} bench-worker {name} {emulator} {root} {bench}");
        let mut child = exec::spawn_piped(worker, said.try_clone()?)?;
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().context("a worker has a stdout")?);
        let mut session = Self { child, to, from, said };
        loop {
            match session.answer()? {
                Answer::Unshared => {
                    namespace::map_all(session.child.id()).context("cannot map users")?;
                    session.send("")?;
                }
                Answer::Ready => return Ok(session),
                _ => bail!("the worker answers what nobody asked"),
            }
        }
    }

    /// Runs a workload and waits for its end.
    pub(super) fn run(&mut self, request: &Request) -> Result<Ran> {
        self.send(&serde_json::to_string(request)?)?;
        match self.answer()? {
            Answer::Ran(ran) => Ok(ran),
            Answer::Failed(why) => bail!("{why}"),
            _ => bail!("the worker answers what nobody asked"),
        }
    }

    /// What the worker does not read, it explains instead.
    fn send(&mut self, line: &str) -> Result<()> {
        let to = self.to.as_mut().context("the worker was told to end")?;
        writeln!(to, "{line}").or_else(|_| self.ended())
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            self.ended()?;
        }
        serde_json::from_str(&line).with_context(|| format!("the worker answers {line:?}"))
    }

    fn ended(&self) -> Result<()> {
        let mut said = String::new();
        let mut file = &self.said;
        file.rewind().and_then(|()| file.read_to_string(&mut said))?;
        let said = said.trim().trim_start_matches("error: ");
        bail!("{}", if said.is_empty() { "the process that runs the workloads has ended" } else { said })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
