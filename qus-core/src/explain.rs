//! Why a file runs here, or why it does not: what it is, what it needs, and what the kernel calls for it.
//!
//! It checks in the kernel's order: handlers, the latest first; then `#!`; then the machine itself. The file is never
//! started; the probe of its architecture shows whether programs of that run.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::explain::{RegisteredHandlers, explain};
//!
//! let handlers = RegisteredHandlers::read(&Binfmt::at(MOUNT_POINT))?;
//! let program = explain("./busybox-armhf".as_ref(), &handlers);
//! println!("{}: {}", program.what, if program.runs { "runs" } else { "does not run" });
//! # Ok::<(), qus_core::binfmt::BinfmtError>(())
//! ```

mod access;
mod handlers;
mod loader;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::arch::Arch;
use crate::binfmt::Entry;
use crate::elf::{Elf, ElfKind, ReadAt};
use crate::emulator::is_own;
use crate::interpreter::Interpreter;
use crate::text::Show;
use crate::{file, handler, probe};
use access::Access;
use handlers::matches;

pub use handlers::{RegisteredHandlers, handler_of, readable};

/// How deep the kernel follows interpreters of interpreters.
const MAX_DEPTH: usize = 5;

/// `EI_OSABI` of FreeBSD.
const FREEBSD: u8 = 9;

/// What is known of a file.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The file.
    pub file: String,
    /// What it is.
    pub what: String,
    /// The row of the table that it belongs to.
    pub arch: Option<&'static str>,
    /// Its ABI, where that matters.
    pub abi: Option<&'static str>,
    /// The loader that it needs.
    pub loader: Option<String>,
    /// Whether this machine runs its architecture without an emulator.
    pub native: Option<bool>,
    /// The handler that the kernel calls.
    pub handler: Option<String>,
    /// The processor that it sees under qus's emulator, where that is not QEMU's default.
    pub processor: Option<&'static str>,
    /// The interpreter of a script, explained in turn.
    pub interpreter: Option<Box<Explanation>>,
    /// Whether it can be started.
    pub runs: bool,
    /// Why it does not run, and what else is known about it.
    pub why: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Explanation {
    fn new(file: &Path, what: impl Into<String>) -> Self {
        Self {
            file: file.display().to_string(),
            what: what.into(),
            arch: None,
            abi: None,
            loader: None,
            native: None,
            handler: None,
            processor: None,
            interpreter: None,
            runs: true,
            why: Vec::new(),
            hint: None,
        }
    }

    fn fails(mut self, why: impl Into<String>, hint: Option<String>) -> Self {
        self.runs = false;
        self.why.push(why.into());
        self.hint = self.hint.or(hint);
        self
    }
}

/// Explains a file.
pub fn explain(path: &Path, handlers: &RegisteredHandlers) -> Explanation {
    Explainer { program: path, handlers }.follow(path, 0)
}

struct Explainer<'a> {
    /// What is to be started: the file itself, or the script that leads to it.
    program: &'a Path,
    handlers: &'a RegisteredHandlers,
}

