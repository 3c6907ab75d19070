//! Commands on a directory that looks like binfmt_misc, and on directories of emulators.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use qus_core::arch::Arch;
use qus_core::binfmt::{Flags, Rule, entry};
use qus_core::digest::Sha256;
use qus_core::{handler, probe};
use serde_json::Value;

use super::{Ended, TestDir, qus};

/// An architecture that no machine of ours runs.
pub(super) const FOREIGN: &str = "alpha";

/// A directory with a kernel that has no handler, and one emulator: a static program of this machine that
/// emulates nothing.
pub(super) fn machine() -> TestDir {
    let files = TestDir::new();
    files.write("binfmt/register", "");
    files.write("binfmt/status", "enabled\n");
    let own: &Arch = std::env::consts::ARCH.parse().unwrap();
    let emulator = format!("bin/qemu-{FOREIGN}");
    files.write(&emulator, probe::image(own));
    fs::set_permissions(files.path(&emulator), fs::Permissions::from_mode(0o755)).unwrap();
    files
}

/// What the kernel would show for our handler, and its rule.
pub(super) fn text(files: &TestDir) -> (String, Rule) {
    let interpreter = files.path(&format!("bin/qemu-{FOREIGN}"));
    let rule = handler::rules(FOREIGN.parse().unwrap(), &interpreter, [0; 4], Flags::DEFAULT).remove(0);
    (entry::text(&rule), rule)
}

/// The exit status of a kernel that takes a rule and has no handler afterwards is not 0.
#[test]
fn what_cannot_be_read_back_is_not_installed() {
    let files = machine();
    let (mount, dir) = (files.arg("binfmt"), files.arg("bin"));
    let ended = qus(&["--mount", &mount, "install", FOREIGN, "--no-probe", "--dir", &dir]);
    ended.says(1, &["the kernel does not show the handler that was registered", "not installed: alpha"]);
    assert_eq!(files.read("binfmt/register").as_bytes(), text(&files).1.line().unwrap());
    assert_eq!(files.read("binfmt/status"), "enabled\n");
}

#[test]
fn an_emulator_that_emulates_nothing_is_not_registered() {
    let files = machine();
    let ended = qus(&["--mount", &files.arg("binfmt"), "install", FOREIGN, "--dir", &files.arg("bin")]);
    ended.says(1, &["does not run its own architecture"]);
    assert_eq!(files.read("binfmt/register"), "");
}

#[test]
fn a_dry_run_changes_nothing() {
    let files = machine();
    let (mount, dir) = (files.arg("binfmt"), files.arg("bin"));
    let args =
        ["--mount", &mount, "install", FOREIGN, "vax", "--no-probe", "--dry-run", "--json", "--dir", &dir];
    let ended = qus(&args);
    ended.says(1, &["would be installed", "unknown architecture `vax`", "not installed: vax"]);
    let rows: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(rows[1]["handlers"][0], "qemu-alpha");
    assert_eq!(files.read("binfmt/register"), "");

    files.write("binfmt/qemu-alpha", text(&files).0);
    let ended = qus(&["--mount", &mount, "remove", "all", "--dry-run"]);
    ended.says(0, &["qemu-alpha would be removed"]);
    assert_eq!(files.read("binfmt/qemu-alpha"), text(&files).0);
}

#[test]
fn the_same_again_is_nothing_and_a_difference_is_reported() {
    let files = machine();
    files.write("binfmt/qemu-alpha", text(&files).0);
    let (mount, dir) = (files.arg("binfmt"), files.arg("bin"));
    let install = ["--mount", &mount, "install", FOREIGN, "--no-probe", "--dir", &dir];
    qus(&install).says(0, &["unchanged"]);
    qus(&[&install[..], &["--no-credentials"]].concat()).says(1, &["flags: is POCF, should be PF"]);
    assert_eq!(files.read("binfmt/register"), "");
}

