//! What git says about the checkout that is built.

use std::path::Path;

use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};

/// The checkout; without git or a repository, nothing is known of it.
#[derive(Debug, Default)]
pub(crate) struct Checkout {
    /// The commit.
    pub(crate) commit: Option<String>,
    /// Whether files differ from the commit, or are not in it.
    pub(crate) changed: bool,
    /// When the commit was made, in seconds since 1970.
    pub(crate) epoch: Option<u64>,
    /// URL of the remote `origin`.
    pub(crate) origin: Option<String>,
}

impl Checkout {
    /// Asks git about the checkout in a directory.
    pub(crate) fn read(root: &Path) -> Self {
        let git = |args: &[&str]| {
            exec::read(cmd!(sh(), "git -C {root} {args...}")).ok().filter(|output| !output.is_empty())
        };
        Self {
            commit: git(&["rev-parse", "HEAD"]),
            changed: git(&["status", "--porcelain"]).is_some(),
            epoch: git(&["log", "-1", "--format=%ct"]).and_then(|epoch| epoch.parse().ok()),
            origin: git(&["remote", "get-url", "origin"]),
        }
    }

    /// The time that files of a release have: `SOURCE_DATE_EPOCH`, else when the commit was made, in seconds since 1970.
    pub(crate) fn epoch(&self, cx: &Context) -> u64 {
        cx.settings.source_date_epoch.or(self.epoch).unwrap_or(0)
    }

    /// The commit, marked if files differ from it.
    pub(crate) fn revision(&self) -> Option<String> {
        let mark = if self.changed { "-changed" } else { "" };
        self.commit.as_ref().map(|commit| format!("{commit}{mark}"))
    }
}
