//! What is fuzzed: each target gives arbitrary bytes to a parser of untrusted input, which may refuse them. It must not
//! panic, and what it accepts must have the properties that its callers rely on.
//!
//! The seeds of a target are in `fuzz/TARGET` at the root of the repository. Each is a test.

use std::ffi::OsStr;
use std::path::Path;

use fs_err as fs;
use qus_core::binfmt::{Entry, Rule};
use qus_core::bundle::Bundle;
use qus_core::compat::translate;
use qus_core::digest::parse_list;
use qus_core::elf::Elf;
use qus_core::machine::{Event, receive, send};
use qus_core::mount::shared_proc_in;
use qus_core::persist::Manifest;
use qus_core::text::{Show, lines};

use crate::base::unpack;
use crate::qemu::{substitute, tree};
use crate::ship::images::plan::{check_repo, check_tag, split_repo};
use crate::ship::images::registry;
use crate::vm::layer;

/// A parser of untrusted input, with its name.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    #[allow(dead_code, reason = "xtask itself needs only the names")]
    pub(crate) run: fn(&[u8]),
}

pub(crate) const TARGETS: [Target; 16] = [
    Target { name: "bundle", run: bundle },
    Target { name: "checksums", run: |bytes| as_text(bytes, checksums) },
    Target { name: "compat", run: |bytes| as_text(bytes, compat) },
    Target { name: "elf", run: elf },
    Target { name: "entry", run: entry },
    Target { name: "index", run: |bytes| as_text(bytes, index) },
    Target { name: "layer", run: layer },
    Target { name: "machine", run: machine },
    Target { name: "manifest", run: manifest },
    Target { name: "mountinfo", run: mountinfo },
    Target { name: "plain-files", run: plain_files },
    Target { name: "reference", run: |bytes| as_text(bytes, reference) },
    Target { name: "registry", run: |bytes| as_text(bytes, registry) },
    Target { name: "rule", run: rule },
    Target { name: "source", run: source },
    Target { name: "text", run: |bytes| as_text(bytes, text) },
];

/// Parsers of text never get bytes that are not UTF-8.
fn as_text(bytes: &[u8], run: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        run(text);
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// `bundle.json`: a version can be the name of a directory, no file is outside of the bundle's directory, and what is
/// read is written and read again, the same.
fn bundle(bytes: &[u8]) {
    let path = Path::new("bundle.json");
    let Ok(bundle) = Bundle::parse(path, bytes) else { return };
    let version = bundle.recipe.qemu.to_string();
    assert!(
        version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains(['/', '\0']),
        "{version:?}"
    );
    for emulator in &bundle.emulators {
        assert!(!emulator.file.contains('/') && emulator.file != "..", "{:?}", emulator.file);
    }
    assert_eq!(Bundle::parse(path, bundle.json().as_bytes()).ok(), Some(bundle));
}

/// `SHA256SUMS`: no file is outside of its directory, and what is read is written and read again, the same.
fn checksums(text: &str) {
    let Some(listed) = parse_list(text) else { return };
    for (_, name) in &listed {
        assert!(
            !name.is_empty() && !name.starts_with('/') && name.split('/').all(|part| part != ".."),
            "{name:?}"
        );
    }
    let written: String = listed.iter().map(|(sha256, name)| format!("{sha256}  {name}\n")).collect();
    assert_eq!(parse_list(&written), Some(listed));
}

/// Arguments, one to a line: what they are translated to is never in an old form again.
fn compat(text: &str) {
    let args: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(Ok(commands)) = translate(&args) {
        assert!(!commands.is_empty());
        for command in commands {
            assert_eq!(translate(&command), None, "{command:?}");
        }
    }
}

/// A program: the loader is in it.
fn elf(bytes: &[u8]) {
    let Ok(elf) = Elf::parse(bytes) else { return };
    let _ = (elf.arch(), elf.abi());
    if let Some(loader) = elf.interpreter {
        assert!(contains(bytes, loader.as_os_str().as_encoded_bytes()));
    }
}

/// The kernel's text for a handler: it can be compared and inspected.
fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::parse(OsStr::new("qemu-arm"), bytes) {
        assert_eq!(entry.rule.differences(&entry.rule), []);
        let _ = (entry.is_ours(), entry.rule.matches(bytes), entry.rule.line());
    }
}

/// Records of a source package in an index of Debian: a file is in the directory of its download.
fn index(text: &str) {
    for record in substitute::records(text) {
        assert!(is_plain(&record.file), "{:?}", record.file);
    }
}

/// Whether a path is the name of a file.
fn is_plain(path: &str) -> bool {
    Path::new(path).file_name() == Some(OsStr::new(path))
}

