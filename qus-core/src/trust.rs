//! Whether an emulator can be changed by somebody who is not root.
//!
//! Root runs whatever root has registered: with flag `C` for every setuid program, and in containers for everything. An
//! emulator that an ordinary user can write to, or a directory in which he can put another, makes him root. Its path may
//! come from an environment that is not root's, as with `sudo -E`.

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
pub enum Error {
    /// The emulator or a directory of its path belongs to this user.
    Owner(PathBuf, u32),
    /// Everybody can write to it, or a group.
    Writable(PathBuf, &'static str),
    /// It cannot be looked at.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(path, user) => write!(f, "{} belongs to user {user}", path.shown())?,
            Self::Writable(path, who) => write!(f, "{} can be written by {who}", path.shown())?,
            Self::Io(path, error) => return write!(f, "cannot look at {}: {error}", path.shown()),
        }
        f.write_str(
            ", who would decide what root runs (chown root and chmod go-w it, or register it all the same: --any-owner)",
        )
    }
}

impl std::error::Error for Error {}

/// Fails if somebody else than root can change what is run. Whoever owns this program, which root runs, may: his number
/// is returned. For ordinary users and in user namespaces there is nothing to fear.
///
/// # Errors
/// See [`Error`].
pub fn check(emulator: &Path) -> Result<Option<u32>, Error> {
    if !geteuid().is_root() || is_initial("user") == Some(false) {
        return Ok(None);
    }
    let ours = fs::metadata("/proc/self/exe").map_or(0, |program| program.uid());
    check_path(emulator, ours)
}

fn check_path(emulator: &Path, ours: u32) -> Result<Option<u32>, Error> {
    let failed = |error| Error::Io(emulator.to_owned(), error);
    let real = emulator.canonicalize().map_err(failed)?;
    // As it was named, and where links lead.
    for path in emulator.ancestors().chain(real.ancestors()) {
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.uid() != 0 && metadata.uid() != ours {
            return Err(Error::Owner(path.to_owned(), metadata.uid()));
        }
        if let Some(who) = writers(&metadata) {
            return Err(Error::Writable(path.to_owned(), who));
        }
    }
    let owner = fs::metadata(&real).map_err(failed)?.uid();
    Ok(Some(owner).filter(|&owner| owner != 0))
}

/// Who can write to it besides its owner. In a directory like `/tmp` nobody can change what is not his; directories that
/// root has given to a group, as Debian `/usr/local`, are given on purpose.
fn writers(metadata: &Metadata) -> Option<&'static str> {
    let mode = metadata.mode();
    if metadata.is_dir() {
        (mode & 0o1002 == 0o002).then_some("everybody")
    } else if mode & 0o002 != 0 {
        Some("everybody")
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
        let (folder, emulator) = (dir.path().join("bin"), dir.path().join("bin/qemu-arm"));
        fs::create_dir(&folder).unwrap();
        fs::write(&emulator, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let user = geteuid().as_raw();
        for path in [dir.path(), &folder, &emulator] {
            mode(path, 0o755);
        }
        assert_eq!(check_path(&emulator, user).unwrap(), Some(user).filter(|&user| user != 0));
        mode(&emulator, 0o757);
        assert!(matches!(check_path(&emulator, user), Err(Error::Writable(path, _)) if path == emulator));
        mode(&emulator, 0o755);
        mode(&folder, 0o777);
        assert!(matches!(check_path(&emulator, user), Err(Error::Writable(path, _)) if path == folder));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&emulator, &link).unwrap();
        assert!(check_path(&link, user).is_err(), "it is looked at where the link leads");
        mode(&folder, 0o1777);
        assert!(check_path(&link, user).is_ok());
    }
}
