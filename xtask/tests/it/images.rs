//! Invalid arguments of `images`, and its plan.

use super::{Ended, Xtask};
use qus_core::arch::Host;
use qus_core::digest::Sha256;
use std::fs;

/// A workspace with a bundle of one emulator for amd64, which suffices for a plan.
pub(super) fn with_bundle() -> Xtask {
    with_bundle_of("amd64".parse().unwrap())
}

fn with_bundle_of(host: &Host) -> Xtask {
    let xtask = Xtask::new();
    add_bundle(&xtask, host, "release", &["aarch64"]);
    xtask
}

/// Adds a bundle of empty files.
pub(super) fn add_bundle(xtask: &Xtask, host: &Host, profile: &str, guests: &[&str]) {
    let dir = xtask.path("target/qus/bundle").join(host.name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("qus"), "").unwrap();
    for licence in ["emulators/qemu-10.2.2/COPYING", "program/qus-0.1.0/LICENSE-MIT"] {
        let file = dir.join("licenses").join(licence);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file.parent().unwrap().with_file_name("parts.json"), "[]").unwrap();
        fs::write(file, licence).unwrap();
    }
    let none = Sha256::of("");
    let emulator = |guest: &&str| {
        let file = format!("qemu-{guest}");
        fs::write(dir.join(&file), "").unwrap();
        serde_json::json!({ "target": guest, "file": file, "size": 0, "sha256": none })
    };
    let emulators: Vec<_> = guests.iter().map(emulator).collect();
    let bundle = serde_json::json!({
        "schema": 2, "qemu": "10.2.2", "source_sha256": none, "patches": [], "host": host.name, "profile": profile,
        "flags": [], "toolchain": { "cc": "", "ld": "", "libc_sha256": none }, "dependencies": [],
        "emulators": emulators,
    });
    fs::write(dir.join("bundle.json"), bundle.to_string()).unwrap();
}

/// The plan for that bundle.
fn plan(xtask: &Xtask, args: &[&str]) -> String {
    let words = [&["images", "--dry-run", "--host", "amd64", "--repo", "ghcr.io/a/b"], args].concat();
    let Ended { status, stdout, stderr } = xtask.run(&words);
    assert_eq!(status, Some(0), "{stderr}");
    stdout
}

#[test]
fn invalid_names_are_refused() {
    let failed = |args: &[&str], words: &[&str]| {
        Xtask::new().run(&[&["images", "--push"], args].concat()).failed(2, words);
    };
    failed(
        &["--repo", "ghcr.io/Some/Qus"],
        &["repository names must be lowercase; did you mean ghcr.io/some/qus?"],
    );
    failed(&["--repo", "ghcr.io/a/b:latest"], &["use --tag for the tag"]);
    failed(&["--repo", "ghcr.io/a/b", "--tag", "a/b"], &["`a/b` is not a valid tag"]);
    failed(&["--repo", "qus"], &["has no registry", "ghcr.io/example/qus"]);
    failed(&["--repo", "ghcr.io/a/b", "--host", "vax"], &["unknown host `vax`", "arm64v8"]);
}

#[test]
fn an_action_is_required() {
    Xtask::new().run(&["images"]).failed(2, &["--push", "--load", "--dry-run"]);
    Xtask::new().run(&["images", "--push", "--load"]).failed(2, &["cannot be used with"]);
    // Sizes are recorded for QEMU's version, which is then not in the tags.
    let ended = Xtask::new().run(&["images", "--push", "--repo", "ghcr.io/a/b", "--record", "--tag", "x"]);
    ended.failed(2, &["cannot be used with"]);
}

/// Runs a push that needs no engine.
fn push(xtask: &Xtask, args: &[&str]) -> Ended {
    let push = ["images", "--push", "--dry-run", "--repo", "ghcr.io/a/b", "--host", "all"];
    xtask.run(&[&push, args].concat())
}

#[test]
fn the_dev_profile_is_not_pushed_to_tags_of_a_release() {
    let xtask = Xtask::new();
    add_bundle(&xtask, "amd64".parse().unwrap(), "dev", &["aarch64", "arm"]);
    let build = "`cargo xtask build-qemu aarch64 arm --host amd64 --qemu 10.2.2 --profile release`";
    let what = "the emulators for amd64 were built with the dev profile";
    push(&xtask, &[]).failed(1, &[what, "hint: ", build, "--tag", "--allow-dev"]);
    for args in [&["--tag", "mine"][..], &["--allow-dev"]] {
        let ended = push(&xtask, args);
        assert_eq!(ended.status, Some(0), "{args:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("note: {what}; for a release, run {build}")),
            "{}",
            ended.stderr
        );
    }
    let ended = xtask.run(&["images", "--dry-run", "--host", "amd64"]);
    assert_eq!(ended.status, Some(0), "nothing is pushed: {}", ended.stderr);
    xtask.run(&["images", "--dry-run", "--allow-dev"]).failed(2, &["--push"]);
}

#[test]
fn emulators_of_other_inputs_are_not_pushed_to_tags_of_a_release() {
    let xtask = with_bundle();
    let what = "the emulators for amd64 have another source of QEMU than this checkout";
    let build = "`cargo xtask build-qemu aarch64 --host amd64 --qemu 10.2.2 --profile release`";
    push(&xtask, &[]).failed(1, &[&format!("this is no release: {what}"), build, "--tag", "--allow-dev"]);
    let ended = push(&xtask, &["--tag", "mine"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("note: {what}")), "{}", ended.stderr);
}

