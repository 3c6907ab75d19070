//! A file's content: written atomically, and recognised by its checksum.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::PersistError;
use super::tree::{Found, Place, is_owned};
use crate::digest::{self, Sha256};
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
    /// The checksum of what is to be written; for a link, that of its target's path.
    pub(super) fn sha256(&self) -> Result<Sha256, PersistError> {
        match self {
            Self::Copy(from, _) => {
                Sha256::of_file(from).map_err(|error| PersistError::Io("read", from.clone(), error))
            }
            Self::Text(text, _) => Ok(Sha256::of(text)),
            Self::Link(to) => Ok(of_link(to)),
        }
    }

    /// Writes it so that it never exists in part.
    pub(super) fn write(&self, place: &Place, hash: Sha256) -> io::Result<()> {
        match self {
            Self::Copy(from, mode) => place.write(*mode, |to| {
                if digest::copy(file::open(from)?, to)? == hash {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("{} changed while it was copied", from.shown())))
                }
            }),
            Self::Text(text, mode) => place.write(*mode, |to| to.write_all(text.as_bytes())),
            Self::Link(to) => place.write_link(to),
        }
    }

    /// Whether it exists already, and only root can change it.
    pub(super) fn is_there(&self, place: &Place, hash: Sha256) -> io::Result<bool> {
        let found = place.find()?;
        let owned = match (self, &found) {
            (Self::Copy(_, mode) | Self::Text(_, mode), Some(Found::File(file))) => is_owned(file, *mode)?,
            (Self::Link(_), Some(Found::Link(_))) => true,
            _ => false,
        };
        Ok(owned && found.map(sha256).transpose()? == Some(hash))
    }
}

/// The checksum of a file; for a link, that of its target's path.
pub(super) fn sha256(found: Found) -> io::Result<Sha256> {
    match found {
        Found::File(file) => Sha256::of_reader(file),
        Found::Link(to) => Ok(of_link(&to)),
    }
}

fn of_link(to: &Path) -> Sha256 {
    Sha256::of(to.as_os_str().as_encoded_bytes())
}
