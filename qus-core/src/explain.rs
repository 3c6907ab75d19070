//! Why a file runs here, or why it does not: what it is, what it needs, and what the kernel calls for it.
//!
//! It checks in the kernel's order: handlers, the latest first; then `#!`; then the machine itself. The file is never
//! started; the probe of its architecture shows whether programs of that run.
//!
//! ```no_run
//! use qus_core::explain::explain;
//!
//! // With the handlers that are registered, if they can be seen, in the kernel's order: here none is.
//! let program = explain("./busybox-armhf".as_ref(), Some(&[]));
//! println!("{}: {}", program.what, if program.runs { "runs" } else { "does not run" });
//! ```

mod loader;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::arch::Arch;
use crate::binfmt::{Entry, Files, ListedHandler};
use crate::elf::{Elf, ElfKind, ReadAt};
use crate::text::Show;
use crate::{file, handler, probe};

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

/// Explains a file, given the registered handlers in the kernel's order; `None` if they cannot be seen from here.
pub fn explain(path: &Path, handlers: Option<&[Entry]>) -> Explanation {
    follow(path, handlers, 0)
}

fn follow(path: &Path, handlers: Option<&[Entry]>, depth: usize) -> Explanation {
    let entries = handlers.unwrap_or_default();
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
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    let header = header(&file);
    let mut this = match Elf::parse(&file) {
        Ok(elf) => explain_elf(path, &elf),
        Err(_) => Explanation::new(path, describe_by_magic(&header)),
    };
    if mode & 0o111 == 0 {
        let hint = format!("`chmod +x {}`", path.quoted());
        this = this.fails("it is not executable", Some(hint));
    }
    let arch: Option<&Arch> = this.arch.and_then(|name| name.parse().ok());
    this.native = arch.map(probe::is_native);
    if let Some(entry) = entries.iter().find(|entry| entry.enabled && matches(entry, path, &header)) {
        return explain_handler(this, arch, entry);
    }
    if let Some(interpreter) = header.strip_prefix(b"#!") {
        return explain_script(this, path, interpreter, handlers, depth);
    }
    match (arch, this.native) {
        (_, Some(true)) => this,
        (Some(arch), _) if handlers.is_none() && probe::run(arch).is_ok() => {
            this.why.push(format!("a handler for {arch} runs it that cannot be seen from here"));
            this
        }
        (Some(arch), _) => {
            let disabled = |entry: &&Entry| !entry.enabled && matches(entry, path, &header);
            let (why, force) = match entries.iter().find(disabled) {
                Some(entry) => (
                    format!("the handler {} for it is disabled", entry.rule.name.to_string_lossy()),
                    " --force",
                ),
                None => (
                    format!("this machine does not run {arch} natively, and no handler is registered for it"),
                    "",
                ),
            };
            // A name without a slash would be searched for in `PATH`.
            let in_dir = if path.parent() == Some(Path::new("")) { Path::new(".") } else { Path::new("") };
            let program = in_dir.join(path);
            let hint = format!(
                "as root `qus install {arch}{force}`, or without root `qus run {arch} -- {}`",
                program.quoted()
            );
            this.fails(why, Some(hint))
        }
        (None, _) => {
            let why = "neither the kernel nor a registered handler recognises this kind of file".to_owned();
            this.fails(why, None)
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

/// Whether the kernel would use a handler for a file.
fn matches(entry: &Entry, path: &Path, header: &[u8]) -> bool {
    match &entry.rule.files {
        Files::Magic(..) => {
            // The kernel fills the rest of a short file with zeros.
            let mut padded = header.to_vec();
            padded.resize(256, 0);
            entry.rule.matches(&padded)
        }
        Files::Extension(extension) => {
            let name = path.file_name().unwrap_or_default().as_bytes();
            name.iter()
                .rposition(|&byte| byte == b'.')
                .is_some_and(|dot| &name[dot + 1..] == extension.as_bytes())
        }
    }
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
    match &elf.interpreter {
        Some(loader) if !loader::is_found(loader, native) => {
            let hint = arch.map(|arch| loader::hint(path, arch, native, loader));
            this.fails(format!("its loader {} does not exist", loader.display()), hint)
        }
        _ => this,
    }
}

/// Explains a file for which a handler exists.
fn explain_handler(mut this: Explanation, arch: Option<&'static Arch>, entry: &Entry) -> Explanation {
    let rule = &entry.rule;
    this.handler = Some(rule.name.to_string_lossy().into_owned());
    if !rule.flags.fix_binary && !rule.interpreter.exists() {
        let why = format!("the handler's interpreter {} does not exist", rule.interpreter.display());
        return this
            .fails(why, handler::arch_of(&rule.name).map(|arch| format!("`qus install {arch} --force`")));
    }
    if let Some(Err(why)) = arch.map(probe::run) {
        let hint = Some("`qus doctor`".to_owned());
        return this.fails(format!("the handler {} does not work: {why}", rule.name.to_string_lossy()), hint);
    }
    this
}

/// Follows the line after `#!` to the program that it names.
fn explain_script(
    mut this: Explanation,
    path: &Path,
    line: &[u8],
    handlers: Option<&[Entry]>,
    depth: usize,
) -> Explanation {
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
    let interpreter = follow(&interpreter, handlers, depth + 1);
    if !interpreter.runs {
        let why = format!("its interpreter {} does not run", interpreter.file);
        let hint = interpreter.hint.clone();
        this = this.fails(why, hint);
    }
    this.interpreter = Some(Box::new(interpreter));
    this
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

/// The handlers that could be read, in the kernel's order.
pub fn readable(listed: Vec<ListedHandler>) -> Vec<Entry> {
    listed.into_iter().filter_map(|(_, entry)| entry.ok()).collect()
}

/// The handler that the kernel uses for a file with this beginning, if any.
pub fn handler_of<'a>(header: &[u8], entries: &'a [Entry]) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.enabled && matches(entry, Path::new(OsStr::new("")), header))
}

#[cfg(test)]
mod tests;
