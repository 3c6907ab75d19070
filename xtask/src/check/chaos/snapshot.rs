//! What a command leaves behind: files, handlers, mounts and processes, for a comparison with an undisturbed run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail};
use fs_err as fs;
use qus_core::binfmt::{Binfmt, MOUNT_POINT};

use crate::base::files;
use crate::check::chaos::sandbox::Sandbox;

/// What is left, by kind and name.
pub(super) type Snapshot = BTreeMap<String, String>;

/// The number of differences that an error lists.
const SHOWN: usize = 5;

/// Everything that a sandbox has, except files below these paths.
pub(super) fn take(sandbox: &Sandbox, ignored: &[String]) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    for process in sandbox.left_processes()? {
        snapshot.insert(format!("process {process}"), "runs".to_owned());
    }
    for mount in sandbox.added_mounts()? {
        snapshot.insert(format!("mount {mount}"), "exists".to_owned());
    }
    snapshot.extend(handlers(sandbox)?);
    add_files(&sandbox.files(), Path::new(""), ignored, &mut snapshot)?;
    Ok(snapshot)
}

/// The registered handlers, as the kernel shows them.
pub(super) fn handlers(sandbox: &Sandbox) -> Result<Snapshot> {
    let binfmt = Binfmt::at(sandbox.path(MOUNT_POINT));
    let text = |name: OsString| {
        let text = fs::read(binfmt.root().join(&name))?;
        Ok((format!("handler {}", name.to_string_lossy()), String::from_utf8_lossy(&text).into_owned()))
    };
    binfmt.entries()?.into_iter().map(|(name, _)| text(name)).collect()
}

fn add_files(root: &Path, below: &Path, ignored: &[String], snapshot: &mut Snapshot) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let path = below.join(entry?.file_name());
        if ignored.iter().any(|ignored| path == Path::new(ignored)) {
            continue;
        }
        let metadata = fs::symlink_metadata(root.join(&path))?;
        let content = if metadata.is_dir() {
            add_files(root, &path, ignored, snapshot)?;
            String::new()
        } else if metadata.is_symlink() {
            fs::read_link(root.join(&path))?.to_string_lossy().into_owned()
        } else if is_lock(&path) {
            // It contains the number of the process that was the last to hold it.
            String::new()
        } else {
            files::sha256(&root.join(&path))?.to_string()
        };
        snapshot.insert(format!("file {}", path.display()), format!("{:o} {content}", metadata.mode()));
    }
    Ok(())
}

fn is_lock(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "lock" || name.ends_with(".lock")
}

/// Compares with the snapshot of an undisturbed run.
///
/// # Errors
/// They differ.
pub(super) fn compare(undisturbed: &Snapshot, found: &Snapshot) -> Result<()> {
    let missing = undisturbed.keys().filter(|name| !found.contains_key(*name));
    let missing = missing.map(|name| format!("{name} is missing"));
    let others = found.iter().filter_map(|(name, content)| match undisturbed.get(name) {
        None => Some(format!("{name} is left")),
        Some(other) if other != content => Some(format!("{name} differs")),
        Some(_) => None,
    });
    let differences: Vec<_> = missing.chain(others).collect();
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    bail!("{}{more}", differences[..differences.len().min(SHOWN)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(entries: &[(&str, &str)]) -> Snapshot {
        entries.iter().map(|&(name, content)| (name.to_owned(), content.to_owned())).collect()
    }

    #[test]
    fn every_difference_is_found() {
        let undisturbed = snapshot(&[("file a", "1"), ("handler b", "2")]);
        compare(&undisturbed, &undisturbed).unwrap();
        let found = snapshot(&[("file a", "3"), ("file a.partial", "1")]);
        let error = compare(&undisturbed, &found).unwrap_err().to_string();
        assert_eq!(error, "handler b is missing, file a differs, file a.partial is left");
        let many: Snapshot = (0..7).map(|n| (format!("mount {n}"), String::new())).collect();
        let error = compare(&undisturbed, &many).unwrap_err().to_string();
        assert!(error.ends_with(", mount 2 is left, and 4 more"), "{error}");
    }

    #[test]
    fn files_are_compared_with_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for (name, text) in [("d/file", "a"), ("d/lock", "1"), ("ignored", "b")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("file", dir.path().join("d/link")).unwrap();
        let list = || {
            let mut snapshot = Snapshot::new();
            add_files(dir.path(), Path::new(""), &["ignored".to_owned()], &mut snapshot).unwrap();
            snapshot
        };
        let before = list();
        assert_eq!(
            before.keys().collect::<Vec<_>>(),
            ["file d", "file d/file", "file d/link", "file d/lock"]
        );
        fs::write(dir.path().join("d/lock"), "2").unwrap();
        fs::write(dir.path().join("ignored"), "c").unwrap();
        compare(&before, &list()).unwrap();
        fs::write(dir.path().join("d/file"), "c").unwrap();
        assert_eq!(compare(&before, &list()).unwrap_err().to_string(), "file d/file differs");
    }
}
