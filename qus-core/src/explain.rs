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
    match &elf.interpreter {
        Some(loader) if !loader.exists() => {
            let hint = format!(
                "run it in a root filesystem of its system: `qus run {name} --root DIR -- CMD`; or name that directory \
                 in QEMU_LD_PREFIX"
            );
            this.fails(format!("its loader {} does not exist", loader.display()), Some(hint))
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
mod tests {
    use std::fs;

    use super::*;
    use crate::binfmt::{Flags, Magic, Rule};

    struct Directory(tempfile::TempDir);

    impl Directory {
        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }
    }

    fn directory() -> Directory {
        Directory(tempfile::tempdir().unwrap())
    }

    fn own() -> &'static Arch {
        std::env::consts::ARCH.parse().unwrap()
    }

    fn entry(name: &str, files: Files, interpreter: &str) -> Entry {
        let rule =
            Rule { name: name.into(), files, interpreter: interpreter.into(), flags: Flags::default() };
        Entry { enabled: true, rule, unknown: Vec::new() }
    }

    #[test]
    fn a_program_runs_natively_and_a_script_follows_it() {
        let dir = directory();
        let program = dir.write("own", probe::image(own()));
        let this = explain(&program, Some(&[]));
        assert!(this.runs && this.native == Some(true) && this.handler.is_none(), "{this:?}");
        let script = dir.write("script", format!("#! {}  -x\n", program.display()).as_bytes());
        let this = explain(&script, Some(&[]));
        assert!(this.runs, "{this:?}");
        assert_eq!(this.interpreter.unwrap().arch, Some(own().name));
        let lost = dir.write("lost", b"#!/no/such/interpreter\n");
        assert!(explain(&lost, Some(&[])).why[0].contains("/no/such/interpreter does not run"));
        let circle = dir.0.path().join("circle");
        dir.write("circle", format!("#!{}\n", circle.display()).as_bytes());
        assert!(!explain(&circle, Some(&[])).runs);
    }

    #[test]
    fn what_keeps_a_foreign_program_from_running() {
        let dir = directory();
        let foreign: &Arch = if own().name == "alpha" { "hppa" } else { "alpha" }.parse().unwrap();
        let program = dir.write("foreign", probe::image(foreign));
        let this = explain(&program, Some(&[]));
        assert!(this.why[0].contains("no handler is registered"), "{this:?}");
        assert!(this.hint.unwrap().contains(&format!("`qus install {foreign}`")));
        let magic = Files::Magic(0, Magic::of(foreign, [0; 4]).next().unwrap());
        let this = explain(&program, Some(&[entry("qemu-alpha", magic.clone(), "/no/such/emulator")]));
        assert!(this.why[0].contains("interpreter /no/such/emulator does not exist"), "{this:?}");
        let mut disabled = entry("qemu-alpha", magic, "/bin/true");
        disabled.enabled = false;
        let this = explain(&program, Some(&[disabled]));
        assert!(this.why[0].contains("is disabled"), "{this:?}");
        assert!(this.hint.unwrap().contains(&format!("`qus install {foreign} --force`")));
        let mut freebsd = probe::image(own()).to_vec();
        freebsd[7] = FREEBSD;
        assert!(explain(&dir.write("freebsd", &freebsd), Some(&[])).why[0].contains("FreeBSD"));
    }

    #[test]
    fn what_is_no_program_is_named() {
        let dir = directory();
        for (bytes, what) in [
            (&b"MZ\x90"[..], "Windows"),
            (b"", "empty file"),
            (b"\0asm", "WebAssembly"),
            (b"\x7fELF", "damaged"),
            (b"hello", "data"),
        ] {
            let this = explain(&dir.write("file", bytes), Some(&[]));
            assert!(!this.runs && this.what.contains(what), "{this:?}");
        }
        let jar = dir.write("x.jar", b"PK");
        let java = entry("java", Files::Extension("jar".into()), "/bin/sh");
        assert_eq!(explain(&jar, Some(&[java])).handler.as_deref(), Some("java"));
        assert!(!explain(dir.0.path(), Some(&[])).runs);
        assert!(explain(Path::new("/no/such/file"), Some(&[])).why[0].contains("cannot be read"));
        let plain = dir.write("plain", probe::image(own()));
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(explain(&plain, Some(&[])).hint.unwrap().starts_with("`chmod +x"));
        let script = dir.write("dos script", b"#!/bin/sh\r\n");
        let hint = explain(&script, Some(&[])).hint.unwrap();
        assert_eq!(hint, format!(r"`sed -i 's/\r$//' '{}'`", script.display()));
    }
}
