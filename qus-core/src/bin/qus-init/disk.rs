//! Disks that are no layers of an image: with one of several file systems, and with or without partitions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err::{self as fs, File};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::unistd::syncfs;
use qus_core::machine::{TARGET_SERIAL, layer_name};

use crate::port;

const SOURCE: &str = "/source";
const TARGET: &str = "/target";

/// Where distributions have the root file system in btrfs: at the top, or in a subvolume.
const SUBVOLUMES: [&str; 4] = ["", "/@rootfs", "/@", "/root"];

/// Mounts the disk that is read, and returns the directory of the root file system.
pub(crate) fn mount_source(partition: Option<u32>) -> Result<String> {
    fs::create_dir_all(SOURCE)?;
    let disk = port::disk(&layer_name(0))?;
    let partitions = partitions(&disk)?;
    if let Some(wanted) = partition {
        let numbers: Vec<_> = partitions.iter().map(|(number, _)| number.to_string()).collect();
        let Some((_, device)) = partitions.iter().find(|(number, _)| *number == wanted) else {
            bail!("the disk has no partition {wanted}; it has {}", listed(&numbers));
        };
        mount_any(device).with_context(|| format!("cannot mount partition {wanted}"))?;
        return Ok(root_in(SOURCE).unwrap_or_else(|| SOURCE.to_owned()));
    }
    if partitions.is_empty() {
        mount_any(&disk).context("cannot mount the disk")?;
        return Ok(root_in(SOURCE).unwrap_or_else(|| SOURCE.to_owned()));
    }
    let (mut mountable, mut seen) = (Vec::new(), Vec::new());
    for (number, device) in &partitions {
        match mount_any(device) {
            Ok(kind) => {
                if let Some(root) = root_in(SOURCE) {
                    return Ok(root);
                }
                umount(SOURCE)?;
                mountable.push(device);
                seen.push(format!("{number}: {kind}"));
            }
            Err(error) => seen.push(format!("{number}: {error:#}")),
        }
    }
    match mountable[..] {
        [device] => mount_any(device).map(|_| SOURCE.to_owned()),
        _ => bail!("no partition has a root file system ({})", listed(&seen)),
    }
}

/// Mounts the disk that is written, and returns the directory.
pub(crate) fn mount_target() -> Result<&'static Path> {
    fs::create_dir_all(TARGET)?;
    let disk = port::disk(TARGET_SERIAL)?;
    mount(Some(&disk), TARGET, Some("ext4"), MsFlags::empty(), Some("noinit_itable"))
        .context("cannot mount the target")?;
    Ok(Path::new(TARGET))
}

/// Unmounts the disk that is written, with all data on it.
pub(crate) fn finish_target() -> Result<()> {
    syncfs(File::open(TARGET)?.file())
        .context("cannot write to the target; its file may be on a full disk")?;
    umount(TARGET).context("cannot unmount the target")
}

fn listed(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join("; ") }
}

/// The numbers and devices of a disk's partitions.
fn partitions(disk: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let sysfs = Path::new("/sys/block").join(disk.file_name().unwrap_or_default());
    let mut found = Vec::new();
    for entry in fs::read_dir(sysfs)? {
        let entry = entry?;
        let number = fs::read_to_string(entry.path().join("partition")).unwrap_or_default();
        if let Ok(number) = number.trim_end().parse() {
            found.push((number, Path::new("/dev").join(entry.file_name())));
        }
    }
    found.sort();
    Ok(found)
}

/// Mounts a device with the file system that it has, and returns the file system's name. The disk is a copy that is
/// discarded, so that a journal may be replayed.
fn mount_any(device: &Path) -> Result<String> {
    let known = fs::read_to_string("/proc/filesystems")?;
    // Each line is a name after a tab, or after a tab and `nodev`. ext4 mounts the others, and fuseblk needs a server.
    let is_wanted = |name: &&str| !["ext2", "ext3", "fuseblk"].contains(name);
    let names = known.lines().filter_map(|line| line.strip_prefix('\t')).filter(is_wanted);
    let (mut tried, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        let options = (name == "vfat").then_some("utf8=1");
        match mount(Some(device), SOURCE, Some(name), MsFlags::MS_RDONLY, options) {
            Ok(()) => return Ok(name.to_owned()),
            // It is another file system.
            Err(Errno::EINVAL) => {}
            Err(Errno::EBADMSG) => errors.push(format!("{name}: wrong checksum")),
            Err(error) => errors.push(format!("{name}: {}", error.desc())),
        }
        tried.push(name.to_owned());
    }
    if errors.is_empty() {
        bail!("it has none of the file systems {}, or a damaged one", tried.join(", "));
    }
    bail!("{}", errors.join("; "))
}

/// The directory in a mounted file system that looks like a root file system.
fn root_in(dir: &str) -> Option<String> {
    let candidates = SUBVOLUMES.iter().map(|name| format!("{dir}{name}"));
    candidates.into_iter().find(|dir| {
        let has = |name: &str| Path::new(dir).join(name).symlink_metadata().is_ok();
        has("etc") && (has("usr") || has("bin"))
    })
}
