//! Opens files of unknown origin without blocking, reads them within bounds, and locks them without waiting forever.
//!
//! ```
//! use qus_core::file;
//!
//! assert!(file::read("/dev/zero".as_ref()).is_err(), "it never ends");
//! ```

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, Flockable, OFlag};

/// The largest file that is read, in bytes; larger than any that is expected.
const LIMIT: u64 = 16 << 20;

/// Opens a regular file for reading. A pipe without a writer would block, and a device may act on being opened.
///
/// # Errors
/// It cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    regular(File::options().read(true).custom_flags(flags.bits()).open(path)?)
}

/// The file, if it is a regular one.
pub(crate) fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`]; it cannot be read, or is too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_all(&open(path)?)
}

pub(crate) fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Locks a file, and tries again for a limited time while another process holds a lock that excludes this one: every
/// user can lock a file that is readable for all, and must not be able to block us forever. `kind` is one of the
/// non-blocking kinds.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] when the time is up; otherwise the kernel's answer.
pub(crate) fn lock<T: Flockable>(mut file: T, kind: FlockArg, patience: Duration) -> io::Result<Flock<T>> {
    let deadline = Instant::now() + patience;
    loop {
        match Flock::lock(file, kind) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = unlocked,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(io::Error::new(
                    ErrorKind::WouldBlock,
                    "another program holds the lock and does not release it",
                ));
            }
            Err((_, errno)) => return Err(errno.into()),
        }
        sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_not_waited_for_forever() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = |kind| lock(File::open(file.path()).unwrap(), kind, Duration::from_millis(5));
        let shared =
            (lock(FlockArg::LockSharedNonblock).unwrap(), lock(FlockArg::LockSharedNonblock).unwrap());
        let refused = lock(FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        drop(shared);
        assert!(lock(FlockArg::LockExclusiveNonblock).is_ok());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&*pipe, Path::new("/dev/zero"), dir.path()] {
            assert_eq!(read(path).unwrap_err().to_string(), "not a regular file", "{}", path.display());
        }
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(LIMIT + 1).unwrap();
        assert_eq!(read(&large).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