#[test]
fn status_distinguishes_ours_from_others_and_survives_garbage() {
    let files = machine();
    files.write("binfmt/qemu-alpha", text(&files).0);
    files.write("binfmt/python", "disabled\ninterpreter /usr/bin/python3\nflags: \nextension .pyc\n");
    files.write("binfmt/garbage", "\u{1}\u{2}");
    let ended = qus(&["--mount", &files.arg("binfmt"), "status", "--json"]);
    ended.says(0, &[]);
    let status: Value = serde_json::from_str(&ended.stdout).unwrap();
    let row = |name: &str| {
        let rows = status["handlers"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}")).clone()
    };
    assert_eq!((&row("qemu-alpha")["owner"], &row("qemu-alpha")["arch"]), (&"qus".into(), &FOREIGN.into()));
    assert_eq!((&row("python")["owner"], &row("python")["enabled"]), (&"another".into(), &false.into()));
    assert!(row("garbage")["why"].as_str().unwrap().contains("neither enabled nor disabled"));
    let table = qus(&["--mount", &files.arg("binfmt"), "status"]);
    assert!(table.stdout.contains("honours setuid"), "{}", table.stdout);
    assert!(table.stderr.contains("garbage: "), "{}", table.stderr);
}

#[test]
fn others_are_not_removed() {
    let files = machine();
    let foreign = text(&files).0.replace("717573", "000000");
    files.write("binfmt/qemu-alpha", &foreign);
    let mount = files.arg("binfmt");
    qus(&["--mount", &mount, "remove", FOREIGN])
        .says(1, &["qemu-alpha was not registered by qus and is left unchanged"]);
    qus(&["--mount", &mount, "remove", "all"]).says(0, &["nothing to remove"]);
    assert_eq!(files.read("binfmt/qemu-alpha"), foreign);
}

#[test]
fn what_does_not_exist_is_named() {
    let files = machine();
    let dir = files.arg("bin");
    let ended = qus(&["--mount", "/no/such/mount", "install", FOREIGN, "--no-probe", "--dir", &dir]);
    ended.says(1, &["binfmt_misc", "hint: "]);
    qus(&["install", FOREIGN, "--dir", "/no/such/directory"])
        .says(1, &["/no/such/directory", "No such file"]);
    qus(&["install", "s390x", "--no-probe", "--dir", &dir]).says(1, &["there is no qemu-s390x in"]);
    qus(&["explain", "/no/such/file"]).says(1, &["cannot be run here: /no/such/file"]);
    qus(&["export", "raw", "all", "--dir", &files.arg("")]).says(1, &["there is no emulator in", "hint: "]);
    qus(&["export", "raw", "s390x", "--dir", &dir]).says(1, &["there is no qemu-s390x in", "hint: "]);
    let own = std::env::consts::ARCH;
    qus(&["export", "raw", own, "--dir", &dir]).says(1, &["is this machine's own architecture"]);
}

#[test]
fn exports_name_the_directory_in_which_emulators_will_be() {
    let files = machine();
    for (format, expected) in [
        ("raw", ":/opt/qus/qemu-alpha:POCF\n"),
        ("systemd", ":/opt/qus/qemu-alpha:POCF\n"),
        ("debian", "--install qemu-alpha '/opt/qus/qemu-alpha'"),
        ("openrc", ":/opt/qus/qemu-alpha:POCF\n"),
    ] {
        let ended = qus(&["export", format, FOREIGN, "--as", "/opt/qus", "--dir", &files.arg("bin")]);
        ended.says(0, &[]);
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    }
}

