//! Why handlers could not be installed: all of them, or those of one architecture.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::arch::Arch;
use crate::binfmt::{BinfmtError, MountState};
use crate::emulator::{DIR_HINT, UnfitEmulator};
use crate::handler::HandlerError;
use crate::mount::{MountError, enable_command};
use crate::persist::PersistError;
use crate::text::{Show, one_line};
use crate::trust::TrustError;

/// Why nothing could be installed.
#[derive(Debug)]
pub enum InstallError {
    /// There is no binfmt_misc to register in.
    Mount(MountError),
    /// The kernel uses no handler of the binfmt_misc at this mount point, whose state follows.
    SwitchedOff(PathBuf, MountState),
    /// binfmt_misc cannot be locked.
    Binfmt(BinfmtError),
    /// Handlers cannot be made persistent.
    Persist(PersistError),
    /// The path of the host's root directory cannot be resolved.
    HostRoot(PathBuf, io::Error),
    /// An emulator that was copied does not exist any more.
    Vanished(PathBuf),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(error) => error.fmt(f),
            Self::SwitchedOff(..) => f.write_str("binfmt_misc is switched off: the kernel uses no handler"),
            Self::Binfmt(error) => error.fmt(f),
            Self::Persist(error) => error.fmt(f),
            Self::HostRoot(path, _) => write!(f, "cannot resolve the path {}", path.shown()),
            Self::Vanished(path) => write!(f, "{} was removed by another program", path.shown()),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Mount(error) => error.source(),
            Self::Binfmt(error) => error.source(),
            Self::Persist(error) => error.source(),
            Self::HostRoot(_, error) => Some(error),
            Self::SwitchedOff(..) | Self::Vanished(_) => None,
        }
    }
}

impl InstallError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mount(error) => error.hint(),
            Self::Persist(error) => error.hint(),
            Self::SwitchedOff(root, state) => {
                Some(format!("as root: `{}`", enable_command(root, *state, "status".as_ref())))
            }
            Self::Binfmt(_) | Self::HostRoot(..) | Self::Vanished(_) => None,
        }
    }
}

/// Why the handlers of an architecture could not be installed.
#[derive(Debug)]
pub enum ArchFailure {
    /// A directory has no emulator for it.
    NoEmulator(&'static Arch, PathBuf),
    /// Users other than root can change its emulator.
    Trust(TrustError),
    /// Its emulator cannot be registered.
    Unfit(PathBuf, UnfitEmulator),
    /// Its emulator does not run its probe: why.
    DoesNotEmulate(PathBuf, String),
    /// A handler exists and differs, or the kernel refuses a new one.
    Handler(HandlerError),
    /// The kernel shows another handler than was registered.
    ReadBack(HandlerError),
    /// Its emulator was replaced by another file during the installation.
    Replaced(PathBuf),
    /// Its probe does not run through the kernel: why.
    Probe(String),
    /// A handler that did not work could not be removed again.
    Rollback(BinfmtError),
}

impl fmt::Display for ArchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEmulator(arch, dir) => write!(f, "there is no {} in {}", arch.emulator(), dir.shown()),
            Self::Trust(error) => error.fmt(f),
            Self::Unfit(path, unfit) => write!(f, "{} {unfit}", path.shown()),
            Self::DoesNotEmulate(path, why) => {
                write!(f, "{} does not run its own architecture: {why}", path.shown())
            }
            Self::Handler(error) => error.fmt(f),
            Self::ReadBack(HandlerError::Differs { .. }) => {
                f.write_str("the kernel does not show the handler that was registered")
            }
            Self::ReadBack(error) => write!(f, "the handler that was registered cannot be read: {error}"),
            Self::Replaced(path) => {
                write!(f, "{} was replaced while it was registered", path.shown())
            }
            Self::Probe(why) => write!(f, "registered, but {why}"),
            Self::Rollback(error) => f.write_str(&one_line(error)),
        }
    }
}

impl std::error::Error for ArchFailure {}

impl ArchFailure {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Trust(error) => error.hint(),
            Self::Unfit(path, unfit) => unfit.hint(path),
            Self::Handler(error) => error.hint(),
            Self::NoEmulator(..) => Some(DIR_HINT.to_owned()),
            Self::Replaced(_) => Some("run the same command again".to_owned()),
            Self::Probe(_) => Some("`qus doctor` looks for the reason".to_owned()),
            Self::DoesNotEmulate(..) | Self::ReadBack(_) | Self::Rollback(_) => None,
        }
    }
}
