//! A host's tree of directories, in which others than root may have put something in the way.
//!
//! Paths are those of the host. They are walked one component at a time from the host's root directory, which is not
//! left: not by `..`, and not by a symbolic link, which is followed as on the host if root has made it. A directory that
//! others can write to is refused, or is ours and made safe. What is made belongs to root and has a mode of its own,
//! whatever the umask is.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::Error;
use crate::emulator::PERSISTENT;
use crate::file;

/// How many links the kernel follows.
const MAX_LINKS: usize = 40;

/// How long others may change what is kept: to write all emulators takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Mode of directories.
const DIRECTORY: u32 = 0o755;

/// A host's root directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// Where a file lies, or would lie: an open directory and the name in it.
pub(super) struct Place {
    dir: OwnedFd,
    name: OsString,
}

/// What a name in a directory is.
pub(super) enum Found {
    File(File),
    Link(PathBuf),
}

/// Whether root, or who runs this, is the owner.
fn is_trusted(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

/// Gives a new file or directory to root, and a mode.
pub(super) fn own(file: impl AsFd, mode: u32) -> io::Result<()> {
    if geteuid().is_root() {
        fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
    }
    // After the owner, whose change takes bits away.
    Ok(fs::fchmod(&file, Mode::from_raw_mode(mode))?)
}

impl Tree {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(root, flags, Mode::empty())
            .map_err(|errno| Error::Io("open", root.to_owned(), errno.into()))?;
        Ok(Self { root })
    }

    /// Waits until no other qus changes what is kept, and keeps others waiting as long as the value lives.
    pub(super) fn lock(root: &Path) -> Result<Self, Error> {
        let this = Self::open(root)?;
        let failed = |error| Error::Io("lock", root.to_owned(), error);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match fs::flock(&this.root, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(this),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                Err(Errno::WOULDBLOCK) => {
                    return Err(failed(io::Error::other("another program holds the lock and does not end")));
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// The place of a file, if its directories are there, or after making them.
    pub(super) fn place(&self, path: &Path, make: bool) -> Result<Option<Place>, Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Unsafe(path.to_owned(), "is not the path of a file"));
        };
        Ok(self.walk(parent, make)?.map(|dir| Place { dir, name: name.to_owned() }))
    }

    /// Of the directories of a file those that are not there, the outermost first.
    pub(super) fn missing(&self, path: &Path) -> Result<Vec<PathBuf>, Error> {
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

    /// Opens a directory; `None` if it is not there and is not to be made.
    fn walk(&self, path: &Path, make: bool) -> Result<Option<OwnedFd>, Error> {
        let failed = |errno: Errno| Error::Io("open", path.to_owned(), errno.into());
        let mut opened =
            vec![self.root.try_clone().map_err(|error| Error::Io("open", path.to_owned(), error))?];
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        let mut links = 0;
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Unsafe(path.to_owned(), "leaves the host's root directory"));
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
                Err(Errno::NOENT) if make => Some(
                    make_directory(dir, &name).map_err(|error| Error::Io("make", path.to_owned(), error))?,
                ),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                    links += 1;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink || links > MAX_LINKS {
                        return Err(Error::Unsafe(
                            path.to_owned(),
                            "has something in its way that is no directory",
                        ));
                    }
                    if !is_trusted(&stat) {
                        return Err(Error::Unsafe(
                            path.to_owned(),
                            "has a link in its way that is not root's",
                        ));
                    }
                    let target = fs::readlinkat(dir, &name, Vec::new()).map_err(failed)?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    for part in target.iter().rev() {
                        ahead.push_front(part.to_owned());
                    }
                    None
                }
                opened => Some(opened.map_err(failed)?),
            };
            if let Some(next) = next {
                // Of a path through links it is not known what is ours.
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

    /// Refuses a directory in which others can put something; one that is ours is made safe.
    fn check(&self, dir: &OwnedFd, path: &Path, ours: bool) -> Result<(), Error> {
        let failed = |error| Error::Io("look at", path.to_owned(), error);
        let stat = fs::fstat(dir).map_err(|errno| failed(errno.into()))?;
        if !is_trusted(&stat) {
            return Err(Error::Unsafe(path.to_owned(), "is not root's"));
        }
        if ours && stat.st_mode & 0o7777 != DIRECTORY {
            own(dir, DIRECTORY).map_err(failed)?;
        // In one like /tmp others cannot change what is root's, and what is theirs is refused in turn.
        } else if stat.st_mode & 0o1002 == 0o002 {
            return Err(Error::Unsafe(path.to_owned(), "can be written by everybody"));
        }
        Ok(())
    }

    /// A directory with something of others in it stays.
    pub(super) fn remove_if_empty(&self, dir: &Path) {
        if let Ok(Some(place)) = self.place(dir, false) {
            let _ = fs::unlinkat(&place.dir, &place.name, AtFlags::REMOVEDIR);
        }
    }
}

fn open_directory(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

fn make_directory(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let made = open_directory(dir, name)?;
    own(&made, DIRECTORY)?;
    sync(dir)?;
    Ok(made)
}

/// Has what was done to a file or directory survive a power cut, where the file system can.
fn sync(file: impl AsFd) -> io::Result<()> {
    match fs::fsync(file) {
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Place {
    /// What is there now.
    pub(super) fn find(&self) -> io::Result<Option<Found>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(Found::File(file::regular(file.into())?))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => {
                let target = fs::readlinkat(&self.dir, &self.name, Vec::new())?;
                Ok(Some(Found::Link(OsString::from_vec(target.into_bytes()).into())))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The place beside it in which a file is written before it gets its name.
    fn partial(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".part");
        name
    }

    /// Writes a file and gives it its name all at once. It survives a power cut.
    pub(super) fn put(&self, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        self.rename(|partial| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(fs::openat(&self.dir, partial, flags, Mode::RUSR | Mode::WUSR)?);
            write(&mut file)?;
            own(&file, mode)?;
            sync(&file)
        })
    }

    /// Makes a link and gives it its name all at once.
    pub(super) fn put_link(&self, to: &Path) -> io::Result<()> {
        self.rename(|partial| Ok(fs::symlinkat(to, &self.dir, partial)?))
    }

    fn rename(&self, write: impl FnOnce(&OsStr) -> io::Result<()>) -> io::Result<()> {
        let partial = self.partial();
        self.discard(&partial)?;
        let written =
            write(&partial).and_then(|()| Ok(fs::renameat(&self.dir, &partial, &self.dir, &self.name)?));
        if written.is_err() {
            let _ = self.discard(&partial);
        }
        written?;
        sync(&self.dir)
    }

    /// Removes it, and what an interrupted [`Self::put`] has left.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.discard(&self.name)?;
        self.remove_partial()?;
        sync(&self.dir)
    }

    pub(super) fn remove_partial(&self) -> io::Result<()> {
        self.discard(&self.partial())
    }

    fn discard(&self, name: &OsStr) -> io::Result<()> {
        match fs::unlinkat(&self.dir, name, AtFlags::empty()).map_err(io::Error::from) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether only root can change a file.
pub(super) fn is_safe(file: &File) -> io::Result<bool> {
    let stat = fs::fstat(file)?;
    Ok(is_trusted(&stat) && stat.st_mode & 0o022 == 0)
}

/// Whether a file belongs to root and has this mode.
pub(super) fn is_owned(file: &File, mode: u32) -> io::Result<bool> {
    let stat = fs::fstat(file)?;
    Ok(is_trusted(&stat) && stat.st_mode & 0o7777 == mode)
}
