//! Unpacks tarballs of plain files into the cache.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use qus_core::digest::{HashingReader, Sha256};

use crate::base::progress::one_line;
use crate::base::{cache, files, tarball};

/// The maximum number of files.
const MAX_FILES: usize = 100_000;

/// Unpacks a compressed tarball of files without directories, `most` bytes in all, into a directory of the cache, unless
/// it is there. The hash of the tarball determines the directory.
///
/// # Errors
/// The file is no such tarball, or changes while it is unpacked.
pub(crate) fn ensure(file: &Path, most: u64, dir: impl FnOnce(&Sha256) -> PathBuf) -> Result<PathBuf> {
    let sha256 = files::sha256(file)?;
    let dir = dir(&sha256);
    cache::ensure(&dir, |partial| {
        let mut packed = HashingReader::new(files::open(file)?);
        unpack(tarball::decompress(&mut packed, most)?, partial)?;
        io::copy(&mut packed, &mut io::sink())?;
        ensure!(packed.finish() == sha256, "the file changed while it was unpacked");
        Ok(())
    })?;
    Ok(dir)
}

/// Unpacks an archive of files without directories.
pub(crate) fn unpack(tar: impl Read, into: &Path) -> Result<()> {
    for (count, entry) in tar::Archive::new(BufReader::new(tar)).entries()?.enumerate() {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let plain = entry.header().entry_type().is_file() && path.file_name() == Some(path.as_os_str());
        ensure!(plain, "it contains {}, which is not a plain file", one_line(path.display()));
        ensure!(count < MAX_FILES, "it contains more than {MAX_FILES} files");
        entry.unpack_in(into)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_unpacked() {
        let unpacked = |path: &str, kind| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            unpack(&*builder.into_inner().unwrap(), dir.path()).map(|()| dir.path().join("a#b.gcda").exists())
        };
        assert!(unpacked("a#b.gcda", tar::EntryType::Regular).unwrap());
        for path in ["../a", "/a", "a/b", "a/../b", ".."] {
            let error = unpacked(path, tar::EntryType::Regular).unwrap_err().to_string();
            assert!(error.contains("not a plain file"), "{path}: {error}");
        }
        for kind in [tar::EntryType::Directory, tar::EntryType::Symlink, tar::EntryType::Fifo] {
            assert!(unpacked("a", kind).is_err());
        }
    }
}
