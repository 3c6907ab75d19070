//! The commands that are disturbed, and how often.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use qus_core::arch::Host;
use qus_core::bundle::Bundle;
use qus_core::namespace::kernel;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::files;
use crate::base::lock::{self, Lock};
use crate::bundle::hosts;
use crate::check::chaos::builds::{self, Xtask};
use crate::check::chaos::handlers::Install;
use crate::check::chaos::images::Images;
use crate::check::chaos::subject::Subject;

/// A command that can be disturbed.
pub(super) struct Command {
    pub(super) name: &'static str,
    /// How many kills it gets in relation to others.
    weight: u32,
    setup: fn(&Work<'_>) -> Result<Box<dyn Subject>>,
}

/// With fewer kills, commands that take long are not disturbed.
const MANY: u32 = 100;

/// The weight of commands that take long.
const SLOW: u32 = 1;
const QUICK: u32 = 12;

pub(super) const COMMANDS: [Command; 9] = [
    quick("build-qemu, cached", |work| {
        Ok(Box::new(Xtask::build_qemu(work.cx, &work.some()?.0, work.path("build-qemu"))?))
    }),
    quick("build-qus, compiled", |work| {
        Ok(Box::new(Xtask::build_qus(work.cx, work.host, work.path("build-qus"))?))
    }),
    quick("tarballs", |work| Ok(Box::new(Xtask::tarballs(work.short()?)))),
    quick("release", |work| Ok(Box::new(Xtask::release(work.short()?, work.host)))),
    slow("images --push", |work| {
        Ok(Box::new(Images::new(work.cx, work.host, work.small()?, &work.path("engine"))?))
    }),
    quick("install", |work| Ok(Box::new(Install::new(work.bundle()?)))),
    quick("install --force", |work| Ok(Box::new(Install::replacing(work.bundle()?)))),
    quick("install --persist", |work| Ok(Box::new(Install::persistent(work.some()?.1)))),
    quick("install --watch", |work| Ok(Box::new(Install::watching(work.bundle()?)))),
];

const fn quick(name: &'static str, setup: fn(&Work<'_>) -> Result<Box<dyn Subject>>) -> Command {
    Command { name, weight: QUICK, setup }
}

const fn slow(name: &'static str, setup: fn(&Work<'_>) -> Result<Box<dyn Subject>>) -> Command {
    Command { name, weight: SLOW, setup }
}

impl Command {
    pub(super) fn setup(&self, work: &Work<'_>) -> Result<Box<dyn Subject>> {
        (self.setup)(work)
    }
}

/// Distributes kills among all commands.
pub(super) fn distribute(kills: u32) -> [u32; COMMANDS.len()] {
    let mut counts = [0; COMMANDS.len()];
    let suits = |index: &usize| kills >= MANY || COMMANDS[*index].weight == QUICK;
    for _ in 0..kills {
        // The one that has got the fewest for its weight.
        let next = (0..COMMANDS.len())
            .filter(suits)
            .min_by_key(|&index| counts[index] * QUICK / COMMANDS[index].weight);
        counts[next.unwrap_or_default()] += 1;
    }
    counts
}

/// The directory of a campaign, and what commands start from.
pub(super) struct Work<'a> {
    cx: &'a Context,
    host: &'static Host,
    dir: PathBuf,
    _lock: Lock,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let _ = files::remove_dir(&self.dir);
    }
}

impl<'a> Work<'a> {
    /// # Errors
    /// A [`Skip`] if this user or this machine cannot have sandboxes.
    pub(super) fn new(cx: &'a Context) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!(Skip("requires root".to_owned()));
        }
        if kernel().is_some_and(|version| version < (6, 7)) {
            bail!(Skip("binfmt_misc in user namespaces requires Linux 6.7".to_owned()));
        }
        // One name, so that a run that was killed leaves nothing to the next one.
        let dir = cx.paths.out().join("chaos");
        let lock = lock::lock_entry(&dir)?;
        files::recreate_dir(&dir)?;
        Ok(Self { cx, host: hosts::own()?, dir, _lock: lock })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The bundle of this workspace, with qus.
    fn bundle(&self) -> Result<PathBuf> {
        let bundle = self.cx.paths.bundle(self.host);
        builds::require_complete(&bundle).map(|_| bundle)
    }

    fn bundle_in(&self, name: &str) -> PathBuf {
        self.path(name).join("target/qus/bundle").join(self.host.name)
    }

    /// A target directory with a bundle of the smallest emulator.
    fn small(&self) -> Result<PathBuf> {
        builds::small_bundle(&self.bundle()?, &self.bundle_in("small"), 1)?;
        Ok(self.path("small"))
    }

    /// A target directory with a bundle of programs that are quickly packed.
    fn short(&self) -> Result<PathBuf> {
        let dir = self.bundle_in("short");
        builds::shorten(builds::small_bundle(&self.bundle()?, &dir, 1)?, &dir)?;
        Ok(self.path("short"))
    }

    /// A bundle with some emulators, for commands that do the same with each.
    fn some(&self) -> Result<(Bundle, PathBuf)> {
        let dir = self.bundle_in("some");
        Ok((builds::small_bundle(&self.bundle()?, &dir, 8)?, dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_distributed_by_weight() {
        let slow = COMMANDS.iter().position(|command| command.weight == SLOW).unwrap();
        for kills in [1, 20, 99, 100, 200, 1000] {
            let counts = distribute(kills);
            assert_eq!(counts.iter().sum::<u32>(), kills);
            assert_eq!(counts[slow] > 0, kills >= MANY, "{kills}: {counts:?}");
        }
        let counts = distribute(970);
        assert_eq!((counts[0], counts[slow]), (120, 10));
    }
}
