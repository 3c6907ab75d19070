//! Puts binfmt_misc where it is needed, and where it lasts.
//!
//! Since Linux 6.7 all handlers of an instance vanish with its last mount. A container that mounts
//! binfmt_misc, registers and ends has then installed nothing, unless the host has it mounted too. So a
//! mount of ours is made where it outlives us, or it is an error; nothing is registered in vain.
//!
//! Whether another mount keeps an instance alive cannot be asked, but it can be tried: a handler that
//! matches nothing is registered, our mount taken away and made again, and looked for. All of that is [`hidden`]: a
//! mount that others see is there to stay.

pub mod hidden;

use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::{Builder, sleep};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::FlockArg;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

use crate::binfmt::magic::MARK;
use crate::binfmt::{self, Binfmt, Files, Flags, Listed, MOUNT_POINT, Magic, Rule, State};
use crate::text::Show;
use hidden::Hidden;

/// The namespaces a kernel starts with have fixed numbers (`include/linux/nsfs.h`; that of the mount
/// namespace only in recent kernels).
const INITIAL: [(&str, u32); 3] = [("user", 0xefff_fffd), ("pid", 0xefff_fffc), ("mnt", 0xefff_fff8)];

/// How many milliseconds an instance has to outlive our mount, in turn, to be called kept by another mount: a
/// program that does not know our lock may have it mounted for a moment.
const PAUSES: [u64; 3] = [1, 5, 20];

/// Where binfmt_misc is, after [`ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// It was mounted already.
    Before,
    /// We have mounted it in the host's own mount namespace.
    Here,
    /// We have mounted it here; another mount keeps the handlers.
    KeptElsewhere,
    /// We have mounted it in the mount namespace of process 1, which is the host's unless this is one
    /// container inside another.
    FirstProcess,
    /// We have mounted it on a folder that the host shares with this container.
    Shared(PathBuf),
}

/// Why there is no binfmt_misc to register in.
#[derive(Debug)]
pub enum Error {
    /// `/proc` is not mounted.
    NoProc,
    /// The kernel has none, or its module is not loaded.
    NotSupported,
    /// There is no folder at which it could be mounted.
    NoFolder(PathBuf),
    /// It cannot be mounted.
    Mount(PathBuf, Errno),
    /// It cannot be written.
    ReadOnly(PathBuf, Errno),
    /// Our mount would be the last one, and end with us.
    WouldNotLast,
    /// Another qus has it mounted for a moment, and does not end.
    Busy,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProc => f.write_str("/proc is not mounted\nremedy: mount -t proc proc /proc"),
            Self::NotSupported => {
                f.write_str("the kernel has no binfmt_misc\nremedy: modprobe binfmt_misc, on the host")
            }
            Self::NoFolder(root) => write!(
                f,
                "there is no folder {} at which binfmt_misc could be mounted\nremedy: in a container, run it with \
                 --privileged; elsewhere make it, or leave --mount out",
                root.shown()
            ),
            Self::Mount(root, errno) => {
                write!(f, "cannot mount binfmt_misc at {}: {}", root.shown(), errno.desc())?;
                match errno {
                    Errno::EPERM | Errno::EACCES => f.write_str(missing_rights()),
                    Errno::ENODEV => f.write_str("\nremedy: modprobe binfmt_misc, on the host"),
                    Errno::EBUSY => f.write_str("\nremedy: end what reads it or works in that folder"),
                    _ => Ok(()),
                }
            }
            Self::ReadOnly(root, Errno::EROFS) => write!(
                f,
                "{0} is mounted read-only\nremedy: mount -o remount,rw {0}; in a container, run it with \
                 --privileged",
                root.shown()
            ),
            Self::ReadOnly(root, errno) => {
                write!(f, "{} cannot be written: {}{}", root.shown(), errno.desc(), missing_rights())
            }
            Self::Busy => f.write_str(
                "another qus looks at binfmt_misc or mounts it, and does not finish\nremedy: end it, then run this again",
            ),
            Self::WouldNotLast if is_initial("user") == Some(false) => write!(
                f,
                "handlers would vanish when this container ends, and this user namespace cannot register any for the \
                 host\nremedy: run the container with --privileged --userns=host\n(or, for this user namespace alone: mount -t binfmt_misc binfmt_misc {MOUNT_POINT} in it, \
                 where it lasts)"
            ),
            Self::WouldNotLast => write!(
                f,
                "handlers would vanish when this container ends, since nothing else has binfmt_misc mounted\n\
                 remedy: mount -t binfmt_misc binfmt_misc {MOUNT_POINT} on the host, then run this again\n\
                 (or run the container in the host's PID namespace: --pid=host)"
            ),
        }
    }
}

