//! Our handlers: their names and rules, registering and removing them.
//!
//! If a handler of ours exists and differs, the differences are reported, and it is replaced only on request. If only the
//! path of its interpreter differs, the caller decides, who knows whether it is the same emulator. A handler of
//! another program with the same name is never changed. On request, ours is registered under another name and shadows it;
//! the other one works again when ours is removed.
//!
//! ```
//! use qus_core::binfmt::Flags;
//! use qus_core::handler;
//!
//! let arch = "arm64".parse().unwrap();
//! let rule = &handler::rules(arch, "/usr/bin/qemu-aarch64".as_ref(), [0; 4], Flags::DEFAULT)[0];
//! assert_eq!(rule.name, "qemu-aarch64");
//! assert!(rule.line().unwrap().starts_with(b":qemu-aarch64:M:0:"));
//! ```

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use crate::arch::{ARCHES, Arch};
use crate::binfmt::magic::Build;
use crate::binfmt::{Binfmt, BinfmtError, Difference, Entry, Files, Flags, Magic, Rule, refusal};
use crate::emulator::Emulator;

/// Suffix of the name of a handler that shadows another program's.
const SHADOWING: &str = "-qus";

/// Suffix of the name under which a handler is registered while it replaces another one.
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

/// The architecture whose handler has this name, ours or another program's in the usual form.
pub fn arch_of(name: &OsStr) -> Option<&'static Arch> {
    let name = name.to_str().filter(|name| name.starts_with("qemu-"))?;
    let name = name.strip_suffix(NEW).unwrap_or(name);
    let base = name.strip_suffix(SHADOWING).unwrap_or(name);
    ARCHES.iter().find(|arch| names(arch).any(|known| known == base))
}

/// What was done to register a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerChange {
    /// It was registered already.
    Unchanged,
    /// There was no handler with this name.
    Registered,
    /// It replaced one of ours.
    Replaced,
    /// It shadows another program's.
    Shadowing,
}

/// Why a rule was not registered.
#[derive(Debug)]
pub enum HandlerError {
    /// A handler of the same name exists and differs.
    Differs {
        /// Whether another program has registered it.
        foreign: bool,
        /// How it differs.
        differences: Vec<Difference>,
    },
    /// The kernel or the rule.
    Binfmt(BinfmtError),
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { foreign: false, .. } => {
                f.write_str("a handler of qus with other values is registered")
            }
            Self::Differs { foreign: true, .. } => {
                f.write_str("another program has registered a handler of this name")
            }
            Self::Binfmt(error @ BinfmtError::Io(_, _, cause)) => {
                write!(f, "{error}: {} ({cause})", refusal(cause))
            }
            Self::Binfmt(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandlerError {}

impl HandlerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Differs { foreign: false, .. } => Some("repeat with `--force` to replace it".to_owned()),
            Self::Differs { foreign: true, .. } => {
                Some("repeat with `--force` to shadow it; it is left unchanged".to_owned())
            }
            Self::Binfmt(_) => None,
        }
    }
}

impl From<BinfmtError> for HandlerError {
    fn from(error: BinfmtError) -> Self {
        Self::Binfmt(error)
    }
}

/// What to do about a handler of ours that has this interpreter and is otherwise as requested: leave it
/// ([`HandlerChange::Unchanged`]) or replace it; `None` if the difference is an error.
pub type Moved<'a> = &'a dyn Fn(&Path) -> Option<HandlerChange>;

/// What must be done to register a rule, and the rule with the name that it gets: another one if it shadows
/// another program's handler.
///
/// # Errors
/// Nothing can be done, see [`HandlerError`].
pub fn plan(
    binfmt: &Binfmt,
    rule: &Rule,
    force: bool,
    moved: Moved<'_>,
) -> Result<(Rule, HandlerChange), HandlerError> {
    let Some(entry) = binfmt.entry(&rule.name)? else {
        return Ok((rule.clone(), HandlerChange::Registered));
    };
    if entry.is_ours() {
        return compare(rule.clone(), &entry, force, moved);
    }
    let shadowing = renamed(rule, SHADOWING);
    match binfmt.entry(&shadowing.name)? {
        Some(entry) => compare(shadowing, &entry, force, moved),
        None if force => Ok((shadowing, HandlerChange::Shadowing)),
        None => Err(HandlerError::Differs { foreign: true, differences: differences(rule, &entry) }),
    }
}

