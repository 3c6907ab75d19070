//! The registered handlers, and the one that the kernel uses for a file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::binfmt::{Binfmt, BinfmtError, Entry, Files, ListedHandler, MountState};
use crate::mount;

/// The registered handlers, and whether the kernel uses them.
#[derive(Debug)]
pub struct RegisteredHandlers {
    /// Where binfmt_misc is mounted, or should be.
    pub root: PathBuf,
    /// What can be done with it.
    pub state: MountState,
    /// Whether the kernel uses handlers at all.
    pub switched_on: bool,
    /// The handlers in the kernel's order; `None` if they cannot be seen from here.
    pub entries: Option<Vec<Entry>>,
}

impl RegisteredHandlers {
    /// Reads the handlers; those that cannot be understood are left out.
    ///
    /// # Errors
    /// Handlers can be seen, and cannot be listed.
    pub fn read(binfmt: &Binfmt) -> Result<Self, BinfmtError> {
        let snapshot = mount::snapshot(binfmt)?;
        Ok(Self {
            root: binfmt.root().to_owned(),
            state: snapshot.state,
            switched_on: snapshot.switched_on != Some(false),
            entries: snapshot.switched_on.map(|_| readable(snapshot.handlers)),
        })
    }

    /// The command that enables the handler of a name, or all with the name `status`.
    pub(super) fn enable(&self, name: &OsStr) -> String {
        mount::enable_command(&self.root, self.state, name)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }
}

/// The handlers that could be read, in the kernel's order.
pub fn readable(listed: Vec<ListedHandler>) -> Vec<Entry> {
    listed.into_iter().filter_map(|(_, entry)| entry.ok()).collect()
}

/// The handler that the kernel uses for a file with this beginning, if any.
pub fn handler_of<'a>(header: &[u8], entries: &'a [Entry]) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.enabled && matches(entry, Path::new(OsStr::new("")), header))
}

/// Whether the kernel would use a handler for a file.
pub(super) fn matches(entry: &Entry, path: &Path, header: &[u8]) -> bool {
    match &entry.rule.files {
        Files::Magic(..) => {
            // The kernel fills the rest of a short file with zeros.
            let mut padded = header.to_vec();
            padded.resize(256, 0);
            entry.rule.matches(&padded)
        }
        Files::Extension(extension) => {
            let name = path.file_name().unwrap_or_default().as_bytes();
            name.iter()
                .rposition(|&byte| byte == b'.')
                .is_some_and(|dot| &name[dot + 1..] == extension.as_bytes())
        }
    }
}
