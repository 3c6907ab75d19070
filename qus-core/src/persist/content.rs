//! A file's content: put where it belongs all at once, and recognised by its hash.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Error;
use crate::binfmt::rule::hex;

/// What a file is to hold.
pub(super) enum Content {
    /// What another file holds.
    Copy(PathBuf),
    /// This text; the file's mode.
    Text(String, u32),
    /// A link to this path.
    Link(PathBuf),
}

impl Content {
    /// Of what is to be written.
    pub(super) fn sha256(&self) -> Result<String, Error> {
        match self {
            Self::Copy(from) => sha256(from).map_err(|error| Error::Io("read", from.clone(), error)),
            Self::Text(text, _) => Ok(hex(&Sha256::digest(text))),
            Self::Link(to) => Ok(hex(&Sha256::digest(to.as_os_str().as_encoded_bytes()))),
        }
    }

    /// Writes beside the file and renames, so that it is never there in part.
    pub(super) fn put(&self, path: &Path) -> Result<(), Error> {
        let failed = |error| Error::Io("write", path.to_owned(), error);
        let mut partial = path.as_os_str().to_owned();
        partial.push(".part");
        let partial = PathBuf::from(partial);
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            match fs::remove_file(&partial) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            match self {
                Self::Copy(from) => {
                    fs::copy(from, &partial)?;
                    fs::set_permissions(&partial, fs::metadata(from)?.permissions())?;
                }
                Self::Text(text, mode) => {
                    let mut file = File::create(&partial)?;
                    file.write_all(text.as_bytes())?;
                    file.set_permissions(fs::Permissions::from_mode(*mode))?;
                }
                Self::Link(to) => symlink(to, &partial)?,
            }
            fs::rename(&partial, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&partial);
            failed(error)
        })
    }
}

/// Of a file; of a link, that of its target's path.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Ok(hex(&Sha256::digest(fs::read_link(path)?.as_os_str().as_encoded_bytes())));
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}
