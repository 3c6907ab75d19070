//! The emulators that can be registered: where they are, and whether a file can be one.
//!
//! An emulator that needs a loader works on the host and fails in containers; one for another machine fails everywhere.
//! The kernel registers both, so they are refused here.
//!
//! ```no_run
//! use qus_core::emulator::{self, EmulatorDir};
//!
//! let dir = EmulatorDir::find()?;
//! for emulator in &dir.emulators {
//!     if let Err(unfit) = emulator::inspect(&emulator.path) {
//!         println!("{} {unfit}", emulator.path.display());
//!     }
//! }
//! # Ok::<(), emulator::EmulatorDirError>(())
//! ```

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs};
use semver::Version;

use crate::arch::{ARCHES, Arch, Host};
use crate::binfmt::magic::Build;
use crate::bundle::{Bundle, BundleError, BundledEmulator};
use crate::elf::{Elf, ElfError, ElfKind};
use crate::file;
use crate::probe;
use crate::text::Show;

/// The hint for an emulator, or any, that is not found.
pub(crate) const DIR_HINT: &str = "name the directory with emulators with `--dir`, or in QEMU_BIN_DIR";

/// Where `qus install --persist` copies emulators to.
pub const PERSISTENT: &str = "/usr/local/lib/qus";

/// A directory with emulators.
#[derive(Debug)]
pub struct EmulatorDir {
    /// Its path, absolute.
    pub dir: PathBuf,
    /// Its emulators, in the order of the table.
    pub emulators: Vec<Emulator>,
    /// Its `bundle.json`, if there is one.
    pub bundle: Option<Bundle>,
}

/// An emulator's file, not yet inspected.
#[derive(Debug, Clone)]
pub struct Emulator {
    /// What it emulates.
    pub arch: &'static Arch,
    /// Its path, absolute.
    pub path: PathBuf,
    /// Which build it is, where `bundle.json` has its checksum.
    pub build: Build,
}

/// Why the emulators in a directory cannot be listed.
#[derive(Debug)]
pub enum EmulatorDirError {
    /// It is not a directory, or cannot be read.
    Io(PathBuf, io::Error),
    /// Its `bundle.json` cannot be used.
    Bundle(BundleError),
}

impl fmt::Display for EmulatorDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(dir, _) => write!(f, "cannot read the directory {}", dir.shown()),
            Self::Bundle(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EmulatorDirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Bundle(error) => error.source(),
        }
    }
}

impl EmulatorDirError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io(..) => Some(DIR_HINT.to_owned()),
            Self::Bundle(error) => error.hint(),
        }
    }
}

/// The bundle of a directory. It is optional, and one with another schema is ignored.
fn bundle(dir: &Path) -> Result<Option<Bundle>, BundleError> {
    match Bundle::read(dir) {
        Err(BundleError::OtherSchema(..)) => Ok(None),
        read => read,
    }
}

/// The first bytes of the checksum that a bundle has for a file.
fn build(bundle: Option<&Bundle>, file: &str) -> Build {
    let emulator = bundle.and_then(|bundle| bundle.emulator(file));
    emulator.map(BundledEmulator::build).unwrap_or_default()
}

