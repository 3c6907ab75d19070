//! Explanations of files that are made for it.

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
    let rule = Rule { name: name.into(), files, interpreter: interpreter.into(), flags: Flags::default() };
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

#[test]
fn a_program_without_its_loader_does_not_run() {
    let mut bytes = fs::read("/bin/sh").unwrap();
    let loader = Elf::parse(&File::open("/bin/sh").unwrap()).unwrap().interpreter.unwrap();
    let loader = loader.to_str().unwrap();
    let at = bytes.windows(loader.len()).position(|window| window == loader.as_bytes()).unwrap();
    bytes[at + loader.len() - 1] = b'?';
    let this = explain(&directory().write("program", &bytes), Some(&[]));
    assert!(!this.runs && this.why[0].contains("? does not exist"), "{this:?}");
    assert!(this.hint.unwrap().contains("`chroot DIR CMD`"), "QEMU does not run it");
}
