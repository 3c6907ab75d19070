//! Directories that are made once: complete under their final name, with checksums beside them that are compared before
//! they are used.

mod checksums;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::base::progress::{one_line, say};
use crate::base::{files, lock};

/// Has a directory of the cache be there, complete and unchanged since it was made: `fill` makes it if it is not. Its
/// checksums are compared each time; one without them counts as changed.
pub(crate) fn ensure(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if checksums::compare(dir)? == checksums::State::Intact {
        return Ok(());
    }
    let _making = lock::lock_by(&files::beside(dir, "lock"), dir)?;
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
        files::write(&checksums::file(dir), checksums::list(partial)?.as_bytes())
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
    let partial = files::partial(dir);
    files::clear(&partial)?;
    fill(&partial)?;
    files::remove(dir)?;
    files::rename(&partial, dir).with_context(|| format!("cannot make {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err::{self as fs, File};
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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
            &|| fs::set_permissions(&file, Permissions::from_mode(0o777)).unwrap(),
            &|| {
                fs::remove_file(cached.join("d/link")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", cached.join("d/link")).unwrap();
            },
            &|| fs::write(files::beside(&cached, "sha256"), "").unwrap(),
            &|| fs::remove_file(files::beside(&cached, "sha256")).unwrap(),
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
}
