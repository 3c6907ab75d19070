//! Checksums of a cached directory, in a file next to it. They cover every entry, so that changed, added and removed
//! files are found by content, independent of timestamps.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::base::files;

/// The result of comparing a directory with its checksums.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Intact,
    Absent,
    /// The directory exists without checksums.
    Unknown,
    /// The first file that differs.
    Changed(PathBuf),
}

/// The path of a directory's checksums.
pub(super) fn file(dir: &Path) -> PathBuf {
    files::with_suffix(dir, "sha256")
}

/// Compares a directory with its checksums.
pub(super) fn compare(dir: &Path) -> Result<Comparison> {
    if !dir.exists() {
        return Ok(Comparison::Absent);
    }
    let Ok(expected) = fs::read_to_string(file(dir)) else { return Ok(Comparison::Unknown) };
    let found = list(dir)?;
    if found == expected {
        return Ok(Comparison::Intact);
    }
    let entries = |text: &str| -> BTreeMap<String, String> {
        let entries = text.lines().filter_map(|line| line.split_once('\t'));
        entries.map(|(path, what)| (path.to_owned(), what.to_owned())).collect()
    };
    let (found, expected) = (entries(&found), entries(&expected));
    let differs = |path: &&String| found.get(*path) != expected.get(*path);
    let first = found.keys().chain(expected.keys()).find(differs);
    Ok(Comparison::Changed(first.map_or(dir.to_owned(), |path| dir.join(path))))
}

/// One line for each entry of a directory: path, kind, mode, and SHA-256 or link target.
pub(super) fn list(dir: &Path) -> Result<String> {
    let mut paths = Vec::new();
    walk(dir, Path::new(""), &mut paths)?;
    paths.sort();
    let workers = thread::available_parallelism().map_or(1, usize::from).min(8);
    let lines = |paths: &[PathBuf]| paths.iter().map(|path| line(dir, path)).collect::<Result<String>>();
    thread::scope(|scope| {
        let parts = paths.chunks(paths.len().div_ceil(workers).max(1));
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || lines(part))).collect();
        let join = |part: thread::ScopedJoinHandle<'_, Result<String>>| {
            part.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?
        };
        parts.into_iter().map(join).collect()
    })
}

fn walk(dir: &Path, below: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let at = dir.join(below);
    for entry in fs::read_dir(&at)? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(dir, &path, paths)?;
        }
        paths.push(path);
    }
    Ok(())
}

fn line(dir: &Path, path: &Path) -> Result<String> {
    let at = dir.join(path);
    let metadata = at.symlink_metadata().with_context(|| format!("cannot read {}", at.display()))?;
    let mode = metadata.permissions().mode() & 0o7777;
    let what = match metadata.file_type() {
        kind if kind.is_file() => format!("file\t{mode:o}\t{}", files::sha256(&at)?),
        kind if kind.is_dir() => format!("directory\t{mode:o}"),
        kind if kind.is_symlink() => {
            format!("link\t{}", fs::read_link(&at)?.as_os_str().as_bytes().escape_ascii())
        }
        _ => "other".to_owned(),
    };
    Ok(format!("{}\t{what}\n", path.as_os_str().as_bytes().escape_ascii()))
}
