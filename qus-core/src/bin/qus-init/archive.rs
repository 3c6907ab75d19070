//! Writes a tar archive in GNU's format, with pax headers for what that lacks.
//!
//! Names are in GNU's headers because those of pax are UTF-8.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::{Result, ensure};
use nix::sys::stat::{major, minor};
use qus_core::text::Show;

use crate::attributes;
use crate::tree::{Copier, Node};

const BLOCK: usize = 512;

/// The numbers of parts of a sparse file in its header, and in each block after it.
const FIRST_PARTS: usize = 4;
const MORE_PARTS: usize = 21;

/// An archive that is being written.
pub(crate) struct Archive<W, E> {
    to: W,
    written: u64,
    /// Where warnings about what an archive cannot have are written.
    warnings: E,
    /// The number of bytes of all warnings.
    warned: u64,
}

/// The fields of a header.
struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], kind: u8, size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        header.bytes(0, &name[..name.len().min(100)]);
        header.number(100, 8, 0);
        header.number(108, 8, 0);
        header.number(116, 8, 0);
        header.number(124, 12, size);
        header.number(136, 12, 0);
        header.bytes(156, &[kind]);
        header.bytes(257, b"ustar  \0");
        header
    }

    fn owned(mut self, metadata: &Metadata) -> Self {
        self.number(100, 8, u64::from(metadata.mode() & 0o7777));
        self.number(108, 8, metadata.uid().into());
        self.number(116, 8, metadata.gid().into());
        self.number(136, 12, metadata.mtime().try_into().unwrap_or(0));
        self
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&mut self, at: usize, width: usize, number: u64) {
        self.bytes(at, &encoded(width, number));
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.bytes(148, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.bytes(148, &encoded(7, sum));
        self.0
    }
}

/// A number in octal digits and a zero; if it is too large, in binary with the first bit set.
fn encoded(width: usize, number: u64) -> Vec<u8> {
    let digits = format!("{number:0digits$o}\0", digits = width - 1).into_bytes();
    if digits.len() == width {
        return digits;
    }
    let mut binary = vec![0; width];
    // Any number has at most eight bytes. A field of eight has only seven for it, which is enough for 32 bits.
    let bytes = number.to_be_bytes();
    let length = bytes.len().min(width - 1);
    binary[width - length..].copy_from_slice(&bytes[bytes.len() - length..]);
    binary[0] = 0x80;
    binary
}

