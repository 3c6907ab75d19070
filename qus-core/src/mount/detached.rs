//! A mount of binfmt_misc that no other process sees.
//!
//! It is attached to no directory, so that other processes do not mistake it for a mount that lasts. It keeps its
//! instance alive for as long as it exists. Therefore its owner holds a shared lock, and [`super::ensure`] an exclusive
//! one while it tests whether other mounts keep the instance. The lock is on the user namespace that the instance belongs
//! to: it can be taken before anything is mounted, and all containers of the namespace share it.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use super::error::MountError;
use super::kernel::{in_private_mount_namespace, mount_at};
use crate::binfmt::Binfmt;
use crate::file;
use crate::syscall::mount_unattached;

/// How long other processes may read handlers, which takes milliseconds, or decide where to mount.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mount that no other process sees. Dropping it unmounts.
pub struct DetachedMount {
    binfmt: Binfmt,
    _mount: OwnedFd,
    // Fields are dropped in this order: the lock is held as long as there is a mount.
    _lock: Option<Flock<File>>,
}

impl DetachedMount {
    /// Mounts the instance that a mount at `root` would show.
    ///
    /// # Errors
    /// It cannot be mounted, or another qus holds the lock.
    pub fn new(root: &Path) -> Result<Self, MountError> {
        Self::locked(root, lock(FlockArg::LockSharedNonblock)?)
    }

    /// As [`Self::new`], for callers that hold the lock.
    pub(super) fn unlocked(root: &Path) -> Result<Self, MountError> {
        Self::locked(root, None)
    }

    fn locked(root: &Path, lock: Option<Flock<File>>) -> Result<Self, MountError> {
        // Since Linux 5.2 a mount need not be attached.
        let mount = mount_unattached(c"binfmt_misc").or_else(|_| mount_and_unmount(root));
        let mount = mount.map_err(|errno| MountError::Mount(root.to_owned(), errno))?;
        let binfmt = Binfmt::reached_by(root, format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Self { binfmt, _mount: mount, _lock: lock })
    }

    /// What is mounted.
    pub fn binfmt(&self) -> &Binfmt {
        &self.binfmt
    }
}

/// The lock, if there can be one: kernels without user namespaces have nothing to lock, and one instance for all.
pub(super) fn lock(kind: FlockArg) -> Result<Option<Flock<File>>, MountError> {
    let Ok(file) = File::open("/proc/self/ns/user") else { return Ok(None) };
    match file::lock(file, kind, PATIENCE) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(MountError::Busy),
        Err(_) => Ok(None),
    }
}

/// Mounts in a new mount namespace, opens the root of the mount and unmounts it: it ends when that is closed.
fn mount_and_unmount(root: &Path) -> nix::Result<OwnedFd> {
    let root = root.to_owned();
    in_private_mount_namespace(move || {
        mount_at(&root)?;
        let opened = open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        umount2(&root, MntFlags::MNT_DETACH)?;
        opened
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn readers_share_the_lock_and_exclude_others() {
        let first = lock(FlockArg::LockSharedNonblock).unwrap().unwrap();
        let second = lock(FlockArg::LockSharedNonblock).unwrap().unwrap();
        let file = File::open("/proc/self/ns/user").unwrap();
        let refused = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(refused.1, Errno::EWOULDBLOCK);
        drop((first, second));
    }
}
