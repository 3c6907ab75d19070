//! The kernel's binfmt_misc, which starts foreign binaries with other programs.
//!
//! The mount point is a parameter, so that tests can use a directory. Which handlers to register is decided elsewhere.
//! `status`, which switches all handlers on and off, is never written, and a handler that is not ours
//! ([`Entry::is_ours`]) is never changed.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//!
//! let binfmt = Binfmt::at(MOUNT_POINT);
//! if let Some(entry) = binfmt.entry("qemu-aarch64".as_ref())? {
//!     println!("{} with flags {}", entry.rule.interpreter.display(), entry.rule.flags);
//! }
//! # Ok::<(), qus_core::binfmt::BinfmtError>(())
//! ```

pub mod entry;
pub mod flags;
pub mod magic;
pub mod rule;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::unistd::{AccessFlags, faccessat};

use crate::file;
use crate::text::Show;

pub use entry::{BadEntry, Entry};
pub use flags::Flags;
pub use magic::Magic;
pub use rule::{BadRule, Difference, Files, Rule};

/// Where the kernel expects binfmt_misc to be mounted.
pub const MOUNT_POINT: &str = "/proc/sys/fs/binfmt_misc";

/// How long another program may hold the lock: registering all handlers takes less than a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// What can be done with binfmt_misc at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountState {
    /// There is no such directory: the kernel has no binfmt_misc, or /proc is not mounted.
    Absent,
    /// The directory exists and nothing is mounted on it.
    NotMounted,
    /// It can be read but not written: it is mounted read-only (`EROFS`), or this process lacks the permission (`EACCES`).
    ReadOnly(Errno),
    /// Handlers can be registered.
    Writable,
}

/// Why something could not be done with a handler.
#[derive(Debug)]
pub enum BinfmtError {
    /// What failed, on which file, and the kernel's answer.
    Io(&'static str, PathBuf, io::Error),
    /// The kernel would refuse or misread the rule.
    Rule(BadRule),
    /// What the kernel shows for the handler of this name cannot be understood.
    Entry(OsString, BadEntry),
    /// The handler is not ours, so it is left unchanged.
    Foreign(OsString),
}

impl fmt::Display for BinfmtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, path, _) => write!(f, "cannot {what} {}", path.shown()),
            Self::Rule(bad) => bad.fmt(f),
            Self::Entry(name, bad) => write!(f, "cannot understand the handler {}: {bad}", name.shown()),
            Self::Foreign(name) => {
                write!(f, "the handler {} was not registered by qus", name.shown())
            }
        }
    }
}

impl std::error::Error for BinfmtError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, error) => Some(error),
            _ => None,
        }
    }
}

impl From<BadRule> for BinfmtError {
    fn from(bad: BadRule) -> Self {
        Self::Rule(bad)
    }
}

/// A handler's name, and its entry or why that cannot be read.
pub type ListedHandler = (OsString, Result<Entry, BinfmtError>);

/// An instance of binfmt_misc.
#[derive(Debug, Clone)]
pub struct Binfmt {
    /// Where it is mounted, for messages.
    root: PathBuf,
    /// The path by which this process reaches it.
    dir: PathBuf,
}

