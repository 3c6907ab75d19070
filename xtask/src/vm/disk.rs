//! `cargo xtask vm disk`: makes a disk or a file system of an image.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use qus_core::arch::Host;
use qus_core::text::Show;
use xshell::Cmd;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::progress::{Bar, say};
use crate::base::{exec, files};
use crate::vm::convert::{self, Into};
use crate::vm::disks::{self, OPTIONS};
use crate::vm::image::{self, Image};
use crate::vm::new_file::NewFile;
use crate::vm::partitions::{self, Partition};
use crate::vm::pax;
use crate::vm::programs::Programs;
use crate::vm::shape::Area;
use crate::vm::wanted::Wanted;

/// Make a disk or a file system of a container image
///
/// raw and qcow2 are disks with a partition table (GPT) and one partition with ext4; ext4, erofs and squashfs are file systems
/// without partitions. Owners, modes, times, extended attributes, links, devices and holes are kept as far as the file
/// system has them. Needs no root.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask vm disk --arch riscv64 debian:trixie -o root.ext4
  cargo xtask vm disk ./image.tar -o disk.qcow2 --size 4G
  cargo xtask vm disk disk.qcow2 -o root.squashfs")]
pub(crate) struct Args {
    /// File to write, which must not exist
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Architecture, such as arm64, arm/v7 or s390x [default: that of the image]
    #[arg(long)]
    arch: Option<&'static Host>,
    /// Format [default: by the suffix of FILE; `.img` is raw]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Size of the disk or of ext4, such as 900M or 4G [default: what the files need, and a quarter more]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Image, archive, directory or disk, as of `vm run`
    image: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Qcow2,
    Raw,
    Ext4,
    Erofs,
    Squashfs,
}

const MIB: u64 = 1 << 20;

/// The smallest file system in which mke2fs makes a journal.
const SMALLEST: u64 = 16 * MIB;

/// The space before and after the partition, for partition tables.
const TABLE: u64 = MIB;

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let format = format(args)?;
    let output = NewFile::new(&args.output)?;
    let image =
        image::open(cx, &args.image, Wanted { arch: args.arch, converts: true, ..Wanted::default() })?;
    let programs = Programs::of_converter(cx)?;
    let file = match format {
        Format::Erofs | Format::Squashfs => packed(cx, &programs, &image, &output, format)?,
        Format::Ext4 | Format::Raw | Format::Qcow2 => {
            writable(cx, &programs, &image, &output, format, args.size)?
        }
    };
    output.publish(file)
}

fn parse_size(given: &str) -> Result<u64, String> {
    let (digits, factor) = match given.trim_end_matches(['B', 'i']).char_indices().last() {
        Some((at, 'M')) => (&given[..at], MIB),
        Some((at, 'G')) => (&given[..at], MIB << 10),
        Some((at, 'T')) => (&given[..at], MIB << 20),
        _ => return Err("it is no number of M, G or T, as in 4G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is no number"))?;
    let size = number.checked_mul(factor).filter(|size| *size <= 16 << 40).ok_or("the maximum is 16T")?;
    if size < SMALLEST { Err("the minimum is 16M".to_owned()) } else { Ok(size) }
}

fn format(args: &Args) -> Result<Format> {
    let suffix = args.output.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    let by_suffix = || Format::from_str(if suffix == "img" { "raw" } else { suffix }, false).ok();
    let unknown = || {
        let message =
            "the file's suffix names no format; there are .qcow2, .raw, .img, .ext4, .erofs and .squashfs";
        Usage(format!("{message}, or `--format`"))
    };
    let format = args.format.or_else(by_suffix).ok_or_else(unknown)?;
    let is_sized = !matches!(format, Format::Erofs | Format::Squashfs);
    ensure!(
        is_sized || args.size.is_none(),
        Usage("erofs and squashfs are as large as needed; omit `--size`".to_owned())
    );
    Ok(format)
}

/// A read-only file system.
fn packed(
    cx: &Context,
    programs: &Programs,
    image: &Image,
    output: &NewFile,
    format: Format,
) -> Result<File> {
    let mut archive = output.unnamed()?;
    convert::copy(cx, image, None, &Into::Archive(&archive))?;
    archive.rewind()?;
    let _bar = Bar::new("making the file system");
    let file = output.unnamed()?;
    let (name, command) = if format == Format::Erofs {
        ("mkfs.erofs", programs.cmd("mkfs.erofs").arg("--tar=f").args(OPTIONS))
    } else {
        let command = programs.cmd("sqfstar").args(["-quiet", "-no-progress", "-force"]);
        ("sqfstar", squashfs(&archive, command)?)
    };
    archive.rewind()?;
    disks::pipe(cx, name, command.arg(files::path_of(&file)), BufReader::new(archive))?;
    Ok(file)
}

