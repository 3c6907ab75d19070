//! The interpreter of a handler, as it is seen from here: whether the kernel can start it.
//!
//! ```
//! use qus_core::interpreter::Interpreter;
//!
//! assert_eq!(Interpreter::inspect("/no/such/emulator".as_ref()), Interpreter::Missing);
//! ```

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::elf::Elf;
use crate::file;
use crate::mount::point;
use crate::text::Show;

/// What a handler's interpreter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interpreter {
    /// It does not exist, as seen from here.
    Missing,
    /// It needs this loader.
    Dynamic(PathBuf),
    /// A pipe, a directory, a device: the kernel runs none of them.
    NotAFile,
    /// No execute bit is set.
    NotExecutable,
    /// Its file system is mounted `noexec`.
    NoExec,
    /// It needs no loader, or is not an ELF file.
    Static,
}

impl Interpreter {
    /// Inspects the file at a path.
    pub fn inspect(path: &Path) -> Self {
        let file = match file::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Self::NotAFile,
            Err(_) => return Self::Missing,
        };
        if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0) {
            return Self::NotExecutable;
        }
        if fstatvfs(&file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
            return Self::NoExec;
        }
        match Elf::parse(&file).ok().and_then(|elf| elf.interpreter) {
            Some(loader) => Self::Dynamic(loader),
            None => Self::Static,
        }
    }

    /// Why the kernel cannot start it, if it opens it by its path.
    pub fn obstacle(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("does not exist"),
            Self::NotAFile => Some("is not a regular file"),
            Self::NotExecutable => Some("is not executable"),
            Self::NoExec => Some("is on a file system that is mounted noexec"),
            Self::Dynamic(_) | Self::Static => None,
        }
    }

    /// The command that makes the file at this path executable, where one can.
    pub fn repair(&self, path: &Path) -> Option<String> {
        match self {
            Self::NotExecutable => Some(format!("chmod 755 {}", path.quoted())),
            Self::NoExec => Some(point::remount(path, "exec")),
            Self::Missing | Self::NotAFile | Self::Dynamic(_) | Self::Static => None,
        }
    }
}
