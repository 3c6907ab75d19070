//! User and mount namespaces with an instance of binfmt_misc of their own.
//!
//! Since Linux 6.7, every user namespace can have its own instance. An ordinary user can so register handlers that no
//! process outside sees, and that end with the last process in the namespace. Only root of the namespace can write to
//! `register`. Therefore an ordinary user becomes root in one namespace and, after registration, gets the original user
//! number back in a second namespace inside it, which inherits the handlers. So files keep their owners. Nothing outside
//! is changed, not even for a moment.
//!
//! ```no_run
//! use qus_core::namespace::Caller;
//!
//! let caller = Caller::now();
//! caller.enter(|| Ok(()))?; // binfmt_misc is empty now; register handlers here
//! caller.restore_user()?;
//! # Ok::<(), qus_core::namespace::NamespaceError>(())
//! ```

pub mod bind;
mod refusal;
pub mod subordinate;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chdir, chroot, getegid, geteuid};

use crate::binfmt::MOUNT_POINT;
use crate::mount::mount_at;
use crate::text::Show;
use refusal::Refusal;
pub use refusal::kernel;

/// Directories of the host that programs in another root filesystem need.
const SHARED: [&str; 3] = ["proc", "sys", "dev"];

/// Why there is no private namespace.
#[derive(Debug)]
pub enum NamespaceError {
    /// A user namespace cannot be created.
    Unshare(Errno),
    /// Users and groups cannot be mapped: the file, and the kernel's answer.
    Map(&'static str, io::Error),
    /// A file system cannot be mounted.
    Mount(PathBuf, Errno),
    /// A file or directory of the host cannot be bound to this path in the root filesystem.
    Bind(PathBuf, Errno),
    /// The new root directory cannot be entered.
    Root(PathBuf, Errno),
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unshare(errno) => {
                write!(f, "cannot create a user namespace: {}", errno.desc())?;
                f.write_str(Refusal::of_unshare(*errno).why())
            }
            Self::Map(file, error) => write!(f, "cannot write /proc/self/{file}: {error}"),
            Self::Mount(path, errno) if is_denied_binfmt(path, *errno) => {
                write!(f, "cannot mount binfmt_misc in a user namespace: {}", errno.desc())?;
                f.write_str(Refusal::of_binfmt().why())
            }
            Self::Mount(path, errno) => write!(f, "cannot mount {}: {}", path.shown(), errno.desc()),
            Self::Bind(path, errno) => write!(f, "cannot bind to {}: {}", path.shown(), errno.desc()),
            Self::Root(path, errno) => write!(f, "cannot enter {}: {}", path.shown(), errno.desc()),
        }
    }
}

impl std::error::Error for NamespaceError {}

impl NamespaceError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unshare(errno) => Refusal::of_unshare(*errno).hint(),
            Self::Map(_, error) => Some(match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EROFS) => {
                    "as root: `mount -o remount,rw /proc`; in a container, add `--security-opt systempaths=unconfined` \
                     to `docker run`"
                        .to_owned()
                }
                Some(Errno::ENOENT) => "as root: `mount -t proc proc /proc`".to_owned(),
                _ => FORBIDDEN.to_owned(),
            }),
            Self::Mount(path, errno) if is_denied_binfmt(path, *errno) => Refusal::of_binfmt().hint(),
            Self::Bind(path, Errno::ENOENT) => {
                Some(format!("`mkdir -p {0}`, or `touch {0}` to bind a file", path.quoted()))
            }
            Self::Bind(_, Errno::ENOTDIR) => {
                Some("bind a directory to a directory, and a file to a file; `--bind SRC:DST`".to_owned())
            }
            Self::Bind(..) => None,
            Self::Mount(..) | Self::Root(..) => Some(FORBIDDEN.to_owned()),
        }
    }
}

/// The hint if something is forbidden in a namespace in which this process has all capabilities.
const FORBIDDEN: &str = "a security module or a container's seccomp profile may forbid it: install handlers as root with \
                         `qus install all`; in a container, add `--security-opt seccomp=unconfined --security-opt \
                         apparmor=unconfined` to `docker run`";

fn is_denied_binfmt(path: &Path, errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES) && path == Path::new(MOUNT_POINT)
}

/// The user who runs this process, as seen outside.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    user: Uid,
    group: Gid,
}

impl Caller {
    /// The user of this process.
    pub fn now() -> Self {
        Self { user: geteuid(), group: getegid() }
    }

    /// Whether it is root, who can map all users.
    pub fn is_root(self) -> bool {
        self.user.is_root()
    }

