//! `qus install`, in its forms: which handlers and files are left.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use fs_err as fs;

use crate::check::chaos::sandbox::{Sandbox, Words};
use crate::check::chaos::snapshot::{self, Snapshot};
use crate::check::chaos::subject::{Fault, Subject};

/// A form of `qus install`.
pub(super) struct Install {
    args: &'static [&'static str],
    /// What was installed before.
    before: Option<&'static [&'static str]>,
    /// The program, beside its emulators.
    qus: PathBuf,
    faults: &'static [Fault],
}

/// The option that keeps it running, and the message after which it only waits.
const WATCH: &str = "--watch=1";
const WATCHING: &str = "checking every 1 s";

/// The option whose value is a directory of the sandbox.
const HOST_ROOT: &str = "--host-root";

impl Install {
    /// Registers handlers.
    pub(super) fn new(bundle: PathBuf) -> Self {
        let faults = &[Fault::Kill, Fault::Twice];
        Self { args: &["install", "all"], before: None, qus: bundle.join("qus"), faults }
    }

    /// Replaces handlers that have other flags.
    pub(super) fn replacing(bundle: PathBuf) -> Self {
        let before = Some(&["install", "all", "--no-credentials", "--no-probe"][..]);
        Self { args: &["install", "all", "--force"], before, ..Self::new(bundle) }
    }

    /// Also copies the emulators to a host.
    pub(super) fn persistent(bundle: PathBuf) -> Self {
        let args = &["install", "all", "--persist", HOST_ROOT];
        Self { args, faults: &Fault::ALL, ..Self::new(bundle) }
    }

    /// Keeps running, and registers them again.
    pub(super) fn watching(bundle: PathBuf) -> Self {
        Self { args: &["install", "all", WATCH], faults: &[Fault::Kill], ..Self::new(bundle) }
    }

    fn with(&self, args: &[&str], sandbox: &Sandbox) -> Words {
        let words = args.iter().map(|&arg| arg.into());
        let root = args.ends_with(&[HOST_ROOT]).then(|| sandbox.dir().join("host").into());
        [self.qus.clone().into()].into_iter().chain(words).chain(root).collect()
    }
}

impl Subject for Install {
    fn faults(&self) -> &'static [Fault] {
        self.faults
    }

    fn prepare(&self, sandbox: &Sandbox) -> Result<()> {
        let service = sandbox.files().join("host/usr/lib/systemd/systemd-binfmt");
        fs::create_dir_all(service.parent().unwrap_or(&service))?;
        fs::write(service, "")?;
        match self.before {
            Some(before) => sandbox.run(&self.with(before, sandbox))?.succeeds().map(drop),
            None => Ok(()),
        }
    }

    fn words(&self, sandbox: &Sandbox) -> Result<Words> {
        Ok(self.with(self.args, sandbox))
    }

    fn finish(&self, sandbox: &Sandbox) -> Result<Snapshot> {
        if !self.args.contains(&WATCH) {
            sandbox.run(&self.words(sandbox)?)?.succeeds()?;
            return snapshot::take(sandbox, &[]);
        }
        let mut run = sandbox.start("watch", &self.words(sandbox)?)?;
        run.wait_for(WATCHING)?;
        let watching = snapshot::handlers(sandbox)?;
        run.terminate()?;
        let (status, messages) = run.wait()?;
        ensure!(status.success(), "after SIGTERM it ended with {status}: {messages}");
        let watching = watching.into_iter().map(|(name, text)| (format!("{name} while it runs"), text));
        Ok(snapshot::take(sandbox, &[])?.into_iter().chain(watching).collect())
    }
}