/// What must be done about a handler of ours.
fn compare(
    rule: Rule,
    entry: &Entry,
    force: bool,
    moved: Moved<'_>,
) -> Result<(Rule, HandlerChange), HandlerError> {
    let registered = &entry.rule.interpreter;
    let differences = differences(&rule, entry);
    match &*differences {
        [] => return Ok((rule, HandlerChange::Unchanged)),
        _ if force => return Ok((rule, HandlerChange::Replaced)),
        [only] if only.field == "interpreter" => match moved(registered) {
            Some(HandlerChange::Unchanged) => {
                return Ok((Rule { interpreter: registered.clone(), ..rule }, HandlerChange::Unchanged));
            }
            Some(change) => return Ok((rule, change)),
            None => {}
        },
        _ => {}
    }
    Err(HandlerError::Differs { foreign: false, differences })
}

/// Registers a rule.
///
/// # Errors
/// See [`HandlerError`]. A handler that was registered before is still there, perhaps under its temporary name.
pub fn register(
    binfmt: &Binfmt,
    rule: &Rule,
    force: bool,
    moved: Moved<'_>,
) -> Result<(Rule, HandlerChange), HandlerError> {
    let (rule, change) = plan(binfmt, rule, force, moved)?;
    let new = renamed(&rule, NEW);
    match change {
        HandlerChange::Unchanged => {}
        HandlerChange::Registered => {
            binfmt.register(&rule)?;
            // The handler that it shadowed does not exist any more.
            remove_if_ours(binfmt, &renamed(&rule, SHADOWING).name)?;
        }
        HandlerChange::Shadowing => binfmt.register(&rule)?,
        HandlerChange::Replaced => {
            // The kernel cannot replace a handler. The new one is first registered under a second name, where it takes
            // precedence over the old one, so that there is always a handler.
            binfmt.remove(&new.name)?;
            binfmt.register(&new)?;
            binfmt.remove(&rule.name)?;
            binfmt.register(&rule)?;
        }
    }
    // It is no longer needed, or is left over from an interrupted replacement.
    remove_if_ours(binfmt, &new.name)?;
    Ok((rule, change))
}

/// Removes a handler unless another program has registered it, which does not matter to a handler of another name.
fn remove_if_ours(binfmt: &Binfmt, name: &OsStr) -> Result<(), BinfmtError> {
    match binfmt.remove(name) {
        Ok(_) | Err(BinfmtError::Foreign(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Verifies that the kernel shows a rule as it was registered.
///
/// # Errors
/// The kernel's answer, or how it differs.
pub fn verify(binfmt: &Binfmt, rule: &Rule) -> Result<(), HandlerError> {
    let differences = match binfmt.entry(&rule.name)? {
        Some(entry) => differences(rule, &entry),
        None => vec![Difference { field: "enabled", registered: "nothing".into(), wanted: "true".into() }],
    };
    if differences.is_empty() { Ok(()) } else { Err(HandlerError::Differs { foreign: false, differences }) }
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
                let rule = Rule { name, ..rules(arch, Path::new("/i"), [0; 4], Flags::DEFAULT).remove(0) };
                let shadowing = renamed(&rule, SHADOWING);
                for rule in [&rule, &shadowing, &renamed(&rule, NEW), &renamed(&shadowing, NEW)] {
                    assert_eq!(arch_of(&rule.name), Some(arch), "{:?}", rule.name);
                }
            }
        }
        assert_eq!(arch_of(OsStr::new("WSLInterop")), None);
    }

    #[test]
    fn a_foreign_handler_with_a_temporary_name_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("register"), "").unwrap();
        let foreign = "enabled\ninterpreter /i\nflags: \noffset 0\nmagic 00\n";
        for name in ["qemu-arm.new", "qemu-arm-qus"] {
            std::fs::write(dir.path().join(name), foreign).unwrap();
        }
        let binfmt = Binfmt::at(dir.path());
        let rule = &rules("arm".parse().unwrap(), Path::new("/i"), [0; 4], Flags::DEFAULT)[0];
        assert_eq!(register(&binfmt, rule, false, &|_| None).unwrap().1, HandlerChange::Registered);
        let written = std::fs::read(dir.path().join("register")).unwrap();
        assert_eq!(written, rule.line().unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("qemu-arm.new")).unwrap(), foreign);
    }
}
