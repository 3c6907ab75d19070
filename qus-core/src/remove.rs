//! Removing our handlers from the kernel, also where binfmt_misc is not mounted.
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

use crate::binfmt::{Binfmt, BinfmtError, Entry, ListedHandler, MountState, refusal};
use crate::handler;
use crate::mount::MountError;
use crate::mount::detached::DetachedMount;
use crate::selection::Selection;

/// The names of handlers that were removed, and that stay.
#[derive(Debug, Default)]
pub struct RemovedHandlers {
    /// Ours.
    pub removed: Vec<OsString>,
    /// Handlers of other programs that have such a name and stay.
    pub foreign: Vec<OsString>,
}

/// Why handlers could not be removed.
#[derive(Debug)]
pub enum RemoveError {
    /// binfmt_misc cannot be reached.
    Mount(MountError),
    /// Handlers cannot be listed or locked.
    Binfmt(BinfmtError),
    /// The kernel does not remove a handler.
    Refused(BinfmtError),
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(error) => error.fmt(f),
            Self::Refused(error @ BinfmtError::Io(_, _, cause)) => write!(f, "{error}: {}", refusal(cause)),
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

/// Removes our handlers of the selected architectures. Where binfmt_misc is not mounted, as in a container, they are
/// reached by a mount that nothing else sees; otherwise `visible` is called before anything is changed.
///
/// # Errors
/// See [`RemoveError`].
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
    if dry_run {
        let is_ours = |(_, entry): &ListedHandler| entry.as_ref().is_ok_and(Entry::is_ours);
        let is_selected = |(name, _): &ListedHandler| {
            selection.all || handler::arch_of(name).is_some_and(|arch| selection.archs.contains(&arch))
        };
        let entries = binfmt.entries().map_err(RemoveError::Binfmt)?.into_iter();
        let would = entries.filter(|listed| is_ours(listed) && is_selected(listed));
        done.removed = would.map(|(name, _)| name).collect();
        return Ok(done);
    }
    if selection.all {
        done.removed = handler::remove_all(binfmt).map_err(RemoveError::Refused)?;
    }
    for arch in &selection.archs {
        let (removed, foreign) = handler::remove(binfmt, arch).map_err(RemoveError::Refused)?;
        done.removed.extend(removed);
        done.foreign.extend(foreign);
    }
    Ok(done)
}
