//! Checks conversions between images and disks: everything that a file can have, damaged disks, full ones.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use qus_core::digest::Sha256;
use tar::{Archive, Builder, EntryType, Header};
use tempfile::TempDir;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::process::BackgroundProcess;
use crate::debian::guests;
use crate::vm::pax;

const LEVEL: &str = "vm";

/// The machine that runs the disks.
const GUEST: &str = "arm64";

/// A whole number of seconds, and a part of one.
const TIME: &str = "1700000000.123456789";
const SECONDS: u64 = 1_700_000_000;

const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Owner, user 1000, group, mask, others.
const ACCESS: &[u8] =
    b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x07\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let fixture = Fixture::new(cx)?;
    report
        .check(LEVEL, "disks: everything that files have, in each format and back", || fixture.formats())?;
    report.check(LEVEL, "disks: damaged, unknown, too small, in the way", || fixture.failures())
}

/// What takes longer.
pub(super) fn run_slow(cx: &Context, report: &mut Report) -> Result<()> {
    let fixture = Fixture::new(cx)?;
    report.check(LEVEL, "disks: partitions of MBR and GPT, programs on them", || fixture.partitions())?;
    report.check(LEVEL, "disks: an interrupted conversion leaves nothing", || fixture.interrupted())
}

struct Fixture<'a> {
    cx: &'a Context,
    dir: TempDir,
}

/// What an archive says about a file.
#[derive(Debug, PartialEq, Eq)]
struct File {
    kind: EntryType,
    /// Mode, user, group, device numbers.
    numbers: (u32, u64, u64, Option<u32>, Option<u32>),
    time: String,
    attributes: BTreeMap<String, Vec<u8>>,
    link: Option<Vec<u8>>,
    contents: Sha256,
}

/// The files of an archive, and how many of them have holes.
fn listed(archive: impl Read) -> Result<(BTreeMap<Vec<u8>, File>, usize)> {
    let (reader, headers) = pax::record(archive);
    let (mut files, mut sparse) = (BTreeMap::new(), 0);
    for entry in Archive::new(reader).entries()? {
        let mut entry = entry?;
        let records: BTreeMap<_, _> = headers.take()?.into_iter().collect();
        let relative = |path: &[u8]| path.strip_prefix(b"./").unwrap_or(path).to_vec();
        let path = relative(&entry.path_bytes());
        let link = entry.link_name_bytes().map(|link| relative(&link));
        let header = entry.header().clone();
        let mut kind = header.entry_type();
        if kind == EntryType::GNUSparse {
            sparse += 1;
            kind = EntryType::Regular;
        }
        let is_device = matches!(kind, EntryType::Char | EntryType::Block);
        let device = |number: io::Result<Option<u32>>| if is_device { number } else { Ok(None) };
        let time = records.get("mtime").map(|time| String::from_utf8_lossy(time).into_owned());
        let is_attribute = |key: &str| key.starts_with("SCHILY.xattr.");
        let file = File {
            kind,
            numbers: (
                header.mode()?,
                header.uid()?,
                header.gid()?,
                device(header.device_major())?,
                device(header.device_minor())?,
            ),
            time: time.map_or_else(|| header.mtime().map(|time| time.to_string()), Ok)?,
            attributes: records.into_iter().filter(|(key, _)| is_attribute(key)).collect(),
            link,
            contents: Sha256::of_reader(&mut entry)?,
        };
        headers.next_after(&mut entry)?;
        files.insert(path, file);
    }
    Ok((files, sparse))
}

/// An archive in which each file is a hard case.
fn hard_cases(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |path: &[u8], kind, mode, contents: &[u8], link: &[u8], records: &[(&str, &[u8])]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(3_000_000);
        header.set_gid(4_000_000_000);
        header.set_mtime(SECONDS);
        header.set_size(contents.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(259)?;
            header.set_device_minor(70_000)?;
        }
        if kind != EntryType::Link {
            builder.append_pax_extensions(
                [("mtime", TIME.as_bytes())].into_iter().chain(records.iter().copied()),
            )?;
        }
        let path = Path::new(OsStr::from_bytes(path));
        if link.is_empty() {
            return builder.append_data(&mut header, path, contents);
        }
        builder.append_link(&mut header, path, Path::new(OsStr::from_bytes(link)))
    };
    let (file, none) = (EntryType::Regular, &b""[..]);
    add(b"./", EntryType::Directory, 0o755, none, none, &[])?;
    add(b"./bin/", EntryType::Directory, 0o2751, none, none, &[])?;
    add(b"./bin/sh", file, 0o755, busybox, none, &[])?;
    add(b"./etc/", EntryType::Directory, 0o1777, none, none, &[])?;
    let records = [("SCHILY.xattr.security.capability", CAPABILITY), ("SCHILY.xattr.user.a", b"b\0c\n")];
    add(b"./etc/attributes", file, 0o755, b"text\n", none, &records)?;
    add(b"./etc/access", file, 0o674, b"", none, &[("SCHILY.xattr.system.posix_acl_access", ACCESS)])?;
    add(b"./etc/first", file, 0o6755, &[b'x'; 5000], none, &[])?;
    add(b"./etc/second", EntryType::Link, 0o6755, none, b"./etc/first", &[])?;
    add(b"./etc/link", EntryType::Symlink, 0o777, none, &[b'y'; 3000], &[])?;
    add(b"./etc/char", EntryType::Char, 0o666, none, none, &[])?;
    add(b"./etc/block", EntryType::Block, 0o660, none, none, &[])?;
    add(b"./etc/fifo", EntryType::Fifo, 0o600, none, none, &[])?;
    add(&[&b"./etc/"[..], &[b'n'; 255]].concat(), file, 0o644, b"long", none, &[])?;
    add(b"./etc/new\nline", file, 0o644, b"a", none, &[])?;
    add(b"./etc/raw\xff\xfe", file, 0, b"b", none, &[])?;
    let mut holes = vec![0; 8 << 20];
    holes[3 << 20] = 1;
    add(b"./etc/holes", file, 0o644, &holes, none, &[])?;
    Ok(builder.into_inner()?)
}

