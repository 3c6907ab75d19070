//! The root file system: the layers of an image below a writable one in memory.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};
use qus_core::machine::{DATA, Volume, layer_name};

use crate::boot::mount_kernel;
use crate::port;

/// Where the changes are.
const MEMORY: &str = "/memory";
/// Where the root file system is assembled.
const ROOT: &str = "/root";

/// Mounts all layers, and makes the result the root directory of this process.
pub(crate) fn assemble(layers: usize) -> Result<()> {
    let mut lower = Vec::new();
    for index in 0..layers {
        // Short, because the kernel limits the length of all options.
        let layer = format!("/{index}");
        fs::create_dir_all(&layer)?;
        let disk = port::disk(&layer_name(index))?;
        mount(Some(&disk), &*layer, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
            .with_context(|| format!("cannot mount layer {index} of the image"))?;
        lower.push(layer);
    }
    fs::create_dir_all(MEMORY)?;
    mount_kernel("tmpfs", MEMORY)?;
    for dir in [&format!("{MEMORY}/upper"), &format!("{MEMORY}/work"), ROOT] {
        fs::create_dir_all(dir)?;
    }
    lower.reverse();
    let options = format!("lowerdir={},upperdir={MEMORY}/upper,workdir={MEMORY}/work", lower.join(":"));
    mount(Some("overlay"), ROOT, Some("overlay"), MsFlags::empty(), Some(&*options))
        .context("cannot mount the layers of the image over each other")?;
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
