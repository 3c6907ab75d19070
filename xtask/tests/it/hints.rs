//! Hints: an error ends with one hint, and xtask accepts the commands in it.

use std::fs;

use super::{Ended, Xtask, images};

/// Runs that fail with a hint that contains a command.
const RUNS: [&[&str]; 9] = [
    &["images", "--host", "s390x", "--dry-run"],
    &["images", "--host", "all", "--dry-run"],
    &["tarballs", "--dry-run"],
    &["tarballs", "--host", "all"],
    &["tarballs", "--host", "arm64v8"],
    &["engine", "status"],
    &["engine", "env"],
    &["bench", "aarch64"],
    &["bench", "hexagon"],
];

/// The commands in the hint of a run, which is the last line of stderr.
fn commands(ended: &Ended) -> Vec<String> {
    let (_, hint) =
        ended.stderr.rsplit_once("\nhint: ").unwrap_or_else(|| panic!("no hint: {}", ended.stderr));
    assert_eq!(hint.lines().count(), 1, "{}", ended.stderr);
    let quoted = hint.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    assert!(!quoted.is_empty(), "no command in: {hint}");
    quoted
}

/// Asserts that xtask accepts a command: `--help` is printed only if all arguments before it are valid.
fn assert_accepted(xtask: &Xtask, command: &str) {
    let Some(args) = command.strip_prefix("cargo xtask ") else { return };
    let args: Vec<_> = args.split(' ').chain(["--help"]).collect();
    let ended = xtask.run(&args);
    assert_eq!(ended.status, Some(0), "`{command}`: {}", ended.stderr);
}

#[test]
fn commands_in_hints_are_valid() {
    for run in RUNS {
        let xtask = Xtask::new();
        let ended = xtask.run(run);
        assert!(ended.status.is_some_and(|status| status > 0), "{run:?}");
        commands(&ended).iter().for_each(|command| assert_accepted(&xtask, command));
    }
}

#[test]
fn hints_contain_the_host() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["tarballs", "--host", "arm64v8", "--dry-run"]);
    assert_eq!(commands(&ended), ["cargo xtask build-qemu --all --host arm64v8"]);

    let xtask = images::with_bundle();
    let bundle = xtask.path("target/qus/bundle/amd64");
    fs::write(bundle.join("qemu-aarch64"), "changed").unwrap();
    let ended = xtask.run(&["tarballs", "--host", "amd64"]);
    assert_eq!(commands(&ended), ["cargo xtask build-qemu aarch64 --host amd64 --profile release"]);

    let xtask = images::with_bundle();
    fs::remove_file(xtask.path("target/qus/bundle/amd64/qus")).unwrap();
    for command in ["tarballs", "images"] {
        let ended = xtask.run(&[command, "--host", "amd64", "--dry-run"]);
        assert_eq!(commands(&ended), ["cargo xtask build-qus --host amd64"]);
    }
}

#[test]
fn commands_for_a_missing_bundle_can_be_planned() {
    let xtask = Xtask::new();
    for host in ["arm64v8", "i386", "riscv64"] {
        let ended = xtask.run(&["tarballs", "--host", host]);
        for command in commands(&ended) {
            let args: Vec<_> = command.split(' ').skip(2).chain(["--dry-run"]).collect();
            let ended = xtask.run(&args);
            assert!(ended.status == Some(0) && ended.stdout.contains(host), "`{command}`: {}", ended.stderr);
        }
    }
}
