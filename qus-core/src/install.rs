//! Installing handlers: they are registered, verified, and removed again if they do not work.
//!
//! An emulator is inspected and run before it is registered. Then the handler is read back from the kernel, and the
//! architecture's probe is started through it. If one architecture fails, the others are installed nevertheless. Nothing
//! is printed here; what happens is reported as [`InstallEvent`]s.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::emulator::EmulatorDir;
//! use qus_core::install::{InstallOptions, InstallState, install};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let binfmt = Binfmt::at(MOUNT_POINT);
//! let dir = EmulatorDir::find()?;
//! let installation = install(&binfmt, &dir, &["riscv64".parse()?], &InstallOptions::default(), &mut |_| {})?;
//! assert_ne!(installation.outcomes[0].state, InstallState::Failed);
//! # Ok(())
//! # }
//! ```

mod error;
mod outcome;

use std::path::{Path, PathBuf, absolute};

use crate::arch::Arch;
use crate::binfmt::magic::Build;
use crate::binfmt::{Binfmt, Flags, Rule};
use crate::bundle::Bundle;
use crate::digest::Sha256;
use crate::emulator::{self, Emulator, EmulatorDir, FileIdentity, PERSISTENT};
use crate::handler::{self, HandlerChange};
use crate::mount::detached::DetachedMount;
use crate::mount::{self, Mounted};
use crate::persist::HostSystem;
use crate::{probe, trust};

pub use error::{ArchFailure, InstallError};
pub use outcome::{InstallOutcome, InstallState};

/// How handlers are installed.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// How the kernel calls the emulators.
    pub flags: Flags,
    /// Replace our handlers that differ, and shadow those of other programs.
    pub force: bool,
    /// Also install architectures that this machine runs natively, except its own.
    pub native: bool,
    /// Accept emulators that users other than root can change.
    pub any_owner: bool,
    /// Run emulators before registration, and probes after it.
    pub probe: bool,
    /// Make these handlers, and no others, persistent in the host with this root directory.
    pub persist: Option<PathBuf>,
    /// Change nothing.
    pub dry_run: bool,
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            flags: Flags::DEFAULT,
            force: false,
            native: false,
            any_owner: false,
            probe: true,
            persist: None,
            dry_run: false,
        }
    }
}

