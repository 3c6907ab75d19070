//! A file that gets its name when it is complete, and nothing stays of it otherwise.

use std::fs::{File, Permissions};
use std::io::{self, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use qus_core::hint::hinted;
use qus_core::text::Show;

use crate::base::files;
use crate::base::progress::one_line;

/// Where a command writes.
pub(crate) struct NewFile {
    path: PathBuf,
    dir: PathBuf,
}

impl NewFile {
    /// # Errors
    /// The path exists, or its directory does not.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let exists = || {
            let hint = format!("remove it first: `rm -r {}`", path.quoted());
            hinted(format_args!("{} exists", one_line(path.display())), hint)
        };
        ensure!(path.symlink_metadata().is_err(), exists());
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let missing = || {
            let hint = format!("create it: `mkdir -p {}`", dir.quoted());
            hinted(format_args!("the directory {} does not exist", one_line(dir.display())), hint)
        };
        ensure!(dir.is_dir(), missing());
        Ok(Self { path: path.to_owned(), dir })
    }

    /// Only for files without a name, in the directory for temporary files.
    pub(crate) fn temporary() -> Self {
        Self { path: PathBuf::new(), dir: tempfile::env::temp_dir() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory in which it will be.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file without a name on the same file system.
    pub(crate) fn unnamed(&self) -> Result<File> {
        let file = tempfile::tempfile_in(&self.dir);
        file.with_context(|| format!("cannot write to {}", one_line(self.dir.display())))
    }

    /// Gives a file of [`Self::unnamed`] its name.
    pub(crate) fn publish(&self, file: File) -> Result<()> {
        link(file, &self.path, &self.dir)
            .with_context(|| format!("cannot create {}", one_line(self.path.display())))
    }
}

/// Gives a file without a name one in the same file system.
pub(crate) fn link(mut file: File, path: &Path, dir: &Path) -> Result<()> {
    file.set_permissions(Permissions::from_mode(0o644))?;
    match linkat(AT_FDCWD, &*files::path_of(&file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        // This file system has no files that never had a name.
        Err(Errno::ENOENT) => {
            let mut named =
                tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
            file.rewind()?;
            io::copy(&mut file, named.as_file_mut())?;
            named.persist_noclobber(path)?;
            Ok(())
        }
        linked => Ok(linked?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn files_appear_when_they_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let new = NewFile::new(&path).unwrap();
        let mut file = new.unnamed().unwrap();
        file.write_all(b"text").unwrap();
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        let second = new.unnamed().unwrap();
        new.publish(file).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"text");
        assert!(new.publish(second).unwrap_err().to_string().starts_with("cannot create"));
        assert!(NewFile::new(&path).err().unwrap().to_string().ends_with("file exists"));
        assert!(NewFile::new(&path.join("none")).err().unwrap().to_string().ends_with("does not exist"));
    }
}
