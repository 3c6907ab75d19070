//! The emulators that are compared: those of the bundle, of other folders, and Debian's, which are unpacked into the
//! cache and not installed.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use qemu_src::{Debian, Suite};
use qus_core::arch::{Arch, Host};
use qus_core::hint::WithHint;
use qus_core::hint::hinted;
use qus_core::{emulator, probe};

use crate::base::cache;
use crate::base::context::Context;
use crate::base::progress::say;
use crate::bundle::manifest;
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;

/// What `--against` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// A directory, and its name if one is given.
    Folder(Option<String>, PathBuf),
    /// A suite of Debian.
    Debian(&'a Suite),
}

impl<'a> Source<'a> {
    /// Reads an argument of `--against`.
    ///
    /// # Errors
    /// A suite that `debian.toml` does not have.
    pub(super) fn parse(given: &str, debian: &'a Debian) -> Result<Self, String> {
        if let Some(suite) = given.strip_prefix("deb:") {
            return debian.suite(suite).map(Self::Debian);
        }
        // A directory whose path contains the sign is given without a name.
        match given.split_once('=') {
            Some((name, dir)) if !name.is_empty() && !Path::new(given).exists() => {
                Ok(Self::Folder(Some(name.to_owned()), dir.into()))
            }
            _ => Ok(Self::Folder(None, given.into())),
        }
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(Some(name), dir) => write!(f, "{name}={}", dir.display()),
            Self::Folder(None, dir) => write!(f, "{}", dir.display()),
            Self::Debian(suite) => write!(f, "deb:{}", suite.name),
        }
    }
}

impl Source<'_> {
    /// The folder of its emulators, if they are at hand.
    fn folder(&self, cx: &Context) -> PathBuf {
        match self {
            Self::Folder(_, dir) => dir.clone(),
            Self::Debian(suite) => cached(cx, suite).join("usr/bin"),
        }
    }

    /// What has to be downloaded before it can be used.
    pub(super) fn lacks(&self, cx: &Context) -> Option<String> {
        match self {
            Self::Debian(suite) if !cached(cx, suite).exists() => {
                Some(format!("{} of Debian {}", suite.emulators, suite.name))
            }
            _ => None,
        }
    }

    /// Its emulators, downloaded if they have to be.
    ///
    /// # Errors
    /// The folder has none, or Debian's cannot be had.
    pub(super) fn emulators(&self, cx: &Context) -> Result<Emulators> {
        if let Self::Debian(suite) = self {
            fetch(cx, suite)?;
        }
        let dir = self.folder(cx);
        let folder = emulator::EmulatorDir::open(&dir)
            .with_context(|| format!("cannot read the folder {}", dir.display()))?;
        let first = folder.emulators.first();
        let first = first.with_context(|| format!("there is no emulator in {}", dir.display()))?;
        let version = probe::version_of(&first.path)
            .with_context(|| format!("{} tells no version", first.path.display()))?;
        let profile = manifest::read(&dir)?.map(|bundle| bundle.recipe.profile);
        let label = match (self, profile) {
            (Self::Folder(Some(name), _), _) => name.clone(),
            (Self::Folder(None, _), Some(profile)) => format!("qus {version} {profile}"),
            (Self::Folder(None, dir), None) => {
                format!("{} {version}", dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy())
            }
            (Self::Debian(suite), _) => format!("Debian {} {version}", suite.name),
        };
        Ok(Emulators { label, version, folder })
    }
}

fn cached(cx: &Context, suite: &Suite) -> PathBuf {
    cx.paths.rootfs(&format!("{}-{}", suite.emulators, suite.name))
}

/// Has the cache contain a suite's package, unchanged.
fn fetch(cx: &Context, suite: &Suite) -> Result<()> {
    let dir = cached(cx, suite);
    let Suite { name: suite, emulators: package } = suite;
    let distribution = Distribution::detect()?
        .with_context(|| format!("deb:{suite} comes from a Debian mirror, and this machine has no apt"))?;
    let host = Host::current().context("qus knows no such machine")?;
    cache::ensure(&dir, |partial| {
        let name = format!("bench-{suite}");
        let log = cx.start_log(&name)?;
        say(format_args!("fetching {package} of Debian {suite} (nothing is installed) …"));
        let apt = Apt::foreign(&cx.paths.apt(&name), &log, &distribution, suite, &[host.debian])?;
        apt.unpack(&[format!("{package}:{}", host.debian)], partial).map(drop)
    })
    .with_context(|| format!("{package} of Debian {suite} cannot be had"))
}

