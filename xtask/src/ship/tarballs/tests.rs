//! Layouts of tarballs, and bundles that cannot be packed.

use super::*;

use qus_core::bundle::{BundledEmulator, Profile, Recipe, Toolchain};
use qus_core::hint;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

/// A bundle whose only emulator is a few bytes.
pub(in crate::ship) fn bundle(dir: &Path) {
    let write = |path: &str, text: &str| files::write(&dir.join(path), text.as_bytes()).unwrap();
    write("qemu-arm", "emulator");
    write("qus", "program");
    write("share/man/man1/qus.1", "manual");
    write("licenses/emulators/qemu-10.2.2/COPYING", "GPL");
    write("licenses/emulators/libc6-dev-2/copyright", "LGPL");
    write("licenses/emulators/parts.json", "[]");
    write("licenses/program/parts.json", "[]");
    write("licenses/program/qus-0.1.0/LICENSE-MIT", "MIT");
    write("licenses/program/libc6-dev-2/copyright", "LGPL");
    write("share/zsh/site-functions/_qus", "completions");
    let none = Sha256::of("");
    let recipe = Recipe {
        qemu: semver::Version::new(10, 2, 2),
        source_sha256: none,
        patches: Vec::new(),
        host: amd64(),
        profile: Profile::Dev,
        flags: Vec::new(),
        profile_data_sha256: None,
        toolchain: Toolchain { cc: String::new(), ld: String::new(), libc_sha256: none },
        dependencies: Vec::new(),
    };
    let emulator = BundledEmulator {
        target: "arm".parse().unwrap(),
        file: "qemu-arm".to_owned(),
        size: 8,
        sha256: Sha256::of(b"emulator"),
    };
    manifest::write(&Bundle::new(recipe, vec![emulator]), dir).unwrap();
}

fn amd64() -> &'static Host {
    "amd64".parse().unwrap()
}

/// The tarballs of that bundle.
fn planned(dir: &Path) -> Result<Vec<Tarball>> {
    plan(&manifest::built(amd64(), dir)?.released("10.2.2-1".parse().unwrap()), dir, 0)
}

fn paths(tarball: &Tarball) -> Vec<&str> {
    tarball.entries.iter().map(|entry| &*entry.path).collect()
}

fn bytes(tarball: &Tarball) -> Vec<u8> {
    let mut bytes = Vec::new();
    tarball.write_tar(&mut bytes).unwrap();
    bytes
}

#[test]
fn tarballs_have_their_layouts() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path());
    let tarballs = planned(dir.path()).unwrap();
    let files: Vec<_> = tarballs.iter().map(|tarball| &*tarball.file).collect();
    let expected =
        ["qemu-arm-static", "qus", "qus-bundle"].map(|name| format!("{name}_10.2.2-1_amd64.tar.zst"));
    assert_eq!(files, expected);
    let licences = ["libc6-dev-2/copyright", "qemu-10.2.2/COPYING", "qus-0.1.0/LICENSE-MIT"];
    let [libc, qemu, own] = licences.map(|path| format!("share/licenses/{path}"));
    let sbom = |name: &str, form: &str| format!("share/sbom/{name}_10.2.2-1_amd64.{form}.json");
    let of_emulators = [sbom("qemu", "cdx"), sbom("qemu", "spdx")];
    let of_program = [sbom("qus", "cdx"), sbom("qus", "spdx")];
    let expected = [&["qemu-arm-static".to_owned(), libc.clone(), qemu.clone()], &of_emulators[..]];
    assert_eq!(paths(&tarballs[0]), expected.concat());
    let share = ["share/man/man1/qus.1", "share/zsh/site-functions/_qus"].map(str::to_owned);
    let expected = [&["qus".to_owned(), libc.clone(), own.clone()], &share[..1], &of_program, &share[1..]];
    assert_eq!(paths(&tarballs[1]), expected.concat());
    let files = ["SHA256SUMS", "bundle.json", "qemu-arm", "qus"].map(str::to_owned);
    let licences = [libc, qemu, own];
    let expected = [&files[..], &licences, &share[..1], &of_emulators, &of_program, &share[1..]].concat();
    let expected: Vec<_> = expected.iter().map(|path| format!("qus-bundle_10.2.2-1_amd64/{path}")).collect();
    assert_eq!(paths(&tarballs[2]), expected);
}

#[test]
fn equal_files_make_equal_tarballs() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    dirs.iter().for_each(|dir| bundle(dir.path()));
    let program = dirs[0].path().join("qus");
    let open = fs::File::options().write(true).open(&program).unwrap();
    open.set_modified(SystemTime::now() - Duration::from_secs(9)).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    let [first, second] = dirs.each_ref().map(|dir| planned(dir.path()).unwrap());
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(bytes(first), bytes(second), "{}", first.file);
    }
    let unpacked = tempfile::tempdir().unwrap();
    let bytes = bytes(&first[2]);
    tar::Archive::new(&*bytes).unpack(unpacked.path()).unwrap();
    assert_eq!(
        Bundle::read(&unpacked.path().join("qus-bundle_10.2.2-1_amd64")).unwrap().unwrap().version(),
        "10.2.2-1"
    );
    for entry in &first[2].entries {
        assert_eq!(files::sha256(&unpacked.path().join(&entry.path)).unwrap(), entry.sha256);
    }
    for entry in tar::Archive::new(&*bytes).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        let path = entry.path().unwrap();
        let mode = if path.ends_with("qus") || path.ends_with("qemu-arm") { 0o755 } else { 0o644 };
        assert_eq!(header.mode().unwrap(), mode, "{}", path.display());
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        assert_eq!((header.username(), header.groupname()), (Ok(Some("")), Ok(Some(""))));
    }
}

#[test]
fn incomplete_or_changed_bundles_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = || hint::render(&planned(dir.path()).err().unwrap());
    assert!(message().contains("`cargo xtask build-qemu --all --host amd64`"), "{}", message());
    bundle(dir.path());
    fs::write(dir.path().join("qemu-arm"), "changed").unwrap();
    assert!(message().contains("does not match bundle.json"), "{}", message());
    assert!(message().contains("`cargo xtask build-qemu arm --host amd64`"), "{}", message());
    bundle(dir.path());
    files::remove_dir(&dir.path().join("share")).unwrap();
    assert!(message().contains("`cargo xtask build-qus --host amd64`"), "{}", message());
    bundle(dir.path());
    fs::remove_file(dir.path().join("qus")).unwrap();
    assert!(message().contains("`cargo xtask build-qus --host amd64`"), "{}", message());
}

#[test]
fn a_changed_tarball_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let files = vec![PackedFile { file: "a".into(), size: 1, sha256: Sha256::of(b"a") }];
    fs::write(dir.path().join("SHA256SUMS"), sums(&files)).unwrap();
    fs::write(dir.path().join("a"), "a").unwrap();
    let record = PackRecord { inputs: Sha256::of(""), files };
    assert!(record.is_intact(dir.path()));
    fs::write(dir.path().join("a"), "b").unwrap();
    assert!(!record.is_intact(dir.path()));
}
