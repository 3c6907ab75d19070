//! A mount of binfmt_misc that nobody else sees.
//!
//! It is attached to no directory, so that nobody takes a mount for lasting that is about to go. It does keep its
//! instance alive for as long as it exists. So whoever has one holds a shared lock, and [`super::ensure`] an exclusive
//! one while it finds out whether others keep the instance. The lock is on the user namespace, which an instance
//! belongs to: it is held before anything is mounted, and all containers of the namespace share it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use rustix::mount as fs;

use super::{Error, mount_at};
use crate::binfmt::Binfmt;

/// How long others may look, which takes milliseconds, or decide where to mount.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mount that nobody else sees. It ends with the value.
pub struct Hidden {
    binfmt: Binfmt,
    _mount: OwnedFd,
    // Fields are dropped in this order: the lock is held as long as there is a mount.
    _lock: Option<Flock<File>>,
}

impl Hidden {
    /// Mounts the instance that a mount at `root` would show.
    ///
    /// # Errors
    /// It cannot be mounted, or another qus holds the lock.
    pub fn new(root: &Path) -> Result<Self, Error> {
        Self::locked(root, lock(FlockArg::LockSharedNonblock)?)
    }

    /// For those who hold the lock.
    pub(super) fn unlocked(root: &Path) -> Result<Self, Error> {
        Self::locked(root, None)
    }

    fn locked(root: &Path, lock: Option<Flock<File>>) -> Result<Self, Error> {
        let mount = detached().or_else(|_| unmounted(root));
        let mount = mount.map_err(|errno| Error::Mount(root.to_owned(), errno))?;
        let binfmt = Binfmt::behind(root, format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Self { binfmt, _mount: mount, _lock: lock })
    }

    /// What is mounted.
    pub fn binfmt(&self) -> &Binfmt {
        &self.binfmt
    }
}

/// The lock, if there can be one: kernels without user namespaces have nothing to lock, and one instance for all.
pub(super) fn lock(kind: FlockArg) -> Result<Option<Flock<File>>, Error> {
    let deadline = Instant::now() + PATIENCE;
    let Ok(mut file) = File::open("/proc/self/ns/user") else { return Ok(None) };
    loop {
        match Flock::lock(file, kind) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() > deadline => return Err(Error::Busy),
            Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
            Err(_) => return Ok(None),
        }
        sleep(Duration::from_millis(2));
    }
}

/// Since Linux 5.2 a mount need not be attached.
fn detached() -> rustix::io::Result<OwnedFd> {
    let context = fs::fsopen("binfmt_misc", fs::FsOpenFlags::FSOPEN_CLOEXEC)?;
    fs::fsconfig_create(&context)?;
    let attributes = fs::MountAttrFlags::MOUNT_ATTR_NOSUID
        | fs::MountAttrFlags::MOUNT_ATTR_NODEV
        | fs::MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fs::fsmount(&context, fs::FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Mounts in a mount namespace of its own, opens the root of the mount and takes it away: it ends when that is closed.
/// Done by a thread, whose end leaves this process where it was.
fn unmounted(root: &Path) -> nix::Result<OwnedFd> {
    let root = root.to_owned();
    let mount = move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount_at(&root)?;
        let opened = open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        umount2(&root, MntFlags::MNT_DETACH)?;
        opened
    };
    let thread = Builder::new().spawn(mount).map_err(|_| Errno::EAGAIN)?;
    thread.join().map_err(|_| Errno::EAGAIN)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_look_share_the_lock_and_keep_others_waiting() {
        let first = lock(FlockArg::LockSharedNonblock).unwrap().unwrap();
        let second = lock(FlockArg::LockSharedNonblock).unwrap().unwrap();
        let file = File::open("/proc/self/ns/user").unwrap();
        let refused = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(refused.1, Errno::EWOULDBLOCK);
        drop((first, second));
    }
}