impl EmulatorDir {
    /// Looks for `qemu-ARCH-static` and `qemu-ARCH` in a directory.
    ///
    /// # Errors
    /// It is not a directory, or cannot be read, or its `bundle.json` is damaged.
    pub fn open(dir: &Path) -> Result<Self, EmulatorDirError> {
        let failed = |error| EmulatorDirError::Io(dir.to_owned(), error);
        let dir = std::path::absolute(dir).map_err(failed)?;
        fs::read_dir(&dir).map_err(failed)?;
        let bundle = bundle(&dir).map_err(EmulatorDirError::Bundle)?;
        let emulator = |arch: &'static Arch| {
            let mut names = [format!("{}-static", arch.emulator()), arch.emulator()].into_iter();
            let name = names.find(|name| dir.join(name).exists())?;
            Some(Emulator { arch, path: dir.join(&name), build: build(bundle.as_ref(), &name) })
        };
        let emulators = ARCHES.iter().filter_map(emulator).collect();
        Ok(Self { emulators, dir, bundle })
    }

    /// The first of these directories that has an emulator: that of this program, those in [`PERSISTENT`], the latest
    /// version first, and `/usr/bin`. If none has, `/usr/bin`.
    ///
    /// # Errors
    /// `/usr/bin` cannot be read, or the `bundle.json` of one of them is damaged.
    pub fn find() -> Result<Self, EmulatorDirError> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        dirs.extend(std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())));
        let mut persistent: Vec<_> =
            fs::read_dir(PERSISTENT).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        persistent.sort_by_key(|dir| {
            let version = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            version.split(['.', '-']).map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>()
        });
        dirs.extend(persistent.into_iter().rev());
        for dir in &dirs {
            match Self::open(dir) {
                Ok(dir) if dir.emulators.is_empty() => {}
                Err(EmulatorDirError::Io(..)) => {}
                found => return found,
            }
        }
        Self::open(Path::new("/usr/bin"))
    }

    /// The emulator of an architecture.
    pub fn get(&self, arch: &Arch) -> Option<&Emulator> {
        self.emulators.iter().find(|emulator| emulator.arch == arch)
    }
}

/// QEMU's version of the emulators in a directory; `None` where no `bundle.json` has it.
pub fn version(dir: &Path) -> Option<Version> {
    Some(bundle(dir).ok()??.recipe.qemu)
}

/// Why a file cannot be registered as an emulator.
#[derive(Debug)]
pub enum UnfitEmulator {
    /// It cannot be opened.
    Open(io::Error),
    /// It is a directory, a socket, a device.
    NotAFile,
    /// No execute bit is set.
    NotExecutable,
    /// Its file system is mounted `noexec`.
    NoExec,
    /// It is not a program.
    NotElf(ElfError),
    /// It is an object file, a core dump or a library.
    NotAProgram,
    /// It needs this loader, which containers do not have.
    Dynamic(PathBuf),
    /// It is for a machine that this one does not run.
    Machine(&'static str),
}

impl fmt::Display for UnfitEmulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "cannot be opened: {error}"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::NotExecutable => f.write_str("is not executable"),
            Self::NoExec => f.write_str("is on a file system that is mounted noexec"),
            Self::NotElf(error) => write!(f, "is not a program: {error}"),
            Self::NotAProgram => f.write_str("is not a program but an object file, a core dump or a library"),
            Self::Dynamic(loader) => write!(
                f,
                "is not static: it needs {}, and would fail in every container without it",
                loader.shown()
            ),
            Self::Machine(arch) => write!(f, "is for {arch}, which this machine does not run"),
        }
    }
}

impl std::error::Error for UnfitEmulator {}

impl UnfitEmulator {
    /// What to do about it, for a file.
    pub fn hint(&self, path: &Path) -> Option<String> {
        let path = path.quoted();
        Some(match self {
            Self::NotExecutable => format!("make it executable: `chmod 755 {path}`"),
            Self::NoExec => format!(
                "copy it to another file system, for example with `cp {path} /usr/local/bin/`, and name that directory \
                 with `--dir`"
            ),
            Self::Dynamic(_) => {
                "use a static build: one that qus has built, or that of Debian's package qemu-user-static"
                    .to_owned()
            }
            Self::Open(_) | Self::NotAFile | Self::NotElf(_) | Self::NotAProgram | Self::Machine(_) => {
                return None;
            }
        })
    }
}

/// Which file was inspected, to detect that another one has replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl FileIdentity {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// The identity of the file that is at a path now; `None` if there is none.
    pub fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }
}