impl Explainer<'_> {
    fn follow(&self, path: &Path, depth: usize) -> Explanation {
        let file = match file::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Explanation::new(path, "not a regular file")
                    .fails("only regular files can be executed", None);
            }
            Err(error) => {
                return Explanation::new(path, "unknown").fails(format!("cannot be read: {error}"), None);
            }
        };
        let (header, access) = (header(&file), Access::of(path, &file));
        let mut this = match Elf::parse(&file) {
            Ok(elf) => explain_elf(path, &elf),
            Err(_) => Explanation::new(path, describe_by_magic(&header)),
        };
        if let Some((why, hint)) = access.obstacles() {
            this = this.fails(why, Some(hint));
        }
        let arch: Option<&Arch> = this.arch.and_then(|name| name.parse().ok());
        this.native = arch.map(probe::is_native);
        let matching = || self.handlers.entries().iter().filter(|entry| matches(entry, path, &header));
        let used = matching().find(|entry| entry.enabled && self.handlers.switched_on);
        this = match (used, header.strip_prefix(b"#!")) {
            (Some(entry), _) => self.explain_handler(this, arch, entry),
            (None, Some(line)) => self.explain_script(this, path, line, depth),
            (None, None) if this.native == Some(true) => this,
            (None, None) => {
                let unused = matching().find(|entry| entry.enabled).or_else(|| matching().next());
                self.explain_unhandled(this, arch, unused)
            }
        };
        let is_script = used.is_none() && header.starts_with(b"#!");
        self.explain_privileges(
            &mut this,
            &access,
            used.filter(|entry| !entry.rule.flags.credentials),
            is_script,
        );
        this
    }

    /// Explains a file that the machine does not run natively and for which the kernel uses no handler, although one may
    /// be registered.
    fn explain_unhandled(
        &self,
        mut this: Explanation,
        arch: Option<&'static Arch>,
        unused: Option<&Entry>,
    ) -> Explanation {
        if let Some(arch) = arch.filter(|arch| self.handlers.entries.is_none() && probe::run(arch).is_ok()) {
            this.why.push(format!("a handler for {arch} runs it that cannot be seen from here"));
            return this;
        }
        let (mut reasons, mut commands) = (Vec::new(), Vec::new());
        if !self.handlers.switched_on && (unused.is_some() || arch.is_some()) {
            reasons.push("binfmt_misc is switched off, so that the kernel uses no handler".to_owned());
            commands.push(self.handlers.enable(OsStr::new("status")));
        }
        match (unused, arch) {
            (Some(entry), _) if entry.enabled => {}
            (Some(entry), _) => {
                let name = &entry.rule.name;
                reasons.push(format!("the handler {} for it is disabled", name.to_string_lossy()));
                commands.push(self.handlers.enable(name));
            }
            (None, Some(arch)) => {
                reasons.push(format!(
                    "this machine does not run {arch} natively, and no handler is registered for it"
                ));
                commands.push(format!("qus install {arch}"));
            }
            (None, None) => {
                let why = "neither the kernel nor a registered handler recognises this kind of file";
                return this.fails(why, None);
            }
        }
        let as_root = format!("as root `{}`", commands.join(" && "));
        let hint = match arch {
            Some(arch) => format!("{as_root}, or without root `qus run {arch} -- {}`", self.command()),
            None => as_root,
        };
        for why in reasons {
            this = this.fails(why, Some(hint.clone()));
        }
        this
    }

    /// The program as a word of a shell. A name without a slash would be searched for in `PATH`.
    fn command(&self) -> String {
        let in_dir =
            if self.program.parent() == Some(Path::new("")) { Path::new(".") } else { Path::new("") };
        in_dir.join(self.program).quoted()
    }

    /// Explains a file for which the kernel uses a handler.
    fn explain_handler(
        &self,
        mut this: Explanation,
        arch: Option<&'static Arch>,
        entry: &Entry,
    ) -> Explanation {
        let rule = &entry.rule;
        let name = rule.name.to_string_lossy();
        this.handler = Some(name.clone().into_owned());
        let interpreter = Interpreter::inspect(&rule.interpreter);
        let probed = arch.map(probe::run);
        // With the flag F the kernel holds a file open, which need not be the one that is seen here.
        let is_used = match &probed {
            _ if !rule.flags.fix_binary => true,
            Some(Err(_)) => interpreter == Interpreter::NoExec,
            _ => false,
        };
        if let Some(obstacle) = interpreter.obstacle().filter(|_| is_used) {
            let why =
                format!("the interpreter {} of the handler {name} {obstacle}", rule.interpreter.display());
            let repair = interpreter.repair(&rule.interpreter).or_else(|| self.replace(arch, entry));
            return this.fails(why, repair.map(|command| format!("as root `{command}`")));
        }
        if let Some(Err(why)) = probed {
            let hint = Some("`qus doctor`".to_owned());
            return this.fails(format!("the handler {name} does not work: {why}"), hint);
        }
        this
    }

    /// The command that gives a handler's files another handler, or none where they need none.
    fn replace(&self, arch: Option<&'static Arch>, entry: &Entry) -> Option<String> {
        match arch.or_else(|| handler::arch_of(&entry.rule.name)) {
            Some(arch) if is_own(arch) => {
                Some(format!("echo 0 > {}", self.handlers.root.join(&entry.rule.name).quoted()))
            }
            Some(arch) => Some(format!("qus install {arch} --force")),
            None => None,
        }
    }

    /// Follows the line after `#!` to the program that it names.
    fn explain_script(&self, mut this: Explanation, path: &Path, line: &[u8], depth: usize) -> Explanation {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let first = line.split(|byte| b" \t".contains(byte)).find(|word| !word.is_empty());
        let Some(interpreter) = first.map(|word| PathBuf::from(OsString::from_vec(word.to_vec()))) else {
            return this.fails("its first line names no interpreter", None);
        };
        if depth == MAX_DEPTH {
            return this.fails(
                "its interpreter is a script, whose interpreter is a script, and so on: the kernel gives up",
                None,
            );
        }
        if line.ends_with(b"\r") {
            this.why.push(
                "its first line ends in a carriage return, which the kernel does not remove: it becomes part of the \
                 interpreter's path or argument"
                    .to_owned(),
            );
            this.hint = Some(format!("`sed -i 's/\\r$//' {}`", path.quoted()));
        }
        let interpreter = self.follow(&interpreter, depth + 1);
        if !interpreter.runs {
            let why = format!("its interpreter {} does not run", interpreter.file);
            let hint = interpreter.hint.clone();
            this = this.fails(why, hint);
        }
        this.interpreter = Some(Box::new(interpreter));
        this
    }

    /// Adds why a setuid program, or one with file capabilities, runs without its privileges. `handler` is the one that
    /// the kernel uses, if it lacks the flag C.
    fn explain_privileges(
        &self,
        this: &mut Explanation,
        access: &Access<'_>,
        handler: Option<&Entry>,
        is_script: bool,
    ) {
        let Some(what) = access.privileges() else { return };
        let without = "runs without these privileges, as the user who starts it";
        if is_script {
            this.why.push(format!("{what}, and {without}: the kernel ignores those of scripts"));
            return;
        }
        let mut commands = Vec::new();
        if let Some(command) = access.without_nosuid() {
            this.why.push(format!("{what}, and {without}: its file system is mounted nosuid"));
            commands.push(command);
        }
        if let Some(entry) = handler {
            this.why.push(format!(
                "{what}, and {without}: the handler {} has no flag C (sudo then prints: effective uid is not 0)",
                entry.rule.name.to_string_lossy()
            ));
            commands.extend(self.replace(this.arch.and_then(|name| name.parse().ok()), entry));
        }
        if !commands.is_empty() && this.hint.is_none() {
            this.hint = Some(format!("as root `{}`", commands.join(" && ")));
        }
    }
}

