//! SHA-256 checksums of bytes, of files, and of data while it is read or copied.
//!
//! A checksum is 32 bytes here and 64 lower-case hexadecimal digits wherever it is written. Other spellings are
//! refused, so that two texts are equal exactly if the checksums are.
//!
//! ```
//! use qus_core::digest::Sha256;
//!
//! let sum = Sha256::of("abc");
//! assert!(sum.to_string().starts_with("ba7816bf"));
//! assert_eq!(sum.to_string().parse(), Ok(sum));
//! assert!("BA7816".parse::<Sha256>().is_err());
//! ```

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest;

use crate::file;
use crate::text::hex;

/// A SHA-256 checksum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The checksum of bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The checksum of all that can be read.
    ///
    /// # Errors
    /// The reader's.
    pub fn of_reader(reader: impl Read) -> io::Result<Self> {
        copy(reader, &mut io::sink())
    }

    /// The checksum of a regular file.
    ///
    /// # Errors
    /// It cannot be read, or is a pipe, a directory or a device ([`file::open`]).
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_reader(file::open(path)?)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSha256;

impl fmt::Display for BadSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-256 checksum has 64 lower-case hexadecimal digits")
    }
}

impl std::error::Error for BadSha256 {}

impl FromStr for Sha256 {
    type Err = BadSha256;

    fn from_str(text: &str) -> Result<Self, BadSha256> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(BadSha256),
        };
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(BadSha256);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Parses a list of checksums as `sha256sum` prints it: a checksum and the name of a file on each line. `None` if it is
/// none, names a file outside of its directory, or has a name with control characters.
///
/// ```
/// use qus_core::digest::{Sha256, parse_list};
///
/// let list = format!("{}  share/man/qus.1\n", Sha256::of("abc"));
/// assert_eq!(parse_list(&list), Some(vec![(Sha256::of("abc"), "share/man/qus.1")]));
/// assert_eq!(parse_list("no checksum"), None);
/// ```
pub fn parse_list(text: &str) -> Option<Vec<(Sha256, &str)>> {
    let is_inside = |name: &str| {
        !name.is_empty()
            && !name.contains(char::is_control)
            && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
    };
    let line = |line| {
        let (sha256, name) = str::split_once(line, "  ")?;
        Some((sha256.parse().ok()?, name)).filter(|_| is_inside(name))
    };
    text.lines().map(line).collect()
}

/// Copies all that can be read, and returns the checksum of what was copied.
///
/// # Errors
/// The reader's or the writer's.
pub fn copy(from: impl Read, to: &mut impl Write) -> io::Result<Sha256> {
    let mut from = HashingReader::new(from);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(from.finish()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A reader that computes the checksum of what is read through it.
pub struct HashingReader<R> {
    reader: R,
    hasher: sha2::Sha256,
}

impl<R> HashingReader<R> {
    /// Wraps a reader.
    pub fn new(reader: R) -> Self {
        Self { reader, hasher: sha2::Sha256::new() }
    }

    /// The checksum of what was read.
    pub fn finish(self) -> Sha256 {
        Sha256(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Sha256::of("abc").to_string(), expected);
        assert_eq!(expected.parse(), Ok(Sha256::of("abc")));
    }

    #[test]
    fn lists_name_files_inside_their_directory() {
        let sum = Sha256::of("abc");
        assert_eq!(parse_list(""), Some(Vec::new()));
        for name in ["a", "a/b", "a  b"] {
            assert_eq!(parse_list(&format!("{sum}  {name}\n")), Some(vec![(sum, name)]));
        }
        for name in ["", "/a", "../a", "a/../../b", ".", "a\rb"] {
            assert_eq!(parse_list(&format!("{sum}  {name}\n")), None, "{name}");
        }
        for text in [format!("{sum}"), format!("{sum} a"), format!("{sum}  a\n\n")] {
            assert_eq!(parse_list(&text), None, "{text}");
        }
    }

    #[test]
    fn every_way_has_the_same_result() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let mut copied = Vec::new();
        assert_eq!(copy(&b"abc"[..], &mut copied).unwrap(), Sha256::of("abc"));
        assert_eq!(copied, b"abc");
        assert_eq!(Sha256::of_file(file.path()).unwrap(), Sha256::of("abc"));
        assert_eq!(Sha256::of_file(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::InvalidInput);
        let mut reader = HashingReader::new(&b"abcdef"[..]);
        reader.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(reader.finish(), Sha256::of("abc"), "what was not read does not count");
    }

    #[test]
    fn one_text_is_one_checksum() {
        let text = Sha256::of("").to_string();
        assert_eq!(serde_json::to_string(&Sha256::of("")).unwrap(), format!("\"{text}\""));
        for bad in ["", "00", &text.to_uppercase(), &format!("{text}0"), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Sha256>(), Err(BadSha256), "{bad}");
            assert!(serde_json::from_value::<Sha256>(bad.into()).is_err());
        }
    }
}
