//! Whether users other than root can change an emulator.
//!
//! Root runs what root has registered: with the flag `C` for every setuid program, and in containers for everything. A
//! user who can write to an emulator, to a directory on the way to it, or change a link on that way becomes root. The
//! path may come from the environment of such a user, as with `sudo -E`.
//!
//! ```no_run
//! let emulator = "/usr/bin/qemu-aarch64".as_ref();
//! if let Err(error) = qus_core::trust::check(emulator) {
//!     println!("{error}");
//! }
//! ```

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::mount::is_initial;
use crate::text::Show;

/// How many links the kernel follows.
const MAX_LINKS: usize = 40;

/// Why an emulator is not to be registered.
#[derive(Debug)]
pub enum TrustError {
    /// The emulator, or a directory or link on the way to it, belongs to this user.
    Owner(PathBuf, u32),
    /// The emulator or a directory on the way to it is writable by every user or by a group.
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
                "give it to root: `chown -h root {0} && chmod go-w {0}`; or accept it with `--any-owner`",
                path.quoted()
            )),
            Self::Io(..) => None,
        }
    }
}

/// Checks that no user but root can change an emulator. The owner of this program is accepted too, because root runs it
/// already; returns the number of that user if the emulator is his. Does nothing for other users than root, and in a user
/// namespace.
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
    let mut owner = 0;
    for (path, metadata) in places(emulator).map_err(failed)? {
        owner = metadata.uid();
        if owner != 0 && owner != ours {
            return Err(TrustError::Owner(path, owner));
        }
        if let Some(who) = writers(&metadata) {
            return Err(TrustError::Writable(path, who));
        }
    }
    Ok(Some(owner).filter(|&owner| owner != 0))
}

/// All directories and links on the way to a file, and the file as the last. The kernel follows the same ones: it is not
/// enough to check where a link leads, since the user who can change the link decides that.
fn places(path: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let reversed = |path: &Path| path.iter().rev().map(OsString::from).collect::<Vec<_>>();
    let mut ahead = reversed(&std::path::absolute(path)?);
    let mut at = PathBuf::new();
    let mut links = 0;
    let mut places = Vec::new();
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        // `/` replaces all before it.
        at.push(name);
        let metadata = fs::symlink_metadata(&at)?;
        let is_link = metadata.is_symlink();
        places.push((at.clone(), metadata));
        if is_link {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            ahead.extend(reversed(&fs::read_link(&at)?));
            at.pop();
        }
    }
    Ok(places)
}

/// Who besides its owner can write to a file or directory. In a directory like `/tmp` users cannot change each other's
/// files; a directory that root has given to a group, such as `/usr/local` on Debian, was given on purpose.
fn writers(metadata: &Metadata) -> Option<&'static str> {
    let mode = metadata.mode();
    if metadata.is_symlink() {
        // It has no mode; its owner and the directory that it is in decide.
        None
    } else if metadata.is_dir() {
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

    #[test]
    fn who_can_change_a_link_on_the_way_is_found() {
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mode = |name: &str, mode| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("", 0o755);
        for name in ["safe", "open"] {
            fs::create_dir(path(name)).unwrap();
            mode(name, 0o755);
        }
        fs::write(path("safe/qemu-arm"), "").unwrap();
        mode("safe/qemu-arm", 0o755);
        symlink("../open/second", path("safe/first")).unwrap();
        symlink(path("safe"), path("open/second")).unwrap();
        let (emulator, user) = (path("safe/first/qemu-arm"), geteuid().as_raw());
        let visited: Vec<_> = places(&emulator).unwrap().into_iter().map(|(path, _)| path).collect();
        assert_eq!(visited.last(), Some(&path("safe/qemu-arm")));
        assert!(visited.contains(&path("open")) && visited.contains(&path("open/second")), "{visited:?}");
        assert!(check_path(&emulator, user).is_ok());
        mode("open", 0o777);
        assert!(
            matches!(check_path(&emulator, user), Err(TrustError::Writable(at, _)) if at == path("open"))
        );
        mode("open", 0o1777);
        // Only root can create links of other users.
        if geteuid().is_root() {
            std::os::unix::fs::lchown(path("open/second"), Some(1234), None).unwrap();
            assert!(
                matches!(check_path(&emulator, 0), Err(TrustError::Owner(at, 1234)) if at == path("open/second"))
            );
        }
        symlink("loop", path("loop")).unwrap();
        assert!(matches!(check_path(&path("loop"), user), Err(TrustError::Io(..))));
    }
}
