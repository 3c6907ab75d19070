//! Partition tables of disks.

use std::fs::File;
use std::io::Write;

use anyhow::{Context as _, Result, ensure};

use crate::base::context::Context;
use crate::base::{exec, files};
use crate::vm::programs::Programs;

/// A partition; its place is in bytes, multiples of [`SECTOR`].
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// In bytes.
pub(crate) const SECTOR: u64 = 512;

/// Writes a table (GPT) to a disk.
pub(crate) fn write(cx: &Context, programs: &Programs, disk: &File, partitions: &[Partition]) -> Result<()> {
    let log = cx.start_log("sfdisk")?;
    let sfdisk = programs.cmd("../sbin/sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]);
    let mut child = exec::spawn_piped(sfdisk.arg(files::path_of(disk)), File::create(&log)?)?;
    let mut stdin = child.stdin.take().context("sfdisk has no input")?;
    let lines = partitions.iter().map(|Partition { name, start, size }| {
        format!("start={}, size={}, type=linux, name={name}\n", start / SECTOR, size / SECTOR)
    });
    let written = stdin.write_all(format!("label: gpt\n{}", lines.collect::<String>()).as_bytes());
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "sfdisk failed ({status}); see {}", log.display());
    written.context("cannot write the partition table")
}
