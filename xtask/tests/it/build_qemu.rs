//! Bad input to `build-qemu`, and its plan.

use super::{Ended, Xtask};
use std::fs;

#[test]
fn an_unknown_target_gets_the_nearest_names() {
    Xtask::new()
        .run(&["build-qemu", "aarch46"])
        .failed(2, &["unknown architecture `aarch46`", "did you mean aarch64"]);
}

#[test]
fn an_unknown_host_gets_the_list() {
    Xtask::new().run(&["build-qemu", "--host", "vax"]).failed(2, &["unknown host `vax`", "arm64v8", "s390x"]);
}

#[test]
fn a_host_that_cannot_be_built_for_here_is_refused() {
    let other = if cfg!(target_arch = "s390x") { "amd64" } else { "s390x" };
    let expected = format!("emulators for {other} cannot be built on");
    Xtask::new().run(&["build-qemu", "--host", other]).failed(2, &[&expected]);
}

#[test]
fn an_unknown_version_gets_the_list() {
    let ended = Xtask::new().run(&["build-qemu", "--qemu", "9.9.9"]);
    ended.failed(2, &["QEMU `9.9.9` is not in sources.toml", "10.2.2 (default)", "(lts)", "(edge)"]);
}

#[test]
fn targets_and_all_exclude_each_other() {
    Xtask::new().run(&["build-qemu", "--all", "arm"]).failed(2, &["cannot be used with"]);
    Xtask::new().run(&["build-qemu", "--jobs", "0"]).failed(2, &["--jobs"]);
}

#[test]
fn a_wrong_hash_prints_expected_and_got() {
    let xtask = Xtask::new();
    let file = xtask.path("qemu-10.2.2.tar.xz");
    fs::write(&file, "not QEMU").unwrap();
    let expected = [
        "has the wrong sha256",
        "expected 784b296ff29c1417aa72323abcb2d2ea9ab9771724f577dcd785c3b04f21e176 (upstream, qemu-10.2.2.tar.xz)",
        "expected be05230fe47a6937cd29f28f562932c8125f9c93c2a82c625198f7a4aa601dfb (Debian, ",
        "got      ",
    ];
    xtask.run(&["build-qemu", "--source", file.to_str().unwrap()]).failed(1, &expected);
    // The same file found in a folder is no better, and nothing of it is kept.
    xtask.run(&["build-qemu", "--source", xtask.dir.path().to_str().unwrap()]).failed(1, &expected[..2]);
    assert!(!xtask.path("cache/qus/downloads").exists());
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["build-qemu", "--source", "/no/such/file"]);
    ended.failed(1, &["cannot read /no/such/file", "No such file or directory"]);
    let folder = xtask.dir.path().to_str().unwrap();
    let ended = xtask.run(&["build-qemu", "--source", folder]);
    ended.failed(1, &["has no qemu-10.2.2.tar.xz or qemu_10.2.2+ds.orig.tar.xz, the source of QEMU 10.2.2"]);
}

#[test]
fn without_a_compiler_all_that_is_missing_is_listed() {
    let xtask = Xtask::new();
    let ended = Ended::of(xtask.command(&["build-qemu"]).env("CC", "no-such-cc").output().unwrap());
    ended.failed(1, &["no-such-cc: the C compiler", "remedy: install a C compiler"]);
    let ended = Ended::of(xtask.command(&["build-qemu"]).env("PATH", "/nonexistent").output().unwrap());
    ended.failed(1, &["cc: ", "strip: ", "python3: ", "git: ", "apt-get install gcc libc6-dev python3 git"]);
}

#[test]
fn folders_that_qemu_cannot_be_built_in_are_refused_first() {
    let xtask = Xtask::new();
    let ended = Ended::of(
        xtask.command(&["build-qemu"]).env("XDG_CACHE_HOME", xtask.path("my cache")).output().unwrap(),
    );
    ended.failed(1, &["my cache", "without spaces"]);
    let ended = Ended::of(xtask.command(&["build-qemu"]).env("XDG_CACHE_HOME", "cache").output().unwrap());
    ended.failed(1, &["not an absolute path", "XDG_CACHE_HOME"]);
    let mut homeless = xtask.command(&["build-qemu"]);
    homeless.env_remove("XDG_CACHE_HOME").env_remove("HOME");
    Ended::of(homeless.output().unwrap()).failed(1, &["neither XDG_CACHE_HOME nor HOME is set"]);
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["build-qemu", "--dry-run", "linux/arm64", "armhf", "--profile", "release"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    for expected in ["build QEMU 10.2.2", "(release)", "--static", "targets   aarch64 arm\n"] {
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
    let json = xtask.run(&["build-qemu", "--dry-run", "--json", "--all", "--qemu", "lts"]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["targets"].as_array().unwrap().len(), 33);
    assert_eq!(plan["qemu"], "10.0.13");
    assert_eq!(plan["patches"].as_array().unwrap().len(), 0, "none applies to 10.0");
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 0, "something was written");
}