/// A time in seconds; the kernel counts nanoseconds forwards before 1970, too.
fn decimal(seconds: i64, nanoseconds: i64) -> String {
    if seconds < 0 && nanoseconds > 0 {
        return format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

/// A record of a pax header, which begins with its own length.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

impl<W: Write, E: Write> Archive<W, E> {
    pub(crate) fn new(to: W, warnings: E) -> Self {
        Self { to, written: 0, warnings, warned: 0 }
    }

    /// Ends the archive, and returns the numbers of bytes of the archive and of the warnings.
    pub(crate) fn finish(mut self) -> Result<(u64, u64)> {
        self.write(&[0; 2 * BLOCK])?;
        self.to.flush()?;
        Ok((self.written, self.warned))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Fills the last block.
    fn pad(&mut self) -> io::Result<()> {
        let used = usize::try_from(self.written % BLOCK as u64).unwrap_or(0);
        if used > 0 { self.write(&[0; BLOCK][used..]) } else { Ok(()) }
    }

    /// Writes a header of its own kind with contents, which belongs to the next file.
    fn extension(&mut self, kind: u8, contents: &[u8]) -> io::Result<()> {
        self.write(&Header::new(b"././@LongLink", kind, contents.len() as u64).finish())?;
        self.write(contents)?;
        self.pad()
    }

    fn warn(&mut self, node: &Node<'_>, what: &str) -> io::Result<()> {
        let line = format!("warning: /{}: {what}\n", node.path.to_string_lossy().shown());
        self.warned += line.len() as u64;
        self.warnings.write_all(line.as_bytes())
    }

    fn long(&mut self, kind: u8, name: &[u8]) -> io::Result<()> {
        if name.len() > 100 { self.extension(kind, &[name, b"\0"].concat()) } else { Ok(()) }
    }

    /// Writes the contents of a regular file.
    fn contents(&mut self, node: &Node<'_>, name: &[u8]) -> Result<()> {
        let size = node.metadata.size();
        let mut file = File::open(node.source)?;
        let mut parts = attributes::data(&file, size)?;
        let is_sparse = parts != [(0, size)] && size > 0;
        let stored = parts.iter().map(|(_, length)| length).sum();
        let mut header = Header::new(name, if is_sparse { b'S' } else { b'0' }, stored).owned(node.metadata);
        if is_sparse {
            // A reader gets the size from the end of the last part.
            parts.push((size, 0));
            let (first, more) = parts.split_at(parts.len().min(FIRST_PARTS));
            header.bytes(386, &map(first));
            header.bytes(482, &[(!more.is_empty()).into()]);
            header.number(483, 12, size);
            self.write(&header.finish())?;
            let mut blocks = more.chunks(MORE_PARTS).peekable();
            while let Some(block) = blocks.next() {
                let mut bytes = map(block);
                bytes.resize(BLOCK, 0);
                bytes[24 * MORE_PARTS] = blocks.peek().is_some().into();
                self.write(&bytes)?;
            }
        } else {
            self.write(&header.finish())?;
        }
        for (start, length) in parts {
            file.seek(SeekFrom::Start(start))?;
            let copied = io::copy(&mut (&mut file).take(length), &mut self.to)?;
            self.written += copied;
            ensure!(copied == length, "the file ends too early");
        }
        Ok(self.pad()?)
    }
}

/// The positions and lengths of the parts of a sparse file.
fn map(parts: &[(u64, u64)]) -> Vec<u8> {
    parts.iter().flat_map(|(start, length)| [encoded(12, *start), encoded(12, *length)].concat()).collect()
}

impl<W: Write, E: Write> Copier for Archive<W, E> {
    fn add(&mut self, node: &Node<'_>) -> Result<()> {
        let Node { path, metadata, .. } = node;
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(self.warn(node, "a tar archive has no sockets")?);
        }
        let mut name = [b"./", path.as_os_str().as_bytes()].concat();
        if kind.is_dir() && name != b"./" {
            name.push(b'/');
        }
        let mut link = Vec::new();
        if let Some(same) = node.same {
            link = [b"./", same.as_os_str().as_bytes()].concat();
        } else {
            let mut records = Vec::new();
            if metadata.mtime_nsec() != 0 || metadata.mtime() < 0 {
                let time = decimal(metadata.mtime(), metadata.mtime_nsec());
                records.extend(record(b"mtime", time.as_bytes()));
            }
            for attribute in node.attributes {
                if attribute.name.as_bytes().contains(&b'=') {
                    self.warn(node, "a tar archive has no extended attribute with `=` in its name")?;
                    continue;
                }
                let key = [b"SCHILY.xattr.", attribute.name.as_bytes()].concat();
                records.extend(record(&key, &attribute.value));
            }
            if !records.is_empty() {
                self.extension(b'x', &records)?;
            }
            if kind.is_symlink() {
                link = std::fs::read_link(node.source)?.into_os_string().into_encoded_bytes();
            }
        }
        self.long(b'L', &name)?;
        self.long(b'K', &link)?;
        let type_flag = match () {
            () if node.same.is_some() => b'1',
            () if kind.is_file() => return self.contents(node, &name),
            () if kind.is_symlink() => b'2',
            () if kind.is_char_device() => b'3',
            () if kind.is_block_device() => b'4',
            () if kind.is_dir() => b'5',
            () => b'6',
        };
        let mut header = Header::new(&name, type_flag, 0).owned(metadata);
        header.bytes(157, &link[..link.len().min(100)]);
        if matches!(type_flag, b'3' | b'4') {
            header.number(329, 8, major(metadata.rdev()));
            header.number(337, 8, minor(metadata.rdev()));
        }
        Ok(self.write(&header.finish())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_fields() {
        assert_eq!(encoded(8, 0o755), b"0000755\0");
        assert_eq!(encoded(8, 3_000_000), [0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
        assert_eq!(encoded(8, 0o7_777_777), b"7777777\0");
        assert_eq!(encoded(12, 1 << 33), [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(decimal(1, 5), "1.000000005");
        assert_eq!(decimal(-6, 500_000_000), "-5.500000000");
        assert_eq!(decimal(-1, 1), "-0.999999999");
        assert_eq!(decimal(-5, 0), "-5.000000000");
    }

    #[test]
    fn records_count_themselves() {
        assert_eq!(record(b"mtime", b"1.5"), b"13 mtime=1.5\n");
        // With one more digit, the length has one more, too.
        for length in 1..2000 {
            let record = record(b"k", &vec![b'v'; length]);
            let counted: usize =
                std::str::from_utf8(&record).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(counted, record.len());
        }
    }
}
