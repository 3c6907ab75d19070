//! Mounts binfmt_misc where it is needed, and where it lasts.
//!
//! Since Linux 6.7, unmounting the last binfmt_misc removes all its handlers. If a container mounts binfmt_misc, registers
//! handlers and ends, they are gone, unless the host has binfmt_misc mounted too. So [`ensure`] mounts it where the mount
//! outlives this process, or fails, and no handler is registered that would vanish.
//!
//! The kernel does not report whether another mount keeps an instance alive. It is tested: a handler that matches nothing
//! is registered, our mount is removed, binfmt_misc is mounted again, and the handler is looked up. This is done with a
//! [`detached`] mount, because a mount that others see must be one that lasts.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::mount;
//!
//! let binfmt = Binfmt::at(MOUNT_POINT);
//! for (name, _) in mount::snapshot(&binfmt)?.handlers {
//!     println!("{}", name.to_string_lossy());
//! }
//! # Ok::<(), qus_core::binfmt::BinfmtError>(())
//! ```

pub mod detached;
mod error;
mod kernel;
pub(crate) mod point;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::FlockArg;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::binfmt::magic::MARK;
use crate::binfmt::{Binfmt, BinfmtError, Files, Flags, ListedHandler, MOUNT_POINT, Magic, MountState, Rule};
use crate::text::Show;
use detached::DetachedMount;
use kernel::{in_private_mount_namespace, in_thread, is_host_mount_namespace};

pub use error::MountError;
pub use kernel::{is_initial, is_supported, mount_at};

/// How many milliseconds an instance must outlive our mount, each time, before another mount is assumed to keep it: a
/// program that does not use our lock may have it mounted for a moment.
const PAUSES: [u64; 3] = [1, 5, 20];

/// Where binfmt_misc is mounted, after [`ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// It was mounted already.
    Before,
    /// We have mounted it in the host's mount namespace.
    Here,
    /// We have mounted it here; another mount keeps the handlers.
    KeptElsewhere,
    /// We have mounted it in the mount namespace of process 1, which is the host's unless this is one
    /// container inside another.
    FirstProcess,
    /// We have mounted it on a directory that the host shares with this container.
    Shared(PathBuf),
}

/// Which instance of binfmt_misc a user namespace uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// Its own, which is not used outside.
    Own,
    /// That of a user namespace around it, such as the host's.
    Outer,
}

/// Whose instance is mounted in a user namespace; `None` in the kernel's initial one, and where it cannot be
/// determined.
///
/// A mount from a mount namespace of an outer user namespace cannot be unmounted; this is tried in a new mount namespace.
pub fn instance(root: &Path) -> Option<Instance> {
    if is_initial("user") != Some(false) {
        return None;
    }
    let root = root.to_owned();
    let unmounted = in_private_mount_namespace(move || Ok(umount2(&root, MntFlags::MNT_DETACH)));
    match unmounted.ok()? {
        Ok(()) => Some(Instance::Own),
        Err(Errno::EINVAL) => Some(Instance::Outer),
        Err(_) => None,
    }
}

/// All handlers at one point in time.
pub struct Snapshot {
    /// What can be done with binfmt_misc where it is mounted, or should be.
    pub state: MountState,
    /// Whether the kernel uses handlers at all; `None` if that cannot be seen.
    pub switched_on: Option<bool>,
    /// All handlers in the kernel's order; none if they cannot be seen.
    pub handlers: Vec<ListedHandler>,
}

/// Reads all handlers, also where binfmt_misc is not mounted, as in a container. It is then mounted for a moment
/// where nothing else sees it.
///
/// In a user namespace it is not mounted: if the namespace has no instance yet, mounting creates one for good, and
/// the handlers that it inherits are lost.
///
/// # Errors
/// Handlers can be seen, and cannot be listed.
pub fn snapshot(binfmt: &Binfmt) -> Result<Snapshot, BinfmtError> {
    let state = binfmt.state();
    let detached = for_reading(binfmt, state);
    let binfmt = detached.as_ref().map_or(binfmt, DetachedMount::binfmt);
    let switched_on = binfmt.is_switched_on().ok();
    let handlers = if switched_on.is_some() { binfmt.entries()? } else { Vec::new() };
    Ok(Snapshot { state, switched_on, handlers })
}

/// The command that enables the handler of a name, or with the name `status` all of them.
pub fn enable_command(root: &Path, state: MountState, name: &OsStr) -> String {
    let enable = format!("echo 1 > {}", root.join(name).quoted());
    match state {
        MountState::NotMounted => format!("mount -t binfmt_misc binfmt_misc {} && {enable}", root.quoted()),
        _ => enable,
    }
}

/// A mount of what is not mounted, for [`snapshot`] and dry runs.
pub(crate) fn for_reading(binfmt: &Binfmt, state: MountState) -> Option<DetachedMount> {
    match state {
        MountState::NotMounted if is_initial("user") != Some(false) => DetachedMount::new(binfmt.root()).ok(),
        _ => None,
    }
}

/// Makes sure that handlers can be registered and will last.
///
/// # Errors
/// See [`MountError`]; no mount of ours remains then.
pub fn ensure(binfmt: &Binfmt) -> Result<Mounted, MountError> {
    if is_writable(binfmt)? {
        return Ok(Mounted::Before);
    }
    let _lock = detached::lock(FlockArg::LockExclusiveNonblock)?;
    // Another qus may have mounted it since.
    if is_writable(binfmt)? { Ok(Mounted::Before) } else { mount_where_it_lasts(binfmt.root()) }
}

