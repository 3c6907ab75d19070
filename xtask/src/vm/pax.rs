//! The records of pax headers in a tar archive.
//!
//! The crate `tar` ends a record at its first newline, which binary values may have. This reads the headers that it reads.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// A key and its value.
pub(crate) type Record = (String, Vec<u8>);

/// A reader that keeps what is read between the contents of files.
pub(crate) struct Recorder<R> {
    from: R,
    kept: Rc<RefCell<Kept>>,
}

/// The headers that a [`Recorder`] has read.
pub(crate) struct Headers(Rc<RefCell<Kept>>);

#[derive(Default)]
struct Kept {
    /// `None` while contents are read.
    bytes: Option<Vec<u8>>,
    /// The number of bytes that have been read of a block.
    position: usize,
    /// The number of bytes up to the next header.
    padding: usize,
}

/// Reads an archive; the headers of its first file are kept.
pub(crate) fn record<R: Read>(from: R) -> (Recorder<R>, Headers) {
    let kept = Rc::new(RefCell::new(Kept { bytes: Some(Vec::new()), position: 0, padding: 0 }));
    (Recorder { from, kept: kept.clone() }, Headers(kept))
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        let mut kept = self.kept.borrow_mut();
        let padding = kept.padding.min(length);
        if let Some(bytes) = &mut kept.bytes {
            bytes.extend(&buffer[padding..length]);
        }
        kept.padding -= padding;
        kept.position = (kept.position + length) % BLOCK;
        Ok(length)
    }
}

impl Headers {
    /// The records of the file whose header has been read, and whose contents are read next.
    pub(crate) fn take(&self) -> Result<Vec<Record>> {
        let bytes = self.0.borrow_mut().bytes.take().unwrap_or_default();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while rest.len() >= BLOCK {
            let (header, contents) = rest.split_at(BLOCK);
            let header = Header::from_byte_slice(header);
            let size = match header.entry_type() {
                EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                    usize::try_from(header.entry_size()?)?
                }
                _ => break,
            };
            let own = contents.get(..size).context("a header has no end")?;
            if header.entry_type() == EntryType::XHeader {
                parse(own, &mut records)?;
            }
            rest = contents.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
        }
        Ok(records)
    }

    /// Reads the rest of a file's contents, and keeps the headers of the next one.
    pub(crate) fn next_after(&self, entry: &mut impl Read) -> io::Result<()> {
        io::copy(entry, &mut io::sink())?;
        let mut kept = self.0.borrow_mut();
        kept.bytes = Some(Vec::new());
        kept.padding = (BLOCK - kept.position) % BLOCK;
        Ok(())
    }
}

/// Parses records, each of which begins with its length.
fn parse(mut rest: &[u8], records: &mut Vec<Record>) -> Result<()> {
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').context("a pax record has no length")?;
        let length: usize = std::str::from_utf8(&rest[..space])?.parse()?;
        let record = rest.get(space + 1..length).context("a pax record has a wrong length")?;
        let (newline, record) = record.split_last().context("a pax record is empty")?;
        ensure!(*newline == b'\n', "a pax record has a wrong length");
        let equals = record.iter().position(|byte| *byte == b'=').context("a pax record has no value")?;
        records.push((std::str::from_utf8(&record[..equals])?.to_owned(), record[equals + 1..].to_vec()));
        rest = &rest[length..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_have_newlines() {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, value, size) in [("a", &b"1\n2"[..], 5_u64), ("b", b"\n\n\n", 600), ("c", b"", 0)] {
            builder.append_pax_extensions([("SCHILY.xattr.user.x", value)]).unwrap();
            let mut header = Header::new_gnu();
            header.set_size(size);
            builder.append_data(&mut header, name.repeat(150), io::repeat(b'=').take(size)).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        let (recorder, headers) = record(&*archive);
        let mut found = Vec::new();
        for entry in tar::Archive::new(recorder).entries().unwrap() {
            found.extend(headers.take().unwrap());
            headers.next_after(&mut entry.unwrap()).unwrap();
        }
        let key = || "SCHILY.xattr.user.x".to_owned();
        assert_eq!(found, [(key(), b"1\n2".to_vec()), (key(), b"\n\n\n".to_vec()), (key(), Vec::new())]);
    }

    #[test]
    fn damaged_records_are_refused() {
        for text in ["x", "3", "3 a", "99 a=b\n", "6 a=bc", "5 ab\n", "0 a=b\n", "1 a=b\n"] {
            assert!(parse(text.as_bytes(), &mut Vec::new()).is_err(), "{text}");
        }
    }
}
