//! Bad input to `tarballs`.

use super::Xtask;
use std::fs;

#[test]
fn an_unknown_host_gets_the_list() {
    Xtask::new().run(&["tarballs", "--host", "vax"]).failed(2, &["unknown host `vax`", "arm64v8", "s390x"]);
}

#[test]
fn a_host_without_a_bundle_is_told_how_to_get_one() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["tarballs", "--host", "s390x", "--dry-run"]);
    ended.failed(1, &["no emulators for s390x in", "cargo xtask build-qemu --all"]);
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn without_zstd_nothing_is_packed() {
    let xtask = Xtask::new();
    let ended = xtask.command(&["tarballs"]).env("PATH", "/nonexistent").output().unwrap();
    super::Ended::of(ended).failed(1, &["lacks zstd", "remedy: "]);
    assert!(!xtask.path("target").exists());
}
