//! Locks between runs. They are the kernel's and go with the process that holds them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::base::exec::keeper::Held;
use crate::base::progress::say;

/// What is held until it is dropped, and until all have ended that were started meanwhile.
pub(crate) struct Lock {
    // Before the other one, whose descriptor it is.
    _held: Held,
    _lock: Flock<File>,
}

/// Holds `dir` until dropped; if another process has it, says so and waits.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn lock(dir: &Path) -> Result<Lock> {
    lock_by(&dir.join("lock"), dir)
}

/// Holds `what` until dropped, by means of a file that stays.
pub(super) fn lock_by(path: &Path, what: &Path) -> Result<Lock> {
    let open = || -> io::Result<File> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        File::options().read(true).write(true).create(true).truncate(false).open(path)
    };
    let file = open().with_context(|| format!("cannot write {}", what.display()))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            say(format_args!(
                "waiting for another cargo xtask (process {holder}) that uses {}",
                what.display()
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
    Ok(Lock { _held: Held::new(&*lock), _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

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
