//! Copies root file systems in a machine, whose kernel knows all about file systems.

use std::fs::File;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use nix::sys::statvfs::fstatvfs;
use qus_core::hint::hinted;
use qus_core::machine::{Copy, Event, Request, Target};
use qus_core::text::Show;

use crate::base::context::Context;
use crate::base::progress::Bar;
use crate::vm::image::Image;
use crate::vm::relay::Output;
use crate::vm::shape::{Area, Shape};
use crate::vm::start;

/// The maximum time of the machine's start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a root file system is copied to.
pub(crate) enum Into<'a> {
    /// A tar archive.
    Archive(&'a File),
    /// A new ext4 file system.
    Disk(&'a Area),
}

/// Copies the root file system of an image or a disk. What cannot be kept is named on stderr.
///
/// # Errors
/// It cannot be mounted, read or written; the message has the kernel's last lines.
pub(crate) fn copy(cx: &Context, image: &Image, partition: Option<u32>, into: &Into<'_>) -> Result<()> {
    let (target, disk, archive) = match into {
        Into::Archive(file) => (Target::Archive, None, Some(file.try_clone()?)),
        Into::Disk(area) => (Target::Disk, Some(*area), None),
    };
    let shape = Shape {
        memory: None,
        processors: None,
        disks: &image.disks,
        driver: image.driver,
        target: disk,
        data: None,
        network: None,
        volumes: &[],
        verbose: false,
    };
    let mut machine = start::start(cx, &image.kind, &shape, PATIENCE)?;
    let _bar = Bar::new("reading the root file system in a machine");
    machine.send(&Request::Copy(Copy { root: image.root(partition), target }))?;
    let archive = archive.map_or_else(|| File::options().write(true).open("/dev/null"), Ok)?;
    let output = Output::start(machine.output.try_clone()?, archive, machine.control()?)?;
    let warnings = Output::start(machine.error.try_clone()?, io::stderr(), machine.control()?)?;
    let ended = machine.receive(None, "the machine has not ended");
    if let Some(error) = output.error().or_else(|| warnings.error()) {
        return Err(error).context("cannot write what the machine has read");
    }
    match ended? {
        Event::Copied { output: written, error } => output
            .wait(written)
            .and_then(|()| warnings.wait(error))
            .context("cannot write what the machine has read"),
        Event::Failed { error, .. } if error.contains("No space left") && disk.is_some() => Err(hinted(
            format_args!("the disk is too small: {}", error.shown()),
            "give a larger one with `--size`, as in `--size 4G`",
        )),
        Event::Failed { .. } if disk.is_some_and(|area| is_full(&area.file)) => {
            bail!("cannot write the disk: the file system that it is in is full")
        }
        Event::Failed { error, .. } => {
            let shown = Error::msg(error.shown().to_string());
            // Others are not the kernel's.
            Err(if error.starts_with("cannot") { machine.fault(shown) } else { shown })
        }
        Event::Ready { .. } | Event::Exited(_) => bail!("the machine reports something else"),
    }
}

/// Whether the file system of a file is full, which the machine sees as a defect of the disk.
fn is_full(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|free| free.blocks_available() == 0)
}
