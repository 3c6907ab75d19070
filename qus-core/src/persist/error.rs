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
    /// The host has neither systemd-binfmt nor OpenRC.
    NoService,
    /// The host's root directory cannot be opened.
    Root(PathBuf, io::Error),
    /// What could not be done, to which file.
    Io(&'static str, PathBuf, io::Error),
    /// A rule cannot be written down.
    Rule(BadRule),
    /// The manifest is damaged.
    Manifest(PathBuf, String),
    /// A file that would be written exists, and is not as we have written it.
    NotOurs(PathBuf),
    /// Users other than root can decide what is written to this path, or removed from it: why.
    Unsafe(PathBuf, &'static str),
    /// These architectures are persistent and were not named.
    WouldDrop(Vec<&'static str>),
}

impl fmt::Display for PersistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => f.write_str(
                "nothing would register handlers at the next boot: the host has neither systemd-binfmt nor OpenRC",
            ),
            Self::Root(root, _) => write!(f, "cannot open {}", root.shown()),
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
            Self::Root(_, error) | Self::Io(_, _, error) => Some(error),
            _ => None,
        }
    }
}

impl PersistError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoService => {
                "run `qus install all` from a script when the machine boots, or install the package with systemd-binfmt"
                    .to_owned()
            }
            Self::Root(..) => "name the directory at which the host's root filesystem is mounted: `--host-root DIR`".to_owned(),
            Self::Io(..) | Self::Rule(_) => return None,
            Self::Manifest(path, _) => format!(
                "on the host, remove what qus has written: the directories beside it, {BINFMT_D} or {}; then `rm {}`",
                OPENRC.join(" and "),
                path.quoted()
            ),
            // Which part of the path it is, and whether its owner, its mode or its kind is wrong, is seen there.
            Self::Unsafe(path, _) => format!(
                "on the host, let only root change it and the directories above: `namei -l {}` lists their owners and \
                 modes",
                path.quoted()
            ),
            Self::NotOurs(path) => {
                let mut orig = path.clone().into_os_string();
                orig.push(".orig");
                format!("on the host, move it away: `mv {} {}`", path.quoted(), orig.quoted())
            }
            Self::WouldDrop(_) => {
                "name their architectures too; or remove all persistent files with `qus remove --persist`, then make those \
                 persistent that you need"
                    .to_owned()
            }
        })
    }
}
