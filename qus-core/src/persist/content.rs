//! A file's content: put where it belongs all at once, and recognised by its hash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Error;
use super::tree::{Found, Place, is_owned};
use crate::binfmt::rule::hex;
use crate::file;
use crate::text::Show;

/// What a file is to hold, and its mode.
pub(super) enum Content {
    /// What another file holds.
    Copy(PathBuf, u32),
    /// This text.
    Text(String, u32),
    /// A link to this path.
    Link(PathBuf),
}

impl Content {
    /// Of what is to be written.
    pub(super) fn sha256(&self) -> Result<String, Error> {
        match self {
            Self::Copy(from, _) => {
                let hash = file::open(from).and_then(|file| copy(file, &mut io::sink()));
                hash.map_err(|error| Error::Io("read", from.clone(), error))
            }
            Self::Text(text, _) => Ok(hex(&Sha256::digest(text))),
            Self::Link(to) => Ok(of_link(to)),
        }
    }

    /// Writes it so that it is never there in part.
    pub(super) fn put(&self, place: &Place, hash: &str) -> io::Result<()> {
        match self {
            Self::Copy(from, mode) => place.put(*mode, |to| {
                if copy(file::open(from)?, to)? == hash {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("{} was changed meanwhile", from.shown())))
                }
            }),
            Self::Text(text, mode) => place.put(*mode, |to| to.write_all(text.as_bytes())),
            Self::Link(to) => place.put_link(to),
        }
    }

    /// Whether it is there already, and nobody else can change it.
    pub(super) fn is_there(&self, place: &Place, hash: &str) -> io::Result<bool> {
        let found = place.find()?;
        let owned = match (self, &found) {
            (Self::Copy(_, mode) | Self::Text(_, mode), Some(Found::File(file))) => is_owned(file, *mode)?,
            (Self::Link(_), Some(Found::Link(_))) => true,
            _ => false,
        };
        Ok(owned && found.map(sha256).transpose()?.as_deref() == Some(hash))
    }
}

/// Of a file; of a link, that of its target's path.
pub(super) fn sha256(found: Found) -> io::Result<String> {
    match found {
        Found::File(file) => copy(file, &mut io::sink()),
        Found::Link(to) => Ok(of_link(&to)),
    }
}

fn of_link(to: &Path) -> String {
    hex(&Sha256::digest(to.as_os_str().as_encoded_bytes()))
}

/// Returns the hash of what was copied.
fn copy(mut from: File, to: &mut impl Write) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => {
                hasher.update(&buffer[..length]);
                to.write_all(&buffer[..length])?;
            }
        }
    }
}