/// The archive of an image's layer: what is accepted is in a form that is not changed again.
fn layer(bytes: &[u8]) {
    let mut once = Vec::new();
    let accepted = layer::rewrite(&*with_checksums(bytes), &mut once).is_ok();
    // What the archive's own headers describe can be larger than the archive.
    if accepted && once.len() < 1 << 20 {
        let mut twice = Vec::new();
        layer::rewrite(&*once, &mut twice).expect("what was written can be read");
        assert!(once == twice);
    }
}

/// What a machine sends: a message that is read is written and read again, the same.
fn machine(bytes: &[u8]) {
    let mut port = bytes;
    while let Ok(Some(event)) = receive::<Event>(&mut port) {
        let mut line = Vec::new();
        send(&mut line, &event).expect("memory can be written");
        assert_eq!(receive(&mut &*line).ok(), Some(Some(event)));
    }
}

/// The list of persistent files: every path is one that qus writes.
fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    for path in manifest.paths() {
        assert!(path.starts_with("/etc") || path.starts_with("/usr/local/lib/qus"), "{path:?}");
        assert!(path.iter().all(|part| part != ".."), "{path:?}");
    }
}

/// `/proc/self/mountinfo`: what is found is in it.
fn mountinfo(bytes: &[u8]) {
    if let Some(path) = shared_proc_in(bytes) {
        assert!(contains(bytes, path.as_os_str().as_encoded_bytes()));
    }
}

/// An archive of profile data or packages: it has files only, in one directory.
fn plain_files(bytes: &[u8]) {
    let Some(dir) = unpacked(bytes, |tar, into| unpack::unpack(tar, into)) else { return };
    for path in files_below(dir.path()) {
        assert!(
            path.is_file() && !path.is_symlink() && path.parent() == Some(&*dir.path().join("into")),
            "{path:?}"
        );
    }
}

/// The archive of QEMU's source: no entry is outside of its directory, and no link leads there.
fn source(bytes: &[u8]) {
    let Some(dir) = unpacked(bytes, |tar, into| tree::unpack(tar, into)) else { return };
    let into = fs::canonicalize(dir.path().join("into")).expect("the directory exists");
    for path in files_below(dir.path()) {
        assert!(fs::canonicalize(&path).map_or(true, |path| path.starts_with(&into)), "{path:?}");
    }
}

/// Gives an archive to a function that unpacks it into the directory `into` of the directory that is returned, whether
/// it accepts the archive or not. The checksums of headers are correct, because no fuzzer finds them.
fn unpacked(bytes: &[u8], unpack: impl Fn(&[u8], &Path) -> anyhow::Result<()>) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().ok()?;
    let into = dir.path().join("into");
    fs::create_dir(&into).ok()?;
    let _ = unpack(&with_checksums(bytes), &into);
    Some(dir)
}

/// A tar archive whose headers have correct checksums.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block.iter().any(|byte| *byte != 0)) {
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// All files below a directory, but no directories.
fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}

/// A repository and a tag, with a space between: together they are one argument of docker, which is no option and can
/// be taken apart again.
fn reference(text: &str) {
    let (repo, tag) = text.split_once(' ').unwrap_or((text, "latest"));
    if check_repo(repo).is_err() || check_tag(tag).is_err() {
        return;
    }
    let reference = format!("{repo}:{tag}");
    assert_eq!(reference.rsplit_once(':'), Some((repo, tag)));
    assert!(reference.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['), "{reference:?}");
    let (registry, path) = split_repo(repo);
    assert_eq!(registry.map_or(path.to_owned(), |registry| format!("{registry}/{path}")), repo);
    assert!(
        reference.chars().all(|c| c.is_ascii_graphic() && !"\"'$&*;<>?\\`|=#@,".contains(c)),
        "{reference:?}"
    );
}

/// A registry's answers as docker prints them: an index, and the manifest of an image.
fn registry(text: &str) {
    registry::inspect(text);
}

/// A line of a binfmt.d file: what is read is written and read again, the same.
fn rule(bytes: &[u8]) {
    if let Ok(rule) = Rule::parse(bytes) {
        let line = rule.line().expect("a rule that was read can be written");
        assert_eq!(Rule::parse(&line), Ok(rule));
    }
}

/// Text to be printed: no control characters remain in it, but the tabs and newlines of a message.
fn text(text: &str) {
    assert!(!text.shown().to_string().contains(char::is_control));
    assert!(!lines(text).contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::context::Context;
    use std::time::{Duration, Instant};

    /// Inputs that were found by fuzzing are among them.
    #[test]
    fn seeds_pass() {
        let dir = Context::new().unwrap().paths.fuzz_seeds("");
        let mut dirs: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        dirs.sort();
        assert_eq!(dirs, TARGETS.map(|target| target.name), "the directories in {}", dir.display());
        for target in &TARGETS {
            for seed in files_below(&dir.join(target.name)) {
                println!("{}", seed.display());
                let start = Instant::now();
                (target.run)(&fs::read(&seed).unwrap());
                assert!(start.elapsed() < Duration::from_secs(10), "it takes {:?}", start.elapsed());
            }
        }
    }
}
