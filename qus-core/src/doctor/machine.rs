//! What can be observed of a machine and its handlers, without changing anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

use crate::arch::{ARCHES, Arch};
use crate::binfmt::{Binfmt, Entry, MountState};
use crate::interpreter::Interpreter;
use crate::mount::{Instance, instance, is_initial, is_supported, snapshot};
use crate::namespace::kernel;
use crate::owner::{ConfiguredRules, Owner};
use crate::probe;
use crate::syscall::attribute;
use crate::text::one_line;

/// What was observed of a machine.
#[derive(Debug)]
pub struct Machine {
    /// Where binfmt_misc is, or should be.
    pub root: PathBuf,
    /// Version of the kernel, major and minor, where it is known.
    pub kernel: Option<(u32, u32)>,
    /// Whether `/proc` is mounted.
    pub proc: bool,
    /// Whether the kernel knows binfmt_misc.
    pub supported: bool,
    /// What can be done with it.
    pub state: MountState,
    /// Whether it is used at all; `None` if that cannot be seen.
    pub switched_on: Option<bool>,
    /// Whether this is the host's user namespace.
    pub initial_user_namespace: Option<bool>,
    /// Whose instance is mounted, where this is another user namespace.
    pub instance: Option<Instance>,
    /// How many of them are mounted one over another.
    pub mounts_on_top: usize,
    /// In bytes.
    pub page_size: Option<u64>,
    /// `vm.mmap_min_addr`, in bytes.
    pub mmap_min_addr: Option<u64>,
    /// `vm.mmap_rnd_bits`; `None` also where addresses are not randomised.
    pub mmap_rnd_bits: Option<u64>,
    /// Handlers in the kernel's order.
    pub handlers: Vec<InspectedHandler>,
    /// Why handlers could not be listed, if so.
    pub unlisted: Option<String>,
    /// What services of the host register at boot or on request.
    pub configured: ConfiguredRules,
    /// The results of the probes that were run, by the names of architectures.
    pub probes: BTreeMap<&'static str, Result<(), String>>,
    /// Why none can be run.
    pub no_probes: Option<String>,
}

/// What was observed of a handler.
#[derive(Debug)]
pub struct InspectedHandler {
    /// Its name.
    pub name: OsString,
    /// Its entry, or why that cannot be read.
    pub entry: Result<Entry, String>,
    /// Which program has registered it.
    pub owner: Owner,
    /// Its interpreter, as seen from here.
    pub interpreter: Interpreter,
    /// SELinux's label of the interpreter, where SELinux is on.
    pub label: Option<String>,
}

impl InspectedHandler {
    /// Its name as text.
    pub fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

impl Machine {
    /// Inspects everything. Probes are run for all architectures that have a handler, and for the required ones.
    pub fn inspect(binfmt: &Binfmt, required: &[&'static Arch]) -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let configured = ConfiguredRules::read(Path::new("/"));
        // Before probes run, which may take longer: a snapshot may hold a lock.
        let snapshot = snapshot(binfmt);
        let state = snapshot.as_ref().map_or_else(|_| binfmt.state(), |snapshot| snapshot.state);
        let switched_on = snapshot.as_ref().ok().and_then(|snapshot| snapshot.switched_on);
        let (listed, unlisted) = match snapshot {
            Ok(snapshot) => (snapshot.handlers, None),
            Err(error) => (Vec::new(), Some(one_line(&error))),
        };
        let handlers: Vec<InspectedHandler> = listed
            .into_iter()
            .map(|(name, entry)| match entry {
                Ok(entry) => InspectedHandler {
                    name,
                    owner: configured.owner(&entry),
                    interpreter: Interpreter::inspect(&entry.rule.interpreter),
                    label: label(&entry.rule.interpreter),
                    entry: Ok(entry),
                },
                Err(error) => InspectedHandler {
                    name,
                    entry: Err(one_line(&error)),
                    owner: Owner::Other,
                    interpreter: Interpreter::Static,
                    label: None,
                },
            })
            .collect();
        let no_probes = probe::can_run().err();
        let is_probed = |arch: &&'static Arch| {
            no_probes.is_none() && (required.contains(arch) || position_of(&handlers, arch).is_some())
        };
        let probed = ARCHES.iter().filter(is_probed);
        let probes = probed.map(|arch| (arch.name, probe::run(arch))).collect();
        let randomised = number("/proc/sys/kernel/randomize_va_space") != Some(0);
        Self {
            root: binfmt.root().to_owned(),
            kernel: kernel(),
            proc: Path::new("/proc/self").exists(),
            supported: is_supported(),
            state,
            switched_on,
            initial_user_namespace: is_initial("user"),
            instance: instance(binfmt.root()).filter(|_| switched_on.is_some()),
            mounts_on_top: mounts_at(binfmt.root()),
            page_size: sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| size.try_into().ok()),
            mmap_min_addr: number("/proc/sys/vm/mmap_min_addr"),
            mmap_rnd_bits: number("/proc/sys/vm/mmap_rnd_bits").filter(|_| randomised),
            handlers,
            unlisted,
            configured,
            probes,
            no_probes,
        }
    }

    /// The handler that the kernel uses for programs of an architecture.
    pub fn handler_of(&self, arch: &Arch) -> Option<&InspectedHandler> {
        Some(&self.handlers[position_of(&self.handlers, arch)?])
    }

    /// A disabled handler for programs of an architecture.
    pub fn disabled_handler_of(&self, arch: &Arch) -> Option<&InspectedHandler> {
        let is_disabled = |entry: &Entry| !entry.enabled && entry.rule.matches(probe::image(arch));
        self.handlers.iter().find(|handler| handler.entry.as_ref().is_ok_and(is_disabled))
    }

    /// For each handler, whether the probe of its architecture passed; `None` if none was run through it.
    pub fn results(&self) -> Vec<Option<bool>> {
        let mut results = vec![None; self.handlers.len()];
        for arch in &ARCHES {
            if let (Some(at), Some(probed)) = (position_of(&self.handlers, arch), self.probes.get(arch.name))
            {
                results[at] = Some(probed.is_ok() && results[at] != Some(false));
            }
        }
        results
    }
}

/// The place of the handler that the kernel uses for programs of an architecture: the first that matches.
fn position_of(handlers: &[InspectedHandler], arch: &Arch) -> Option<usize> {
    let header = probe::image(arch);
    let takes = |entry: &Entry| entry.enabled && entry.rule.matches(header);
    handlers.iter().position(|handler| handler.entry.as_ref().is_ok_and(takes))
}

fn label(path: &Path) -> Option<String> {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return None;
    }
    let label = attribute(path, c"security.selinux").ok()?;
    Some(String::from_utf8_lossy(&label).trim_end_matches('\0').to_owned())
}

/// How many instances of binfmt_misc are mounted at a path.
fn mounts_at(root: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is = |line: &&str| {
        let mut fields = line.split(' ');
        fields.nth(4) == root.to_str() && line.contains(" - binfmt_misc ")
    };
    mounts.lines().filter(is).count()
}
