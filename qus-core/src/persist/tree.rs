//! A host's root filesystem, in which users other than root may have placed files and links.
//!
//! Paths are those of the host. They are walked one component at a time from the host's root directory and never leave
//! it: not by `..`, and not by a symbolic link, which is followed as on the host if root has created it. A directory that
//! other users can write to is refused, or is ours and made safe. What is created belongs to root and has a fixed mode,
//! whatever the umask is.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, geteuid, symlinkat, unlinkat};

use super::error::PersistError;
use crate::emulator::PERSISTENT;
use crate::file;

/// How many links the kernel follows.
const MAX_LINKS: usize = 40;

/// How long another qus may hold the lock: writing all emulators takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Mode of directories.
const DIRECTORY: u32 = 0o755;

/// A host's root directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    _lock: Option<Flock<OwnedFd>>,
}

/// Where a file is, or would be: an open directory and the name in it.
pub(super) struct Place {
    dir: OwnedFd,
    name: OsString,
}

/// What a name in a directory is.
pub(super) enum Found {
    File(File),
    Link(PathBuf),
}

/// Whether the owner is root, or the user who runs this.
fn is_trusted(stat: &FileStat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

/// Gives a new file or directory to root, and a mode.
pub(super) fn own(file: impl AsFd, mode: u32) -> io::Result<()> {
    if geteuid().is_root() {
        fchown(&file, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))?;
    }
    // After the owner, since changing that clears bits.
    Ok(fchmod(&file, Mode::from_bits_truncate(mode))?)
}

impl Tree {
    pub(super) fn open(root: &Path) -> Result<Self, PersistError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty())
            .map_err(|errno| PersistError::Root(root.to_owned(), errno.into()))?;
        Ok(Self { root, _lock: None })
    }

    /// Waits until no other qus changes persistent files, and excludes others as long as the value lives.
    pub(super) fn lock(root: &Path) -> Result<Self, PersistError> {
        let this = Self::open(root)?;
        let failed = |error| PersistError::Io("lock", root.to_owned(), error);
        let dir = this.root.try_clone().map_err(failed)?;
        let lock = file::lock(dir, FlockArg::LockExclusiveNonblock, PATIENCE).map_err(failed)?;
        Ok(Self { _lock: Some(lock), ..this })
    }

    /// The place of a file, if its directories exist, or after creating them.
    pub(super) fn place(&self, path: &Path, make: bool) -> Result<Option<Place>, PersistError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(PersistError::Unsafe(path.to_owned(), "is not the path of a file"));
        };
        Ok(self.walk(parent, make)?.map(|dir| Place { dir, name: name.to_owned() }))
    }

    /// The directories above a file that do not exist, the outermost first.
    pub(super) fn missing(&self, path: &Path) -> Result<Vec<PathBuf>, PersistError> {
        let mut missing = Vec::new();
        for dir in path.ancestors().skip(1) {
            if self.walk(dir, false)?.is_some() {
                break;
            }
            missing.push(dir.to_owned());
        }
        missing.reverse();
        Ok(missing)
    }

    /// Opens a directory; `None` if it does not exist and is not to be created.
    fn walk(&self, path: &Path, make: bool) -> Result<Option<OwnedFd>, PersistError> {
        let failed = |errno: Errno| PersistError::Io("open", path.to_owned(), errno.into());
        let mut opened =
            vec![self.root.try_clone().map_err(|error| PersistError::Io("open", path.to_owned(), error))?];
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        let mut links = 0;
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(PersistError::Unsafe(path.to_owned(), "leaves the host's root directory"));
        }
        ahead.extend(path.iter().map(OsStr::to_owned));
        self.check(&opened[0], Path::new("/"), false)?;
        while let Some(name) = ahead.pop_front() {
            let Some(dir) = opened.last() else { break };
            if name == "/" {
                opened.truncate(1);
                continue;
            }
            if name == ".." {
                if opened.len() > 1 {
                    opened.pop();
                }
                continue;
            }
            let next = match open_directory(dir, &name) {
                Err(Errno::ENOENT) if make => Some(
                    make_directory(dir, &name)
                        .map_err(|error| PersistError::Io("create", path.to_owned(), error))?,
                ),
                Err(Errno::ENOENT) => return Ok(None),
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let stat = fstatat(dir, &*name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
                    links += 1;
                    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK
                        || links > MAX_LINKS
                    {
                        return Err(PersistError::Unsafe(
                            path.to_owned(),
                            "leads through something that is not a directory",
                        ));
                    }
                    if !is_trusted(&stat) {
                        return Err(PersistError::Unsafe(
                            path.to_owned(),
                            "leads through a link that does not belong to root",
                        ));
                    }
                    let target = PathBuf::from(readlinkat(dir, &*name).map_err(failed)?);
                    for part in target.iter().rev() {
                        ahead.push_front(part.to_owned());
                    }
                    None
                }
                opened => Some(opened.map_err(failed)?),
            };
            if let Some(next) = next {
                // Behind a link, the number of open directories does not tell which one is ours.
                let ours = links == 0 && opened.len() >= Path::new(PERSISTENT).iter().count() - 1;
                let depth = if links == 0 { opened.len() + 1 } else { usize::MAX };
                self.check(
                    &next,
                    &path.iter().take(depth).collect::<PathBuf>(),
                    ours && path.starts_with(PERSISTENT),
                )?;
                opened.push(next);
            }
        }
        Ok(opened.pop())
    }

    /// Refuses a directory in which other users can create files; one that is ours is made safe.
    fn check(&self, dir: &OwnedFd, path: &Path, ours: bool) -> Result<(), PersistError> {
        let failed = |error| PersistError::Io("examine", path.to_owned(), error);
        let stat = fstat(dir).map_err(|errno| failed(errno.into()))?;
        if !is_trusted(&stat) {
            return Err(PersistError::Unsafe(path.to_owned(), "does not belong to root"));
        }
        if ours && stat.st_mode & 0o7777 != DIRECTORY {
            own(dir, DIRECTORY).map_err(failed)?;
        // In a sticky directory like /tmp, users cannot change root's files, and files of users are refused.
        } else if stat.st_mode & 0o1002 == 0o002 {
            return Err(PersistError::Unsafe(path.to_owned(), "can be written by every user"));
        }
        Ok(())
    }

    /// Removes a directory unless it has other files in it.
    pub(super) fn remove_if_empty(&self, dir: &Path) {
        if let Ok(Some(place)) = self.place(dir, false) {
            let _ = unlinkat(&place.dir, &*place.name, UnlinkatFlags::RemoveDir);
        }
    }
}