#[test]
fn images_without_licences_are_not_pushed_to_tags_of_a_release() {
    let xtask = with_bundle();
    fs::remove_dir_all(xtask.path("target/qus/bundle/amd64/licenses/emulators")).unwrap();
    let ended = push(&xtask, &["--tag", "mine"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let what = "note: the bundle of amd64 has no licence texts; for a release, run `cargo xtask build-qemu --host amd64`";
    assert!(ended.stderr.contains(what), "{}", ended.stderr);
}

#[test]
fn hosts_with_other_guests_are_not_pushed() {
    let xtask = Xtask::new();
    let add = |host: &str, guests: &[&str]| add_bundle(&xtask, host.parse().unwrap(), "release", guests);
    add("amd64", &["aarch64", "arm", "sh4"]);
    add("arm64v8", &["x86_64", "arm", "sh4"]);
    add("arm32v7", &["sh4"]);
    let ended = push(&xtask, &["--allow-dev"]);
    assert_eq!(ended.status, Some(0), "the sets are equal: {}", ended.stderr);
    add("arm64v8", &["arm"]);
    let expected = [
        "some hosts lack guests that others have:\n  arm64v8 lacks sh4\n",
        "hint: run `cargo xtask build-qemu sh4 --host arm64v8 --qemu 10.2.2 --profile release`",
        "--allow-partial",
    ];
    for args in [&["--allow-dev"][..], &["--tag", "mine"]] {
        push(&xtask, args).failed(1, &expected);
    }
    let ended = push(&xtask, &["--allow-dev", "--allow-partial"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("warning: some hosts lack guests"), "{}", ended.stderr);
}

#[test]
fn missing_emulators_have_a_hint() {
    let words =
        ["no emulators for s390x in", "hint: to build them, run `cargo xtask build-qemu --all --host s390x`"];
    let xtask = Xtask::new();
    xtask.run(&["images", "--host", "s390x", "--dry-run"]).failed(1, &words);
    xtask.run(&["images", "--host", "all", "--dry-run"]).failed(1, &["no host has a bundle", "hint: "]);
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn a_damaged_bundle_is_reported() {
    let xtask = with_bundle();
    let file = xtask.path("target/qus/bundle/amd64/bundle.json");
    let whole = fs::read(&file).unwrap();
    for text in [&whole[..whole.len() / 2], b""] {
        fs::write(&file, text).unwrap();
        for command in ["images", "tarballs"] {
            let words = ["bundle.json is damaged: ", "`cargo xtask build-qemu`"];
            xtask.run(&[command, "--host", "amd64", "--dry-run"]).failed(1, &words);
        }
    }
}

#[test]
fn a_plan_has_every_tag_and_writes_nothing() {
    let xtask = with_bundle();
    let text = plan(&xtask, &[]);
    for line in [
        "images of QEMU 10.2.2 for ghcr.io/a/b",
        "image  amd64-10.2.2-1-pkg  linux/amd64",
        "image  amd64-10.2.2-1-aarch64  linux/amd64",
        "index  10.2.2-1  10.2.2  10.2  default  latest",
        "index  10.2.2-1-aarch64  10.2.2-aarch64  10.2-aarch64  default-aarch64  latest-aarch64",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "`{line}` is not in:\n{text}");
    }
    assert_eq!(fs::read_dir(xtask.path("target/qus")).unwrap().count(), 1, "something was written");
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 1, "something was written");
}

#[test]
fn a_custom_tag_does_not_change_moving_tags() {
    let text = plan(&with_bundle(), &["--tag", "mine"]);
    assert!(text.contains("index  mine-pkg"), "{text}");
    assert!(!text.contains("latest") && !text.contains("10.2.2-"), "{text}");
}

#[test]
fn the_plan_of_load_has_only_the_tags_of_this_machine() {
    let host = Host::current().unwrap();
    let xtask = with_bundle_of(host);
    let text = xtask.run(&["images", "--load", "--dry-run"]).stdout;
    let loaded: Vec<_> = text.lines().skip(1).collect();
    assert_eq!(loaded.len(), 4, "{text}");
    let platform = host.platform;
    let tags = ["qus:10.2.2-1", "qus:10.2.2", "qus:10.2", "qus:default", "qus:latest"];
    assert_eq!(loaded[2], format!("load   {}  linux/{platform}", tags.join("  ")), "{text}");
    let json = xtask.run(&["images", "--load", "--dry-run", "--json"]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    let target = &plan["target"][format!("{host}-full")];
    assert_eq!(target["tags"], serde_json::json!(tags));
    assert_eq!(target["output"], serde_json::json!(["type=docker"]));
}

#[test]
fn a_plan_as_json_is_a_bake_file() {
    let plan: serde_json::Value = serde_json::from_str(&plan(&with_bundle(), &["--json"])).unwrap();
    let target = &plan["target"]["amd64-full"];
    assert_eq!(target["tags"][0], "ghcr.io/a/b:amd64-10.2.2-1");
    assert_eq!(target["platforms"][0], "linux/amd64");
    assert_eq!(plan["group"]["default"]["targets"].as_array().unwrap().len(), 4);
}
