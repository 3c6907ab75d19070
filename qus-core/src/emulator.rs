//! The emulators that can be registered: where they lie, and whether a file is fit to be one.
//!
//! An interpreter that asks for a loader runs on the host and fails in every container, one for
//! another machine fails everywhere, and the kernel tells neither when it is registered. They are
//! refused here.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs};
use serde::Deserialize;

use crate::arch::{ARCHES, Arch, Host};
use crate::binfmt::magic::Build;
use crate::elf::{self, Elf, Kind};
use crate::file;
use crate::probe;
use crate::text::Show;

/// Where `qus install --persist` keeps emulators.
pub const PERSISTENT: &str = "/usr/local/lib/qus";

/// A folder with emulators.
#[derive(Debug)]
pub struct Folder {
    /// Its path, absolute.
    pub dir: PathBuf,
    /// What is in it, in the order of the table.
    pub emulators: Vec<Emulator>,
    /// QEMU's version, where `bundle.json` tells.
    pub version: Option<String>,
}

/// An emulator's file, not yet looked at.
#[derive(Debug, Clone)]
pub struct Emulator {
    /// What it emulates.
    pub arch: &'static Arch,
    /// Its path, absolute.
    pub path: PathBuf,
    /// Which one it is, where `bundle.json` tells.
    pub build: Build,
}

/// What we read of `bundle.json`, which `cargo xtask build-qemu` writes beside the emulators.
#[derive(Debug, Default, Deserialize)]
struct Bundle {
    qemu: Option<String>,
    #[serde(default)]
    emulators: Vec<Bundled>,
}

#[derive(Debug, Deserialize)]
struct Bundled {
    file: String,
    sha256: String,
}

impl Bundle {
    /// None is needed; one that is there says what it should.
    fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join("bundle.json");
        let parsed = match file::read(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        };
        let damaged = |why| {
            let hint =
                "remedy: have `cargo xtask build-qemu` write it again, or remove it and do without versions";
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {why}\n{hint}", path.shown()))
        };
        parsed.map_err(damaged)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// The version, if it can be the name of a directory.
    fn version(self) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".+-~".contains(c);
        self.qemu
            .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(plain))
    }

    fn build(&self, file: &str) -> Build {
        let hash = self.emulators.iter().find(|emulator| emulator.file == file);
        let number = hash.and_then(|hash| u32::from_str_radix(hash.sha256.get(..8)?, 16).ok());
        number.unwrap_or(0).to_be_bytes()
    }
}

impl Folder {
    /// Looks for `qemu-ARCH-static` and `qemu-ARCH` in a folder.
    ///
    /// # Errors
    /// It is not a directory, or cannot be read, or its `bundle.json` is damaged (`InvalidData`).
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        fs::read_dir(&dir)?;
        let bundle = Bundle::read(&dir)?;
        let emulator = |arch: &'static Arch| {
            let mut names = [format!("{}-static", arch.emulator()), arch.emulator()].into_iter();
            let name = names.find(|name| dir.join(name).exists())?;
            Some(Emulator { arch, path: dir.join(&name), build: bundle.build(&name) })
        };
        let emulators = ARCHES.iter().filter_map(emulator).collect();
        Ok(Self { emulators, dir, version: bundle.version() })
    }

    /// The first folder with any emulator: beside this program, then those of [`PERSISTENT`], the
    /// latest first, then `/usr/bin`. Without any, the last of them.
    ///
    /// # Errors
    /// None of them can be read.
    pub fn find() -> io::Result<Self> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        dirs.extend(std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())));
        let mut persistent: Vec<_> =
            fs::read_dir(PERSISTENT).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        persistent.sort_by_key(|dir| {
            let version = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>()
        });
        dirs.extend(persistent.into_iter().rev());
        for dir in &dirs {
            match Self::open(dir) {
                Ok(folder) if folder.emulators.is_empty() => {}
                Err(error) if error.kind() != io::ErrorKind::InvalidData => {}
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

/// QEMU's version of the emulators in a folder; `None` where no `bundle.json` tells.
pub fn version(dir: &Path) -> Option<String> {
    Bundle::read(dir).ok()?.version()
}

/// What is read of a text as `bundle.json`: QEMU's version, and the emulator's hash. For fuzzing.
#[doc(hidden)]
pub fn read_bundle(text: &[u8], file: &str) -> Option<(Option<String>, Build)> {
    let bundle = Bundle::parse(text).ok()?;
    let build = bundle.build(file);
    Some((bundle.version(), build))
}

/// Why a file cannot be registered as an emulator.
#[derive(Debug)]
pub enum Unfit {
    /// It cannot be opened; not there, or not readable.
    Open(io::Error),
    /// It is a folder, a socket, a device.
    NotAFile,
    /// No execute bit is set.
    NotExecutable,
    /// Its file system is mounted `noexec`.
    NoExec,
    /// It is not a program.
    NotElf(elf::Error),
    /// It is an object file or a core dump.
    NotAProgram,
    /// It asks for this loader, which containers do not have.
    Dynamic(PathBuf),
    /// It is for a machine that this one does not run.
    Machine(&'static str),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "cannot be opened: {error}"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::NotExecutable => f.write_str("is not executable: chmod 755 it"),
            Self::NoExec => {
                f.write_str("lies on a file system that is mounted noexec: copy it elsewhere, see --dir")
            }
            Self::NotElf(error) => write!(f, "is no program: {error}"),
            Self::NotAProgram => f.write_str("is no program, but an object file or a core dump"),
            Self::Dynamic(loader) => write!(
                f,
                "is not static: it asks for {}, and would fail in every container without that",
                loader.shown()
            ),
            Self::Machine(arch) => write!(f, "is for {arch}, which this machine does not run"),
        }
    }
}

impl std::error::Error for Unfit {}

/// Which file it was that was found fit, to notice when another takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Identity {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// That of the file which has this path now; `None` if there is none.
    pub fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }
}

