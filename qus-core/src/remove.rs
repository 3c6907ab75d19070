//! Removes our handlers from the kernel, even if binfmt_misc is not mounted.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::remove::remove_handlers;
//! use qus_core::selection::Selection;
//!
//! let all = Selection::new(&["all"]);
//! let removed = remove_handlers(&Binfmt::at(MOUNT_POINT), &all, false, &mut |_| {})?;
//! println!("{} handlers removed", removed.removed.len());
//! # Ok::<(), qus_core::remove::RemoveError>(())
//! ```

use std::ffi::OsString;
use std::fmt;

use crate::arch::Arch;
use crate::binfmt::{Binfmt, BinfmtError, MountState};
use crate::handler;
use crate::mount::MountError;
use crate::mount::detached::DetachedMount;
use crate::selection::Selection;

/// The names of handlers that were removed, or would be in a dry run, and of those that were not.
#[derive(Debug, Default)]
pub struct RemovedHandlers {
    /// Handlers of qus, the latest first.
    pub removed: Vec<OsString>,
    /// Handlers of other programs that have a name of a selected architecture; they are left unchanged.
    pub foreign: Vec<OsString>,
}

/// Why handlers could not be removed.
#[derive(Debug)]
pub enum RemoveError {
    /// binfmt_misc cannot be reached.
    Mount(MountError),
    /// Handlers cannot be listed or locked.
    Binfmt(BinfmtError),
    /// A handler cannot be read, or the kernel does not remove it.
    Refused(BinfmtError),
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(error) => error.fmt(f),
            Self::Binfmt(error) | Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RemoveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Mount(error) => error.source(),
            Self::Binfmt(error) | Self::Refused(error) => error.source(),
        }
    }
}

impl RemoveError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mount(error) => error.hint(),
            Self::Binfmt(_) | Self::Refused(_) => None,
        }
    }
}

/// Removes our handlers of the selected architectures, including those that an interrupted call has left. Where
/// binfmt_misc is not mounted, as in a container, they are reached by a mount that no other process sees; otherwise
/// `visible` is called before anything is changed.
///
/// # Errors
/// See [`RemoveError`]. Handlers before the one that failed are removed.
pub fn remove_handlers(
    binfmt: &Binfmt,
    selection: &Selection,
    dry_run: bool,
    visible: &mut dyn FnMut(&Binfmt),
) -> Result<RemovedHandlers, RemoveError> {
    let root = binfmt.root();
    let detached = match binfmt.state() {
        MountState::NotMounted => match DetachedMount::new(root) {
            Ok(mount) => Some(mount),
            Err(MountError::Mount(..)) => None,
            Err(error) => return Err(RemoveError::Mount(error)),
        },
        _ => None,
    };
    let binfmt = detached.as_ref().map_or(binfmt, DetachedMount::binfmt);
    let mut done = RemovedHandlers::default();
    match binfmt.state() {
        // No handler is registered then, or this process cannot see it.
        MountState::Absent | MountState::NotMounted => return Ok(done),
        MountState::ReadOnly(errno) if !dry_run => {
            return Err(RemoveError::Mount(MountError::ReadOnly(root.to_owned(), errno)));
        }
        _ => {}
    }
    if detached.is_none() {
        visible(binfmt);
    }
    let _lock = binfmt.lock().map_err(RemoveError::Binfmt)?;
    let is_selected = |arch: &'static Arch| selection.archs.contains(&arch);
    for (name, entry) in binfmt.entries().map_err(RemoveError::Binfmt)? {
        let named = handler::arch_of(&name).is_some_and(is_selected);
        match entry {
            Ok(entry) if entry.is_ours() && (selection.all || named) => {
                if dry_run || binfmt.remove(&name).map_err(RemoveError::Refused)? {
                    done.removed.push(name);
                }
            }
            Ok(_) if named => done.foreign.push(name),
            Err(error) if named => return Err(RemoveError::Refused(error)),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::binfmt::{Flags, entry};

    fn names(names: &[OsString]) -> Vec<&str> {
        let mut names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_dry_run_reports_what_is_then_done() {
        let dir = tempfile::tempdir().unwrap();
        let alpha: &Arch = "alpha".parse().unwrap();
        let ours = entry::text(&handler::rules(alpha, Path::new("/i"), [0; 4], Flags::DEFAULT)[0]);
        for (name, text) in [
            ("status", "enabled\n"),
            ("register", ""),
            ("qemu-alpha", &ours.replace("717573", "000000")),
            ("qemu-alpha-qus", &ours),
            ("qemu-alpha-qus.new", &ours),
            ("qemu-sh4", &ours),
            ("unreadable", "?"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let binfmt = Binfmt::at(dir.path());
        let selection = Selection::new(&["alpha"]);
        for dry_run in [true, false] {
            let done = remove_handlers(&binfmt, &selection, dry_run, &mut |_| {}).unwrap();
            assert_eq!(names(&done.removed), ["qemu-alpha-qus", "qemu-alpha-qus.new"]);
            assert_eq!(names(&done.foreign), ["qemu-alpha"]);
            let text = fs::read_to_string(dir.path().join("qemu-alpha-qus.new")).unwrap();
            assert_eq!(text == ours, dry_run, "{text}");
        }
        let all = remove_handlers(&binfmt, &Selection::new(&["all"]), true, &mut |_| {}).unwrap();
        assert_eq!((names(&all.removed), all.foreign.len()), (vec!["qemu-sh4"], 0));
        fs::write(dir.path().join("qemu-alpha"), "?").unwrap();
        let error = remove_handlers(&binfmt, &selection, true, &mut |_| {}).unwrap_err();
        assert!(matches!(error, RemoveError::Refused(BinfmtError::Entry(..))), "{error}");
    }
}
