//! How files come into being: hashed, and never half-done under their final name.
//!
//! Whatever is made is made beside its final place and renamed, so that a full disk or `kill -9` leaves only a
//! `.partial` that the next run throws away. Files are on the disk before they have their name, so that a power cut
//! does no worse.

use fs_err::{self as fs, File};
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qus_core::file;
use sha2::{Digest, Sha256};

use crate::base::progress::one_line;

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
pub(crate) fn open(path: &Path) -> Result<std::fs::File> {
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
        file.set_permissions(Permissions::from_mode(source.metadata()?.permissions().mode() & 0o777))?;
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
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Makes a directory anew, with nothing in it.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    remove(dir)?;
    Ok(fs::create_dir_all(dir)?)
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
}
