//! Creates, copies and hashes files; incomplete files never have their final name.
//!
//! Files are written under a `.partial` name in the same directory and then renamed, so that a full disk or `kill -9`
//! leaves only a `.partial` file, which the next run removes. Files are synced before they are renamed, so that the
//! same holds for a power failure.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err::{self as fs, File};
use qus_core::digest::{self, Sha256};
use qus_core::file;

use crate::base::progress::one_line;

/// The SHA-256 of a file.
pub(crate) fn sha256(path: &Path) -> Result<Sha256> {
    Sha256::of_file(path).with_context(|| format!("cannot read {}", one_line(path.display())))
}

/// A short identifier of inputs for names: the first digits of their SHA-256.
pub(crate) fn short_id(inputs: impl AsRef<[u8]>) -> String {
    Sha256::of(inputs).to_string()[..12].to_owned()
}

/// Opens a regular file for reading. Pipes and devices are refused, because reading them may block or never end.
pub(crate) fn open(path: &Path) -> Result<std::fs::File> {
    file::open(path).with_context(|| format!("cannot read {}", one_line(path.display())))
}

/// Writes a file atomically.
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

/// Copies a file and its mode atomically.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    copy_if(from, to, |_| true)
}

/// Like [`copy`], and verifies the checksum of the copy.
///
/// # Errors
/// The checksum does not match; the destination is then not created.
pub(crate) fn copy_verified(from: &Path, to: &Path, sha256: Sha256) -> Result<()> {
    copy_if(from, to, |copied| copied == sha256)
}

fn copy_if(from: &Path, to: &Path, matches: impl Fn(Sha256) -> bool) -> Result<()> {
    let partial = partial(to);
    let mut source = open(from)?;
    let mut copy = || -> Result<Sha256> {
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::create(&partial)?;
        let copied = digest::copy(&mut source, &mut file)?;
        file.set_permissions(Permissions::from_mode(source.metadata()?.permissions().mode() & 0o777))?;
        file.sync_all()?;
        Ok(copied)
    };
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied = copy().with_context(what)?;
    if !matches(copied) {
        let _ = fs::remove_file(&partial);
    }
    ensure!(matches(copied), "{} does not match its checksum", from.display());
    rename(&partial, to).with_context(what)
}

/// Renames a file or directory, and syncs the parent directory.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// The temporary name of an incomplete file or directory.
pub(crate) fn partial(path: &Path) -> PathBuf {
    with_suffix(path, "partial")
}

/// A path in the same directory with a suffix appended to the name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Creates an empty directory; removes an existing one first.
pub(crate) fn recreate_dir(dir: &Path) -> Result<()> {
    remove_dir(dir)?;
    Ok(fs::create_dir_all(dir)?)
}

/// A temporary directory. Its name is fixed, so that the next run removes what a killed one has left; the caller holds a
/// lock, or knows that nobody else uses this name.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Creates it empty.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        recreate_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next run removes it, or says why it cannot.
        let _ = remove_dir(&self.0);
    }
}

/// Removes a file or directory if it exists.
pub(crate) fn remove_any(path: &Path) -> Result<()> {
    if path.is_dir() && !path.is_symlink() {
        return remove_dir(path);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory if it exists.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The paths of everything in a directory, in the order of their names.
pub(crate) fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// A path by which programs that this process starts can open a file without a name.
pub(crate) fn path_of(file: &impl AsRawFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&*fifo, Path::new("/dev/zero"), dir.path()] {
            let errors = [sha256(path).unwrap_err(), copy(path, &dir.path().join("copy")).unwrap_err()];
            for error in errors {
                assert!(format!("{error:#}").contains("not a regular file"), "{error:#}");
            }
        }
        assert!(!dir.path().join("copy").exists());
    }

    #[test]
    fn a_copy_with_a_wrong_checksum_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::write(&from, "abc").unwrap();
        copy_verified(&from, &to, Sha256::of(b"abc")).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        fs::remove_file(&to).unwrap();
        let error = copy_verified(&from, &to, Sha256::of(b"abd")).unwrap_err().to_string();
        assert!(error.ends_with("from does not match its checksum"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a file is left behind");
    }
}
