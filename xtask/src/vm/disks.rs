//! Disks of machines: an erofs file system for each layer of an image.
//!
//! Layers are cached by the digest of their uncompressed tar archive, so that an image is never unpacked twice.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qus_core::digest::{HashingReader, Sha256};
use qus_core::machine::layer_name;
use xshell::Cmd;

use crate::base::context::Context;
use crate::base::progress::Bar;
use crate::base::{cache, exec, files, lock};
use crate::vm::layer;
use crate::vm::partitions::{self, Partition, SECTOR};
use crate::vm::programs::Programs;

/// For layers, whose whiteouts become those of overlayfs.
const LAYER: [&str; 2] = ["--tar=f", "--aufs"];

/// Partitions begin at multiples of this number of bytes.
const ALIGNMENT: u64 = 1 << 20;

/// What makes the file system of the same files the same everywhere.
pub(crate) const OPTIONS: [&str; 4] =
    ["--quiet", "-T0", "--mkfs-time", "-U00000000-0000-0000-0000-000000000000"];

/// The disk of a layer, if it is in the cache.
pub(crate) fn cached(cx: &Context, layer: &Sha256) -> Option<File> {
    // Not verified: that would take longer than starting the machine.
    File::open(dir(cx, layer).join("layer.erofs")).ok()
}

/// Makes the disk of a layer, unless it is in the cache.
///
/// # Errors
/// The archive cannot be read, or has another digest.
pub(crate) fn ensure<'a>(
    cx: &Context,
    programs: &Programs,
    layer: &Sha256,
    archive: impl FnOnce() -> Result<Box<dyn Read + 'a>>,
) -> Result<File> {
    if let Some(disk) = cached(cx, layer) {
        return Ok(disk);
    }
    let dir = dir(cx, layer);
    let _lock = lock::lock_entry(&dir)?;
    // Another process may have made it in the meantime.
    if let Some(disk) = cached(cx, layer) {
        return Ok(disk);
    }
    let _bar = Bar::new("converting a layer of the image");
    cache::publish(&dir, |partial| {
        let mut archive = HashingReader::new(archive()?);
        let mkfs = programs.cmd("mkfs.erofs").args(LAYER).args(OPTIONS).arg(partial.join("layer.erofs"));
        pipe(cx, "mkfs.erofs", mkfs, &mut archive)?;
        // Archives may have more after their end.
        io::copy(&mut archive, &mut io::sink())?;
        ensure!(archive.finish() == *layer, "the layer does not match its digest {layer}");
        Ok(())
    })?;
    files::open(&dir.join("layer.erofs"))
}

/// Runs a program that makes a file system of a tar archive, which it reads from stdin.
pub(crate) fn pipe(cx: &Context, name: &str, program: Cmd<'_>, archive: impl Read) -> Result<()> {
    let log = cx.start_log(name)?;
    let mut mkfs = exec::spawn_piped(program, File::create(&log)?)?;
    let mut stdin = mkfs.stdin.take().with_context(|| format!("{name} has no input"))?;
    let copied = layer::rewrite(archive, &mut stdin);
    drop(stdin);
    let status = mkfs.wait()?;
    // If it ends early, its own reason is the better one.
    ensure!(status.success(), "{name} failed ({status}); see {}", log.display());
    copied.context("cannot convert the layer")
}

/// Makes a disk of a directory, which may change until the next use: a file without a name.
pub(crate) fn of_directory(cx: &Context, programs: &Programs, root: &Path) -> Result<File> {
    let _bar = Bar::new(format!("converting {}", root.display()));
    let log = cx.start_log("mkfs.erofs")?;
    let disk = tempfile::tempfile()?;
    let mkfs = programs.cmd("mkfs.erofs").args(OPTIONS).arg(inherited(&disk)).arg(root);
    let status = exec::spawn_with(mkfs, &[disk.as_fd()], File::create(&log)?)?.wait()?;
    ensure!(status.success(), "mkfs.erofs failed ({status}); see {}", log.display());
    Ok(disk)
}

/// Makes an SD card with a partition for each layer: a file without a name.
pub(crate) fn card(cx: &Context, programs: &Programs, layers: &[File]) -> Result<File> {
    let _bar = Bar::short("writing an SD card");
    let mut card = tempfile::tempfile_in(cx.paths.cache())?;
    let (mut partitions, mut end) = (Vec::new(), ALIGNMENT);
    for (index, mut layer) in layers.iter().enumerate() {
        let size = layer.metadata()?.len().next_multiple_of(SECTOR);
        card.seek(SeekFrom::Start(end))?;
        layer.rewind()?;
        io::copy(&mut layer, &mut card)?;
        partitions.push(Partition { name: layer_name(index), start: end, size });
        end = (end + size).next_multiple_of(ALIGNMENT);
    }
    // QEMU refuses cards of other sizes. At the end is a second table.
    card.set_len((end + ALIGNMENT).next_power_of_two())?;
    partitions::write(cx, programs, &card, &partitions)?;
    Ok(card)
}

/// Makes a disk of a directory, all of whose files are root's then.
pub(crate) fn of_unpacked(cx: &Context, programs: &Programs, root: &Path, disk: &Path) -> Result<()> {
    let mkfs = programs.cmd("mkfs.erofs").args(OPTIONS).arg("--all-root").arg(disk).arg(root);
    exec::run(mkfs, &cx.start_log("mkfs.erofs")?, |_| {})
}

/// Makes an empty disk of this size in MiB with the file system ext4, in QEMU's format qcow2.
pub(crate) fn empty(cx: &Context, programs: &Programs, size: u64, disk: &Path) -> Result<()> {
    let log = cx.start_log("mke2fs")?;
    let raw = tempfile::NamedTempFile::new_in(disk.parent().unwrap_or(disk))?;
    raw.as_file().set_len(size << 20)?;
    // A journal is for file systems that are used after a crash.
    let options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0"];
    let lazy = ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"];
    exec::run(programs.cmd("../sbin/mke2fs").args(options).args(lazy).arg(raw.path()), &log, |_| {})?;
    let convert = programs.cmd("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]);
    exec::run(convert.arg(raw.path()).arg(disk), &log, |_| {})
}

/// The path of a file in a program that inherits it.
pub(crate) fn inherited(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn dir(cx: &Context, layer: &Sha256) -> PathBuf {
    // Layers of other options stay usable for other versions of this program.
    cx.paths.machine("layer", &format!("{layer}-{}", files::short_id(OPTIONS.concat())))
}