fn open_directory(dir: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn make_directory(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let made = open_directory(dir, name)?;
    own(&made, DIRECTORY)?;
    sync(dir)?;
    Ok(made)
}

/// Makes changes to a file or directory survive a power cut, where the file system can.
fn sync(file: impl AsFd) -> io::Result<()> {
    match fsync(file) {
        Ok(()) | Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Place {
    /// What exists there now.
    pub(super) fn find(&self) -> io::Result<Option<Found>> {
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match openat(&self.dir, &*self.name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(Found::File(file::regular(file.into())?))),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => Ok(Some(Found::Link(readlinkat(&self.dir, &*self.name)?.into()))),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The name beside it under which a file is written before it gets its own.
    fn partial(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".part");
        name
    }

    /// Writes a file atomically and durably: it gets its name when it is complete and on disk.
    pub(super) fn write(&self, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        self.rename(|partial| {
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(&self.dir, partial, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            write(&mut file)?;
            own(&file, mode)?;
            sync(&file)
        })
    }

    /// Makes a link, which replaces a file of its name atomically.
    pub(super) fn write_link(&self, to: &Path) -> io::Result<()> {
        self.rename(|partial| Ok(symlinkat(to, &self.dir, partial)?))
    }

    fn rename(&self, write: impl FnOnce(&OsStr) -> io::Result<()>) -> io::Result<()> {
        let partial = self.partial();
        self.discard(&partial)?;
        let written =
            write(&partial).and_then(|()| Ok(renameat(&self.dir, &*partial, &self.dir, &*self.name)?));
        if written.is_err() {
            let _ = self.discard(&partial);
        }
        written?;
        sync(&self.dir)
    }

    /// Removes it, and the remains of an interrupted [`Self::write`].
    pub(super) fn remove(&self) -> io::Result<()> {
        self.discard(&self.name)?;
        self.remove_partial()?;
        sync(&self.dir)
    }

    pub(super) fn remove_partial(&self) -> io::Result<()> {
        self.discard(&self.partial())
    }

    fn discard(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir).map_err(io::Error::from) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether only root can change a file.
pub(super) fn is_safe(file: &File) -> io::Result<bool> {
    let stat = fstat(file)?;
    Ok(is_trusted(&stat) && stat.st_mode & 0o022 == 0)
}

/// Whether a file belongs to root and has this mode.
pub(super) fn is_owned(file: &File, mode: u32) -> io::Result<bool> {
    let stat = fstat(file)?;
    Ok(is_trusted(&stat) && stat.st_mode & 0o7777 == mode)
}
