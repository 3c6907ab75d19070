//! How files come into being: hashed, locked, and never half-done under their final name.
//!
//! Whatever is made is made beside its final place and renamed, so that a power cut, a full disk or
//! `kill -9` leaves only a `.partial` that the next run throws away. Locks are the kernel's and go
//! with the process that holds them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::progress::say;

/// The sha256 of bytes, in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// The sha256 of a file, in lower-case hexadecimal.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    let digest = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(hasher.finalize())),
                read => hasher.update(&buffer[..read]),
            }
        }
    };
    digest().with_context(|| format!("cannot read {}", path.display()))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds `dir` until dropped; if another process has it, says so and waits.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("lock");
    let open = || -> io::Result<File> {
        fs::create_dir_all(dir)?;
        File::options().read(true).write(true).create(true).truncate(false).open(&path)
    };
    let file = open().with_context(|| format!("cannot write {}", dir.display()))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            say(format_args!(
                "waiting for another cargo xtask (process {holder}) that uses {}",
                dir.display()
            ));
            let locked = Flock::lock(file, FlockArg::LockExclusive);
            locked.map_err(|(_, errno)| errno).with_context(|| format!("cannot lock {}", path.display()))?
        }
        Err((_, errno)) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    };
    // For the message above; nobody relies on it.
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(lock)
}

/// Makes a folder by filling a partial one beside it and renaming that; replaces what was there.
pub(crate) fn publish(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial(dir);
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    fill(&partial)?;
    remove(dir)?;
    fs::rename(&partial, dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Writes a file by way of a partial one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path);
    let write = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&partial, bytes)?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file, mode included, by way of a partial one.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let partial = partial(to);
    let copy = || -> io::Result<()> {
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(from, &partial)?;
        fs::rename(&partial, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Where something is made before it has its final name.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

/// Removes a folder if it is there.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        assert_eq!(sha256_file(file.path()).unwrap(), expected);
    }

    #[test]
    fn what_fails_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("made");
        let half = |partial: &Path| {
            fs::write(partial.join("half"), "")?;
            anyhow::bail!("power cut")
        };
        assert!(publish(&target, half).is_err());
        assert!(!target.exists());
        publish(&target, |partial| Ok(fs::write(partial.join("whole"), "")?)).unwrap();
        let names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["whole"]);
    }

    #[test]
    fn a_lock_is_exclusive_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let again = File::open(dir.path().join("lock")).unwrap();
        let (again, errno) = Flock::lock(again, FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(errno, Errno::EWOULDBLOCK);
        drop(held);
        assert!(Flock::lock(again, FlockArg::LockExclusiveNonblock).is_ok());
    }
}
