//! How files come into being: hashed, locked, and never half-done under their final name.
//!
//! Whatever is made is made beside its final place and renamed, so that a full disk or `kill -9` leaves only a
//! `.partial` that the next run throws away. Files are on the disk before they have their name, so that a power cut
//! does no worse; directories have checksums beside them, which are compared before they are used. Locks are the
//! kernel's and go with the process that holds them.

mod checksums;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use qus_core::file;
use sha2::{Digest, Sha256};

use crate::base::exec::keeper::Held;
use crate::base::progress::{one_line, say};

/// The sha256 of bytes, in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// The sha256 of a file, in lower-case hexadecimal.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    let mut file = open(path)?;
    copy_hashed(&mut file, &mut io::sink()).with_context(|| format!("cannot read {}", path.display()))
}

/// Opens a file for reading. A pipe or a device is refused: it may block, or never end.
pub(crate) fn open(path: &Path) -> Result<File> {
    file::open(path).with_context(|| format!("cannot read {}", one_line(path.display())))
}

/// Copies all that can be read, and returns the sha256 of what was copied.
fn copy_hashed(from: &mut impl Read, to: &mut impl Write) -> io::Result<String> {
    let mut from = Hashed::new(from);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(from.sha256()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// A reader that knows the sha256 of all that was read.
pub(crate) struct Hashed<R> {
    reader: R,
    hasher: Sha256,
}

impl<R> Hashed<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, hasher: Sha256::new() }
    }

    pub(crate) fn sha256(self) -> String {
        hex(self.hasher.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

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
fn lock_by(path: &Path, what: &Path) -> Result<Lock> {
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

/// Has a directory of the cache be there, complete and unchanged since it was made: `fill` makes it if it is not. Its
/// checksums are compared each time; one without them counts as changed.
pub(crate) fn ensure(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if checksums::compare(dir)? == checksums::State::Intact {
        return Ok(());
    }
    let _making = lock_by(&beside(dir, "lock"), dir)?;
    match checksums::compare(dir)? {
        // Another process has made it in the meantime.
        checksums::State::Intact => return Ok(()),
        checksums::State::Changed(file) => report_changed(&file),
        checksums::State::Unknown => {
            say(format_args!("warning: {} has no checksums; making it again", one_line(dir.display())));
        }
        checksums::State::Absent => {}
    }
    publish(dir, |partial| {
        fill(partial)?;
        write(&checksums::file(dir), checksums::list(partial)?.as_bytes())
    })
}

/// Reports that something of the cache is not as it was, and so is not used.
pub(crate) fn report_changed(file: &Path) {
    say(format_args!(
        "warning: {}: cached file does not match its checksum; making it again",
        one_line(file.display())
    ));
}

/// Makes a folder by filling a partial one beside it and renaming that; replaces what was there.
pub(crate) fn publish(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial(dir);
    clear(&partial)?;
    fill(&partial)?;
    remove(dir)?;
    rename(&partial, dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Writes a file by way of a partial one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path);
    let write = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file, mode included, by way of a partial one.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    copy_if(from, to, |_| true)
}

/// The same for a file with a checksum, which the copy has to have.
///
/// # Errors
/// Also if it does not have it; nothing has the final name then.
pub(crate) fn copy_verified(from: &Path, to: &Path, sha256: &str) -> Result<()> {
    copy_if(from, to, |copied| copied == sha256)
}

fn copy_if(from: &Path, to: &Path, right: impl Fn(&str) -> bool) -> Result<()> {
    let partial = partial(to);
    let mut source = open(from)?;
    let mut copy = || -> Result<String> {
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::create(&partial)?;
        let copied = copy_hashed(&mut source, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(source.metadata()?.permissions().mode() & 0o777))?;
        file.sync_all()?;
        Ok(copied)
    };
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied = copy().with_context(what)?;
    if !right(&copied) {
        let _ = fs::remove_file(&partial);
    }
    ensure!(right(&copied), "{} does not match its checksum", from.display());
    rename(&partial, to).with_context(what)
}

/// Gives something its final name, which is on the disk afterwards.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Where something is made before it has its final name.
pub(crate) fn partial(path: &Path) -> PathBuf {
    beside(path, "partial")
}

/// A file that belongs to another one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Makes a directory anew, with nothing in it.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    remove(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Removes a file or folder, whichever it is, if it is there.
pub(crate) fn discard(path: &Path) -> Result<()> {
    if path.is_dir() && !path.is_symlink() {
        return remove(path);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
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
    fn what_is_not_a_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&*fifo, Path::new("/dev/zero"), dir.path()] {
            let errors = [sha256_file(path).unwrap_err(), copy(path, &dir.path().join("copy")).unwrap_err()];
            for error in errors {
                assert!(format!("{error:#}").contains("not a regular file"), "{error:#}");
            }
        }
        assert!(!dir.path().join("copy").exists());
    }

    #[test]
    fn a_copy_has_the_checksum_or_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::write(&from, "abc").unwrap();
        copy_verified(&from, &to, &sha256(b"abc")).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        fs::remove_file(&to).unwrap();
        let error = copy_verified(&from, &to, &sha256(b"abd")).unwrap_err().to_string();
        assert!(error.ends_with("from does not match its checksum"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something is left");
    }

    #[test]
    fn a_changed_directory_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cached = dir.path().join("cached");
        let made = std::cell::Cell::new(0);
        let make = || {
            ensure(&cached, |partial| {
                made.set(made.get() + 1);
                fs::create_dir(partial.join("d"))?;
                fs::write(partial.join("d/file"), "content")?;
                Ok(std::os::unix::fs::symlink("file", partial.join("d/link"))?)
            })
            .unwrap();
            made.get()
        };
        assert_eq!((make(), make()), (1, 1));
        let file = cached.join("d/file");
        let changes: [&dyn Fn(); 7] = [
            &|| fs::write(&file, "c0ntent").unwrap(),
            &|| fs::remove_file(&file).unwrap(),
            &|| fs::write(cached.join("d/more"), "").unwrap(),
            &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap(),
            &|| {
                fs::remove_file(cached.join("d/link")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", cached.join("d/link")).unwrap();
            },
            &|| fs::write(beside(&cached, "sha256"), "").unwrap(),
            &|| fs::remove_file(beside(&cached, "sha256")).unwrap(),
        ];
        for (n, change) in (2..).zip(changes) {
            // A time that is as it was hides nothing.
            let time = file.metadata().unwrap().modified().unwrap();
            change();
            if let Ok(file) = File::options().write(true).open(&file) {
                file.set_modified(time).unwrap();
            }
            assert_eq!((make(), make()), (n, n), "change {n}");
            assert_eq!(fs::read(&file).unwrap(), b"content");
        }
    }

    #[test]
    fn two_at_once_make_a_directory_once() {
        let dir = tempfile::tempdir().unwrap();
        let cached = dir.path().join("cached");
        let made = std::sync::atomic::AtomicU32::new(0);
        let make = || {
            ensure(&cached, |partial| {
                made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(50));
                Ok(fs::write(partial.join("file"), "content")?)
            })
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            all.into_iter().for_each(|one| one.join().unwrap().unwrap());
        });
        assert_eq!(made.into_inner(), 1);
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
