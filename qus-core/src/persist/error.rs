//! Why handlers cannot be made persistent, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::paths::{BINFMT_D, OPENRC};
use crate::binfmt::BadRule;
use crate::text::Show;

/// Why handlers could not be made persistent, or removed again.
#[derive(Debug)]
pub enum PersistError {
    /// Neither systemd-binfmt nor OpenRC is there.
    NoService,
    /// What could not be done, to which file.
    Io(&'static str, PathBuf, io::Error),
    /// A rule cannot be written down.
    Rule(BadRule),
    /// The manifest is damaged.
    Manifest(PathBuf, String),
    /// A file that would be written exists, and is not as we have written it.
    NotOurs(PathBuf),
    /// Users other than root decide what would be written to this path, or removed: how.
    Unsafe(PathBuf, &'static str),
    /// Persistent architectures that would no longer be.
    WouldDrop(Vec<&'static str>),
}

impl fmt::Display for PersistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => f.write_str(
                "nothing here would register handlers at the next boot: there is neither systemd-binfmt nor OpenRC",
            ),
            Self::Io(what, path, _) => write!(f, "cannot {what} {}", path.shown()),
            Self::Rule(bad) => bad.fmt(f),
            Self::Manifest(path, why) => write!(f, "{} is damaged: {why}", path.shown()),
            Self::Unsafe(path, why) => write!(f, "{} {why}", path.shown()),
            Self::NotOurs(path) => {
                write!(f, "{} was not written by qus, or was changed since", path.shown())
            }
            Self::WouldDrop(archs) => write!(f, "would drop persistent handlers: {}", archs.join(" ")),
        }
    }
}

impl std::error::Error for PersistError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, error) => Some(error),
            _ => None,
        }
    }
}

impl PersistError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoService => {
                "run `qus install all` from a script when the machine boots, or install systemd's \
                                package with systemd-binfmt"
                    .to_owned()
            }
            Self::Io(..) | Self::Rule(_) => return None,
            Self::Manifest(path, _) => format!(
                "remove what qus has written by hand: the directories beside it, {BINFMT_D} or {}; then `rm {}`",
                OPENRC.join(" and "),
                path.shown()
            ),
            Self::Unsafe(path, _) => {
                let path = path.shown();
                format!("let only root change it: `chown root {path} && chmod go-w {path}`")
            }
            Self::NotOurs(path) => format!("move it away: `mv {0} {0}.orig`", path.shown()),
            Self::WouldDrop(_) => "name them too, or start over: `qus remove --persist`".to_owned(),
        })
    }
}
