//! The initial file system of a machine, which has `qus-init` and the kernel modules that it loads.

use std::io::Write;

use anyhow::Result;
use cpio::newc::Builder;

// File types of `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const DEVICE: u32 = 0o020_000;
const FILE: u32 = 0o100_000;

/// The directories of modules, those for disks and the network last.
pub(crate) const MODULES: [&str; 2] = ["modules", "late-modules"];

/// The archive. The modules of each directory are loaded in the order of their file names. All inputs determine its bytes.
pub(crate) fn make(init: &[u8], modules: &[Vec<(String, Vec<u8>)>; 2]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut add = |entry: Builder, mode: u32, bytes: &[u8]| -> Result<()> {
        let mut writer = entry.mode(mode).nlink(1).write(&mut archive, bytes.len().try_into()?);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    };
    add(Builder::new("dev"), DIRECTORY | 0o755, b"")?;
    // The kernel opens it for the first process.
    add(Builder::new("dev/console").rdev_major(5).rdev_minor(1), DEVICE | 0o600, b"")?;
    add(Builder::new("init"), FILE | 0o755, init)?;
    for (dir, modules) in MODULES.iter().zip(modules) {
        add(Builder::new(dir), DIRECTORY | 0o755, b"")?;
        for (file, bytes) in modules {
            add(Builder::new(&format!("{dir}/{file}")), FILE | 0o644, bytes)?;
        }
    }
    cpio::newc::trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_all_files() {
        let module = |file: &str, bytes: &[u8]| (file.to_owned(), bytes.to_vec());
        let modules =
            [vec![module("000-b.ko", b"two"), module("001-a.ko", b"three")], vec![module("000-c.ko", b"")]];
        let archive = make(b"init", &modules).unwrap();
        let (mut names, mut rest) = (Vec::new(), &*archive);
        loop {
            let reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
        let expected = [
            "dev",
            "dev/console",
            "init",
            "modules",
            "modules/000-b.ko",
            "modules/001-a.ko",
            "late-modules",
            "late-modules/000-c.ko",
        ];
        assert_eq!(names, expected);
        assert_eq!(make(b"init", &modules).unwrap(), archive);
    }
}
