//! What is wrong with a machine's handlers, why, and the command that fixes it.
//!
//! [`Machine`] is what was observed, [`findings`] what follows from it: a function of its argument, so that
//! tests can examine any machine. It changes nothing.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::doctor::{Machine, findings};
//!
//! let machine = Machine::inspect(&Binfmt::at(MOUNT_POINT), &[]);
//! for finding in findings(&machine, &[]) {
//!     println!("{}: {}: {}", finding.severity, finding.subject, finding.what);
//! }
//! ```

mod finding;
mod machine;

use std::path::Path;

use nix::errno::Errno;

use crate::arch::{ARCHES, Arch};
use crate::binfmt::{Entry, Files, MountState};
use crate::handler;
use crate::mount::{Instance, enable_command};
use crate::owner::Owner;
use crate::text::Show;
use finding::Findings;

pub use crate::interpreter::Interpreter;
pub use finding::{Finding, Severity};
pub use machine::{InspectedHandler, Machine};

use Severity::{Error, Note, Warning};

/// Everything that follows from what was observed, the most severe first. `required` are architectures that must
/// work.
pub fn findings(machine: &Machine, required: &[&'static Arch]) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    kernel(machine, &mut found);
    file_system(machine, &mut found);
    memory(machine, &mut found);
    for (index, handler) in machine.handlers.iter().enumerate() {
        match &handler.entry {
            // Another one is used in its place.
            Ok(entry) if is_shadowed(entry, &machine.handlers[..index]) => {}
            Ok(entry) => one_handler(machine, handler, entry, &mut found),
            Err(why) => found.add(
                Warning,
                handler.name(),
                format!("cannot be read: {why}"),
                "it is unknown which files it is for",
                None,
            ),
        }
    }
    overlaps(machine, &mut found);
    configured(machine, &mut found);
    probes(machine, required, &mut found);
    found.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found.0
}

fn kernel(machine: &Machine, found: &mut Findings) {
    let Some((major, minor)) = machine.kernel else { return };
    let older = |than| (major, minor) < than;
    let version = format!("Linux {major}.{minor}");
    if older((4, 8)) {
        found.add(Error, "kernel", version, "before Linux 4.8 no handler works in containers", None);
    } else if older((5, 12)) {
        let why = "before Linux 5.12 emulators cannot see argv[0]: busybox and others find a path there";
        found.add(Warning, "kernel", version, why, None);
    } else if older((6, 7)) {
        let why = "before Linux 6.7 users cannot have handlers of their own: `qus run` does not work";
        found.add(Note, "kernel", version, why, None);
    }
}

fn file_system(machine: &Machine, found: &mut Findings) {
    let (root, quoted) = (machine.root.display(), machine.root.quoted());
    let mut add = |severity, what: String, why: &str, hint: Option<String>| {
        found.add(severity, "binfmt_misc", what, why, hint);
    };
    match machine.state {
        MountState::Absent if !machine.proc => add(
            Error,
            "/proc is not mounted".to_owned(),
            "neither handlers nor processes can be seen",
            Some("mount -t proc proc /proc".to_owned()),
        ),
        MountState::Absent if !machine.supported => add(
            Error,
            "the kernel has none".to_owned(),
            "programs of other architectures do not run",
            Some("modprobe binfmt_misc".to_owned()),
        ),
        MountState::Absent => {
            add(Error, format!("there is no {root}"), "a container masks it", None);
        }
        MountState::NotMounted if !machine.handlers.is_empty() => add(
            Note,
            format!("it is not mounted at {root}"),
            "handlers work, because it is mounted elsewhere, for example on the host of this container",
            None,
        ),
        MountState::NotMounted => add(
            Error,
            format!("it is not mounted at {root}"),
            "since Linux 6.7, unmounting it removes all handlers; before, they cannot be seen",
            Some(format!("mount -t binfmt_misc binfmt_misc {quoted}")),
        ),
        MountState::ReadOnly(Errno::EROFS) => add(
            Warning,
            format!("it is mounted read-only at {root}"),
            "handlers can be neither registered nor removed from here",
            Some(format!("mount -o remount,rw {quoted}")),
        ),
        MountState::ReadOnly(_) => add(
            Note,
            "only root may write to it".to_owned(),
            "you can read handlers, and have private ones with `qus run`",
            None,
        ),
        MountState::Writable => {}
    }
    if let Some(why) = &machine.unlisted {
        add(Error, format!("its handlers cannot be listed: {why}"), "no handler was checked", None);
    }
    if machine.switched_on == Some(false) {
        add(
            Error,
            "it is switched off".to_owned(),
            "the kernel uses no handler at all",
            Some(enable_command(&machine.root, machine.state, "status".as_ref())),
        );
    }
    if machine.initial_user_namespace == Some(false) {
        let why = match machine.instance {
            Some(Instance::Own) => {
                "it has its own handlers, which the host does not see, and does not use the host's"
            }
            Some(Instance::Outer) => {
                "it uses the handlers of the namespace around it, such as the host's; commands here change those"
            }
            None => "it may have its own handlers, which the host does not see, and may not use the host's",
        };
        add(Note, "this is a user namespace".to_owned(), why, None);
    }
    if machine.mounts_on_top > 1 {
        add(
            Warning,
            format!("{} of them are mounted one over another at {root}", machine.mounts_on_top),
            "only handlers of the topmost mount can be seen; the kernel uses those of this user namespace",
            Some(format!("umount {quoted}")),
        );
    }
}

fn memory(machine: &Machine, found: &mut Findings) {
    if let Some(size) = machine.page_size.filter(|&size| size != 4096) {
        let why = "programs whose parts are aligned to 4096 bytes only are mapped in pieces, or not at all";
        found.add(Note, "memory", format!("pages have {size} bytes"), why, None);
    }
    // The lowest address at which a common linker puts a program: 64 KiB, on Arm.
    if let Some(lowest) = machine.mmap_min_addr.filter(|&lowest| lowest > 0x10000) {
        let why = "programs that are linked to low addresses must be moved, which breaks some of them";
        let fix = Some("sysctl vm.mmap_min_addr=65536".to_owned());
        found.add(Warning, "memory", format!("vm.mmap_min_addr is {lowest}"), why, fix);
    }
    if let Some(bits) = machine.mmap_rnd_bits.filter(|&bits| bits > 28) {
        let why = "emulators before QEMU 8.1, such as those of old images, crash with so much address randomisation";
        found.add(Note, "memory", format!("vm.mmap_rnd_bits is {bits}"), why, None);
    }
}

fn one_handler(machine: &Machine, handler: &InspectedHandler, entry: &Entry, found: &mut Findings) {
    let arch = handler::arch_of(&handler.name);
    if arch.is_none() && handler.owner != Owner::Qus {
        return;
    }
    let ours = handler.owner == Owner::Qus;
    let flags = entry.rule.flags;
    let path = entry.rule.interpreter.display();
    let fails = arch.is_some_and(|arch| matches!(machine.probes.get(arch.name), Some(Err(_))));
    // Replaces one of ours, and shadows another program's.
    let reinstall = || arch.map(|arch| format!("qus install {arch} --force"));
    let mut add =
        |severity, what: String, why: &str, hint| found.add(severity, handler.name(), what, why, hint);
    if !entry.enabled {
        let fix = enable_command(&machine.root, machine.state, &handler.name);
        add(
            if ours { Error } else { Note },
            "it is disabled".to_owned(),
            "the kernel does not use it",
            Some(fix),
        );
    }
    match &handler.interpreter {
        Interpreter::Missing if flags.fix_binary => add(
            Note,
            format!("there is no {path} here"),
            "the kernel holds the file open, so the handler works; after a reboot it must be installed again",
            None,
        ),
        Interpreter::Missing => add(
            Error,
            format!("there is no {path}"),
            "every program for it fails with: no such file or directory",
            reinstall(),
        ),
        Interpreter::Dynamic(loader) => add(
            Warning,
            format!("{path} is not static"),
            &format!("in containers without {} every program fails with: no such file", loader.display()),
            reinstall(),
        ),
        Interpreter::NotAFile => {
            add(Error, format!("{path} is not a regular file"), "the kernel cannot execute it", reinstall())
        }
        // The kernel holds open a file that was executable, and that need not be the one that is seen here.
        Interpreter::NotExecutable if flags.fix_binary => {}
        Interpreter::NoExec if flags.fix_binary && !fails => {}
        unusable @ (Interpreter::NotExecutable | Interpreter::NoExec) => add(
            Error,
            format!("{path} {}", unusable.obstacle().unwrap_or_default()),
            if flags.fix_binary {
                "every program for it is killed by a signal"
            } else {
                "every program for it fails with: permission denied"
            },
            unusable.repair(&entry.rule.interpreter),
        ),
        Interpreter::Static => {}
    }
    if !flags.fix_binary {
        let why = format!("containers without their own {path} cannot use it");
        add(Warning, "it has no flag F".to_owned(), &why, reinstall());
    }
    if !flags.preserve_argv0 {
        add(Note, "it has no flag P".to_owned(), "programs see a path instead of their argv[0]", reinstall());
    }
    if !flags.credentials {
        add(
            // Ours lacks it only on request.
            if ours { Note } else { Warning },
            "it has no flag C".to_owned(),
            "sudo (`effective uid is not 0`) and other setuid programs run as the user who starts them",
            reinstall(),
        );
    }
    if let Some(label) = handler.label.as_ref().filter(|label| !label.contains(":bin_t:")) {
        add(
            Warning,
            format!("SELinux labels {path} as {label}"),
            "containers may be denied execution",
            Some(format!("chcon -t bin_t {}", entry.rule.interpreter.quoted())),
        );
    }
}

/// Handlers for the same files: the latest one takes precedence.
fn overlaps(machine: &Machine, found: &mut Findings) {
    let entries: Vec<(&InspectedHandler, &Entry)> =
        machine.handlers.iter().filter_map(|handler| Some((handler, handler.entry.as_ref().ok()?))).collect();
    let emulates =
        |handler: &InspectedHandler| handler.owner == Owner::Qus || handler::arch_of(&handler.name).is_some();
    for (index, (first, winner)) in entries.iter().enumerate() {
        for (second, loser) in &entries[index + 1..] {
            if (emulates(first) || emulates(second))
                && winner.enabled
                && loser.enabled
                && overlap(&winner.rule.files, &loser.rule.files)
            {
                found.add(
                    Note,
                    second.name(),
                    format!("{} shadows it ({})", first.name(), first.owner),
                    "it is for the same files and was registered later: it takes precedence",
                    None,
                );
            }
        }
    }
}

/// Whether one of the handlers that were registered later takes all files of a handler.
fn is_shadowed(entry: &Entry, later: &[InspectedHandler]) -> bool {
    let mut later = later.iter().filter_map(|handler| handler.entry.as_ref().ok());
    entry.enabled && later.any(|later| later.enabled && overlap(&later.rule.files, &entry.rule.files))
}

/// Whether some file is for both.
fn overlap(a: &Files, b: &Files) -> bool {
    match (a, b) {
        (Files::Magic(a_offset, a), Files::Magic(b_offset, b)) => {
            let end = (a_offset + a.magic.len()).min(b_offset + b.magic.len());
            let agree = |at: usize| {
                let (i, j) = (at - a_offset, at - b_offset);
                (a.magic[i] ^ b.magic[j]) & a.mask[i] & b.mask[j] == 0
            };
            (*a_offset.max(b_offset)..end).all(agree)
        }
        (Files::Extension(a), Files::Extension(b)) => a == b,
        _ => false,
    }
}

/// What other programs will register at the next boot under a name that is ours now.
fn configured(machine: &Machine, found: &mut Findings) {
    let ours = machine.handlers.iter().filter(|handler| handler.owner == Owner::Qus);
    for handler in ours {
        let Ok(entry) = &handler.entry else { continue };
        for (file, rule) in machine.configured.systemd.iter().filter(|(_, rule)| rule.name == handler.name) {
            if !rule.differences(&entry.rule).is_empty() {
                let why = "systemd-binfmt replaces the handler at boot and when systemd is updated";
                let hidden = Path::new("/etc/binfmt.d").join(file.file_name().unwrap_or_default());
                let fix = if file.ends_with(hidden.strip_prefix("/").unwrap_or(&hidden)) {
                    format!("mv {0} {0}.orig", hidden.quoted())
                } else {
                    format!("ln -s /dev/null {}", hidden.quoted())
                };
                found.add(
                    Warning,
                    handler.name(),
                    format!("{} has another rule for it", file.display()),
                    why,
                    Some(fix).filter(|_| !file.ends_with("qus.conf")),
                );
            }
        }
        if let Some(file) = machine.configured.debian(&handler.name) {
            found.add(
                Warning,
                handler.name(),
                format!("update-binfmts has a handler of the same name ({})", file.display()),
                "it replaces ours at boot",
                // `--disable` only unregisters until then. Removing it from the database unregisters ours too.
                handler::arch_of(&handler.name).map(|arch| {
                    format!("update-binfmts --unimport {} && qus install {arch}", handler.name.quoted())
                }),
            );
        }
    }
}

fn probes(machine: &Machine, required: &[&'static Arch], found: &mut Findings) {
    if let Some(why) = &machine.no_probes {
        found.add(
            Warning,
            "probes",
            format!("cannot be run: {why}"),
            "it was not tested whether programs run",
            None,
        );
    }
    for arch in &ARCHES {
        let handler = machine.handler_of(arch);
        let wanted = required.contains(&arch);
        if handler.is_none() && !wanted {
            continue;
        }
        // That no handler is used then was found already.
        if handler.is_some() && machine.switched_on == Some(false) {
            continue;
        }
        let Some(Err(why)) = machine.probes.get(arch.name) else { continue };
        let subject = handler.map_or_else(|| arch.to_string(), InspectedHandler::name);
        let fix = match handler {
            Some(handler) if handler.owner != Owner::Qus => format!("qus install {arch} --force"),
            Some(_) => format!("qus remove {arch} && qus install {arch}"),
            None => match machine.disabled_handler_of(arch) {
                Some(disabled) => enable_command(&machine.root, machine.state, &disabled.name),
                None => format!("qus install {arch}"),
            },
        };
        found.add(
            Error,
            subject,
            format!("programs for {arch} do not run: {why}"),
            "a small program of that architecture was started and failed",
            Some(fix),
        );
    }
}

#[cfg(test)]
mod tests;