/// What happens while handlers are installed.
#[derive(Debug)]
pub enum InstallEvent<'a> {
    /// A user other than root can change the emulators in a directory.
    Changeable(u32, &'a Path),
    /// binfmt_misc is mounted.
    Mounted(&'a Mounted),
    /// The emulators were copied to a directory of the host, whose service registers them at every boot.
    Persistent(&'a Path),
}

/// An emulator that was inspected and can be registered.
#[derive(Debug, Clone)]
pub struct VerifiedEmulator {
    /// The emulator.
    pub emulator: Emulator,
    /// The file that was inspected; `emulator` is its copy if it is persistent.
    source: PathBuf,
    identity: FileIdentity,
    /// The user besides root who can change it.
    owner: Option<u32>,
}

impl VerifiedEmulator {
    /// What to do about a handler of ours with this interpreter, which is otherwise as requested; `None` if it is another
    /// emulator, or in a place that must not change without `--force`.
    fn moved(&self, registered: &Path, options: &InstallOptions) -> Option<HandlerChange> {
        let hash = |path| Sha256::of_file(path).ok();
        // A build that is known was compared by then.
        let is_same = self.emulator.build != Build::default()
            || hash(registered).is_some_and(|registered| hash(&self.source) == Some(registered));
        match &options.persist {
            _ if !is_same => None,
            Some(root) if in_host(root, registered) == self.emulator.path => Some(HandlerChange::Unchanged),
            Some(_) => Some(HandlerChange::Replaced),
            // The persistent copy remains in use.
            None if is_persistent(registered) => Some(HandlerChange::Unchanged),
            None => None,
        }
    }
}

/// The result of an installation.
#[derive(Debug)]
pub struct Installation {
    /// The result for each architecture.
    pub outcomes: Vec<InstallOutcome>,
    /// The emulators that passed inspection, whether or not their handlers could then be registered.
    pub emulators: Vec<VerifiedEmulator>,
}

impl Installation {
    /// The names of the architectures that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        let failed = |outcome: &&InstallOutcome| outcome.state == InstallState::Failed;
        self.outcomes.iter().filter(failed).map(|outcome| &*outcome.arch)
    }
}

/// Installs handlers for architectures with the emulators of a directory.
///
/// # Errors
/// See [`InstallError`]: nothing could be registered at all. A failure for one architecture is in its outcome.
pub fn install(
    binfmt: &Binfmt,
    dir: &EmulatorDir,
    archs: &[&'static Arch],
    options: &InstallOptions,
    report: &mut dyn FnMut(InstallEvent<'_>),
) -> Result<Installation, InstallError> {
    let mut options = options.clone();
    if let Some(root) = &mut options.persist {
        *root = absolute(&*root).map_err(|error| InstallError::HostRoot(root.clone(), error))?;
    }
    let options = &options;
    let mut outcomes = Vec::new();
    let mut emulators = Vec::new();
    for &arch in archs {
        if let Some(why) = needs_no_emulator(arch, options) {
            outcomes.push(InstallOutcome::native(arch, why));
            continue;
        }
        match verify_emulator(dir, arch, options) {
            Ok(emulator) => emulators.push(emulator),
            Err(failure) => outcomes.push(InstallOutcome::failed(arch, &failure, failure.hint())),
        }
    }
    if let Some(user) = emulators.iter().find_map(|emulator| emulator.owner) {
        if options.persist.is_none() {
            report(InstallEvent::Changeable(user, &dir.dir));
        }
    }
    if options.dry_run || emulators.is_empty() {
        if let Some(root) = &options.persist {
            let copies = HostSystem::directory(&version_of(dir));
            for verified in &mut emulators {
                verified.emulator.path = in_host(root, &copies.join(verified.emulator.arch.emulator()));
            }
        }
        let detached = mount::for_reading(binfmt, binfmt.state());
        let binfmt = detached.as_ref().map_or(binfmt, DetachedMount::binfmt);
        if !emulators.is_empty() {
            require_switched_on(binfmt)?;
        }
        outcomes.extend(emulators.iter().map(|emulator| {
            outcome_of(emulator, options, |outcome| plan(binfmt, emulator, options, outcome))
        }));
        return Ok(Installation { outcomes, emulators });
    }
    let mounted = mount::ensure(binfmt).map_err(InstallError::Mount)?;
    // Otherwise another qus could register the same handlers at the same time.
    let locked = binfmt.lock().map_err(InstallError::Binfmt);
    let prepared = locked.and_then(|lock| {
        require_switched_on(binfmt)?;
        let copy = |root: &PathBuf| make_persistent(&mut emulators, dir, options.flags, root);
        Ok((lock, options.persist.as_ref().map(copy).transpose()?))
    });
    let (_lock, copies) = prepared.inspect_err(|_| mount::undo(binfmt.root(), &mounted))?;
    report(InstallEvent::Mounted(&mounted));
    if let Some(copies) = copies {
        report(InstallEvent::Persistent(&copies));
    }
    outcomes.extend(emulators.iter().map(|emulator| {
        outcome_of(emulator, options, |outcome| register(binfmt, emulator, options, outcome))
    }));
    Ok(Installation { outcomes, emulators })
}

/// Whether all handlers are registered as they were installed, and the kernel uses them. Starts no program.
pub fn is_intact(binfmt: &Binfmt, emulators: &[VerifiedEmulator], options: &InstallOptions) -> bool {
    let is_registered = |verified: &VerifiedEmulator| {
        handler::rules_of(&verified.emulator, options.flags).iter().all(|rule| {
            let moved = |registered: &Path| verified.moved(registered, options);
            matches!(handler::plan(binfmt, rule, options.force, &moved), Ok((_, HandlerChange::Unchanged)))
        })
    };
    binfmt.is_switched_on().is_ok_and(|on| on) && emulators.iter().all(is_registered)
}

/// Handlers that are registered where none is used would only seem to work.
fn require_switched_on(binfmt: &Binfmt) -> Result<(), InstallError> {
    match binfmt.is_switched_on() {
        Ok(false) => Err(InstallError::SwitchedOff(binfmt.root().to_owned(), binfmt.state())),
        // A dry run has nothing to read where binfmt_misc cannot be mounted.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Why an architecture needs no emulator here, if it does not.
fn needs_no_emulator(arch: &Arch, options: &InstallOptions) -> Option<&'static str> {
    if emulator::is_own(arch) {
        Some("this machine's own programs need no emulator")
    } else if !options.native && probe::is_native(arch) {
        Some("this machine runs it natively")
    } else {
        None
    }
}

/// Inspects and runs an emulator before it is registered.
fn verify_emulator(
    dir: &EmulatorDir,
    arch: &'static Arch,
    options: &InstallOptions,
) -> Result<VerifiedEmulator, ArchFailure> {
    let emulator = dir.get(arch).ok_or_else(|| ArchFailure::NoEmulator(arch, dir.dir.clone()))?;
    let path = &emulator.path;
    let owner = if options.any_owner { None } else { trust::check(path).map_err(ArchFailure::Trust)? };
    let identity = emulator::inspect(path).map_err(|unfit| ArchFailure::Unfit(path.clone(), unfit))?;
    if options.probe {
        probe::run_with(path, arch).map_err(|why| ArchFailure::DoesNotEmulate(path.clone(), why))?;
    }
    Ok(VerifiedEmulator { emulator: emulator.clone(), source: path.clone(), identity, owner })
}

/// Copies emulators to the host's directory for them, and replaces them by the copies. Returns the directory.
fn make_persistent(
    emulators: &mut [VerifiedEmulator],
    dir: &EmulatorDir,
    flags: Flags,
    host_root: &Path,
) -> Result<PathBuf, InstallError> {
    let version = version_of(dir);
    let originals: Vec<Emulator> = emulators.iter().map(|verified| verified.emulator.clone()).collect();
    let copies =
        HostSystem::at(host_root).install(&version, &originals, flags).map_err(InstallError::Persist)?;
    for (verified, copy) in emulators.iter_mut().zip(copies) {
        let path = in_host(host_root, &copy.path);
        verified.identity = FileIdentity::now(&path).ok_or_else(|| InstallError::Vanished(path.clone()))?;
        verified.emulator.path = path;
    }
    Ok(HostSystem::directory(&version))
}

/// The name of the directory to which emulators are copied.
fn version_of(dir: &EmulatorDir) -> String {
    let unversioned = concat!("qus-", env!("CARGO_PKG_VERSION")).to_owned();
    dir.bundle.as_ref().map_or(unversioned, Bundle::version)
}

/// Whether an interpreter is a copy that `--persist` has made, for this system or for the host of a container.
fn is_persistent(interpreter: &Path) -> bool {
    let copies = PERSISTENT.trim_start_matches('/');
    interpreter.ancestors().nth(2).is_some_and(|dir| dir.ends_with(copies))
}

/// Where a path of the host is, seen from here.
fn in_host(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The outcome of a function for an emulator.
fn outcome_of(
    verified: &VerifiedEmulator,
    options: &InstallOptions,
    work: impl FnOnce(&mut InstallOutcome) -> Result<(), ArchFailure>,
) -> InstallOutcome {
    let mut outcome = InstallOutcome::new(verified.emulator.arch, InstallState::Unchanged);
    outcome.interpreter = Some(verified.emulator.path.display().to_string());
    outcome.flags = Some(options.flags.to_string());
    if let Err(failure) = work(&mut outcome) {
        outcome.fail(&failure);
    }
    outcome
}

/// What registering would do.
fn plan(
    binfmt: &Binfmt,
    verified: &VerifiedEmulator,
    options: &InstallOptions,
    outcome: &mut InstallOutcome,
) -> Result<(), ArchFailure> {
    for rule in handler::rules_of(&verified.emulator, options.flags) {
        let moved = |registered: &Path| verified.moved(registered, options);
        let (rule, change) =
            handler::plan(binfmt, &rule, options.force, &moved).map_err(ArchFailure::Handler)?;
        outcome.add_handler(&rule, change);
    }
    Ok(())
}

/// Registers handlers and verifies them. On failure the new ones are removed again.
fn register(
    binfmt: &Binfmt,
    verified: &VerifiedEmulator,
    options: &InstallOptions,
    outcome: &mut InstallOutcome,
) -> Result<(), ArchFailure> {
    let mut new: Vec<Rule> = Vec::new();
    let registered = register_and_verify(binfmt, verified, options, outcome, &mut new);
    if registered.is_err() {
        for rule in &new {
            binfmt.remove(&rule.name).map_err(ArchFailure::Rollback)?;
        }
    }
    registered
}

fn register_and_verify(
    binfmt: &Binfmt,
    verified: &VerifiedEmulator,
    options: &InstallOptions,
    outcome: &mut InstallOutcome,
    new: &mut Vec<Rule>,
) -> Result<(), ArchFailure> {
    for rule in handler::rules_of(&verified.emulator, options.flags) {
        let moved = |registered: &Path| verified.moved(registered, options);
        let (rule, change) =
            handler::register(binfmt, &rule, options.force, &moved).map_err(ArchFailure::Handler)?;
        outcome.add_handler(&rule, change);
        if matches!(change, HandlerChange::Registered | HandlerChange::Shadowing) {
            new.push(rule.clone());
        }
        handler::verify(binfmt, &rule).map_err(ArchFailure::ReadBack)?;
    }
    let path = &verified.emulator.path;
    if FileIdentity::now(path) != Some(verified.identity) {
        return Err(ArchFailure::Replaced(path.clone()));
    }
    if options.probe {
        probe::run(verified.emulator.arch).map_err(ArchFailure::Probe)?;
        outcome.probe = Some(true);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