/// What to do about a right that this process does not have.
fn missing_rights() -> &'static str {
    if !geteuid().is_root() {
        "\nremedy: run it as root; in a container, with --privileged; without any right, see `qus run`"
    } else if is_initial("user") == Some(false) {
        "\nbecause: this user namespace cannot register handlers for the host\nremedy: run the container with \
         --privileged --userns=host; without any right, see `qus run`"
    } else {
        "\nremedy: in a container, run it with --privileged; elsewhere, with CAP_SYS_ADMIN; without any right, see \
         `qus run`"
    }
}

impl std::error::Error for Error {}

/// Whether a namespace of ours is the one that the kernel started with; `None` if that cannot be told.
pub fn is_initial(kind: &str) -> Option<bool> {
    let (_, number) = INITIAL.iter().find(|(known, _)| *known == kind)?;
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(link.as_os_str() == &*format!("{kind}:[{number}]"))
}

/// Whether the kernel knows binfmt_misc now. If it is a module, mounting may load it.
pub fn is_supported() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("binfmt_misc"))
}

/// Whose handlers are seen in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// Its own, which nobody outside uses.
    Own,
    /// Those of a user namespace around it, as the host's.
    Outer,
}

/// Whose instance is mounted in a user namespace; `None` in the kernel's first one, and where it cannot be told.
///
/// A mount that has come from a mount namespace of an outer user namespace cannot be taken away. That is tried in a mount
/// namespace of its own, by a thread, whose end leaves this process where it was.
pub fn instance(root: &Path) -> Option<Instance> {
    if is_initial("user") != Some(false) {
        return None;
    }
    let root = root.to_owned();
    let unmount = move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).ok()?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).ok()?;
        match umount2(&root, MntFlags::MNT_DETACH) {
            Ok(()) => Some(Instance::Own),
            Err(Errno::EINVAL) => Some(Instance::Outer),
            Err(_) => None,
        }
    };
    Builder::new().spawn(unmount).ok()?.join().ok()?
}

/// What is registered, all read at once.
pub struct Seen {
    /// What can be done with binfmt_misc where it is mounted, or should be.
    pub state: State,
    /// Whether the kernel uses handlers at all; `None` if that cannot be seen.
    pub switched_on: Option<bool>,
    /// All handlers in the kernel's order; none if they cannot be seen.
    pub handlers: Vec<Listed>,
}

/// Looks at handlers, also where binfmt_misc is not mounted, as in a container. Nobody else sees a mount of it.
///
/// In a user namespace it is not mounted: if that has no instance yet, it would get one by being mounted, for good,
/// and would lose the handlers that it inherits.
///
/// # Errors
/// They can be seen, and cannot be listed.
pub fn look(binfmt: &Binfmt) -> Result<Seen, binfmt::Error> {
    let state = binfmt.state();
    let hidden = match state {
        State::NotMounted if is_initial("user") != Some(false) => Hidden::new(binfmt.root()).ok(),
        _ => None,
    };
    let binfmt = hidden.as_ref().map_or(binfmt, Hidden::binfmt);
    let switched_on = binfmt.is_switched_on().ok();
    let handlers = if switched_on.is_some() { binfmt.entries()? } else { Vec::new() };
    Ok(Seen { state, switched_on, handlers })
}

/// Makes sure that handlers can be registered and will last.
///
/// # Errors
/// See [`Error`]; nothing of ours is left mounted then.
pub fn ensure(binfmt: &Binfmt) -> Result<Mounted, Error> {
    if let Some(mounted) = before(binfmt)? {
        return Ok(mounted);
    }
    let _lock = hidden::lock(FlockArg::LockExclusiveNonblock)?;
    // Another qus may have mounted it since.
    match before(binfmt)? {
        Some(mounted) => Ok(mounted),
        None => place(binfmt.root()),
    }
}

/// What follows from what is mounted; `None` if nothing is and something could be.
fn before(binfmt: &Binfmt) -> Result<Option<Mounted>, Error> {
    let root = binfmt.root();
    match binfmt.state() {
        State::Writable => Ok(Some(Mounted::Before)),
        State::ReadOnly(errno) => Err(Error::ReadOnly(root.to_owned(), errno)),
        State::Absent if !Path::new("/proc/self").exists() => Err(Error::NoProc),
        State::Absent if !is_supported() => Err(Error::NotSupported),
        State::Absent => Err(Error::NoFolder(root.to_owned())),
        State::NotMounted => Ok(None),
    }
}

