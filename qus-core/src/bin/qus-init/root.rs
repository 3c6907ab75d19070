//! The root file system: the layers of an image or a disk below a writable one in memory, or as they are.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};
use qus_core::machine::{DATA, Root, Volume, layer_name};

use crate::boot::mount_kernel;
use crate::disk;
use crate::port;

/// Where the changes are.
const MEMORY: &str = "/memory";
/// Where the root file system is assembled.
const ROOT: &str = "/root";

/// Mounts a root file system as it is, and returns the directory.
pub(crate) fn mount_as_is(root: &Root) -> Result<String> {
    let mut lower = mount_parts(root)?;
    if lower.len() == 1 {
        return Ok(lower.remove(0));
    }
    fs::create_dir_all(ROOT)?;
    lay_over("", lower)?;
    Ok(ROOT.to_owned())
}

/// Mounts the layers, the lowest first, or the disk; returns the directories.
fn mount_parts(root: &Root) -> Result<Vec<String>> {
    let layers = match *root {
        Root::Layers(layers) => layers,
        Root::Disk { partition } => return Ok(vec![disk::mount_source(partition)?]),
    };
    let mount_layer = |index: usize| {
        // Short, because the kernel limits the length of all options.
        let layer = format!("/{index}");
        fs::create_dir_all(&layer)?;
        let disk = port::disk(&layer_name(index))?;
        mount(Some(&disk), &*layer, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
            .with_context(|| format!("cannot mount layer {index} of the image"))?;
        Ok(layer)
    };
    (0..layers).map(mount_layer).collect()
}

/// Mounts directories over each other, the first one is the lowest.
fn lay_over(options: &str, mut lower: Vec<String>) -> Result<()> {
    lower.reverse();
    let options = format!("lowerdir={}{options}", lower.join(":"));
    mount(Some("overlay"), ROOT, Some("overlay"), MsFlags::empty(), Some(&*options))
        .context("cannot mount the layers of the image over each other")
}

/// Mounts a root file system below a writable one, and makes the result the root directory of this process.
pub(crate) fn assemble(root: &Root) -> Result<()> {
    let lower = mount_parts(root)?;
    fs::create_dir_all(MEMORY)?;
    mount_kernel("tmpfs", MEMORY)?;
    for dir in [&format!("{MEMORY}/upper"), &format!("{MEMORY}/work"), ROOT] {
        fs::create_dir_all(dir)?;
    }
    lay_over(&format!(",upperdir={MEMORY}/upper,workdir={MEMORY}/work"), lower)?;
    for name in ["dev", "proc", "sys"] {
        let target = Path::new(ROOT).join(name);
        fs::create_dir_all(&target)?;
        mount(Some(&*format!("/{name}")), &target, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("cannot move /{name}"))?;
    }
    chdir(ROOT)?;
    mount(Some(ROOT), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("cannot replace the root file system")?;
    chroot(".")?;
    chdir("/")?;
    complete()
}

/// Mounts directories of the host.
pub(crate) fn mount_volumes(volumes: &[Volume]) -> Result<()> {
    for Volume { tag, target, read_only } in volumes {
        fs::create_dir_all(target)?;
        let flags = if *read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(Some(&**tag), &**target, Some("virtiofs"), flags, None::<&str>)
            .with_context(|| format!("cannot mount the volume {target}"))?;
    }
    Ok(())
}

/// Mounts the disk that the program can write.
pub(crate) fn mount_data(target: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    let disk = port::disk(DATA)?;
    mount(Some(&disk), target, Some("ext4"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount the disk {target}"))
}

/// Mounts what containers have in `/dev` and `/sys`.
fn complete() -> Result<()> {
    let common = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // 5 is the group `tty` of every distribution.
    let terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    for (kind, target, flags, options) in [
        ("devpts", "/dev/pts", common, terminals),
        ("tmpfs", "/dev/shm", common | MsFlags::MS_NODEV, "mode=1777"),
        ("mqueue", "/dev/mqueue", common | MsFlags::MS_NODEV, ""),
        ("cgroup2", "/sys/fs/cgroup", common | MsFlags::MS_NODEV, ""),
    ] {
        fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), flags, Some(options))
            .with_context(|| format!("cannot mount {target}"))?;
    }
    for (link, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        symlink(format!("/proc/self/fd{target}"), format!("/dev/{link}"))?;
    }
    Ok(())
}
