//! `install --persist`: what is written belongs to root alone, whatever the umask and the modes of what is copied.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::commands::{FOREIGN, machine};
use super::{Ended, TestDir, ended};

/// Installs persistently under a umask. What comes after it fails, since a directory registers nothing.
fn install(files: &TestDir, umask: &str) -> Ended {
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    ended(
        Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_qus"), "--mount", &files.arg("binfmt")])
            .args(["install", FOREIGN, "--no-probe", "--dir", &files.arg("bin")])
            .args(["--persist", "--host-root", &files.arg("root")]),
    )
}

fn host() -> TestDir {
    let files = machine();
    files.write("root/usr/lib/systemd/systemd-binfmt", "");
    files.write("bin/bundle.json", include_str!("../../fuzz/seeds/bundle/good"));
    for dir in ["root", "root/usr", "root/usr/lib"] {
        fs::set_permissions(files.path(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    files
}

#[test]
fn modes_are_ours() {
    for umask in ["000", "022", "077"] {
        let files = host();
        let emulator = files.path(&format!("bin/qemu-{FOREIGN}"));
        fs::set_permissions(&emulator, fs::Permissions::from_mode(0o6755)).unwrap();
        install(&files, umask).says(1, &["registered at every boot"]);
        for (path, mode) in [
            ("root/etc", 0o755),
            ("root/etc/binfmt.d", 0o755),
            ("root/etc/binfmt.d/qus.conf", 0o644),
            ("root/usr/local/lib/qus", 0o755),
            ("root/usr/local/lib/qus/manifest.json", 0o644),
            ("root/usr/local/lib/qus/10.2.2", 0o755),
            ("root/usr/local/lib/qus/10.2.2/bundle.json", 0o644),
            ("root/usr/local/lib/qus/10.2.2/qemu-alpha", 0o755),
        ] {
            let found = fs::metadata(files.path(path)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode, "{path} under umask {umask}: {found:o}");
        }
    }
}

#[test]
fn removed_handlers_are_reported_although_files_cannot_be_removed() {
    let files = machine();
    files.write("binfmt/qemu-alpha", super::commands::text(&files).0);
    let mount = files.arg("binfmt");
    let remove = ["--mount", &mount, "remove", FOREIGN, "--persist", "--host-root", "/no/such/directory"];
    super::qus(&remove).says(1, &["qemu-alpha removed", "error: cannot open /no/such/directory"]);
}

#[test]
fn nothing_outside_the_host_is_removed() {
    let files = host();
    install(&files, "022").says(1, &["registered at every boot"]);
    files.write("outside", "");
    let manifest = "root/usr/local/lib/qus/manifest.json";
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!(r#"{{"files":[{{"path":"/../outside","sha256":"{hash}"}}]}}"#);
    files.write(manifest, text);
    let root = files.arg("root");
    let remove = ["remove", "--persist", "--host-root", &root];
    super::qus(&remove).says(1, &["qus does not write /../outside", "hint: "]);
    assert!(files.path("outside").exists());
}
