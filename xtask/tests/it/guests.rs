//! `guests`: its arguments. Cells run with network access only.

use super::Xtask;

#[test]
fn wrong_arguments_are_refused() {
    let refused = |args: &[&str], words: &[&str]| {
        Xtask::new().run(&[&["guests"], args].concat()).failed(2, words);
    };
    refused(&["vax"], &["unknown guest `vax`; guests are amd64, arm64"]);
    #[cfg(target_arch = "x86_64")]
    Xtask::new()
        .run(&["guests", "amd64"])
        .failed(1, &["amd64 cannot be emulated here: it is this machine's own architecture"]);
    refused(&["--only", "nonesuch"], &["no cell contains `nonesuch`; cells are ldconfig, busybox"]);
    refused(&["--suite", "nonesuch"], &["unknown suite `nonesuch`"]);
    refused(&["--against", "deb:nonesuch"], &["unknown suite `nonesuch`"]);
}

#[test]
fn a_bundle_is_needed() {
    let ended = Xtask::new().run(&["guests", "arm64"]);
    ended.failed(
        1,
        &["there is no bundle to measure", "hint: to build it, run `cargo xtask build-qemu aarch64`"],
    );
}

#[test]
fn every_cell_has_a_script() {
    let dir = super::workspace().join("xtask/src/check/guests/cells");
    let table = std::fs::read_to_string(super::workspace().join("qemu-src/cells.toml")).unwrap();
    let mut named: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .map(|name| format!("{name}.sh"))
        .collect();
    named.sort();
    let files =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(named, files);
}