/// Adds what sqfstar does not read from the archive: the root directory. Names what squashfs cannot keep.
fn squashfs<'a>(archive: &File, mut command: Cmd<'a>) -> Result<Cmd<'a>> {
    let (reader, headers) = pax::record(BufReader::new(archive));
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let records = headers.take()?;
        let has_list = records.iter().any(|(key, _)| key.starts_with("SCHILY.xattr.system."));
        let header = entry.header();
        let time = header.mtime()?;
        let is_before = records.iter().any(|(key, value)| key == "mtime" && value.starts_with(b"-"));
        for (is_lost, what) in [
            (has_list, "squashfs has no access control lists"),
            (is_before || time > u32::MAX.into(), "squashfs has only times from 1970 to 2106"),
        ] {
            if is_lost {
                say(format_args!("warning: {}: {what}", path.shown()));
            }
        }
        if path == Path::new("./") {
            for (option, value) in [
                ("-root-mode", format!("{:o}", header.mode()?)),
                ("-root-uid", header.uid()?.to_string()),
                ("-root-gid", header.gid()?.to_string()),
                ("-root-time", time.to_string()),
            ] {
                command = command.arg(option).arg(value);
            }
        }
        headers.next_after(&mut entry)?;
    }
    Ok(command)
}

/// An ext4 file system, alone or in the partition of a disk.
fn writable(
    cx: &Context,
    programs: &Programs,
    image: &Image,
    output: &NewFile,
    format: Format,
    size: Option<u64>,
) -> Result<File> {
    let start = if format == Format::Ext4 { 0 } else { TABLE };
    let needed = Needed::of(image)?;
    let size = size.unwrap_or(needed.size() + 2 * start);
    let file = output.unnamed()?;
    file.set_len(size)?;
    let area = Area { file, start, size: size.saturating_sub(2 * start) };
    make_ext4(programs, &area, needed.files)?;
    if start > 0 {
        let root = Partition { name: "root".to_owned(), start: area.start, size: area.size };
        partitions::write(cx, programs, &area.file, &[root])?;
    }
    convert::copy(cx, image, None, &Into::Disk(&area))?;
    let Area { file, .. } = area;
    if format != Format::Qcow2 {
        return Ok(file);
    }
    let _bar = Bar::new("converting the disk");
    let disk = output.unnamed()?;
    let convert = programs.cmd("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]);
    exec::read(convert.arg(files::path_of(&file)).arg(files::path_of(&disk)))
        .context("cannot convert the disk")?;
    Ok(disk)
}

/// What a file system has to have space for.
struct Needed {
    /// In bytes.
    contents: u64,
    files: u64,
}

impl Needed {
    /// An upper bound: what is in the layers, or what the disk has.
    fn of(image: &Image) -> Result<Self> {
        let mut needed = Self { contents: 0, files: 0 };
        for disk in &image.disks {
            let size = match image.driver {
                Some(_) => virtual_size(disk)?,
                None => disk.metadata()?.len(),
            };
            needed.contents += size;
            // Of the superblock of erofs: the number of files.
            let mut files = [0; 8];
            needed.files += match image.driver {
                None => {
                    disk.read_exact_at(&mut files, 1024 + 16)?;
                    u64::from_le_bytes(files)
                }
                Some(_) => size / 16384,
            };
        }
        Ok(needed)
    }

    /// The size of the file system, in whole MiB.
    fn size(&self) -> u64 {
        let metadata = 512 * self.files + 32 * MIB;
        (self.contents + self.contents / 4 + metadata).next_multiple_of(MIB)
    }
}

/// The size of a disk that is raw or qcow2.
fn virtual_size(disk: &File) -> Result<u64> {
    let mut header = [0; 32];
    let is_qcow2 = disk.read_exact_at(&mut header, 0).is_ok() && header.starts_with(b"QFI\xfb");
    let [.., a, b, c, d, e, f, g, h] = header;
    Ok(if is_qcow2 { u64::from_be_bytes([a, b, c, d, e, f, g, h]) } else { disk.metadata()?.len() })
}

fn make_ext4(programs: &Programs, area: &Area, files: u64) -> Result<()> {
    let inodes = (files + files / 4 + 1024).max(area.size / 16384);
    let mkfs = programs.cmd("../sbin/mke2fs").args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"]);
    let mkfs = mkfs.args(["-N", &inodes.to_string(), "-E", &format!("offset={}", area.start)]);
    let mkfs = mkfs.arg(files::path_of(&area.file)).arg(format!("{}k", area.size >> 10));
    let mkfs = mkfs.env("MKE2FS_CONFIG", programs.path("etc/mke2fs.conf"));
    exec::read(mkfs).map(drop).context("cannot make the file system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("900M").unwrap(), 900 << 20);
        assert_eq!(parse_size("4GiB").unwrap(), 4 << 30);
        for (given, error) in [
            ("900", "it is no number of M, G or T, as in 4G"),
            ("-1G", "\"-1\" is no number"),
            ("17T", "the maximum is 16T"),
            ("1M", "the minimum is 16M"),
        ] {
            assert_eq!(parse_size(given).unwrap_err(), error);
        }
    }
}
