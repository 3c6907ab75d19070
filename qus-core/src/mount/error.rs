//! Why binfmt_misc cannot be mounted or written, and what to do about it.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::kernel::is_initial;
use crate::binfmt::{BinfmtError, MOUNT_POINT};
use crate::text::Show;

/// Why there is no binfmt_misc to register handlers in.
#[derive(Debug)]
pub enum MountError {
    /// `/proc` is not mounted.
    NoProc,
    /// The kernel has no binfmt_misc, or its module is not loaded.
    NotSupported,
    /// The directory at which it would be mounted does not exist.
    NoMountPoint(PathBuf),
    /// It cannot be mounted.
    Mount(PathBuf, Errno),
    /// It cannot be written.
    ReadOnly(PathBuf, Errno),
    /// It cannot be tested whether handlers outlive our mount.
    Test(BinfmtError),
    /// Our mount would be the only one, and end with this process.
    WouldNotLast,
    /// Another qus has it mounted for a moment, and does not end.
    Busy,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProc => f.write_str("/proc is not mounted"),
            Self::NotSupported => f.write_str("the kernel has no binfmt_misc"),
            Self::NoMountPoint(root) => {
                write!(f, "cannot mount binfmt_misc: there is no directory {}", root.shown())
            }
            Self::Mount(root, errno) => {
                write!(f, "cannot mount binfmt_misc at {}: {}", root.shown(), errno.desc())
            }
            Self::ReadOnly(root, Errno::EROFS) => write!(f, "{} is mounted read-only", root.shown()),
            Self::ReadOnly(root, errno) => write!(f, "cannot write {}: {}", root.shown(), errno.desc()),
            Self::Test(error) => write!(f, "cannot test whether handlers would last: {error}"),
            Self::Busy => f.write_str("another qus is using binfmt_misc and does not finish"),
            Self::WouldNotLast if is_initial("user") == Some(false) => f.write_str(
                "handlers would vanish when this container ends, and this user namespace cannot register any for the host",
            ),
            Self::WouldNotLast => f.write_str(
                "handlers would vanish when this container ends, since nothing else has binfmt_misc mounted",
            ),
        }
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Test(error) => error.source(),
            _ => None,
        }
    }
}

impl MountError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        const LOAD: &str = "load its module on the host: `modprobe binfmt_misc`";
        Some(match self {
            Self::NoProc => "mount it: `mount -t proc proc /proc`".to_owned(),
            Self::NotSupported | Self::Mount(_, Errno::ENODEV) => LOAD.to_owned(),
            Self::NoMountPoint(root) => format!(
                "in a container, add `--privileged` to `docker run`; elsewhere create it: `mkdir -p {}`",
                root.quoted()
            ),
            Self::Mount(_, Errno::EPERM | Errno::EACCES) => missing_rights(),
            Self::Mount(root, Errno::EBUSY) => {
                format!("end the processes that use it: `fuser -v {}`", root.quoted())
            }
            Self::Test(BinfmtError::Io(_, _, error)) if error.kind() == ErrorKind::PermissionDenied => {
                missing_rights()
            }
            Self::Mount(..) | Self::Test(_) => return None,
            Self::ReadOnly(root, Errno::EROFS) => format!(
                "remount it: `mount -o remount,rw {}`; in a container, add `--privileged` to `docker run`",
                root.quoted()
            ),
            Self::ReadOnly(..) => missing_rights(),
            Self::Busy => "end it, then run this command again; `pgrep -a qus` lists candidates".to_owned(),
            Self::WouldNotLast if is_initial("user") == Some(false) => format!(
                "add `--privileged --userns=host` to `docker run`; or, for this user namespace alone: `mount -t \
                 binfmt_misc binfmt_misc {MOUNT_POINT}` in it"
            ),
            Self::WouldNotLast => format!(
                "run `mount -t binfmt_misc binfmt_misc {MOUNT_POINT}` on the host, then this command again; or add \
                 `--pid=host` to `docker run`"
            ),
        })
    }
}

/// What to do about a right that this process lacks.
fn missing_rights() -> String {
    let how = if !geteuid().is_root() {
        "run it as root; in a container, add `--privileged` to `docker run`"
    } else if is_initial("user") == Some(false) {
        "this user namespace cannot register handlers for the host: add `--privileged --userns=host` to `docker run`"
    } else {
        "in a container, add `--privileged` to `docker run`; elsewhere it needs CAP_SYS_ADMIN"
    };
    format!("{how}; to run programs without root, see `qus run --help`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_has_the_command() {
        let hint = MountError::WouldNotLast.hint().unwrap();
        assert!(hint.contains("mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc`"), "{hint}");
        assert!(!MountError::WouldNotLast.to_string().contains('\n'));
    }
}
