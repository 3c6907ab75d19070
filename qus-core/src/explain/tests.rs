//! Explanations of files that are made for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::binfmt::{Files, Flags, Magic, MountState, Rule};

/// Explains a file where these handlers are registered.
fn explain(path: &Path, entries: &[Entry]) -> Explanation {
    super::explain(path, &handlers(entries))
}

fn handlers(entries: &[Entry]) -> RegisteredHandlers {
    RegisteredHandlers {
        root: "/mnt/binfmt misc".into(),
        state: MountState::Writable,
        switched_on: true,
        entries: Some(entries.to_vec()),
    }
}

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
    let this = explain(&program, &[]);
    assert!(this.runs && this.native == Some(true) && this.handler.is_none(), "{this:?}");
    let script = dir.write("script", format!("#! {}  -x\n", program.display()).as_bytes());
    let this = explain(&script, &[]);
    assert!(this.runs, "{this:?}");
    assert_eq!(this.interpreter.unwrap().arch, Some(own().name));
    let lost = dir.write("lost", b"#!/no/such/interpreter\n");
    assert!(explain(&lost, &[]).why[0].contains("/no/such/interpreter does not run"));
    let circle = dir.0.path().join("circle");
    dir.write("circle", format!("#!{}\n", circle.display()).as_bytes());
    assert!(!explain(&circle, &[]).runs);
}

#[test]
fn the_processor_of_a_program_that_does_not_run_natively() {
    let dir = directory();
    let processor = |name: &str| {
        let program = dir.write(name, probe::image(name.parse().unwrap()));
        explain(&program, &[]).processor
    };
    let foreign =
        if own().name == "riscv64" { ("aarch64", "Neoverse N1") } else { ("riscv64", "RVA23 profile") };
    assert_eq!(processor(foreign.0), Some(foreign.1));
    assert_eq!(processor(own().name), None);
    assert_eq!(processor("alpha"), None);
}

#[test]
fn what_keeps_a_foreign_program_from_running() {
    let dir = directory();
    let foreign: &Arch = if own().name == "alpha" { "hppa" } else { "alpha" }.parse().unwrap();
    let program = dir.write("foreign", probe::image(foreign));
    let this = explain(&program, &[]);
    assert!(this.why[0].contains("no handler is registered"), "{this:?}");
    assert!(this.hint.unwrap().contains(&format!("`qus install {foreign}`")));
    let magic = Files::Magic(0, Magic::of(foreign, [0; 4]).next().unwrap());
    let this = explain(&program, &[entry("qemu-alpha", magic.clone(), "/no/such/emulator")]);
    assert!(
        this.why[0].contains("interpreter /no/such/emulator of the handler qemu-alpha does not exist"),
        "{this:?}"
    );
    let mut disabled = entry("qemu-alpha", magic, "/bin/true");
    disabled.enabled = false;
    let this = explain(&program, &[disabled]);
    assert!(this.why[0].contains("is disabled"), "{this:?}");
    assert!(this.hint.unwrap().starts_with("as root `echo 1 > '/mnt/binfmt misc/qemu-alpha'`, or "));
    let mut freebsd = probe::image(own()).to_vec();
    freebsd[7] = FREEBSD;
    assert!(explain(&dir.write("freebsd", &freebsd), &[]).why[0].contains("FreeBSD"));
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
        let this = explain(&dir.write("file", bytes), &[]);
        assert!(!this.runs && this.what.contains(what), "{this:?}");
    }
    let jar = dir.write("x.jar", b"PK");
    let java = entry("java", Files::Extension("jar".into()), "/bin/sh");
    assert_eq!(explain(&jar, &[java]).handler.as_deref(), Some("java"));
    assert!(!explain(dir.0.path(), &[]).runs);
    assert!(explain(Path::new("/no/such/file"), &[]).why[0].contains("cannot be read"));
    let plain = dir.write("plain", probe::image(own()));
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(explain(&plain, &[]).hint.unwrap().starts_with("`chmod +x"));
    let script = dir.write("dos script", b"#!/bin/sh\r\n");
    let hint = explain(&script, &[]).hint.unwrap();
    assert_eq!(hint, format!(r"`sed -i 's/\r$//' '{}'`", script.display()));
}

