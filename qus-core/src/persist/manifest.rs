//! The list of all that was written, by which it is removed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::paths::{is_directory, is_file};
use crate::digest::Sha256;
use crate::text::Show;

/// The files that were written, as paths of the host.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// A path is in it twice while one content replaces another.
    pub(super) files: Vec<Written>,
    /// Directories that were created for them, inner ones last.
    #[serde(default, alias = "folders")]
    pub(super) directories: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    /// Of a link, the hash of its target's path.
    pub(super) sha256: Sha256,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Why it is damaged: cut off, or with paths that qus never writes.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let this: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let files = this.files.iter().map(|file| &file.path);
        match files
            .filter(|path| !is_file(path))
            .chain(this.directories.iter().filter(|path| !is_directory(path)))
            .next()
        {
            Some(path) => Err(format!("qus does not write {}", path.shown())),
            None => Ok(this),
        }
    }

    /// Whether we have written this content to a file.
    pub(super) fn has(&self, path: &Path, sha256: Sha256) -> bool {
        self.files.iter().any(|file| file.path == path && file.sha256 == sha256)
    }

    /// Every path once.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let first = |(index, file): &(usize, &Written)| {
            self.files.iter().position(|other| other.path == file.path) == Some(*index)
        };
        self.files.iter().enumerate().filter(first).map(|(_, file)| &file.path)
    }
}
