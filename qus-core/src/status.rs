//! All registered handlers, and what is known of each.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::status::StatusReport;
//!
//! let report = StatusReport::collect(&Binfmt::at(MOUNT_POINT), &[], false)?;
//! for handler in &report.handlers {
//!     println!("{}  {}", handler.name, handler.owner);
//! }
//! # Ok::<(), qus_core::binfmt::BinfmtError>(())
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::arch::Arch;
use crate::binfmt::{Binfmt, BinfmtError, Entry, MountState};
use crate::emulator;
use crate::explain::{handler_of, readable};
use crate::handler::arch_of;
use crate::mount;
use crate::owner::{ConfiguredRules, Owner};
use crate::probe;
use crate::text::one_line;

/// All registered handlers.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    /// Where binfmt_misc is, or should be mounted.
    pub mount: String,
    /// What can be done with it.
    pub state: &'static str,
    /// Whether the kernel uses handlers at all; `None` if that cannot be seen.
    pub switched_on: Option<bool>,
    /// The handlers in the kernel's order.
    pub handlers: Vec<HandlerStatus>,
    /// Requested architectures that neither have a handler that the kernel uses nor run natively.
    pub missing: Vec<&'static Arch>,
}

/// What is known of a handler.
#[derive(Debug, Serialize)]
pub struct HandlerStatus {
    /// Its name.
    pub name: String,
    /// The architecture that it is for, by its name.
    pub arch: Option<&'static str>,
    /// Whether the kernel uses it; `None` if it cannot be read.
    pub enabled: Option<bool>,
    /// Which program has registered it.
    pub owner: String,
    /// The file from which its owner registers it.
    pub file: Option<String>,
    /// The program that the kernel calls.
    pub interpreter: Option<String>,
    /// How it is called, in the kernel's letters.
    pub flags: Option<String>,
    /// How it is called, in words.
    pub flags_in_words: Option<String>,
    /// QEMU's version.
    pub emulator_version: Option<String>,
    /// Which files it is for.
    pub files: Option<String>,
    /// Whether its probe passed; `None` if it was not started.
    pub probe: Option<bool>,
    /// Why it cannot be read, or why its probe failed.
    pub why: Option<String>,
    /// Lines of the kernel that this version does not know.
    pub unknown: Vec<String>,
}

impl StatusReport {
    /// Reads all handlers, or those of the requested architectures. With `run`, starts a probe through each and asks
    /// emulators for their version.
    ///
    /// # Errors
    /// Handlers can be seen, and cannot be listed.
    pub fn collect(binfmt: &Binfmt, requested: &[&'static Arch], run: bool) -> Result<Self, BinfmtError> {
        let snapshot = mount::snapshot(binfmt)?;
        let mut this = Self {
            mount: binfmt.root().display().to_string(),
            state: match snapshot.state {
                MountState::Absent => "absent",
                MountState::NotMounted => "not mounted",
                MountState::ReadOnly(_) => "read-only",
                MountState::Writable => "writable",
            },
            switched_on: snapshot.switched_on,
            handlers: Vec::new(),
            missing: requested.to_vec(),
        };
        if this.switched_on.is_some() {
            let mut sources = Sources::new(run);
            for (name, entry) in &snapshot.handlers {
                let arch = arch_of(name);
                if requested.is_empty() || arch.is_some_and(|arch| requested.contains(&arch)) {
                    let name = name.to_string_lossy().into_owned();
                    this.handlers.push(match entry {
                        Ok(entry) => sources.status(name, arch, entry),
                        Err(error) => HandlerStatus::unreadable(name, arch, error),
                    });
                }
            }
            let entries = readable(snapshot.handlers);
            let is_served = |arch: &Arch| {
                this.switched_on == Some(true) && handler_of(probe::image(arch), &entries).is_some()
            };
            this.missing.retain(|arch| !is_served(arch));
        } else {
            // Handlers that cannot be seen may work.
            this.missing.retain(|arch| probe::run(arch).is_err());
        }
        this.missing.retain(|arch| !probe::is_native(arch));
        Ok(this)
    }

    /// The handlers that do not work: their probe was started and failed.
    pub fn failing(&self) -> impl Iterator<Item = &HandlerStatus> {
        self.handlers.iter().filter(|handler| handler.probe == Some(false))
    }
}

impl HandlerStatus {
    fn unreadable(name: String, arch: Option<&'static Arch>, error: &BinfmtError) -> Self {
        Self {
            name,
            arch: arch.map(|arch| arch.name),
            enabled: None,
            owner: Owner::Other.to_string(),
            file: None,
            interpreter: None,
            flags: None,
            flags_in_words: None,
            emulator_version: None,
            files: None,
            probe: None,
            why: Some(one_line(error)),
            unknown: Vec::new(),
        }
    }
}

/// Where facts come from that the kernel does not have.
struct Sources {
    configured: ConfiguredRules,
    /// By the directories of emulators.
    versions: BTreeMap<PathBuf, Option<String>>,
    run: bool,
}

impl Sources {
    fn new(run: bool) -> Self {
        Self { configured: ConfiguredRules::read(Path::new("/")), versions: BTreeMap::new(), run }
    }

    fn status(&mut self, name: String, arch: Option<&'static Arch>, entry: &Entry) -> HandlerStatus {
        let rule = &entry.rule;
        let owner = self.configured.owner(entry);
        let file = match &owner {
            Owner::Systemd(file) | Owner::Debian(file) => Some(file.display().to_string()),
            Owner::Qus | Owner::Other => None,
        };
        let probed = arch.filter(|_| self.run && entry.enabled).map(probe::run);
        HandlerStatus {
            name,
            arch: arch.map(|arch| arch.name),
            enabled: Some(entry.enabled),
            owner: owner.to_string(),
            file,
            interpreter: Some(rule.interpreter.display().to_string()),
            flags: Some(rule.flags.to_string()),
            flags_in_words: Some(rule.flags.in_words()),
            emulator_version: self.version(&rule.interpreter, arch),
            files: Some(rule.files.to_string()),
            probe: probed.as_ref().map(Result::is_ok),
            why: probed.and_then(Result::err),
            unknown: entry.unknown.iter().map(|line| line.to_string_lossy().into_owned()).collect(),
        }
    }

    /// From the bundle in the interpreter's directory, else from the emulator itself.
    fn version(&mut self, interpreter: &Path, arch: Option<&Arch>) -> Option<String> {
        let dir = interpreter.parent().unwrap_or(Path::new("/")).to_owned();
        let read = |dir: &PathBuf| emulator::version(dir).map(|version| version.to_string());
        let recorded = self.versions.entry(dir).or_insert_with_key(read).clone();
        recorded.or_else(|| if self.run && arch.is_some() { probe::version_of(interpreter) } else { None })
    }
}
