//! The root file system of a machine with a container engine: Debian's packages of its architecture, unpacked.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::Origin;
use serde_json::json;

use crate::base::context::Context;
use crate::base::files;
use crate::debian::guests;
use crate::vm::disks;
use crate::vm::machine::Kind;

/// Where the engine keeps images and containers.
pub(super) const DATA: &str = "/var/lib/docker";
/// The engine's socket.
pub(super) const SOCKET: &str = "/run/docker.sock";

/// The name of the disk in its directory.
pub(super) const DISK: &str = "root.erofs";

/// What iptables is called as; the packages' alternatives are not set without their scripts.
const IPTABLES: [&str; 4] = ["iptables", "iptables-save", "iptables-restore", "ip6tables"];

/// The directory in the cache with the disk, which is made unless it is there.
pub(super) fn ensure(cx: &Context, kind: &Kind) -> Result<PathBuf> {
    let (host, settings) = (kind.data().host, settings());
    let packages = &cx.data.machines.engine.packages;
    let id = files::short_id(format!("{packages:?} {settings}"));
    let dir = cx.paths.machine("engine-root", &format!("{host}-{id}"));
    let named: Vec<_> = packages.iter().map(|name| format!("{name}:{}", host.debian)).collect();
    let what = format!("a container engine for {host}");
    guests::fetch(cx, &Origin::Guests, host.debian, &what, &dir, |apt, into| {
        let root = tempfile::tempdir_in(into)?;
        apt.unpack_all(&named, root.path())?;
        complete(root.path(), &settings).context("cannot make the engine's root file system")?;
        disks::of_unpacked(cx, kind.programs(), root.path(), &into.join(DISK))
    })?;
    Ok(dir)
}

/// The engine's configuration.
fn settings() -> String {
    json!({
        "data-root": DATA,
        "hosts": [format!("unix://{SOCKET}")],
        // The default of new Docker installations.
        "features": { "containerd-snapshotter": true },
    })
    .to_string()
}

/// Does what the packages' scripts do when they are installed, as far as the engine needs it.
fn complete(root: &Path, settings: &str) -> Result<()> {
    guests::merge_usr(root)?;
    fs::set_permissions(root, PermissionsExt::from_mode(0o755))?;
    for dir in ["dev", "proc", "root", "run", "sys", "tmp", "etc/docker", "etc/ssl/certs", "var"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    files::remove_any(&root.join("var/run"))?;
    symlink("/run", root.join("var/run"))?;
    for name in IPTABLES {
        let link = root.join("usr/sbin").join(name);
        files::remove_any(&link)?;
        symlink("xtables-nft-multi", link)?;
    }
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\ndocker:x:999:\n"),
        ("etc/docker/daemon.json", settings),
        ("etc/ssl/certs/ca-certificates.crt", &certificates(&root.join("usr/share/ca-certificates"))?),
    ] {
        fs::write(root.join(path), text)?;
    }
    // Nobody reads them in the machine, and every start verifies the disk.
    for dir in ["doc", "locale", "man", "perl5", "lintian"] {
        files::remove_dir(&root.join("usr/share").join(dir))?;
    }
    Ok(())
}

/// All certificates below a directory, by which the engine verifies registries.
fn certificates(dir: &Path) -> Result<String> {
    let read = |path: PathBuf| {
        if path.is_dir() { certificates(&path) } else { Ok(fs::read_to_string(path)?) }
    };
    files::sorted(dir)?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_completed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (path, text) in [
            ("usr/share/ca-certificates/b/2.crt", "two\n"),
            ("usr/share/ca-certificates/b/1.crt", "one\n"),
            ("usr/share/doc/a/copyright", ""),
            ("usr/sbin/xtables-nft-multi", ""),
            ("lib/a.so", ""),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        complete(root, &settings()).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("etc/ssl/certs/ca-certificates.crt"), "one\ntwo\n");
        assert!(read("etc/docker/daemon.json").contains(SOCKET));
        assert!(root.join("usr/sbin/iptables").exists() && root.join("usr/lib/a.so").exists());
        assert!(!root.join("usr/share/doc").exists());
        assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