/// Removes what [`ensure`] has mounted, for callers that register nothing after all.
pub fn undo(root: &Path, mounted: &Mounted) {
    let unmount = |root: &Path| umount2(root, MntFlags::MNT_DETACH);
    // What cannot be unmounted does no harm: nothing was registered.
    let _ = match mounted {
        Mounted::Before => return,
        Mounted::Here | Mounted::KeptElsewhere => Some(()),
        Mounted::FirstProcess => in_first_process(|| umount2(MOUNT_POINT, MntFlags::MNT_DETACH)),
        Mounted::Shared(place) => unmount(place).ok(),
    };
    let _ = unmount(root);
}

/// Whether it is mounted and writable; false if it is not mounted and could be.
fn is_writable(binfmt: &Binfmt) -> Result<bool, MountError> {
    let root = binfmt.root();
    match binfmt.state() {
        MountState::Writable => Ok(true),
        MountState::ReadOnly(errno) => Err(MountError::ReadOnly(root.to_owned(), errno)),
        MountState::Absent if !Path::new("/proc/self").exists() => Err(MountError::NoProc),
        MountState::Absent if !is_supported() => Err(MountError::NotSupported),
        MountState::Absent => Err(MountError::NoMountPoint(root.to_owned())),
        MountState::NotMounted => Ok(false),
    }
}

fn mount_where_it_lasts(root: &Path) -> Result<Mounted, MountError> {
    if let MountState::ReadOnly(errno) = DetachedMount::unlocked(root)?.binfmt().state() {
        return Err(MountError::ReadOnly(root.to_owned(), errno));
    }
    let mounted = if is_host_mount_namespace() {
        Mounted::Here
    } else if is_kept_elsewhere(root)? {
        Mounted::KeptElsewhere
    } else if in_first_process(|| mount_at(Path::new(MOUNT_POINT))).is_some() {
        Mounted::FirstProcess
    } else {
        let shared =
            shared_proc().map(|proc| proc.join("sys/fs/binfmt_misc")).ok_or(MountError::WouldNotLast)?;
        mount_at(&shared).map_err(|_| MountError::WouldNotLast)?;
        Mounted::Shared(shared)
    };
    mount_at(root).map_err(|errno| MountError::Mount(root.to_owned(), errno))?;
    Ok(mounted)
}

/// Whether another mount keeps the instance: registers a handler, removes our mount, and looks for the handler.
fn is_kept_elsewhere(root: &Path) -> Result<bool, MountError> {
    let sentinel = Rule {
        name: format!("qemu-lasts-{}", std::process::id()).into(),
        files: Files::Magic(
            0,
            Magic { magic: [b"no file \0", &MARK[..]].concat(), mask: [&[0xff; 9][..], &[0; 3]].concat() },
        ),
        interpreter: "/".into(),
        flags: Flags::default(),
    };
    let mut detached = DetachedMount::unlocked(root)?;
    // A process that was killed may have had the same number.
    detached.binfmt().remove(&sentinel.name).map_err(MountError::Test)?;
    detached.binfmt().register(&sentinel).map_err(MountError::Test)?;
    for pause in PAUSES {
        drop(detached);
        sleep(Duration::from_millis(pause));
        detached = DetachedMount::unlocked(root)?;
        if detached.binfmt().entry(&sentinel.name).map_err(MountError::Test)?.is_none() {
            return Ok(false);
        }
    }
    detached.binfmt().remove(&sentinel.name).map_err(MountError::Test)
}

/// Mounts or unmounts in the mount namespace of process 1, if that is not ours. A container has a process 1 of its own,
/// in its own mount namespace, unless it was given the host's.
fn in_first_process(work: impl FnOnce() -> nix::Result<()> + Send + 'static) -> Option<()> {
    let namespace = File::open("/proc/1/ns/mnt").ok()?;
    if fs::read_link("/proc/1/ns/mnt").ok()? == fs::read_link("/proc/self/ns/mnt").ok()? {
        return None;
    }
    let entered = move || {
        // The kernel refuses a thread that shares its root directory with others.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        work()
    };
    in_thread(entered).ok()
}

/// A procfs other than our own, mounted from the host so that mounts on it reach the host.
fn shared_proc() -> Option<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    shared_proc_in(&mounts)
}

/// The one in a text of the form of `/proc/self/mountinfo` (`Documentation/filesystems/proc.rst`, 3.5). Public for
/// fuzzing.
#[doc(hidden)]
pub fn shared_proc_in(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let (point, kind) = (Path::new(OsStr::from_bytes(fields.get(4)?)), fields.get(dash + 1)?);
        let is_shared = fields.get(6..dash)?.iter().any(|field| field.starts_with(b"shared:"));
        let is_foreign = *kind == b"proc" && point != Path::new("/proc") && point.ends_with("proc");
        (is_shared && is_foreign).then(|| point.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_proc_of_the_host_is_found() {
        let line = |point: &str, optional: &str, kind: &str| {
            format!("22 27 0:21 / {point} rw,relatime {optional}- {kind} proc rw\n").into_bytes()
        };
        let find = |lines: &[Vec<u8>]| shared_proc_in(&lines.concat());
        let own = line("/proc", "shared:5 ", "proc");
        let host = line("/host/proc", "shared:12 master:3 ", "proc");
        assert_eq!(find(&[own.clone(), host]), Some("/host/proc".into()));
        assert_eq!(find(&[own.clone(), line("/host/proc", "master:3 ", "proc")]), None);
        assert_eq!(
            find(&[own.clone(), line("/host/proc", "", "proc"), line("/x/proc", "shared:1 ", "ext4")]),
            None
        );
        assert_eq!(find(&[b"garbage - \n\n".to_vec(), own]), None);
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_mounted_on() {
        let binfmt = Binfmt::at("/no/such/directory");
        assert!(matches!(ensure(&binfmt), Err(MountError::NotSupported | MountError::NoMountPoint(_))));
    }
}
