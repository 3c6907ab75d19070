//! A private set of handlers: a user namespace and a mount namespace with a binfmt_misc of their own.
//!
//! Since Linux 6.7 every user namespace may have its own instance, so that an ordinary user can register
//! handlers that nobody else sees and that end with the last process in it. Only root of the namespace may
//! write to `register`. So an ordinary user becomes root in one namespace and, once all is registered, himself
//! again in a second one inside it, which inherits the handlers: files keep their owners. Nothing outside is
//! changed, not even for a moment.

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

/// Folders of the host that programs in another root folder need.
const SHARED: [&str; 3] = ["proc", "sys", "dev"];

/// Why there is no private namespace.
#[derive(Debug)]
pub enum Error {
    /// A user namespace cannot be made.
    Unshare(Errno),
    /// Users and groups cannot be mapped: the file, and the kernel's answer.
    Map(&'static str, io::Error),
    /// A file system cannot be mounted.
    Mount(PathBuf, Errno),
    /// The new root folder cannot be entered.
    Root(PathBuf, Errno),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unshare(errno) => {
                write!(f, "this machine does not let you make a user namespace: {}", errno.desc())?;
                f.write_str(forbidden(*errno))
            }
            Self::Map(file, error) => {
                write!(f, "cannot write /proc/self/{file}: {error}")?;
                f.write_str(match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EROFS) => {
                        "\nremedy: mount -o remount,rw /proc, as root; in a container, start it with --security-opt \
                         systempaths=unconfined"
                    }
                    Some(Errno::ENOENT) => "\nremedy: mount -t proc proc /proc, as root",
                    _ => FORBIDDEN,
                })
            }
            Self::Mount(path, errno @ (Errno::EPERM | Errno::EACCES)) if path == Path::new(MOUNT_POINT) => {
                write!(
                    f,
                    "cannot mount binfmt_misc in a namespace of your own: {}\nbecause: {}",
                    errno.desc(),
                    not_yours()
                )
            }
            Self::Mount(path, errno) => {
                write!(f, "cannot mount {}: {}{FORBIDDEN}", path.shown(), errno.desc())
            }
            Self::Root(path, errno) => {
                write!(f, "cannot enter {}: {}{FORBIDDEN}", path.shown(), errno.desc())
            }
        }
    }
}

impl std::error::Error for Error {}

/// What forbids something in a namespace in which this process has every right, and what to do about it.
const FORBIDDEN: &str = "\nbecause: a security module or a container's seccomp profile forbids it\nremedy: install handlers as \
                         root instead: qus install; in a container, start it with --security-opt seccomp=unconfined \
                         --security-opt apparmor=unconfined";

/// What forbids user namespaces, and what to do about it.
fn forbidden(errno: Errno) -> &'static str {
    let is = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "\nremedy: sysctl user.max_user_namespaces=15000, as root"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "\nremedy: sysctl kernel.unprivileged_userns_clone=1, as root"
    } else if errno == Errno::EINVAL {
        "\nbecause: the kernel has no user namespaces, or this process has several threads"
    } else if errno == Errno::ENOSPC {
        "\nbecause: there are too many user namespaces, or they are nested too deeply"
    } else {
        "\nbecause: a container's seccomp profile or a security module forbids it, or this is a chroot\nremedy: in a \
         container, start it with --security-opt seccomp=unconfined; in a chroot, run it from outside"
    }
}

fn not_yours() -> &'static str {
    let restricted = fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    match kernel() {
        Some(version) if version < (6, 7) => {
            "only Linux 6.7 and later have binfmt_misc in user namespaces; install handlers as root instead: qus \
             install"
        }
        _ if restricted.is_ok_and(|text| text.trim() == "1") => {
            "AppArmor keeps user namespaces from having rights\nremedy: sysctl \
             kernel.apparmor_restrict_unprivileged_userns=0, as root"
        }
        _ => {
            "a security module forbids it, or the /proc here is not whole; install handlers as root instead: qus install"
        }
    }
}

/// The kernel's version: major and minor number.
pub fn kernel() -> Option<(u32, u32)> {
    let release = nix::sys::utsname::uname().ok()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The caller, as whom he is known outside.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    user: Uid,
    group: Gid,
}

impl Caller {
    /// Whoever runs this process.
    pub fn now() -> Self {
        Self { user: geteuid(), group: getegid() }
    }

    /// Whether it is root, who can have every user mapped to himself.
    pub fn is_root(self) -> bool {
        self.user.is_root()
    }

    /// Enters a new user namespace and mount namespace with an empty binfmt_misc at its usual place. Root
    /// sees all users as themselves, mapped by another process with [`map_all`], which `mapped` waits for;
    /// anybody else is root inside and sees all others as nobody.
    ///
    /// # Errors
    /// See [`Error`]. The process may then be in a namespace that it can do nothing with, and should end.
    pub fn enter(self, mapped: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Error::Unshare)?;
        if self.is_root() {
            mapped().map_err(|error| Error::Map("uid_map", error))?;
        } else {
            map_one((0, self.user.as_raw()), (0, self.group.as_raw()))?;
        }
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|errno| Error::Mount("/".into(), errno))?;
        mount_at(Path::new(MOUNT_POINT)).map_err(|errno| Error::Mount(MOUNT_POINT.into(), errno))
    }

    /// From a namespace in which an ordinary user is root, enters one inside it in which he is himself.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn be_himself(self) -> Result<(), Error> {
        if self.is_root() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::Unshare)?;
        map_one((self.user.as_raw(), 0), (self.group.as_raw(), 0))
    }
}

/// Maps one user and one group: what they are inside, and what outside.
fn map_one(user: (u32, u32), group: (u32, u32)) -> Result<(), Error> {
    let write = |file: &'static str, text: String| {
        fs::write(Path::new("/proc/self").join(file), text).map_err(|error| Error::Map(file, error))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1", user.0, user.1))?;
    write("gid_map", format!("{} {} 1", group.0, group.1))
}

/// Maps every user and group that there is here to itself in the namespace of a process inside. Only root
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

/// From a map the one by which all that it knows stay what they are. Its lines hold the first number inside,
/// the first outside, and how many.
fn identity(map: &str) -> String {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        let (inside, count) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{inside} {inside} {count}\n"))
    };
    map.lines().filter_map(line).collect()
}

/// Gives a folder that is to be the root the host's `/proc`, `/sys` and `/dev`, where it has folders for them.
///
/// # Errors
/// See [`Error`].
pub fn furnish(root: &Path) -> Result<(), Error> {
    for name in SHARED {
        let target = root.join(name);
        if target.is_dir() && !target.is_symlink() {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&Path::new("/").join(name)), &target, None::<&str>, bind, None::<&str>)
                .map_err(|errno| Error::Mount(target, errno))?;
        }
    }
    Ok(())
}

/// Makes a folder the root of the file system.
///
/// # Errors
/// See [`Error`].
pub fn enter_root(root: &Path) -> Result<(), Error> {
    let failed = |errno| Error::Root(root.to_owned(), errno);
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
    fn everybody_stays_who_he_is() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity("0 1001 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(identity(""), "");
    }

    #[test]
    fn messages_say_what_to_do() {
        let text = Error::Mount(MOUNT_POINT.into(), Errno::EPERM).to_string();
        assert!(text.contains("install handlers as root instead") || text.contains("remedy: "), "{text}");
        assert!(Error::Unshare(Errno::EPERM).to_string().contains('\n'));
    }
}