#[test]
fn a_program_without_its_loader_does_not_run() {
    let mut bytes = fs::read("/bin/sh").unwrap();
    let loader = Elf::parse(&File::open("/bin/sh").unwrap()).unwrap().interpreter.unwrap();
    let loader = loader.to_str().unwrap();
    let at = bytes.windows(loader.len()).position(|window| window == loader.as_bytes()).unwrap();
    bytes[at + loader.len() - 1] = b'?';
    let this = explain(&directory().write("program", &bytes), &[]);
    assert!(!this.runs && this.why[0].contains("? does not exist"), "{this:?}");
    assert!(this.hint.unwrap().contains("`chroot DIR CMD`"), "QEMU does not run it");
}

#[test]
fn privileges_without_effect_are_explained() {
    let dir = directory();
    let foreign: &Arch = if own().name == "alpha" { "hppa" } else { "alpha" }.parse().unwrap();
    let magic = Files::Magic(0, Magic::of(foreign, [0; 4]).next().unwrap());
    let program = dir.write("setuid", probe::image(foreign));
    let handler = entry("qemu-other", magic, "/bin/sh");
    for (mode, what) in
        [(0o4755, "a setuid program"), (0o2755, "a setgid program"), (0o6755, "a setuid and setgid")]
    {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let this = explain(&program, std::slice::from_ref(&handler));
        assert!(this.why.iter().any(|why| why.contains(what) && why.contains("no flag C")), "{this:?}");
        let mut with = handler.clone();
        with.rule.flags.credentials = true;
        let this = explain(&program, &[with]);
        assert!(!this.why.iter().any(|why| why.contains("flag C")), "{this:?}");
    }
    // The bit is not for execution.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2745)).unwrap();
    assert!(!explain(&program, &[handler]).why.iter().any(|why| why.contains("setgid")));
    let script = dir.write("script", b"#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o4755)).unwrap();
    let this = explain(&script, &[]);
    assert!(this.runs && this.why[0].contains("the kernel ignores those of scripts"), "{this:?}");
}

#[test]
fn where_no_handler_is_used() {
    let dir = directory();
    let foreign: &Arch = if own().name == "alpha" { "hppa" } else { "alpha" }.parse().unwrap();
    let program = dir.write("foreign", probe::image(foreign));
    let script = dir.write("script", format!("#!{}\n", program.display()).as_bytes());
    let magic = Files::Magic(0, Magic::of(foreign, [0; 4]).next().unwrap());
    let mut off = RegisteredHandlers { switched_on: false, ..handlers(&[entry("qemu", magic, "/bin/true")]) };
    let on = "echo 1 > '/mnt/binfmt misc/status'";
    let hint = |handlers: &RegisteredHandlers, file: &Path| super::explain(file, handlers).hint.unwrap();
    let run = format!("or without root `qus run {foreign} -- {}`", script.display());
    assert_eq!(hint(&off, &script), format!("as root `{on}`, {run}"));
    off.entries.as_mut().unwrap()[0].enabled = false;
    let enable = "echo 1 > '/mnt/binfmt misc/qemu'";
    assert_eq!(hint(&off, &script), format!("as root `{on} && {enable}`, {run}"));
    off.entries = Some(Vec::new());
    assert!(hint(&off, &script).starts_with(&format!("as root `{on} && qus install {foreign}`, ")));
    off.state = MountState::NotMounted;
    let mount = "mount -t binfmt_misc binfmt_misc '/mnt/binfmt misc'";
    assert!(hint(&off, &script).starts_with(&format!("as root `{mount} && {on} && ")));
}