/// Looks whether a file can be registered: a static program that this machine runs.
///
/// # Errors
/// See [`Unfit`].
pub fn inspect(path: &Path) -> Result<Identity, Unfit> {
    let file = file::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Unfit::NotAFile,
        _ => Unfit::Open(error),
    })?;
    let metadata = file.metadata().map_err(Unfit::Open)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Unfit::NotExecutable);
    }
    if fstatvfs(&file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
        return Err(Unfit::NoExec);
    }
    let elf = Elf::parse(&file).map_err(Unfit::NotElf)?;
    if matches!(elf.kind, Kind::Other(_)) {
        return Err(Unfit::NotAProgram);
    }
    if let Some(loader) = elf.interpreter {
        return Err(Unfit::Dynamic(loader));
    }
    match elf.arch() {
        Some(arch) if is_own(arch) || probe::is_native(arch) => Ok(Identity::new(&metadata)),
        arch => Err(Unfit::Machine(arch.map_or("an unknown machine", |arch| arch.name))),
    }
}

/// Whether it is what this program itself was compiled for.
pub fn is_own(arch: &Arch) -> bool {
    Host::current().is_some_and(|host| host.arch() == arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn unfit_files_are_told_apart_natively() {
        let dir = tempfile::tempdir().unwrap();
        let own = probe::image(std::env::consts::ARCH.parse().unwrap());
        let foreign = if cfg!(target_arch = "s390x") { "alpha" } else { "s390x" };
        let path = write(&dir, "own", own, 0o755);
        assert_eq!(inspect(&path).unwrap(), Identity::now(&path).unwrap());
        let said = |path: &Path| inspect(path).unwrap_err().to_string();
        assert!(said(&write(&dir, "mode", own, 0o644)).contains("not executable"));
        assert!(said(&write(&dir, "text", b"#!/bin/sh", 0o755)).contains("not an ELF file"));
        let image = probe::image(foreign.parse().unwrap());
        assert!(said(&write(&dir, "foreign", image, 0o755)).contains(&format!("is for {foreign}")));
        assert!(said(&std::env::current_exe().unwrap()).contains("is not static: it asks for /"));
        assert!(said(dir.path()).contains("not a regular file"));
        assert!(said(&dir.path().join("absent")).contains("cannot be opened"));
    }

    #[test]
    fn a_folder_is_searched_for_both_names() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "qemu-arm-static", b"", 0o755);
        write(&dir, "qemu-sh4", b"", 0o755);
        write(&dir, "qemu-img", b"", 0o755);
        let json = br#"{"qemu":"10.2.2","more":1,"emulators":[{"file":"qemu-sh4","sha256":"01020304ff"}]}"#;
        write(&dir, "bundle.json", json, 0o644);
        let folder = Folder::open(dir.path()).unwrap();
        let found: Vec<_> = folder.emulators.iter().map(|emulator| emulator.arch.name).collect();
        assert_eq!(found, ["arm", "sh4"]);
        assert_eq!(folder.get("arm".parse().unwrap()).unwrap().path, dir.path().join("qemu-arm-static"));
        assert_eq!(folder.version.as_deref(), Some("10.2.2"));
        assert_eq!(folder.get("sh4".parse().unwrap()).unwrap().build, [1, 2, 3, 4]);
        assert!(Folder::open(&dir.path().join("absent")).is_err());
        write(&dir, "bundle.json", br#"{"qemu":"../../etc"}"#, 0o644);
        assert_eq!(version(dir.path()), None);
    }
}
