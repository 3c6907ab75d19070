//! Disturbs a command, runs it again, and compares what it leaves with an undisturbed run.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use fs_err::{self as fs, File};
use qus_core::digest::Sha256;

use crate::check::chaos::sandbox::Sandbox;
use crate::check::chaos::snapshot::{self, Snapshot};
use crate::check::chaos::subject::{Fault, Subject};

/// How often a command is started again if it ended before it was killed, and how much earlier it is killed then.
const ATTEMPTS: u32 = 8;
const EARLIER: f64 = 0.7;

/// An undisturbed run.
struct Undisturbed {
    snapshot: Snapshot,
    duration: Duration,
    /// The size of all files in bytes, before and after.
    size: [u64; 2],
}

/// A command, and how it ends undisturbed.
pub(super) struct Campaign<'a> {
    name: &'static str,
    subject: &'a dyn Subject,
    seed: u64,
    dir: &'a Path,
    undisturbed: Undisturbed,
}

impl<'a> Campaign<'a> {
    /// Runs the command undisturbed.
    ///
    /// # Errors
    /// It fails, or the machine does not allow the namespaces.
    pub(super) fn new(
        name: &'static str,
        subject: &'a dyn Subject,
        seed: u64,
        dir: &'a Path,
    ) -> Result<Self> {
        let sandbox = prepared(subject, dir)?;
        let (before, start) = (sandbox.used()?, Instant::now());
        let snapshot = subject.finish(&sandbox).context("undisturbed")?;
        let undisturbed =
            Undisturbed { snapshot, duration: start.elapsed(), size: [before, sandbox.used()?] };
        Ok(Self { name, subject, seed, dir, undisturbed })
    }

    /// Disturbs the command for the nth time of `count`. Their moments are random, one in each part of its duration.
    ///
    /// # Errors
    /// It does not recover.
    pub(super) fn disturb(&self, fault: Fault, index: u32, count: u32) -> Result<()> {
        let mut random = random(self.seed, self.name, fault, index);
        let moment = (f64::from(index) + random.f64()) / f64::from(count);
        let sandbox = match fault {
            Fault::Kill | Fault::FileTimes => self.killed(moment, fault, &mut random)?,
            Fault::FullDisk => self.full(moment)?,
            Fault::ReadOnly => {
                let sandbox = prepared(self.subject, self.dir)?;
                sandbox.remount("ro")?;
                self.fails(&sandbox, "Read-only file system")?;
                sandbox.remount("rw")?;
                sandbox
            }
            Fault::Twice => self.twice(moment)?,
        };
        let found = self.subject.finish(&sandbox).context("run again")?;
        snapshot::compare(&self.undisturbed.snapshot, &found)
    }

    fn killed(&self, moment: f64, fault: Fault, random: &mut Rng) -> Result<Sandbox> {
        let mut wait = self.undisturbed.duration.mul_f64(moment);
        for _ in 0..ATTEMPTS {
            let sandbox = prepared(self.subject, self.dir)?;
            let mut run = sandbox.start("killed", &self.subject.words(&sandbox)?)?;
            thread::sleep(wait);
            if run.kill(random.bool())? {
                if fault == Fault::FileTimes {
                    change_times(&sandbox.files(), random)?;
                }
                return Ok(sandbox);
            }
            wait = wait.mul_f64(EARLIER);
        }
        bail!("it ended each time before it was killed")
    }

    fn full(&self, moment: f64) -> Result<Sandbox> {
        let [before, after] = self.undisturbed.size;
        let sandbox = prepared(self.subject, self.dir)?;
        let room = Duration::from_secs(after.saturating_sub(before)).mul_f64(moment).as_secs();
        sandbox.remount(&format!("size={}", before + room))?;
        self.fails(&sandbox, "No space left on device")?;
        sandbox.remount("size=50%")?;
        Ok(sandbox)
    }

    /// Runs the command, which must report why it fails.
    fn fails(&self, sandbox: &Sandbox, why: &str) -> Result<()> {
        let output = sandbox.run(&self.subject.words(sandbox)?)?;
        output.exits(1, &[why])
    }

    /// Starts the command twice, the second one after a part of the first one's time.
    fn twice(&self, moment: f64) -> Result<Sandbox> {
        let sandbox = prepared(self.subject, self.dir)?;
        let mut first = sandbox.start("first", &self.subject.words(&sandbox)?)?;
        thread::sleep(self.undisturbed.duration.mul_f64(moment));
        let mut second = sandbox.start("second", &self.subject.words(&sandbox)?)?;
        for (name, run) in [("first", &mut first), ("second", &mut second)] {
            let (status, messages) = run.wait()?;
            ensure!(status.success(), "the {name} of two ended with {status}: {}", messages.trim());
        }
        Ok(sandbox)
    }
}

/// A sandbox with the state from which a command starts.
fn prepared(subject: &dyn Subject, dir: &Path) -> Result<Sandbox> {
    // The same path for all, because handlers have paths.
    let files = dir.join("files");
    fs::create_dir_all(&files)?;
    let sandbox = Sandbox::new(&files, dir)?;
    subject.prepare(&sandbox).context("cannot prepare it")?;
    Ok(sandbox)
}

/// The random numbers of a fault, whatever else is run.
fn random(seed: u64, name: &str, fault: Fault, index: u32) -> Rng {
    let digest = Sha256::of(format!("{seed} {name} {} {index}", fault.name())).to_string();
    Rng::with_seed(digest.bytes().fold(0, |seed: u64, byte| seed.rotate_left(7) ^ u64::from(byte)))
}

/// Sets the times of all files to any between 1970 and 2106. Links are not followed.
fn change_times(dir: &Path, random: &mut Rng) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            change_times(&entry.path(), random)?;
        } else if kind.is_file() {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(random.u32(..).into());
            File::open(entry.path())?.into_file().set_modified(time)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_moments() {
        let first = |seed, name, index| random(seed, name, Fault::Kill, index).u64(..);
        assert_eq!(first(1, "a", 0), first(1, "a", 0));
        let others = [first(1, "a", 0), first(2, "a", 0), first(1, "b", 0), first(1, "a", 1)];
        assert!((1..4).all(|n| !others[..n].contains(&others[n])), "{others:?}");
    }

    #[test]
    fn times_of_links_are_not_changed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let (file, before) = (dir.path().join("file"), modified(outside.path()));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let written = modified(&file);
        change_times(dir.path(), &mut Rng::with_seed(1)).unwrap();
        assert_ne!(modified(&file), written);
        assert_eq!(modified(outside.path()), before);
    }
}