#[test]
fn hints_follow_the_state_of_handlers() {
    let files = machine();
    let mount = files.arg("binfmt");
    files.write("program", probe::image(FOREIGN.parse().unwrap()));
    fs::set_permissions(files.path("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let explain = || qus(&["--mount", &mount, "explain", &files.arg("program")]);
    let status = || qus(&["--mount", &mount, "status", FOREIGN]);

    assert!(explain().stdout.contains("`qus install alpha`"), "{}", explain().stdout);
    status().says(1, &["hint: as root: `qus install alpha`\n"]);
    files.write("binfmt/qemu-alpha", text(&files).0.replace("enabled", "disabled"));
    let enable = |name: &str| format!("echo 1 > {mount}/{name}");
    assert!(explain().stdout.contains(&format!("`{}`", enable("qemu-alpha"))), "{}", explain().stdout);
    status().says(1, &["hint: as root: `qus install alpha --force`\n"]);
    files.write("binfmt/qemu-alpha", text(&files).0);
    files.write("binfmt/status", "disabled\n");
    let hint = format!("hint: as root: `{}`\n", enable("status"));
    explain().says(1, &["binfmt_misc is switched off"]);
    assert!(
        explain().stdout.contains(&format!("as root `{}`, or", enable("status"))),
        "{}",
        explain().stdout
    );
    status().says(1, &["binfmt_misc is switched off", &hint]);
    qus(&["--mount", &mount, "probe", FOREIGN]).says(1, &["binfmt_misc is switched off", &hint]);
    fs::remove_file(files.path("binfmt/qemu-alpha")).unwrap();
    let hint = format!("as root: `{} && qus install alpha`\n", enable("status"));
    status().says(1, &[&hint]);
    let json = qus(&["--mount", &mount, "status", "--json", FOREIGN]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["missing"], Value::from(vec![FOREIGN]));
}

#[test]
fn a_program_beside_is_named_with_its_directory() {
    let files = machine();
    files.write("a program", probe::image(FOREIGN.parse().unwrap()));
    fs::set_permissions(files.path("a program"), fs::Permissions::from_mode(0o755)).unwrap();
    let explained = super::ended(
        std::process::Command::new(env!("CARGO_BIN_EXE_qus"))
            .args(["--mount", "binfmt", "explain", "a program"])
            .current_dir(files.path("")),
    );
    assert!(explained.stdout.contains("`qus run alpha -- './a program'`"), "{}", explained.stdout);
}

#[test]
fn only_what_was_named_has_to_run() {
    let own = std::env::consts::ARCH;
    qus(&["probe", "all", own]).says(0, &[]);
    let doctor = qus(&["--mount", &machine().arg("binfmt"), "doctor", own]);
    assert!(doctor.stdout.ends_with("0 handlers, 0 working\n"), "{}", doctor.stdout);
}

#[test]
fn explain_follows_a_script() {
    let files = machine();
    files.write("script", "#!/bin/sh\n");
    fs::set_permissions(files.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let ended = qus(&["--mount", &files.arg("binfmt"), "explain", "--json", &files.arg("script")]);
    ended.says(0, &[]);
    let explained: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&explained[0]["what"], &explained[0]["runs"]), (&"script".into(), &true.into()));
    assert_eq!(explained[0]["interpreter"]["arch"], std::env::consts::ARCH);
}

#[test]
fn an_installation_is_compared_with_a_list() {
    let files = machine();
    let dir = files.arg("bin");
    let verify = |args: &[&str]| {
        let ended = qus(&[&["self", "verify", "--dir", &*dir], args].concat());
        Ended { stderr: format!("{}{}", ended.stdout, ended.stderr), ..ended }
    };
    verify(&[]).says(1, &["cannot read", "bin/SHA256SUMS"]);
    let emulator = format!("qemu-{FOREIGN}");
    let good = fs::read(files.path(&format!("bin/{emulator}"))).unwrap();
    let list = format!("{}  {emulator}\n{}  share/a\n", Sha256::of(&good), Sha256::of("a"));
    files.write("bin/share/a", "a");
    files.write("bin/SHA256SUMS", &list);
    verify(&[]).says(0, &["verified: 2 files in"]);

    // Whoever replaces an emulator can replace its checksum, but not that of the release.
    files.write("release.sha256", &list);
    let release = files.arg("release.sha256");
    files.write(&format!("bin/{emulator}"), [&good[..], b"x"].concat());
    files.write(
        "bin/SHA256SUMS",
        list.replace(&Sha256::of(&good).to_string(), &Sha256::of([&good[..], b"x"].concat()).to_string()),
    );
    verify(&[]).says(0, &["verified: 2 files in"]);
    verify(&["--list", &release])
        .says(1, &[&format!("changed: {emulator}"), "is not what", "release.sha256 lists"]);
    files.write(&format!("bin/{emulator}"), &good);

    fs::remove_file(files.path("bin/share/a")).unwrap();
    verify(&["--list", &release]).says(1, &["missing: share/a"]);
    files.write("bin/share/a", "a");
    files.write("bin/qemu-hppa", "x");
    verify(&["--list", &release]).says(1, &["not listed: qemu-hppa"]);
    let json = verify(&["--list", &release, "--json"]);
    assert!(json.stdout.contains(r#""fault": "not listed""#), "{}", json.stdout);
    fs::remove_file(files.path("bin/qemu-hppa")).unwrap();

    for damage in ["", "x", &list.replace("share/a", "../a")] {
        files.write("release.sha256", damage);
        verify(&["--list", &release]).says(1, &["release.sha256 is not a list of checksums"]);
    }
}
