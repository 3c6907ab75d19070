//! Walks through a directory tree.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};
use qus_core::text::Show;

use crate::attributes::{self, Attribute};

/// A file of any kind.
pub(crate) struct Node<'a> {
    /// Relative to the root; empty for the root itself.
    pub(crate) path: &'a Path,
    /// To read it.
    pub(crate) source: &'a Path,
    pub(crate) metadata: &'a Metadata,
    pub(crate) attributes: &'a [Attribute],
    /// An earlier path of the same file.
    pub(crate) same: Option<&'a Path>,
}

/// Where a tree is copied to.
pub(crate) trait Copier {
    /// Adds a file; its directory has been added before.
    fn add(&mut self, node: &Node<'_>) -> Result<()>;
}

/// The paths of files that have several, by their file system and number.
type Known = HashMap<(u64, u64), PathBuf>;

/// Copies a tree in the order of the names.
///
/// # Errors
/// It is empty, or a file cannot be read or added; the message names it.
pub(crate) fn copy(root: &Path, to: &mut impl Copier) -> Result<()> {
    let count = visit(root, Path::new(""), &mut Known::new(), to)?;
    ensure!(count > 1, "the root file system has no files");
    Ok(())
}

/// Returns the number of files.
fn visit(root: &Path, path: &Path, known: &mut Known, to: &mut impl Copier) -> Result<u64> {
    let source = root.join(path);
    let mut add = || -> Result<bool> {
        let metadata = fs::symlink_metadata(&source).map_err(|error| unpathed(&error))?;
        let attributes = attributes::read(&source)?;
        let id = (metadata.dev(), metadata.ino());
        let same = known.get(&id).map(PathBuf::as_path);
        to.add(&Node { path, source: &source, metadata: &metadata, attributes: &attributes, same })?;
        if !metadata.is_dir() && metadata.nlink() > 1 {
            known.entry(id).or_insert_with(|| path.to_owned());
        }
        Ok(metadata.is_dir())
    };
    let is_dir = add().with_context(|| format!("cannot copy /{}", path.to_string_lossy().shown()))?;
    if !is_dir {
        return Ok(1);
    }
    let list = || -> Result<Vec<_>> {
        let entries = fs::read_dir(&source).map_err(|error| unpathed(&error))?;
        entries.map(|entry| Ok(entry.map_err(|error| unpathed(&error))?.file_name())).collect()
    };
    let mut names = list().with_context(|| format!("cannot read /{}", path.to_string_lossy().shown()))?;
    names.sort();
    let mut count = 1;
    for name in names {
        let path = path.join(name);
        if !is_of_ext4(root, &path)? {
            count += visit(root, &path, known, to)?;
        }
    }
    Ok(count)
}

/// Whether it is the directory of ext4's own for recovered files, without any.
fn is_of_ext4(root: &Path, path: &Path) -> Result<bool> {
    Ok(path == Path::new("lost+found")
        && statfs(root)?.filesystem_type() == EXT4_SUPER_MAGIC
        && fs::read_dir(root.join(path))?.next().is_none())
}

/// The error without the path of the machine.
fn unpathed(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}
