//! Cached directories: created once, complete under their final name, and verified against checksums before each use.

mod checksums;

use std::path::Path;

use anyhow::{Context as _, Result};
use qus_core::digest::Sha256;

use crate::base::cache::checksums::Comparison;
use crate::base::progress::{Bar, one_line, say};
use crate::base::{files, lock};

/// Ensures that a directory is in the cache, complete and unchanged; `build` creates it otherwise. The checksums are
/// compared on each call. A directory without checksums is rebuilt.
pub(crate) fn ensure(dir: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let bar = Bar::short(format!("verifying {name} in the cache"));
    if checksums::compare(dir)? == Comparison::Intact {
        return Ok(());
    }
    drop(bar);
    let _lock = lock::lock_entry(dir)?;
    match checksums::compare(dir)? {
        // Another process has built it in the meantime.
        Comparison::Intact => return Ok(()),
        Comparison::Changed(file) => report_changed(&file),
        Comparison::Unknown => {
            say(format_args!("warning: {} has no checksums; rebuilding", one_line(dir.display())));
        }
        Comparison::Absent => {}
    }
    publish(dir, |partial| {
        build(partial)?;
        let _bar = Bar::short(format!("writing checksums of {name}"));
        files::write(&checksums::file(dir), checksums::list(partial)?.as_bytes())
    })
}

/// The hash of all that a directory of the cache contains, as [`ensure`] has verified it.
pub(crate) fn identity(dir: &Path) -> Result<Sha256> {
    files::sha256(&checksums::file(dir))
}

/// Warns that a cached file has changed and is not used.
pub(crate) fn report_changed(file: &Path) {
    say(format_args!(
        "warning: {}: cached file does not match its checksum; rebuilding",
        one_line(file.display())
    ));
}

/// Builds a directory under a temporary name in the same parent directory, then renames it; replaces an existing one.
pub(crate) fn publish(dir: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = files::partial(dir);
    files::recreate_dir(&partial)?;
    build(&partial)?;
    files::remove_dir(dir)?;
    files::rename(&partial, dir).with_context(|| format!("cannot create {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err::{self as fs, File};
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_failed_build_is_not_published() {
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
    fn a_changed_directory_is_rebuilt() {
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
            &|| fs::set_permissions(&file, Permissions::from_mode(0o777)).unwrap(),
            &|| {
                fs::remove_file(cached.join("d/link")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", cached.join("d/link")).unwrap();
            },
            &|| fs::write(files::with_suffix(&cached, "sha256"), "").unwrap(),
            &|| fs::remove_file(files::with_suffix(&cached, "sha256")).unwrap(),
        ];
        for (n, change) in (2..).zip(changes) {
            // A restored modification time must not hide the change.
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
    fn concurrent_calls_build_a_directory_once() {
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
}
