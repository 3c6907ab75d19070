//! Finds the emulators to compare: those of the bundle, of other directories, and of Debian's packages, which are
//! unpacked into the cache and not installed.

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

/// A value of `--against`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EmulatorSource<'a> {
    /// A directory, and its name if one is given.
    Directory(Option<String>, PathBuf),
    /// The package of a Debian suite.
    Debian(&'a Suite),
}

impl<'a> EmulatorSource<'a> {
    /// Parses a value of `--against`.
    ///
    /// # Errors
    /// `debian.toml` does not have the suite.
    pub(crate) fn parse(given: &str, debian: &'a Debian) -> Result<Self, String> {
        if let Some(suite) = given.strip_prefix("deb:") {
            return debian.suite(suite).map(Self::Debian);
        }
        // An existing path that contains `=` is a directory without a name.
        match given.split_once('=') {
            Some((name, dir)) if !name.is_empty() && !Path::new(given).exists() => {
                Ok(Self::Directory(Some(name.to_owned()), dir.into()))
            }
            _ => Ok(Self::Directory(None, given.into())),
        }
    }
}

impl fmt::Display for EmulatorSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(Some(name), dir) => write!(f, "{name}={}", dir.display()),
            Self::Directory(None, dir) => write!(f, "{}", dir.display()),
            Self::Debian(suite) => write!(f, "deb:{}", suite.name),
        }
    }
}

impl EmulatorSource<'_> {
    /// The directory of the emulators, which may not be downloaded yet.
    fn dir(&self, cx: &Context) -> PathBuf {
        match self {
            Self::Directory(_, dir) => dir.clone(),
            Self::Debian(suite) => cached_package(cx, suite).join("usr/bin"),
        }
    }

    /// Names the package that must be downloaded first, if any.
    pub(super) fn missing_download(&self, cx: &Context) -> Option<String> {
        match self {
            Self::Debian(suite) if !cached_package(cx, suite).exists() => {
                Some(format!("{} of Debian {}", suite.emulators, suite.name))
            }
            _ => None,
        }
    }

    /// Opens the emulators, and downloads them if necessary.
    ///
    /// # Errors
    /// The directory has no emulator, or Debian's package is not available.
    pub(crate) fn emulators(&self, cx: &Context) -> Result<Emulators> {
        if let Self::Debian(suite) = self {
            fetch(cx, suite)?;
        }
        let dir = self.dir(cx);
        let emulators = emulator::EmulatorDir::open(&dir)?;
        let first = emulators.emulators.first();
        let first = first.with_context(|| format!("there is no emulator in {}", dir.display()))?;
        let version = probe::version_of(&first.path)
            .with_context(|| format!("cannot determine the version of {}", first.path.display()))?;
        let profile = manifest::read(&dir)?.map(|bundle| bundle.recipe.profile);
        let label = match (self, profile) {
            (Self::Directory(Some(name), _), _) => name.clone(),
            (Self::Directory(None, _), Some(profile)) => format!("qus {version} {profile}"),
            (Self::Directory(None, dir), None) => {
                format!("{} {version}", dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy())
            }
            (Self::Debian(suite), _) => format!("Debian {} {version}", suite.name),
        };
        Ok(Emulators { label, version, dir: emulators })
    }
}

fn cached_package(cx: &Context, suite: &Suite) -> PathBuf {
    cx.paths.rootfs(&format!("{}-{}", suite.emulators, suite.name))
}

/// Downloads and unpacks a suite's package into the cache, or verifies the cached copy.
fn fetch(cx: &Context, suite: &Suite) -> Result<()> {
    let dir = cached_package(cx, suite);
    let Suite { name: suite, emulators: package } = suite;
    let distribution = Distribution::detect()?
        .with_context(|| format!("deb:{suite} requires apt, which this machine does not have"))?;
    let host = Host::current().context("qus does not support this host")?;
    cache::ensure(&dir, |partial| {
        let name = format!("bench-{suite}");
        let log = cx.start_log(&name)?;
        say(format_args!("fetching {package} of Debian {suite} (nothing is installed) …"));
        let apt = Apt::foreign(&cx.paths.apt(&name), &log, &distribution, suite, &[host.debian])?;
        apt.unpack(&[format!("{package}:{}", host.debian)], partial).map(drop)
    })
    .with_context(|| format!("{package} of Debian {suite} is not available"))
}

/// A directory of emulators and its label.
#[derive(Debug)]
pub(crate) struct Emulators {
    pub(crate) label: String,
    pub(super) version: String,
    pub(crate) dir: emulator::EmulatorDir,
}

impl Emulators {
    /// Returns the path of a guest's emulator; `None` if there is none.
    ///
    /// # Errors
    /// The emulator is not suitable for registration.
    pub(crate) fn find(&self, arch: &Arch) -> Result<Option<PathBuf>> {
        let Some(found) = self.dir.get(arch) else { return Ok(None) };
        emulator::inspect(&found.path).with_context(|| found.path.display().to_string())?;
        Ok(Some(found.path.clone()))
    }
}

/// Numbers equal labels, so that every column has a distinct name.
pub(super) fn number_equal_labels(all: &mut [Emulators]) {
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

/// Opens the emulators of the bundle, with which all others are compared.
///
/// # Errors
/// There is no bundle, or it has no emulator for one of the guests.
pub(crate) fn open_bundle(cx: &Context, dir: &Path, guests: &[&'static Arch]) -> Result<Emulators> {
    let names: Vec<_> = guests.iter().map(|guest| guest.name).collect();
    let hint = format!("to build it, run `cargo xtask build-qemu {}`", names.join(" "));
    let ours = EmulatorSource::Directory(None, dir.to_owned())
        .emulators(cx)
        .context("there is no bundle to measure")
        .hint(&hint)?;
    for guest in guests {
        if ours.find(guest)?.is_none() {
            return Err(hinted(format_args!("there is no {} in {}", guest.emulator(), dir.display()), hint));
        }
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_directories_or_suites() {
        let debian = Context::new().unwrap().data.debian;
        let parse = |given: &str| EmulatorSource::parse(given, &debian);
        assert_eq!(parse("deb:trixie"), debian.suite("trixie").map(EmulatorSource::Debian));
        assert_eq!(debian.suite("trixie").unwrap().emulators, "qemu-user");
        assert_eq!(debian.suite("bookworm").unwrap().emulators, "qemu-user-static");
        assert!(parse("deb:woody").unwrap_err().contains("suites are bullseye"));
        assert_eq!(parse("/a/b"), Ok(EmulatorSource::Directory(None, "/a/b".into())));
        assert_eq!(
            parse("patched=/a/b"),
            Ok(EmulatorSource::Directory(Some("patched".into()), "/a/b".into()))
        );
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a=b");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(parse(odd.to_str().unwrap()), Ok(EmulatorSource::Directory(None, odd.clone())));
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
            dir: emulator::EmulatorDir::open(dir.path()).unwrap(),
        };
        let mut all: Vec<_> = ["qus 1", "b", "qus 1", "qus 1"].iter().map(emulators).collect();
        number_equal_labels(&mut all);
        let labels: Vec<_> = all.into_iter().map(|emulators| emulators.label).collect();
        assert_eq!(labels, ["qus 1", "b", "qus 1 (2)", "qus 1 (3)"]);
    }
}
