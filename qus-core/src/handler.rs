//! Our handlers: their names and rules, registering them, and taking them away again.
//!
//! A handler of ours that is already there and differs is told field by field, and replaced only when
//! that is asked for. One of somebody else's under the same name is never touched: when asked to, ours is
//! registered in front of it under another name, and when ours goes, the other works as before.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use crate::arch::{ARCHES, Arch};
use crate::binfmt::magic::Build;
use crate::binfmt::{self, Binfmt, Difference, Entry, Files, Flags, Magic, Rule, refusal};
use crate::emulator::Emulator;

/// Follows the name of a handler that stands in front of somebody else's.
const IN_FRONT: &str = "-qus";

/// Follows the name of a handler that is about to replace another.
const NEW: &str = ".new";

/// The rules for an architecture: one for each machine number.
pub fn rules(arch: &Arch, interpreter: &Path, build: Build, flags: Flags) -> Vec<Rule> {
    let magics = Magic::of(arch, build);
    let rule = |(name, magic)| Rule {
        name,
        files: Files::Magic(0, magic),
        interpreter: interpreter.to_owned(),
        flags,
    };
    names(arch).zip(magics).map(rule).collect()
}

/// The rules for an emulator.
pub fn rules_of(emulator: &Emulator, flags: Flags) -> Vec<Rule> {
    rules(emulator.arch, &emulator.path, emulator.build, flags)
}

/// The names of an architecture's handlers: `qemu-ARCH`, and `qemu-ARCH-NUMBER` for further machine
/// numbers.
pub fn names(arch: &Arch) -> impl Iterator<Item = OsString> {
    let more = arch.machines.iter().skip(1).map(|machine| format!("{}-{machine}", arch.emulator()));
    std::iter::once(arch.emulator()).chain(more).map(OsString::from)
}

/// The architecture whose handler has this name, ours or in the usual form of others.
pub fn arch_of(name: &OsStr) -> Option<&'static Arch> {
    let name = name.to_str().filter(|name| name.starts_with("qemu-"))?;
    let base = name.strip_suffix(NEW).or_else(|| name.strip_suffix(IN_FRONT)).unwrap_or(name);
    ARCHES.iter().find(|arch| names(arch).any(|known| known == base))
}

/// What was done to register a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there already, the same.
    None,
    /// There was none.
    Registered,
    /// It has replaced one of ours.
    Replaced,
    /// It stands in front of somebody else's.
    InFront,
}