impl Binfmt {
    /// The instance that is mounted at `root`, or will be.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { dir: root.clone(), root }
    }

    /// The instance that would be seen at `root`, reached by another path.
    pub(crate) fn reached_by(root: &Path, dir: impl Into<PathBuf>) -> Self {
        Self { root: root.to_owned(), dir: dir.into() }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What can be done with it now. An automounter mounts it on this access.
    pub fn state(&self) -> MountState {
        let register = self.dir.join("register");
        if fs::metadata(&register).is_err() {
            return if self.dir.is_dir() { MountState::NotMounted } else { MountState::Absent };
        }
        match faccessat(AT_FDCWD, &register, AccessFlags::W_OK, AtFlags::AT_EACCESS) {
            Ok(()) => MountState::Writable,
            Err(errno) => MountState::ReadOnly(errno),
        }
    }

    /// Whether the kernel uses handlers at all, according to the file `status`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_switched_on(&self) -> Result<bool, BinfmtError> {
        Ok(self.read(OsStr::new("status"))? != b"disabled\n")
    }

    /// All handlers in the order in which the kernel tries them: the latest first.
    ///
    /// # Errors
    /// The directory cannot be listed. A handler that cannot be read is in the list with its own error.
    pub fn entries(&self) -> Result<Vec<ListedHandler>, BinfmtError> {
        let failed = |error| BinfmtError::Io("list", self.root.clone(), error);
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            if name != "register" && name != "status" {
                match self.entry(&name) {
                    // Another program has removed it since it was listed.
                    Ok(None) => {}
                    Ok(Some(entry)) => entries.push((name, Ok(entry))),
                    Err(error) => entries.push((name, Err(error))),
                }
            }
        }
        Ok(entries)
    }

    /// The handler of a name; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn entry(&self, name: &OsStr) -> Result<Option<Entry>, BinfmtError> {
        rule::check_name(name)?;
        match self.read(name) {
            Ok(text) => {
                let entry = Entry::parse(name, &text);
                Ok(Some(entry.map_err(|bad| BinfmtError::Entry(name.to_owned(), bad))?))
            }
            Err(BinfmtError::Io(_, _, error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Registers a handler; it takes precedence over all that were registered earlier.
    ///
    /// # Errors
    /// The rule is bad, or the kernel refuses it; see [`refusal`] for what its answer means.
    pub fn register(&self, rule: &Rule) -> Result<(), BinfmtError> {
        let line = rule.line()?;
        let failed = |error| BinfmtError::Io("register a handler in", self.root.join("register"), error);
        let mut file = File::options().write(true).open(self.dir.join("register")).map_err(failed)?;
        // The kernel reads each write as one rule.
        match file.write(&line) {
            Ok(written) if written == line.len() => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::WriteZero.into())),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes a handler of ours; false if there was none.
    ///
    /// # Errors
    /// It is not ours ([`BinfmtError::Foreign`]), or the kernel refuses.
    pub fn remove(&self, name: &OsStr) -> Result<bool, BinfmtError> {
        match self.entry(name)? {
            None => Ok(false),
            Some(entry) if entry.is_ours() => {
                let path = self.root.join(name);
                let removed = File::options()
                    .write(true)
                    .open(self.dir.join(name))
                    .and_then(|mut file| file.write(b"-1"));
                match removed {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                    Err(error) => Err(BinfmtError::Io("remove the handler", path, error)),
                }
            }
            Some(_) => Err(BinfmtError::Foreign(name.to_owned())),
        }
    }

    /// Waits until no other qus changes handlers, and excludes others as long as the value lives.
    ///
    /// # Errors
    /// There is nothing to lock, or another program holds the lock for too long.
    pub fn lock(&self) -> Result<Flock<File>, BinfmtError> {
        let failed = |error| BinfmtError::Io("lock", self.root.join("status"), error);
        let status = File::open(self.dir.join("status")).map_err(failed)?;
        file::lock(status, FlockArg::LockExclusiveNonblock, PATIENCE).map_err(failed)
    }

    fn read(&self, name: &OsStr) -> Result<Vec<u8>, BinfmtError> {
        fs::read(self.dir.join(name)).map_err(|error| BinfmtError::Io("read", self.root.join(name), error))
    }
}

/// What the kernel means when it refuses a well-formed rule.
pub fn refusal(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EEXIST) => "another program has just registered a handler of that name",
        Some(Errno::EINVAL) => "the kernel does not understand the rule: it may be too old for its flags",
        Some(Errno::ENOENT) => "the kernel cannot find the interpreter",
        Some(Errno::EACCES) => {
            "the interpreter is not executable: check its mode and the mount option noexec"
        }
        Some(Errno::EPERM) => "this needs root in the namespace that binfmt_misc belongs to",
        Some(Errno::EROFS) => "binfmt_misc is mounted read-only here",
        Some(Errno::ENOMEM | Errno::ENOSPC) => "the kernel is out of memory",
        Some(Errno::ETXTBSY) => "the interpreter is being written",
        _ => "the kernel refuses it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;

    fn rule(name: &str) -> Rule {
        let arch: &Arch = "arm".parse().unwrap();
        Rule {
            name: name.into(),
            files: Files::Magic(0, Magic::of(arch, [0; 4]).next().unwrap()),
            interpreter: "/usr/bin/qemu-arm".into(),
            flags: Flags::DEFAULT,
        }
    }

    /// A directory that looks like a mounted binfmt_misc.
    fn directory(entries: &[(&str, &str)]) -> (tempfile::TempDir, Binfmt) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("register"), "").unwrap();
        fs::write(dir.path().join("status"), "enabled\n").unwrap();
        for (name, text) in entries {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let binfmt = Binfmt::at(dir.path());
        (dir, binfmt)
    }

    #[test]
    fn states() {
        let (dir, binfmt) = directory(&[]);
        assert_eq!(binfmt.state(), MountState::Writable);
        assert!(binfmt.is_switched_on().unwrap());
        fs::write(dir.path().join("status"), "disabled\n").unwrap();
        assert!(!binfmt.is_switched_on().unwrap());
        fs::remove_file(dir.path().join("register")).unwrap();
        assert_eq!(binfmt.state(), MountState::NotMounted);
        assert_eq!(Binfmt::at("/no/such/directory").state(), MountState::Absent);
    }

    #[test]
    fn registering_writes_the_line_and_nothing_else() {
        let (dir, binfmt) = directory(&[]);
        binfmt.register(&rule("qemu-arm")).unwrap();
        let written = fs::read(dir.path().join("register")).unwrap();
        assert_eq!(written, rule("qemu-arm").line().unwrap());
        assert!(matches!(binfmt.register(&rule("status")), Err(BinfmtError::Rule(_))));
        assert_eq!(fs::read_to_string(dir.path().join("status")).unwrap(), "enabled\n");
    }

    #[test]
    fn only_ours_are_removed() {
        let ours = entry::text(&rule("qemu-arm"));
        let foreign = ours.replace("717573", "000000");
        assert_ne!(ours, foreign, "the mark is in the text");
        let (dir, binfmt) = directory(&[("qemu-arm", &ours), ("qemu-sh4", &foreign), ("other", &ours)]);
        assert!(binfmt.remove(OsStr::new("qemu-arm")).unwrap());
        assert!(fs::read_to_string(dir.path().join("qemu-arm")).unwrap().starts_with("-1"));
        for (name, text) in [("qemu-sh4", &foreign), ("other", &ours)] {
            assert!(matches!(binfmt.remove(OsStr::new(name)), Err(BinfmtError::Foreign(_))));
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), *text, "untouched");
        }
        assert!(!binfmt.remove(OsStr::new("qemu-alpha")).unwrap());
        assert!(matches!(binfmt.remove(OsStr::new("status")), Err(BinfmtError::Rule(_))));
    }

    #[test]
    fn a_bad_entry_does_not_hide_the_others() {
        let (_dir, binfmt) = directory(&[("qemu-arm", &entry::text(&rule("qemu-arm"))), ("bad", "?")]);
        let mut entries = binfmt.entries().unwrap();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(entries.len(), 2);
        assert!(matches!(&entries[0], (name, Err(BinfmtError::Entry(..))) if name == "bad"));
        assert!(entries[1].1.as_ref().unwrap().is_ours());
    }
}
