//! Disks of other tools: raw, with a file system or with partitions, or in QEMU's format qcow2.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use qus_core::hint::{WithHint, hinted};
use qus_core::text::Show;

use crate::base::context::Context;
use crate::base::exec;
use crate::base::progress::{Bar, one_line};
use crate::vm::programs::Programs;

/// The form of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    Raw,
    Qcow2,
}

impl Driver {
    /// QEMU's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

const QCOW2: &[u8] = b"QFI\xfb";

/// Where raw disks have which bytes.
const RAW: [(usize, &[u8]); 7] = [
    // ext2 to ext4, erofs, squashfs, xfs, btrfs.
    (0x438, b"\x53\xef"),
    (0x400, b"\xe2\xe1\xf5\xe0"),
    (0, b"hsqs"),
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),
    // GPT; MBR, and vfat.
    (0x200, b"EFI PART"),
    (0x1fe, b"\x55\xaa"),
];

/// What archives begin with: gzip and zstd. They may have the bytes of a disk by chance.
const COMPRESSED: [&[u8]; 2] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];

/// The form of a disk; `None` for other files.
pub(crate) fn recognize(file: &File) -> Result<Option<Driver>> {
    let mut head = vec![0; 0x10048];
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    let head = &head[..length];
    if head.starts_with(QCOW2) {
        return Ok(Some(Driver::Qcow2));
    }
    let is_raw = RAW.iter().any(|(at, bytes)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    let is_compressed = COMPRESSED.iter().any(|bytes| head.starts_with(bytes));
    Ok((is_raw && !is_compressed).then_some(Driver::Raw))
}

/// Checks that a disk can be read, and reads no other file.
pub(crate) fn check(cx: &Context, path: &Path, driver: Driver) -> Result<()> {
    if driver == Driver::Raw {
        return Ok(());
    }
    let shown = one_line(path.display());
    let mut header = [0; 104];
    File::open(path)?.read_exact_at(&mut header, 0).map_err(|_| anyhow!("{shown} ends in its header"))?;
    refuse_others(&header).map_err(|error| anyhow!("{shown} cannot be used: {error}")).hint(format_args!(
        "`qemu-img convert -O qcow2 {} OTHER.qcow2` makes one file of all",
        path.quoted()
    ))?;
    let _bar = Bar::short(format!("checking {shown}"));
    let programs = Programs::of_converter(cx)?;
    let ended = exec::output(programs.cmd("qemu-img").args(["check", "-f", "qcow2"]).arg(path))?;
    // 3: only some of the space is lost.
    if matches!(ended.status.code(), Some(0 | 3)) {
        return Ok(());
    }
    let text = [ended.stderr, ended.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    let reason = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("qemu-img check failed");
    Err(hinted(
        format_args!("{shown} is damaged or in use: {}", reason.shown()),
        format_args!("`qemu-img check {}` prints everything that is wrong", path.quoted()),
    ))
}

/// Refuses a qcow2 file that needs other files of this machine, or a key.
fn refuse_others(header: &[u8; 104]) -> Result<()> {
    let number = |at: usize, length: usize| {
        header[at..at + length].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let version = number(4, 4);
    ensure!(matches!(version, 2 | 3), "its version of qcow2 is {version}");
    ensure!(number(8, 8) == 0, "it has a backing file");
    ensure!(number(32, 4) == 0, "it is encrypted");
    if version == 3 && number(72, 8) & 0b100 != 0 {
        bail!("its data is in another file");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn recognized(bytes: &[u8]) -> Option<Driver> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        recognize(&file).unwrap()
    }

    #[test]
    fn disks_are_recognized() {
        assert_eq!(recognized(b"QFI\xfb"), Some(Driver::Qcow2));
        for (at, bytes) in RAW {
            let mut disk = vec![0; at];
            disk.extend(bytes);
            assert_eq!(recognized(&disk), Some(Driver::Raw));
            disk.pop();
            assert_eq!(recognized(&disk), None);
        }
        let mut archive = vec![0; 0x1fe];
        archive.extend(b"\x55\xaa");
        archive[..2].copy_from_slice(b"\x1f\x8b");
        assert_eq!(recognized(&archive), None);
        assert_eq!(recognized(b""), None);
    }

    #[test]
    fn qcow2_files_that_need_others_are_refused() {
        let refused = |changes: &[(usize, u8)]| {
            let mut header = [0; 104];
            header[7] = 3;
            changes.iter().for_each(|(at, byte)| header[*at] = *byte);
            refuse_others(&header).err().map(|error| error.to_string())
        };
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[(7, 2), (79, 4)]), None, "version 2 has no features");
        for (change, error) in [
            ((7, 1), "its version of qcow2 is 1"),
            ((15, 1), "it has a backing file"),
            ((35, 2), "it is encrypted"),
            ((79, 4), "its data is in another file"),
        ] {
            assert_eq!(refused(&[change]).unwrap(), error);
        }
    }
}