impl<'a> Fixture<'a> {
    fn new(cx: &'a Context) -> Result<Self> {
        Ok(Self { cx, dir: tempfile::tempdir()? })
    }

    /// A file in the directory of the fixture.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The archive of hard cases, which the first check that needs it writes.
    fn archive(&self) -> Result<PathBuf> {
        let path = self.path("hard.tar");
        if !path.exists() {
            let guest = self.cx.data.debian.guest(GUEST).context("debian.toml lacks a guest")?;
            fs::write(&path, hard_cases(&fs::read(guests::program(self.cx, guest, "busybox")?)?)?)?;
        }
        Ok(path)
    }

    /// Runs `cargo xtask vm` in the directory of the fixture.
    fn vm(&self, args: &[&str]) -> Result<CommandOutput> {
        let xtask = std::env::current_exe()?;
        let dir = self.dir.path();
        let ended = exec::output(cmd!(sh(), "env -C {dir} {xtask} vm {args...}"))?;
        Ok(CommandOutput::new(format!("vm {}", args.join(" ")), ended))
    }

    /// The disk of the hard cases in a format, which the first check that needs it makes.
    fn disk(&self, format: &str) -> Result<PathBuf> {
        let (archive, path) = (self.archive()?, self.path(&format!("disk.{format}")));
        if !path.exists() {
            let archive = archive.to_str().context("a path is not UTF-8")?;
            let ended = self.vm(&["disk", archive, "-o", &format!("disk.{format}")])?;
            let is_told = ended.stderr.contains("./etc/access: squashfs has no access control lists");
            ensure!(is_told == (format == "squashfs"), "the warnings are {}", ended.stderr);
            ended.succeeds()?;
        }
        Ok(path)
    }

    /// The files of an image that has been imported from a disk, and how many of them have holes.
    fn imported(&self, disk: &str, options: &[&str]) -> Result<(BTreeMap<Vec<u8>, File>, usize)> {
        self.vm(&[&["import", disk, "-o", "image.tar"][..], options].concat())?.succeeds()?;
        let image = fs::read(self.path("image.tar"))?;
        fs::remove_file(self.path("image.tar"))?;
        for entry in Archive::new(&*image).entries()? {
            let entry = entry?;
            if entry.path()?.ends_with("layer.tar") {
                return listed(entry);
            }
        }
        anyhow::bail!("the image has no layer")
    }

    fn formats(&self) -> Result<()> {
        let (mut expected, _) = listed(&*fs::read(self.archive()?)?)?;
        // A link has the time of its file, which comes first.
        for file in expected.values_mut() {
            file.time = TIME.to_owned();
        }
        for format in ["ext4", "raw", "qcow2", "erofs", "squashfs"] {
            self.disk(format)?;
            if format == "squashfs" {
                for file in expected.values_mut() {
                    file.time = SECONDS.to_string();
                    file.attributes.remove("SCHILY.xattr.system.posix_acl_access");
                }
            }
            let (mut found, sparse) = self.imported(&format!("disk.{format}"), &[])?;
            for file in found.values_mut().filter(|file| file.kind == EntryType::Link) {
                file.time = expected.values().next().map(|file| file.time.clone()).unwrap_or_default();
            }
            for (path, file) in &expected {
                let path_shown = String::from_utf8_lossy(path);
                let found = found.get(path).with_context(|| format!("{format} lacks {path_shown}"))?;
                ensure!(found == file, "{format} has {path_shown} as {found:?} instead of {file:?}");
            }
            ensure!(found.len() == expected.len(), "{format} has more files: {:?}", found.keys());
            let has_holes = !matches!(format, "erofs" | "squashfs");
            ensure!((sparse > 0) == has_holes, "{format} has {sparse} files with holes");
        }
        Ok(())
    }

