//! Installing into a directory in place of the kernel, which takes a rule and shows no handler.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::watch::Watch;

const FOREIGN: &str = "alpha";

/// A kernel without handlers, and one emulator: a static program of this machine that emulates nothing.
fn machine() -> (tempfile::TempDir, Binfmt, EmulatorDir) {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, bin) = (dir.path().join("binfmt"), dir.path().join("bin"));
    for (dir, name, content) in [
        (&kernel, "register", &b""[..]),
        (&kernel, "status", b"enabled\n"),
        (&bin, "qemu-alpha", probe::image(std::env::consts::ARCH.parse().unwrap())),
    ] {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (binfmt, emulators) = (Binfmt::at(kernel), EmulatorDir::open(&bin).unwrap());
    (dir, binfmt, emulators)
}

fn options() -> InstallOptions {
    InstallOptions { probe: false, any_owner: true, native: true, ..InstallOptions::default() }
}

/// Shows a handler as the kernel would after it was registered.
fn show(binfmt: &Binfmt, emulators: &EmulatorDir) {
    let rule = &handler::rules_of(&emulators.emulators[0], Flags::DEFAULT)[0];
    fs::write(binfmt.root().join("qemu-alpha"), crate::binfmt::entry::text(rule)).unwrap();
}

#[test]
fn a_handler_that_the_kernel_does_not_show_has_failed() {
    let (_dir, binfmt, emulators) = machine();
    let arch = FOREIGN.parse().unwrap();
    let done = install(&binfmt, &emulators, &[arch], &options(), &mut |_| {}).unwrap();
    assert_eq!(done.failed().collect::<Vec<_>>(), [FOREIGN]);
    assert_eq!(done.outcomes[0].differences[0].registered, "nothing");
    let probing = InstallOptions { probe: true, ..options() };
    let done = install(&binfmt, &emulators, &[arch], &probing, &mut |_| {}).unwrap();
    assert!(done.outcomes[0].why.as_ref().unwrap().contains("does not run its own architecture"));
    let done = install(&binfmt, &emulators, &["sh4".parse().unwrap()], &options(), &mut |_| {}).unwrap();
    assert!(done.outcomes[0].hint.as_ref().unwrap().contains("--dir"), "{done:?}");
}

#[test]
fn a_difference_has_a_hint_and_force_plans_to_replace() {
    let (_dir, binfmt, emulators) = machine();
    let archs = [FOREIGN.parse().unwrap()];
    show(&binfmt, &emulators);
    let state = |options: &InstallOptions| {
        let done = install(&binfmt, &emulators, &archs, options, &mut |_| {}).unwrap();
        (done.outcomes[0].state, done.outcomes[0].hint.clone())
    };
    assert_eq!(state(&options()), (InstallState::Unchanged, None));
    let other = InstallOptions { flags: Flags::NO_CREDENTIALS, dry_run: true, ..options() };
    let (failed, hint) = state(&other);
    assert_eq!(failed, InstallState::Failed);
    assert!(hint.unwrap().contains("`--force`"));
    assert_eq!(state(&InstallOptions { force: true, ..other }), (InstallState::Replaced, None));
}

#[test]
fn a_watch_reports_a_failure_once() {
    let (_dir, binfmt, emulators) = machine();
    let archs = [FOREIGN.parse().unwrap()];
    show(&binfmt, &emulators);
    let options = options();
    let mut watch = Watch::new(install(&binfmt, &emulators, &archs, &options, &mut |_| {}).unwrap());
    let mut check = || watch.check(&binfmt, &options, || EmulatorDir::open(&emulators.dir), &mut |_| {});
    assert_eq!(check(), []);
    fs::remove_file(binfmt.root().join("qemu-alpha")).unwrap();
    assert_eq!(check()[0].state, InstallState::Failed);
    assert_eq!(check(), [], "it was reported");
    show(&binfmt, &emulators);
    assert_eq!(check(), []);
    fs::write(binfmt.root().join("status"), "disabled\n").unwrap();
    assert!(check()[0].why.as_ref().unwrap().contains("is switched off"));
    assert_eq!(check(), [], "it was reported");
}

#[test]
fn nothing_is_registered_where_no_handler_is_used() {
    let (_dir, binfmt, emulators) = machine();
    fs::write(binfmt.root().join("status"), "disabled\n").unwrap();
    for dry_run in [false, true] {
        let options = InstallOptions { dry_run, ..options() };
        let archs = [FOREIGN.parse().unwrap()];
        let error = install(&binfmt, &emulators, &archs, &options, &mut |_| {}).unwrap_err();
        let hint = format!("as root: `echo 1 > {}/status`", binfmt.root().display());
        assert_eq!(error.hint(), Some(hint), "{error}");
    }
    assert!(fs::read(binfmt.root().join("register")).unwrap().is_empty());
}