/// Why a rule was not registered.
#[derive(Debug)]
pub enum Error {
    /// There is one of the same name, not ours if `foreign`, which differs like this.
    Differs {
        /// Whether it is somebody else's.
        foreign: bool,
        /// How it differs.
        differences: Vec<Difference>,
    },
    /// The kernel or the rule.
    Binfmt(binfmt::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { foreign: false, .. } => {
                f.write_str("another handler of ours is registered (--force replaces it)")
            }
            Self::Differs { foreign: true, .. } => f.write_str(
                "a handler that is not ours has this name (--force puts ours in front of it and leaves it there)",
            ),
            Self::Binfmt(error @ binfmt::Error::Io(_, _, cause)) => {
                write!(f, "{error}: {} ({cause})", refusal(cause))
            }
            Self::Binfmt(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<binfmt::Error> for Error {
    fn from(error: binfmt::Error) -> Self {
        Self::Binfmt(error)
    }
}

/// What has to be done to have a rule registered, and the rule with the name that it gets: another if it
/// stands in front of somebody else's.
///
/// # Errors
/// Nothing can be done, see [`Error`].
pub fn plan(binfmt: &Binfmt, rule: &Rule, force: bool) -> Result<(Rule, Change), Error> {
    let Some(entry) = binfmt.entry(&rule.name)? else {
        return Ok((rule.clone(), Change::Registered));
    };
    if entry.is_ours() {
        return settle(rule.clone(), &entry, force);
    }
    let in_front = renamed(rule, IN_FRONT);
    match binfmt.entry(&in_front.name)? {
        Some(entry) => settle(in_front, &entry, force),
        None if force => Ok((in_front, Change::InFront)),
        None => Err(Error::Differs { foreign: true, differences: differences(rule, &entry) }),
    }
}

fn settle(rule: Rule, entry: &Entry, force: bool) -> Result<(Rule, Change), Error> {
    let differences = differences(&rule, entry);
    match (differences.is_empty(), force) {
        (true, _) => Ok((rule, Change::None)),
        (false, true) => Ok((rule, Change::Replaced)),
        (false, false) => Err(Error::Differs { foreign: false, differences }),
    }
}

/// Registers a rule.
///
/// # Errors
/// See [`Error`]. What was registered before still is.
pub fn put(binfmt: &Binfmt, rule: &Rule, force: bool) -> Result<(Rule, Change), Error> {
    let (rule, change) = plan(binfmt, rule, force)?;
    let new = renamed(&rule, NEW);
    match change {
        Change::None => {}
        Change::Registered => {
            binfmt.register(&rule)?;
            // Nothing is left for it to stand in front of.
            binfmt.remove(&renamed(&rule, IN_FRONT).name)?;
        }
        Change::InFront => binfmt.register(&rule)?,
        Change::Replaced => {
            // The kernel cannot replace a handler. Registered under a second name first, the new one is
            // asked before the old one from then on, so that there is no moment without a handler.
            binfmt.remove(&new.name)?;
            binfmt.register(&new)?;
            binfmt.remove(&rule.name)?;
            binfmt.register(&rule)?;
        }
    }
    // It has done its service, or an interrupted replacement has left it.
    binfmt.remove(&new.name)?;
    Ok((rule, change))
}

/// Whether the kernel has a rule as it was registered.
///
/// # Errors
/// The kernel's answer, or how it differs.
pub fn check(binfmt: &Binfmt, rule: &Rule) -> Result<(), Error> {
    let differences = match binfmt.entry(&rule.name)? {
        Some(entry) => differences(rule, &entry),
        None => vec![Difference { field: "enabled", registered: "nothing".into(), wanted: "true".into() }],
    };
    if differences.is_empty() { Ok(()) } else { Err(Error::Differs { foreign: false, differences }) }
}

fn differences(rule: &Rule, entry: &Entry) -> Vec<Difference> {
    let mut differences = rule.differences(&entry.rule);
    if !entry.enabled {
        differences.push(Difference { field: "enabled", registered: "false".into(), wanted: "true".into() });
    }
    differences
}

fn renamed(rule: &Rule, suffix: &str) -> Rule {
    let mut name = rule.name.clone();
    name.push(suffix);
    Rule { name, ..rule.clone() }
}

/// Removes our handlers of an architecture. Returns the names of those that were there, and of somebody
/// else's that have such a name and stay.
///
/// # Errors
/// The kernel's answer.
pub fn remove(binfmt: &Binfmt, arch: &Arch) -> Result<(Vec<OsString>, Vec<OsString>), binfmt::Error> {
    let (mut removed, mut foreign) = (Vec::new(), Vec::new());
    for base in names(arch) {
        for suffix in [NEW, IN_FRONT, ""] {
            let mut name = base.clone();
            name.push(suffix);
            match binfmt.remove(&name) {
                Ok(true) => removed.push(name),
                Ok(false) => {}
                Err(binfmt::Error::Foreign(name)) => foreign.push(name),
                Err(error) => return Err(error),
            }
        }
    }
    Ok((removed, foreign))
}

/// Removes all our handlers, also those that an interrupted run has left.
///
/// # Errors
/// The kernel's answer.
pub fn remove_all(binfmt: &Binfmt) -> Result<Vec<OsString>, binfmt::Error> {
    let mut removed = Vec::new();
    for (name, entry) in binfmt.entries()? {
        if entry.is_ok_and(|entry| entry.is_ours()) && binfmt.remove(&name)? {
            removed.push(name);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_machine_numbers() {
        let names = |arch: &str| -> Vec<_> { names(arch.parse().unwrap()).collect() };
        assert_eq!(names("aarch64"), ["qemu-aarch64"]);
        assert_eq!(names("i386"), ["qemu-i386", "qemu-i386-6"]);
        for arch in &ARCHES {
            assert_eq!(rules(arch, Path::new("/i"), [0; 4], Flags::DEFAULT).len(), arch.machines.len());
            for name in names(arch.name) {
                assert_eq!(arch_of(&name), Some(arch));
                assert_eq!(
                    arch_of(&renamed(&rules(arch, Path::new("/i"), [0; 4], Flags::DEFAULT)[0], NEW).name),
                    Some(arch)
                );
            }
        }
        assert_eq!(arch_of(OsStr::new("WSLInterop")), None);
    }
}