    /// Enters new user and mount namespaces with an empty binfmt_misc at its usual place. `mapped` waits for another
    /// process: if this is root, it maps all users with [`map_all`]. Any other user is root inside; it can map
    /// [subordinate users](subordinate), and all that are not mapped are `nobody`.
    ///
    /// # Errors
    /// See [`NamespaceError`]. The process should end then, because it may be in an incomplete namespace.
    pub fn enter(self, mapped: impl FnOnce() -> io::Result<()>) -> Result<(), NamespaceError> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(NamespaceError::Unshare)?;
        mapped().map_err(|error| NamespaceError::Map("uid_map", error))?;
        if !self.is_root() {
            map_one((0, self.user.as_raw()), (0, self.group.as_raw()))?;
        }
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|errno| NamespaceError::Mount("/".into(), errno))?;
        mount_at(Path::new(MOUNT_POINT)).map_err(|errno| NamespaceError::Mount(MOUNT_POINT.into(), errno))
    }

    /// From a namespace in which an ordinary user is root, enters one inside it with the user's own number.
    ///
    /// # Errors
    /// See [`NamespaceError`].
    pub fn restore_user(self) -> Result<(), NamespaceError> {
        if self.is_root() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWUSER).map_err(NamespaceError::Unshare)?;
        map_one((self.user.as_raw(), 0), (self.group.as_raw(), 0))
    }
}

/// Maps one user and one group, their numbers inside and outside, unless another process has mapped them.
fn map_one(user: (u32, u32), group: (u32, u32)) -> Result<(), NamespaceError> {
    let write = |file: &'static str, text: String| {
        fs::write(Path::new("/proc/self").join(file), text).map_err(|error| NamespaceError::Map(file, error))
    };
    let is_mapped =
        |file| fs::read_to_string(Path::new("/proc/self").join(file)).is_ok_and(|map| !map.is_empty());
    if !is_mapped("uid_map") {
        write("uid_map", format!("{} {} 1", user.0, user.1))?;
    }
    if !is_mapped("gid_map") {
        write("setgroups", "deny".to_owned())?;
        write("gid_map", format!("{} {} 1", group.0, group.1))?;
    }
    Ok(())
}

/// Maps every user and group of this namespace to itself in the namespace of a process inside. Only root
/// can, and only from outside.
///
/// # Errors
/// The process has ended, or the right is missing.
pub fn map_all(process: u32) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        let here = fs::read_to_string(Path::new("/proc/self").join(file))?;
        fs::write(format!("/proc/{process}/{file}"), identity(&here))?;
    }
    Ok(())
}

/// The map that leaves all users of a map their numbers. Each line of a map has the first number inside, the first number
/// outside, and the count.
fn identity(map: &str) -> String {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        let (inside, count) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{inside} {inside} {count}\n"))
    };
    map.lines().filter_map(line).collect()
}

/// Mounts the host's `/proc`, `/sys` and `/dev` in a root filesystem, where it has directories for them.
///
/// # Errors
/// See [`NamespaceError`].
pub fn mount_shared(root: &Path) -> Result<(), NamespaceError> {
    for name in SHARED {
        let target = root.join(name);
        if target.is_dir() && !target.is_symlink() {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&Path::new("/").join(name)), &target, None::<&str>, bind, None::<&str>)
                .map_err(|errno| NamespaceError::Mount(target, errno))?;
        }
    }
    Ok(())
}

/// Makes a directory the root directory of this process.
///
/// # Errors
/// See [`NamespaceError`].
pub fn enter_root(root: &Path) -> Result<(), NamespaceError> {
    let failed = |errno| NamespaceError::Root(root.to_owned(), errno);
    chroot(root).map_err(failed)?;
    chdir("/").map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_a_version() {
        assert!(kernel().unwrap() > (3, 0));
    }

    #[test]
    fn users_keep_their_numbers() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity("0 1001 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(identity(""), "");
    }

    #[test]
    fn hints_have_commands() {
        let denied = NamespaceError::Mount(MOUNT_POINT.into(), Errno::EPERM);
        assert!(denied.hint().unwrap().contains('`'), "{denied}");
        for error in [
            denied,
            NamespaceError::Unshare(Errno::EPERM),
            NamespaceError::Map("uid_map", io::Error::from_raw_os_error(Errno::EROFS as i32)),
            NamespaceError::Bind("/b".into(), Errno::ENOENT),
            NamespaceError::Bind("/b".into(), Errno::ENOTDIR),
            NamespaceError::Root("/r".into(), Errno::EPERM),
        ] {
            assert!(!error.to_string().contains('\n') && error.hint().is_some(), "{error}");
        }
    }
}