/// Inspects whether a file can be registered: a static program that this machine runs.
///
/// # Errors
/// See [`UnfitEmulator`].
pub fn inspect(path: &Path) -> Result<FileIdentity, UnfitEmulator> {
    let file = file::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => UnfitEmulator::NotAFile,
        _ => UnfitEmulator::Open(error),
    })?;
    let metadata = file.metadata().map_err(UnfitEmulator::Open)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(UnfitEmulator::NotExecutable);
    }
    if fstatvfs(&file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
        return Err(UnfitEmulator::NoExec);
    }
    let elf = Elf::parse(&file).map_err(UnfitEmulator::NotElf)?;
    if matches!(elf.kind, ElfKind::Other(_)) {
        return Err(UnfitEmulator::NotAProgram);
    }
    let arch = elf.arch();
    if let Some(loader) = elf.interpreter {
        return Err(UnfitEmulator::Dynamic(loader));
    }
    // Without a loader nothing loads the libraries that it needs.
    if elf.needed > 0 {
        return Err(UnfitEmulator::NotAProgram);
    }
    match arch {
        Some(arch) if is_own(arch) || probe::is_native(arch) => Ok(FileIdentity::new(&metadata)),
        arch => Err(UnfitEmulator::Machine(arch.map_or("an unknown machine", |arch| arch.name))),
    }
}

/// Whether an architecture is the one that this program was compiled for.
pub fn is_own(arch: &Arch) -> bool {
    Host::current().is_some_and(|host| host.arch == arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &[u8] = include_bytes!("../../fuzz/bundle/good");

    fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn unfit_files_are_distinguished_natively() {
        let dir = tempfile::tempdir().unwrap();
        let own = probe::image(std::env::consts::ARCH.parse().unwrap());
        let foreign = if cfg!(target_arch = "s390x") { "alpha" } else { "s390x" };
        let path = write(&dir, "own", own, 0o755);
        assert_eq!(inspect(&path).unwrap(), FileIdentity::now(&path).unwrap());
        let message = |path: &Path| inspect(path).unwrap_err().to_string();
        assert!(message(&write(&dir, "mode", own, 0o644)).contains("not executable"));
        assert!(message(&write(&dir, "text", b"#!/bin/sh", 0o755)).contains("not an ELF file"));
        let image = probe::image(foreign.parse().unwrap());
        assert!(message(&write(&dir, "foreign", image, 0o755)).contains(&format!("is for {foreign}")));
        assert!(message(&std::env::current_exe().unwrap()).contains("is not static: it needs /"));
        assert!(message(dir.path()).contains("not a regular file"));
        assert!(message(&dir.path().join("absent")).contains("cannot be opened"));
    }

    #[test]
    fn a_directory_is_searched_for_both_names() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "qemu-arm-static", b"", 0o755);
        write(&dir, "qemu-sh4", b"", 0o755);
        write(&dir, "qemu-img", b"", 0o755);
        write(&dir, "bundle.json", SEED, 0o644);
        let found_dir = EmulatorDir::open(dir.path()).unwrap();
        let found: Vec<_> = found_dir.emulators.iter().map(|emulator| emulator.arch.name).collect();
        assert_eq!(found, ["arm", "sh4"]);
        assert_eq!(found_dir.get("arm".parse().unwrap()).unwrap().path, dir.path().join("qemu-arm-static"));
        assert_eq!(found_dir.bundle.as_ref().unwrap().recipe.qemu, Version::new(10, 2, 2));
        assert_eq!(found_dir.get("sh4".parse().unwrap()).unwrap().build, [1, 2, 3, 4]);
        assert!(matches!(EmulatorDir::open(&dir.path().join("absent")), Err(EmulatorDirError::Io(..))));
        write(&dir, "bundle.json", br#"{"schema":2,"qemu":"../../etc"}"#, 0o644);
        assert_eq!(version(dir.path()), None);
        assert!(matches!(EmulatorDir::open(dir.path()), Err(EmulatorDirError::Bundle(_))));
        write(&dir, "bundle.json", br#"{"schema":1,"qemu":"10.2.2"}"#, 0o644);
        let other = EmulatorDir::open(dir.path()).unwrap();
        assert_eq!((other.emulators.len(), other.bundle, other.emulators[1].build), (2, None, [0; 4]));
    }
}
