//! `cargo xtask vm import`: makes an image of a disk.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use qus_core::elf::Elf;
use qus_core::hint::{WithHint, hinted};
use tar::EntryType;

use crate::base::context::Context;
use crate::base::exec;
use crate::base::files;
use crate::base::output::out;
use crate::base::progress::{Bar, one_line};
use crate::engine::client::Client;
use crate::vm::convert::{self, Into};
use crate::vm::drive;
use crate::vm::image::{self, engine_for};
use crate::vm::new_file::NewFile;
use crate::vm::oci::NewImage;
use crate::vm::wanted::Wanted;

/// Make a container image of a disk or a file system
///
/// FILE is a disk (qcow2 or raw) with partitions (GPT or MBR) or without, or a file system: ext2 to ext4, xfs, btrfs, erofs,
/// squashfs, vfat. A machine reads it, so that no root is needed. The image has one layer and runs `/bin/sh`.
///
/// OUTPUT is an archive as of `docker image save` (`.tar`), an archive of an OCI layout (`.oci.tar`), a directory for an OCI
/// layout, or, if it has a tag, as `debian:mine`, an image of the engine.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask vm import disk.qcow2 -o image.tar
  cargo xtask vm import --arch arm/v6 --partition 2 card.img -o ./layout
  cargo xtask vm import root.squashfs -o root:1")]
pub(crate) struct Args {
    /// File or directory to write, which must not exist, or reference
    #[arg(long, short)]
    output: String,
    /// Architecture, such as arm64, arm/v7 or s390x [default: that of the programs on the disk]
    #[arg(long)]
    arch: Option<&'static Host>,
    /// Number of the partition with the root file system [default: the one that looks like it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partition: Option<u32>,
    /// Disk or file system
    file: PathBuf,
}

/// What is made of a disk.
#[derive(Debug, PartialEq, Eq)]
enum Output<'a> {
    Layout,
    LayoutArchive,
    DockerArchive,
    Engine(&'a str),
}

impl<'a> Output<'a> {
    fn parse(given: &'a str) -> Self {
        if given.ends_with(".oci.tar") {
            Self::LayoutArchive
        } else if given.ends_with(".tar") {
            Self::DockerArchive
        } else if given.contains(':') && !given.starts_with(['/', '.']) {
            Self::Engine(given)
        } else {
            Self::Layout
        }
    }
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let kind = Output::parse(&args.output);
    let output = match kind {
        Output::Engine(reference) => {
            engine_for(reference)?;
            // It gets the archive from a file without a name.
            NewFile::temporary()
        }
        _ => NewFile::new(Path::new(&args.output))?,
    };
    let shown = one_line(args.file.display());
    let unknown = || {
        hinted(
            format_args!("{shown} is no known kind of disk"),
            "`qemu-img convert -O qcow2` converts other ones",
        )
    };
    ensure!(drive::recognize(&files::open(&args.file)?)?.is_some(), unknown());
    let name = args.file.to_str().with_context(|| format!("{shown} is not UTF-8"))?;
    let image = image::open(cx, name, Wanted { arch: args.arch, converts: true, ..Wanted::default() })?;
    let mut layer = output.unnamed()?;
    convert::copy(cx, &image, args.partition, &Into::Archive(&layer))?;
    layer.rewind()?;
    let found = match args.arch {
        Some(arch) => Some(arch),
        None => host_of(&layer)?,
    };
    let host = found
        .with_context(|| format!("{shown} has no programs of a known architecture"))
        .hint("name the architecture with `--arch`, as in `--arch arm64`")?;
    let _bar = Bar::new("writing the image");
    let new = |reference| NewImage { layer, host, reference };
    match kind {
        Output::Layout => new(None).write_layout(&output),
        Output::LayoutArchive => new(None).write_layout_archive(&output),
        Output::DockerArchive => output.publish(new(None).write_docker_archive(&output)?),
        Output::Engine(reference) => {
            let archive = new(Some(reference.to_owned())).write_docker_archive(&output)?;
            let load = Client::installed().cmd(&["image", "load", "--input"]).arg(files::path_of(&archive));
            out(&exec::read(load)?)
        }
    }
}

/// The size of ELF's shortest header, and up to where a program is read, in bytes.
const LEAST: u64 = 52;
const LARGEST: u64 = 64 << 20;

/// The host of the first program in an archive.
fn host_of(archive: &File) -> Result<Option<&'static Host>> {
    let mut archive = tar::Archive::new(BufReader::new(archive));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::GNUSparse) {
            continue;
        }
        let mut head = [0; 4];
        if entry.size() < LEAST || entry.read_exact(&mut head).is_err() || head != *b"\x7fELF" {
            continue;
        }
        let mut program = head.to_vec();
        entry.by_ref().take(LARGEST).read_to_end(&mut program)?;
        let host = Elf::parse(&*program).ok().and_then(|elf| Host::of(elf.arch()?));
        if host.is_some() {
            return Ok(host);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        for (given, output) in [
            ("image.oci.tar", Output::LayoutArchive),
            ("image.tar", Output::DockerArchive),
            ("a/dir", Output::Layout),
            ("./a:b", Output::Layout),
            ("debian:mine", Output::Engine("debian:mine")),
        ] {
            assert_eq!(Output::parse(given), output);
        }
    }
}
