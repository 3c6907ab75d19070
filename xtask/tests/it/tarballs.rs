//! Invalid arguments of `tarballs`, and packing.

use super::Xtask;
use std::fs;

#[test]
fn the_error_of_an_unknown_host_lists_hosts() {
    Xtask::new().run(&["tarballs", "--host", "vax"]).failed(2, &["unknown host `vax`", "arm64v8", "s390x"]);
}

#[test]
fn a_missing_bundle_has_a_hint() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["tarballs", "--host", "s390x", "--dry-run"]);
    ended.failed(1, &["no emulators for s390x in", "cargo xtask build-qemu --all"]);
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn without_bundles_there_is_nothing_to_pack() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["tarballs", "--host", "all"]);
    ended.failed(1, &["no host has a bundle", "hint: to build one, run `cargo xtask build-qemu --all`"]);
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn packing_needs_no_external_program() {
    let xtask = super::images::with_bundle();
    let bundle = xtask.path("target/qus/bundle/amd64");
    fs::create_dir_all(bundle.join("share/man/man1")).unwrap();
    for file in ["SHA256SUMS", "share/man/man1/qus.1"] {
        fs::write(bundle.join(file), file).unwrap();
    }
    let pack = || {
        let mut command = xtask.command(&["tarballs", "--host", "amd64", "--packages", "--json"]);
        let ended = super::Ended::of(command.env("PATH", "/nonexistent").output().unwrap());
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        (json["up_to_date"].as_bool().unwrap(), json["files"].clone())
    };
    let (up_to_date, files) = pack();
    assert!(!up_to_date && files.as_array().unwrap().len() == 7, "{files}");
    assert_eq!(pack(), (true, files));
}

#[test]
fn what_is_no_release_is_refused() {
    let xtask = super::images::with_bundle();
    fs::create_dir_all(xtask.path("target/qus/bundle/amd64/share/man/man1")).unwrap();
    let release = |args: &[&str]| xtask.run(&[&["release", "--no-sources"], args].concat());
    let what = "this is no release: the emulators for amd64 have another source of QEMU than this checkout";
    release(&["--host", "amd64"]).failed(1, &[what, "`cargo xtask build-qemu aarch64", "--allow-dev"]);
    release(&["--sign", "/no/such/key"]).failed(2, &["there is no key /no/such/key"]);
    assert!(!xtask.path("target/qus/release").exists(), "something was written");
    let ended = release(&["--allow-dev"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    for note in ["there are no bundles for arm64v8, ", "no heading `## 10.2.2-1`", "is not signed"] {
        assert!(ended.stderr.contains(note), "{note}: {}", ended.stderr);
    }
    let dir = xtask.path("target/qus/release/10.2.2-1");
    for file in [
        "SHA256SUMS",
        "install.sh",
        "provenance.intoto.json",
        "qus_10.2.2-1_amd64.tar.zst",
        "qus_10.2.2-1_amd64.deb",
    ] {
        assert!(dir.join(file).exists(), "{file}");
    }
    assert!(ended.stdout.contains("gh release create v10.2.2-1"), "{}", ended.stdout);
}