    fn partitions(&self) -> Result<()> {
        let file_system = fs::read(self.disk("ext4")?)?;
        // Two partitions, the first one without a file system.
        let mut disk = vec![0; 2 << 20];
        for (index, (start, size)) in
            [(2048_u32, 2048_u32), (4096, (file_system.len() / 512).try_into()?)].into_iter().enumerate()
        {
            let entry = 446 + 16 * index;
            disk[entry + 4] = 0x83;
            disk[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
            disk[entry + 12..entry + 16].copy_from_slice(&size.to_le_bytes());
        }
        disk[510..512].copy_from_slice(b"\x55\xaa");
        disk.extend(&file_system);
        fs::write(self.path("mbr.img"), disk)?;
        let (bare, _) = self.imported("disk.ext4", &[])?;
        for options in [&[][..], &["--partition", "2"]] {
            let (found, _) = self.imported("mbr.img", options)?;
            ensure!(found == bare, "the partition has other files");
        }
        for (partition, error) in
            [("1", "cannot mount partition 1"), ("3", "the disk has no partition 3; it has 1; 2")]
        {
            self.vm(&["import", "mbr.img", "-o", "image.tar", "--partition", partition])?
                .exits(1, &[error])?;
        }
        self.disk("squashfs")?;
        for disk in ["mbr.img", "disk.ext4", "disk.squashfs"] {
            let program = ["/bin/sh", "-c", "cat /etc/attributes; echo > /etc/new; exit 3"];
            let ended = self.vm(&[&["run", "--arch", GUEST, disk][..], &program].concat())?;
            ended.ends(3, "text\n", "")?;
        }
        self.vm(&["run", "disk.ext4", "true"])?.exits(125, &["does not say for which architecture it is"])
    }

    fn failures(&self) -> Result<()> {
        let mut damaged = fs::read(self.disk("ext4")?)?;
        damaged[4096..12288].fill(0xaa);
        fs::write(self.path("damaged.ext4"), damaged)?;
        let mut damaged = fs::read(self.disk("qcow2")?)?;
        damaged.truncate(damaged.len() / 2);
        fs::write(self.path("short.qcow2"), damaged)?;
        let mut linked = fs::read(self.path("disk.qcow2"))?;
        linked[15] = 200;
        fs::write(self.path("linked.qcow2"), linked)?;
        fs::write(self.path("unknown"), "no disk\n".repeat(20_000))?;
        fs::write(self.path("empty.tar"), [0; 1024])?;
        for (args, status, error) in [
            (&["import", "damaged.ext4", "-o", "new.tar"][..], 1, "cannot mount the disk: ext4: "),
            (&["import", "short.qcow2", "-o", "new.tar"], 1, "short.qcow2 is damaged or in use"),
            (&["import", "linked.qcow2", "-o", "new.tar"], 1, "it has a backing file"),
            (&["import", "unknown", "-o", "new.tar"], 1, "unknown is no known kind of disk"),
            (&["import", "disk.ext4", "-o", "disk.raw"], 1, "disk.raw exists"),
            (&["disk", "hard.tar", "-o", "disk.ext4"], 1, "disk.ext4 exists"),
            (&["disk", "hard.tar", "-o", "none/new.ext4"], 1, "the directory none does not exist"),
            (&["disk", "hard.tar", "-o", "new.vmdk"], 2, "the file's suffix names no format"),
            (&["disk", "hard.tar", "-o", "new.erofs", "--size", "1G"], 2, "omit `--size`"),
            (&["disk", "hard.tar", "-o", "new.ext4", "--size", "1"], 2, "it is no number of M, G or T"),
            (&["disk", "empty.tar", "-o", "new.ext4"], 1, "the root file system has no files"),
        ] {
            self.disk("raw")?;
            self.vm(args)?.exits(status, &[error])?;
        }
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(40 << 20);
        builder.append_data(&mut header, "large", io::repeat(1).take(40 << 20))?;
        fs::write(self.path("large.tar"), builder.into_inner()?)?;
        let ended = self.vm(&["disk", "large.tar", "-o", "new.qcow2", "--size", "32M"])?;
        ended.exits(1, &["the disk is too small: cannot copy /large", "--size 4G"])?;
        let names = fs::read_dir(self.dir.path())?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.retain(|name| name.as_bytes().starts_with(b"new") || name.as_bytes().starts_with(b"."));
        ensure!(names.is_empty(), "files stay: {names:?}");
        Ok(())
    }

    fn interrupted(&self) -> Result<()> {
        let (archive, dir) = (self.archive()?, tempfile::tempdir()?);
        let xtask = std::env::current_exe()?;
        for (signal, status) in [(Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)] {
            let output = dir.path().join("new.ext4");
            let disk = cmd!(sh(), "{xtask} vm disk {archive} -o {output}").env("TMPDIR", dir.path());
            let mut process = BackgroundProcess::start(dir.path().join("stderr"), disk)?;
            process.wait_for_output("reading the root file system")?;
            process.signal(signal)?;
            let ended = process.child.wait()?;
            ensure!(ended.code() == status, "{ended} after {signal}");
            let names = fs::read_dir(dir.path())?.map(|entry| Ok(entry?.file_name()));
            let names = names.collect::<Result<Vec<_>>>()?;
            ensure!(names == ["stderr"], "files stay: {names:?}");
        }
        Ok(())
    }
}
