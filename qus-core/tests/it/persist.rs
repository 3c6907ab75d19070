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
    files.write("bin/bundle.json", include_str!("../../../fuzz/bundle/good"));
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

/// A directory registers nothing, so that only what is said of handlers can be seen here.
#[test]
fn what_is_persistent_is_not_dropped() {
    let files = host();
    install(&files, "022").says(1, &["registered at every boot"]);
    let root = files.arg("root");
    let mount = files.arg("binfmt");
    let remove = |archs: &[&str]| {
        let persist = ["--persist", "--host-root", &root];
        super::qus(&[&["--mount", &mount, "remove"], archs, &persist].concat())
    };
    remove(&["sh4"]).says(1, &["would drop persistent handlers: alpha", "hint: ", "`qus remove --persist`"]);
    assert!(files.path("root/etc/binfmt.d/qus.conf").exists());
    remove(&["sh4", FOREIGN]).says(0, &["/etc/binfmt.d/qus.conf removed"]);
}

#[test]
fn a_persistent_handler_is_the_one_that_was_asked_for() {
    let files = host();
    let (mount, dir, root) = (files.arg("binfmt"), files.arg("bin"), files.arg("root"));
    let install = ["--mount", &mount, "install", FOREIGN, "--no-probe", "--dry-run", "--dir", &dir];
    let persist = [&install[..], &["--persist", "--host-root", &root]].concat();
    // Without a bundle, the handler does not say which emulator it has.
    fs::remove_file(files.path("bin/bundle.json")).unwrap();
    let bundled = super::commands::text(&files).0;
    let (copies, name) = (files.arg("root/usr/local/lib/qus/1.0.0"), format!("qemu-{FOREIGN}"));
    fs::create_dir_all(&copies).unwrap();
    fs::copy(files.path(&format!("bin/{name}")), format!("{copies}/{name}")).unwrap();
    let copied = bundled.replace(&dir, &copies);

    files.write("binfmt/qemu-alpha", &bundled);
    super::qus(&persist).says(0, &["would be replaced"]);
    files.write("binfmt/qemu-alpha", &copied);
    super::qus(&install).says(0, &["unchanged", &copies]);
    super::qus(&persist).says(0, &["would be replaced"]);
    // Another emulator is not taken for the same one.
    files.write(&format!("root/usr/local/lib/qus/1.0.0/{name}"), "other");
    for args in [&install[..], &persist] {
        super::qus(args).says(1, &["interpreter: is ", "`--force` to replace it"]);
    }
    files.write("binfmt/qemu-alpha", bundled.replace("POCF", "PF"));
    super::qus(&persist).says(1, &["flags: is PF, should be POCF"]);
}

#[test]
fn a_root_directory_that_does_not_exist_is_named() {
    let files = machine();
    let (mount, dir) = (files.arg("binfmt"), files.arg("bin"));
    let install = ["--mount", &mount, "install", FOREIGN, "--no-probe", "--dir", &dir];
    super::qus(&[&install[..], &["--persist", "--host-root", "/nope"]].concat())
        .says(1, &["error: cannot open /nope\n", "hint: ", "`--host-root DIR`"]);
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