/// The bytes that the kernel compares; fewer if the file is shorter.
fn header(file: &File) -> Vec<u8> {
    let mut header = vec![0; 256];
    let length = file.metadata().map_or(0, |metadata| metadata.len().min(256)) as usize;
    header.truncate(length);
    if file.read_at(0, &mut header).is_none() {
        header.clear();
    }
    header
}

fn explain_elf(path: &Path, elf: &Elf) -> Explanation {
    let arch = elf.arch();
    let name = arch.map_or_else(|| format!("machine number {}", elf.machine), ToString::to_string);
    let kind = match (elf.kind, &elf.interpreter, elf.needed) {
        (ElfKind::Other(_), ..) => "object file or core dump",
        (_, Some(_), _) => "dynamic program",
        (ElfKind::Executable, ..) => "static program",
        (ElfKind::SharedObject, None, 0) => "static position-independent program",
        (ElfKind::SharedObject, None, _) => "shared library",
    };
    let mut this = Explanation::new(path, format!("{} {} {kind} for {name}", elf.class, elf.endian));
    this.arch = arch.map(|arch| arch.name);
    this.abi = elf.abi();
    this.loader = elf.interpreter.as_ref().map(|loader| loader.display().to_string());
    if matches!(elf.kind, ElfKind::Other(_)) {
        return this.fails("it is not a program", None);
    }
    if elf.os_abi == FREEBSD {
        return this.fails("it is a program for FreeBSD, which Linux does not run", None);
    }
    if arch.is_none() {
        return this.fails("QEMU emulates no such machine for Linux programs", None);
    }
    let native = arch.is_some_and(probe::is_native);
    this.processor = arch.filter(|_| !native).and_then(|arch| arch.processor);
    match &elf.interpreter {
        Some(loader) if !loader::is_found(loader, native) => {
            let hint = arch.map(|arch| loader::hint(path, arch, native, loader));
            this.fails(format!("its loader {} does not exist", loader.display()), hint)
        }
        _ => this,
    }
}

/// What a file that is not ELF is, by its first bytes.
fn describe_by_magic(header: &[u8]) -> &'static str {
    let begins = |magic: &[u8]| header.starts_with(magic);
    match header {
        [] => "empty file",
        _ if begins(b"#!") => "script",
        _ if begins(b"MZ") => "Windows or EFI program",
        _ if begins(b"\0asm") => "WebAssembly module",
        _ if begins(&[0xcf, 0xfa, 0xed, 0xfe]) || begins(&[0xca, 0xfe, 0xba, 0xbe]) => {
            "macOS program or Java class"
        }
        _ if begins(b"\x7fELF") => "damaged ELF file",
        _ => "data",
    }
}

#[cfg(test)]
mod tests;
