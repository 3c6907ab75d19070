//! Private handlers, in which `qus run` runs its command.
//!
//! ```no_run
//! use qus_core::binfmt::Flags;
//! use qus_core::emulator::EmulatorDir;
//! use qus_core::private::{PrivateHandlers, View};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = EmulatorDir::find()?;
//! let handlers = PrivateHandlers::new(&dir, &["riscv64".parse()?], Flags::DEFAULT, false)?;
//! // An ordinary user needs no other process to map users. No other thread may be running.
//! handlers.enter(&View::default(), || Ok(()))?;
//! // Programs that are started from here on run on riscv64's emulator; the host sees no handler.
//! # Ok(())
//! # }
//! ```

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::arch::Arch;
use crate::binfmt::{Binfmt, BinfmtError, Flags, MOUNT_POINT, Rule};
use crate::emulator::{self, EmulatorDir};
use crate::handler;
use crate::install::ArchFailure;
use crate::namespace::bind::Bind;
use crate::namespace::{Caller, NamespaceError, enter_root, mount_shared};
use crate::probe;
use crate::text::Show;

/// Handlers to register in a namespace of their own.
#[derive(Debug)]
pub struct PrivateHandlers {
    rules: Vec<Rule>,
}

/// What a process sees beside its handlers.
#[derive(Debug, Default)]
pub struct View {
    /// The root filesystem to enter.
    pub root: Option<PathBuf>,
    /// Files and directories of the host in it.
    pub binds: Vec<Bind>,
    /// Whether an ordinary user stays root inside.
    pub stay_root: bool,
}

/// Why a process has no private handlers.
#[derive(Debug)]
pub enum PrivateError {
    /// There is no private namespace.
    Namespace(NamespaceError),
    /// A handler cannot be registered in it.
    Register(OsString, BinfmtError),
}

impl fmt::Display for PrivateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(error) => error.fmt(f),
            Self::Register(name, _) => write!(f, "cannot register {}", name.shown()),
        }
    }
}

impl std::error::Error for PrivateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Namespace(error) => error.source(),
            Self::Register(_, error) => Some(error),
        }
    }
}

impl From<NamespaceError> for PrivateError {
    fn from(error: NamespaceError) -> Self {
        Self::Namespace(error)
    }
}

impl PrivateError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Namespace(error) => error.hint(),
            Self::Register(..) => None,
        }
    }
}

impl PrivateHandlers {
    /// Inspects the emulators of those architectures that this machine does not run natively, or with `native` of all
    /// except its own. Call it outside of the namespace, where the owners of all files are visible.
    ///
    /// # Errors
    /// An emulator is missing or cannot be registered.
    pub fn new(
        dir: &EmulatorDir,
        archs: &[&'static Arch],
        flags: Flags,
        native: bool,
    ) -> Result<Self, ArchFailure> {
        let mut rules = Vec::new();
        let is_emulated = |arch: &&&Arch| !emulator::is_own(arch) && (native || !probe::is_native(arch));
        for &arch in archs.iter().filter(is_emulated) {
            let emulator = dir.get(arch).ok_or_else(|| ArchFailure::NoEmulator(arch, dir.dir.clone()))?;
            let path = &emulator.path;
            emulator::inspect(path).map_err(|unfit| ArchFailure::Unfit(path.clone(), unfit))?;
            rules.extend(handler::rules_of(emulator, flags));
        }
        Ok(Self { rules })
    }

    /// Moves this process to a namespace of its own, registers the handlers there, and changes what it sees. See
    /// [`Caller::enter`] for `mapped`.
    ///
    /// # Errors
    /// See [`PrivateError`]. The process should end then, because it may be in an incomplete namespace.
    pub fn enter(&self, view: &View, mapped: impl FnOnce() -> io::Result<()>) -> Result<(), PrivateError> {
        let caller = Caller::now();
        caller.enter(mapped)?;
        let binfmt = Binfmt::at(MOUNT_POINT);
        for rule in &self.rules {
            binfmt.register(rule).map_err(|error| PrivateError::Register(rule.name.clone(), error))?;
        }
        // Only root of the namespace may mount.
        let root = view.root.as_deref();
        if let Some(root) = root {
            mount_shared(root)?;
        }
        for bind in &view.binds {
            bind.mount(root)?;
        }
        if !view.stay_root {
            caller.restore_user()?;
        }
        if let Some(root) = root {
            enter_root(root)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_has_to_be_there_unless_the_machine_is_its_own_natively() {
        let dir = tempfile::tempdir().unwrap();
        let emulators = EmulatorDir::open(dir.path()).unwrap();
        let of = |name: &str, native: bool| {
            PrivateHandlers::new(&emulators, &[name.parse().unwrap()], Flags::DEFAULT, native)
        };
        assert!(of(std::env::consts::ARCH, false).unwrap().rules.is_empty());
        assert!(of(std::env::consts::ARCH, true).unwrap().rules.is_empty());
        #[cfg(target_arch = "x86_64")]
        {
            assert!(of("i386", false).unwrap().rules.is_empty());
            assert!(matches!(of("i386", true), Err(ArchFailure::NoEmulator(..))));
        }
        let foreign = if cfg!(target_arch = "s390x") { "alpha" } else { "s390x" };
        let failure = of(foreign, false).unwrap_err();
        assert!(matches!(failure, ArchFailure::NoEmulator(..)), "{failure}");
        std::fs::write(dir.path().join(format!("qemu-{foreign}")), "#!/bin/sh").unwrap();
        let emulators = EmulatorDir::open(dir.path()).unwrap();
        let unfit =
            PrivateHandlers::new(&emulators, &[foreign.parse().unwrap()], Flags::DEFAULT, false).unwrap_err();
        assert!(matches!(unfit, ArchFailure::Unfit(..)), "{unfit}");
    }
}
