//! Locks between runs: `flock`, which the kernel releases when the holding processes end.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::base::exec::supervisor::InheritedLock;
use crate::base::files;
use crate::base::progress::{Bar, say};

/// A lock that is held until it is dropped, and until all programs that were started in the meantime have ended.
pub(crate) struct Lock {
    // Dropped before the lock, whose descriptor it registers.
    _inherited: InheritedLock,
    _lock: Flock<File>,
}

/// Locks `dir`; if another process holds the lock, reports it and waits.
///
/// # Errors
/// The directory is not writable.
pub(crate) fn lock(dir: &Path) -> Result<Lock> {
    lock_with_file(&dir.join("lock"), dir)
}

/// Locks an entry of the cache with a file beside it; if another process holds the lock, reports it and waits.
///
/// # Errors
/// The directory that it is in is not writable.
pub(crate) fn lock_entry(entry: &Path) -> Result<Lock> {
    lock_with_file(&files::with_suffix(entry, "lock"), entry)
}

/// Locks `what` with a lock file, which is not removed.
fn lock_with_file(path: &Path, what: &Path) -> Result<Lock> {
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
                "waiting for another cargo xtask (process {holder}), which has locked {}",
                what.display()
            ));
            let _bar = Bar::short("waiting");
            let locked = Flock::lock(file, FlockArg::LockExclusive);
            locked.map_err(|(_, errno)| errno).with_context(|| format!("cannot lock {}", path.display()))?
        }
        Err((_, errno)) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    };
    // Only for the message above.
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Lock { _inherited: InheritedLock::new(&*lock), _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let other = File::open(dir.path().join("lock")).unwrap();
        let (other, errno) = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(errno, Errno::EWOULDBLOCK);
        drop(held);
        assert!(Flock::lock(other, FlockArg::LockExclusiveNonblock).is_ok());
    }
}