/// Mounts it where it lasts.
fn place(root: &Path) -> Result<Mounted, Error> {
    let failed = |errno| Error::Mount(root.to_owned(), errno);
    if let State::ReadOnly(errno) = Hidden::unlocked(root)?.binfmt().state() {
        return Err(Error::ReadOnly(root.to_owned(), errno));
    }
    let mounted = if is_host_mount_namespace() {
        Mounted::Here
    } else if is_kept_elsewhere(root)? {
        Mounted::KeptElsewhere
    } else if mount_for_first_process().is_some() {
        Mounted::FirstProcess
    } else {
        let place = shared_proc().map(|proc| proc.join("sys/fs/binfmt_misc")).ok_or(Error::WouldNotLast)?;
        mount_at(&place).map_err(|_| Error::WouldNotLast)?;
        Mounted::Shared(place)
    };
    mount_at(root).map_err(failed)?;
    Ok(mounted)
}

/// Mounts binfmt_misc, with the flags that systemd uses.
///
/// # Errors
/// The kernel's answer.
pub fn mount_at(root: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("binfmt_misc"), root, Some("binfmt_misc"), flags, None::<&str>)
}

/// Whether what is mounted here lasts as long as the machine runs.
fn is_host_mount_namespace() -> bool {
    let same = |first: &Path| {
        let ours = fs::read_link("/proc/self/ns/mnt");
        ours.is_ok_and(|ours| fs::read_link(first).is_ok_and(|first| first == ours))
    };
    is_initial("mnt") == Some(true) || is_initial("pid") == Some(true) && same(Path::new("/proc/1/ns/mnt"))
}

/// Takes a mount away and looks whether a handler survives it.
fn is_kept_elsewhere(root: &Path) -> Result<bool, Error> {
    let failed = |error: binfmt::Error| {
        let errno = match error {
            binfmt::Error::Io(_, _, error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
            _ => Errno::EINVAL,
        };
        Error::Mount(root.to_owned(), errno)
    };
    let sentinel = Rule {
        name: format!("qemu-lasts-{}", std::process::id()).into(),
        files: Files::Magic(
            0,
            Magic { magic: [b"no file \0", &MARK[..]].concat(), mask: [&[0xff; 9][..], &[0; 3]].concat() },
        ),
        interpreter: "/".into(),
        flags: Flags::default(),
    };
    let mut hidden = Hidden::unlocked(root)?;
    // One that was killed may have had the same number.
    hidden.binfmt().remove(&sentinel.name).map_err(failed)?;
    hidden.binfmt().register(&sentinel).map_err(failed)?;
    for pause in PAUSES {
        drop(hidden);
        sleep(Duration::from_millis(pause));
        hidden = Hidden::unlocked(root)?;
        if hidden.binfmt().entry(&sentinel.name).map_err(failed)?.is_none() {
            return Ok(false);
        }
    }
    hidden.binfmt().remove(&sentinel.name).map_err(failed)
}

/// Mounts in the mount namespace of process 1, if that is not ours. A container has a process 1 of its own,
/// in its own mount namespace, unless it was given the host's. Done by a thread, whose end leaves this
/// process where it was.
fn mount_for_first_process() -> Option<()> {
    let namespace = File::open("/proc/1/ns/mnt").ok()?;
    if fs::read_link("/proc/1/ns/mnt").ok()? == fs::read_link("/proc/self/ns/mnt").ok()? {
        return None;
    }
    let mount = move || -> nix::Result<()> {
        // A thread that shares its root folder with others may not enter.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        mount_at(Path::new(MOUNT_POINT))
    };
    Builder::new().spawn(mount).ok()?.join().ok()?.ok()
}

/// A procfs other than our own, mounted from the host so that mounts on it reach the host.
fn shared_proc() -> Option<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    shared_proc_in(&mounts)
}

/// See `Documentation/filesystems/proc.rst`, 3.5. Public for fuzzing.
#[doc(hidden)]
pub fn shared_proc_in(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let [point, optional, kind] =
            [fields.get(4)?, fields.get(6..dash)?.concat().as_slice(), fields.get(dash + 1)?]
                .map(<[u8]>::to_vec);
        let shared = optional.windows(7).any(|part| part == b"shared:");
        let path = Path::new(std::ffi::OsStr::from_bytes(&point)).to_owned();
        (shared && kind == b"proc" && path != Path::new("/proc") && path.ends_with("proc")).then_some(path)
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
    fn the_remedy_is_one_line() {
        let text = Error::WouldNotLast.to_string();
        assert!(text.contains("mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_mounted_on() {
        let binfmt = Binfmt::at("/no/such/folder");
        assert!(matches!(ensure(&binfmt), Err(Error::NotSupported | Error::NoFolder(_))));
    }
}
