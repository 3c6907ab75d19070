//! Whether users other than root can change an emulator.
//!
//! Root runs what root has registered: with flag `C` for every setuid program, and in containers for everything. An
//! emulator that an ordinary user can write to, or a directory in which he can create another one, makes him root. The
//! path may come from an environment that is not root's, as with `sudo -E`.
//!
//! ```no_run
//! let emulator = "/usr/bin/qemu-aarch64".as_ref();
//! if let Err(error) = qus_core::trust::check(emulator) {
//!     println!("{error}");
//! }
//! ```

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::mount::is_initial;
use crate::text::Show;

/// Why an emulator is not to be registered.
#[derive(Debug)]
pub enum TrustError {
    /// The emulator or a directory of its path belongs to this user.
    Owner(PathBuf, u32),
    /// Every user can write to it, or a group.
    Writable(PathBuf, &'static str),
    /// It cannot be examined.
    Io(PathBuf, io::Error),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(path, user) => {
                write!(f, "{} belongs to user {user}, who would decide what root runs", path.shown())
            }
            Self::Writable(path, who) => {
                write!(f, "{} is writable by {who}, who would decide what root runs", path.shown())
            }
            Self::Io(path, error) => write!(f, "cannot examine {}: {error}", path.shown()),
        }
    }
}

impl std::error::Error for TrustError {}

impl TrustError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Owner(path, _) | Self::Writable(path, _) => Some(format!(
                "give it to root: `chown root {0} && chmod go-w {0}`; or register it nevertheless with `--any-owner`",
                path.shown()
            )),
            Self::Io(..) => None,
        }
    }
}

/// Fails if a user other than root can change the emulator. The owner of this program, which root runs, may: his number
/// is returned. Run by an ordinary user or in a user namespace, it checks nothing.
///
/// # Errors
/// See [`TrustError`].
pub fn check(emulator: &Path) -> Result<Option<u32>, TrustError> {
    if !geteuid().is_root() || is_initial("user") == Some(false) {
        return Ok(None);
    }
    let ours = fs::metadata("/proc/self/exe").map_or(0, |program| program.uid());
    check_path(emulator, ours)
}

fn check_path(emulator: &Path, ours: u32) -> Result<Option<u32>, TrustError> {
    let failed = |error| TrustError::Io(emulator.to_owned(), error);
    let real = emulator.canonicalize().map_err(failed)?;
    // The path as given, and the one to which links lead.
    for path in emulator.ancestors().chain(real.ancestors()) {
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.uid() != 0 && metadata.uid() != ours {
            return Err(TrustError::Owner(path.to_owned(), metadata.uid()));
        }
        if let Some(who) = writers(&metadata) {
            return Err(TrustError::Writable(path.to_owned(), who));
        }
    }
    let owner = fs::metadata(&real).map_err(failed)?.uid();
    Ok(Some(owner).filter(|&owner| owner != 0))
}

/// Who can write to it besides its owner. In a directory like `/tmp` users cannot change each other's files; a directory
/// that root has given to a group, such as `/usr/local` on Debian, was given on purpose.
fn writers(metadata: &Metadata) -> Option<&'static str> {
    let mode = metadata.mode();
    if metadata.is_dir() {
        (mode & 0o1002 == 0o002).then_some("every user")
    } else if mode & 0o002 != 0 {
        Some("every user")
    } else {
        (mode & 0o020 != 0 && metadata.uid() == 0 && metadata.gid() != 0).then_some("a group")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn who_can_change_an_emulator_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, emulator) = (dir.path().join("bin"), dir.path().join("bin/qemu-arm"));
        fs::create_dir(&directory).unwrap();
        fs::write(&emulator, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let user = geteuid().as_raw();
        for path in [dir.path(), &directory, &emulator] {
            mode(path, 0o755);
        }
        assert_eq!(check_path(&emulator, user).unwrap(), Some(user).filter(|&user| user != 0));
        mode(&emulator, 0o757);
        assert!(
            matches!(check_path(&emulator, user), Err(TrustError::Writable(path, _)) if path == emulator)
        );
        mode(&emulator, 0o755);
        mode(&directory, 0o777);
        assert!(
            matches!(check_path(&emulator, user), Err(TrustError::Writable(path, _)) if path == directory)
        );
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&emulator, &link).unwrap();
        assert!(check_path(&link, user).is_err(), "the target of the link is checked");
        mode(&directory, 0o1777);
        assert!(check_path(&link, user).is_ok());
    }
}
