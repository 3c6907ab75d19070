//! Reproducible tarballs, compressed with zstd.
//!
//! Entries are sorted and have no owner, no timestamp or the one that is given, and the compressor is part of this program,
//! so that equal files produce equal tarballs on every machine. tar creates directories on extraction; only packages have
//! entries for them.

use std::fs::Permissions;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err::{self as fs, File};
use qus_core::digest::Sha256;
use serde::Serialize;
use zstd::{Decoder, Encoder};

use crate::base::files;

/// The highest compression level that zstd decompresses without an option.
const LEVEL: i32 = 19;

/// Log2 of the window size: 128 MiB is the largest window that zstd decompresses without an option.
const WINDOW: u32 = 27;

/// Compresses data of a known length in bytes.
///
/// # Errors
/// Reading or writing fails, or the length differs.
pub(crate) fn compress<W: Write>(mut from: impl Read, length: u64, to: W) -> io::Result<W> {
    let mut encoder = Encoder::new(to, LEVEL)?;
    // Limits the decoder's window to the size of the data.
    encoder.set_pledged_src_size(Some(length))?;
    encoder.long_distance_matching(true)?;
    encoder.window_log(WINDOW)?;
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()
}

/// The content of a compressed tarball; reading fails after `most` bytes.
///
/// # Errors
/// The data cannot be read.
pub(crate) fn decompress(from: impl Read, most: u64) -> io::Result<impl Read> {
    let mut decoder = Decoder::new(from)?;
    decoder.window_log_max(WINDOW)?;
    Ok(Limited::new(decoder, most))
}

/// A reader that fails when the data exceeds a limit.
pub(crate) struct Limited<R> {
    reader: R,
    left: u64,
}

impl<R> Limited<R> {
    /// Limits a reader to `most` bytes.
    pub(crate) fn new(reader: R, most: u64) -> Self {
        Self { reader, left: most }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "the unpacked content is too large")
        })?;
        Ok(read)
    }
}

/// The name and entries of a tarball.
#[derive(Serialize)]
pub(crate) struct Tarball {
    pub(crate) file: String,
    pub(crate) entries: Vec<TarballEntry>,
    /// The time of all entries, in seconds since 1970.
    epoch: u64,
}

/// A file, directory or symbolic link in a tarball.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TarballEntry {
    /// The path in the tarball.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) sha256: Sha256,
    #[serde(skip)]
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
    Directory,
    /// What it points to.
    Link(String),
}

impl TarballEntry {
    /// An entry for a file in a directory.
    pub(crate) fn new(dir: &Path, path: &str, mode: u32) -> Result<Self> {
        let from = dir.join(path);
        Ok(Self { path: path.to_owned(), mode, sha256: files::sha256(&from)?, content: Content::File(from) })
    }

    /// An entry for a file that is made for the tarball.
    pub(crate) fn made(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self {
            path: path.to_owned(),
            mode: 0o644,
            sha256: Sha256::of(&bytes),
            content: Content::Bytes(bytes),
        }
    }

    /// A directory.
    pub(crate) fn directory(path: &str) -> Self {
        Self { mode: 0o755, content: Content::Directory, ..Self::made(path, "") }
    }

    /// A symbolic link.
    pub(crate) fn link(path: &str, target: &str) -> Self {
        Self { mode: 0o777, content: Content::Link(target.to_owned()), ..Self::made(path, target) }
    }

    /// The same file under another path.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The same file with another mode.
    pub(crate) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// The content of a file, the target of a link, nothing of a directory.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        Ok(match &self.content {
            Content::File(from) => fs::read(from)?,
            Content::Bytes(bytes) => bytes.clone(),
            Content::Directory => Vec::new(),
            Content::Link(target) => target.clone().into_bytes(),
        })
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.content == Content::Directory
    }

    /// What a symbolic link points to; `None` for all else.
    pub(crate) fn target(&self) -> Option<&str> {
        match &self.content {
            Content::Link(target) => Some(target),
            _ => None,
        }
    }
}

impl Tarball {
    /// A tarball of files in a directory.
    pub(crate) fn from_files(file: &str, dir: &Path, names: &[String]) -> Result<Self> {
        let entries = names.iter().map(|name| TarballEntry::new(dir, name, 0o644)).collect::<Result<_>>()?;
        Ok(Self { file: file.to_owned(), entries, epoch: 0 })
    }

    /// A tarball of these entries, which are sorted by path.
    pub(crate) fn new(file: String, mut entries: Vec<TarballEntry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { file, entries, epoch: 0 }
    }

    /// The same with a time of all entries, in seconds since 1970.
    pub(crate) fn dated(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// Writes the tarball into a directory that is not yet published, and returns its path.
    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(&self.file);
        let mut tar = tempfile::tempfile_in(dir).context("cannot write the tarball")?;
        self.write_tar(io::BufWriter::new(&tar)).with_context(|| format!("cannot pack {}", self.file))?;
        let length = tar.stream_position()?;
        tar.rewind()?;
        let packed = compress(BufReader::new(tar), length, File::create(&path)?)
            .with_context(|| format!("cannot pack {}", self.file))?;
        packed.set_permissions(Permissions::from_mode(0o644))?;
        packed.sync_all()?;
        Ok(path)
    }

    /// Writes the uncompressed tarball.
    pub(crate) fn write_tar(&self, to: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(to);
        for entry in &self.entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(entry.mode);
            header.set_mtime(self.epoch);
            header.set_uid(0);
            header.set_gid(0);
            match &entry.content {
                Content::File(from) => {
                    let file = File::open(from)?;
                    header.set_size(file.metadata()?.len());
                    tar.append_data(&mut header, &entry.path, file)?;
                }
                Content::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, &entry.path, &**bytes)?;
                }
                Content::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{}/", entry.path), io::empty())?;
                }
                Content::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, &entry.path, target)?;
                }
            }
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_data_is_decompressed_up_to_its_limit() {
        let text = b"emulator ".repeat(10_000);
        let packed = compress(&*text, text.len() as u64, Vec::new()).unwrap();
        assert!(packed.len() < text.len() / 10, "{} bytes", packed.len());
        let unpacked = |most| {
            let mut bytes = Vec::new();
            decompress(&*packed, most).unwrap().read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(unpacked(text.len() as u64).unwrap(), text);
        assert_eq!(unpacked(text.len() as u64 - 1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(compress(&*text, 1, Vec::new()).is_err(), "the length is wrong");
    }
}
