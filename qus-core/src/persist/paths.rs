//! Which paths of a host are written.

use std::path::{Component, Path, PathBuf};

use crate::emulator::PERSISTENT;

/// The rules for systemd.
pub(super) const BINFMT_D: &str = "/etc/binfmt.d/qus.conf";

/// The service for OpenRC, and its place in the runlevel in which it starts.
pub(super) const OPENRC: [&str; 2] = ["/etc/init.d/qus", "/etc/runlevels/boot/qus"];

/// The manifest.
pub(super) fn manifest() -> PathBuf {
    Path::new(PERSISTENT).join("manifest.json")
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// Whether qus writes a file of this path.
pub(super) fn is_file(path: &Path) -> bool {
    let fixed = [BINFMT_D, OPENRC[0], OPENRC[1]];
    is_plain(path) && (path.starts_with(PERSISTENT) || fixed.iter().any(|fixed| path == Path::new(fixed)))
}

/// Whether qus may have created this directory.
pub(super) fn is_directory(path: &Path) -> bool {
    let outer = [PERSISTENT, BINFMT_D, OPENRC[0], OPENRC[1]];
    is_plain(path)
        && (path.starts_with(PERSISTENT) || outer.iter().any(|inner| Path::new(inner).starts_with(path)))
}