/// A folder of emulators under a name.
#[derive(Debug)]
pub(super) struct Emulators {
    pub(super) label: String,
    pub(super) version: String,
    pub(super) folder: emulator::EmulatorDir,
}

impl Emulators {
    /// The emulator of a guest; `None` where there is none.
    ///
    /// # Errors
    /// It is not fit to be registered.
    pub(super) fn of(&self, arch: &Arch) -> Result<Option<PathBuf>> {
        let Some(found) = self.folder.get(arch) else { return Ok(None) };
        emulator::inspect(&found.path).with_context(|| found.path.display().to_string())?;
        Ok(Some(found.path.clone()))
    }
}

/// Gives equal labels a number, so that every column has a name of its own.
pub(super) fn tell_apart(all: &mut [Emulators]) {
    for at in 0..all.len() {
        let (before, rest) = all.split_at_mut(at);
        let label = rest[0].label.clone();
        let taken = |label: &str| before.iter().any(|other| other.label == label);
        if let Some(number) = (1..).find(|&n| !taken(&numbered(&label, n))) {
            rest[0].label = numbered(&label, number);
        }
    }
}

fn numbered(label: &str, number: usize) -> String {
    if number == 1 { label.to_owned() } else { format!("{label} ({number})") }
}

/// The emulators of the bundle, which all others are compared with.
///
/// # Errors
/// There is no bundle, or it lacks an emulator that is asked for.
pub(super) fn ours(cx: &Context, dir: &Path, guests: &[&'static Arch]) -> Result<Emulators> {
    let names: Vec<_> = guests.iter().map(|guest| guest.name).collect();
    let hint = format!("to build it, run `cargo xtask build-qemu {}`", names.join(" "));
    let ours = Source::Folder(None, dir.to_owned())
        .emulators(cx)
        .context("there is no bundle to measure")
        .hint(&hint)?;
    for guest in guests {
        if ours.of(guest)?.is_none() {
            return Err(hinted(format_args!("there is no {} in {}", guest.emulator(), dir.display()), hint));
        }
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_folders_or_suites() {
        let debian = Context::new().unwrap().data.debian;
        let parse = |given: &str| Source::parse(given, &debian);
        assert_eq!(parse("deb:trixie"), debian.suite("trixie").map(Source::Debian));
        assert_eq!(debian.suite("trixie").unwrap().emulators, "qemu-user");
        assert_eq!(debian.suite("bookworm").unwrap().emulators, "qemu-user-static");
        assert!(parse("deb:woody").unwrap_err().contains("suites are bullseye"));
        assert_eq!(parse("/a/b"), Ok(Source::Folder(None, "/a/b".into())));
        assert_eq!(parse("patched=/a/b"), Ok(Source::Folder(Some("patched".into()), "/a/b".into())));
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a=b");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(parse(odd.to_str().unwrap()), Ok(Source::Folder(None, odd.clone())));
        for given in ["deb:sid", "/a/b", "patched=/a/b"] {
            assert_eq!(parse(given).unwrap().to_string(), given);
        }
    }

    #[test]
    fn equal_labels_get_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let emulators = |label: &&str| Emulators {
            label: (*label).to_owned(),
            version: String::new(),
            folder: emulator::EmulatorDir::open(dir.path()).unwrap(),
        };
        let mut all: Vec<_> = ["qus 1", "b", "qus 1", "qus 1"].iter().map(emulators).collect();
        tell_apart(&mut all);
        let labels: Vec<_> = all.into_iter().map(|emulators| emulators.label).collect();
        assert_eq!(labels, ["qus 1", "b", "qus 1 (2)", "qus 1 (3)"]);
    }
}
