//! Fetches the package sets of `debian.toml` from their origins.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use qemu_src::{Origin, PackageSet};

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::versions::Versions;

/// An identifier of a package set and its origin, for names in the cache.
pub(crate) fn id(set: &PackageSet) -> String {
    let from = match &set.from {
        Origin::Own => "own",
        Origin::Guests => "guests",
        Origin::Suite(name) => name,
    };
    files::short_id(format!("{from} {}", set.packages.join(" ")))
}

/// The directory in the cache of a program for this machine.
pub(crate) fn program_dir(cx: &Context, distribution: &Distribution, set: &PackageSet) -> PathBuf {
    cx.paths.rootfs(&format!("{}-{}", distribution.codename, id(set)))
}

/// Ensures that the packages of a program for this machine are unpacked in the cache.
pub(crate) fn ensure_program(cx: &Context, distribution: &Distribution, set: &PackageSet) -> Result<PathBuf> {
    ensure(cx, distribution, set, |apt, into| apt.unpack(&set.packages, into).map(drop))
}

/// Like [`ensure_program`], including dependencies, except for the C library.
pub(crate) fn ensure_program_and_libraries(
    cx: &Context,
    distribution: &Distribution,
    set: &PackageSet,
) -> Result<PathBuf> {
    ensure(cx, distribution, set, |apt, into| apt.unpack_all(&set.packages, into).map(drop))
}

fn ensure(
    cx: &Context,
    distribution: &Distribution,
    set: &PackageSet,
    unpack: impl Fn(Apt, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let dir = program_dir(cx, distribution, set);
    cache::ensure(&dir, |partial| {
        fetch(cx, distribution, &set.from, None, &set.packages.join(" "), partial, |apt, into| {
            unpack(apt.without_libc(), into)
        })
    })?;
    Ok(dir)
}

/// Unpacks packages into a directory with an apt for their origin, for another architecture if one is given. `what` is
/// their name in messages and logs.
///
/// Of the guests' suites, the first for which `unpack` succeeds is used; the directory is cleared before each attempt.
/// If it fails for all suites, the error is a [`Skip`].
pub(crate) fn fetch(
    cx: &Context,
    distribution: &Distribution,
    from: &Origin,
    architecture: Option<&str>,
    what: &str,
    into: &Path,
    unpack: impl Fn(Apt, &Path) -> Result<()>,
) -> Result<()> {
    let name = what.replace(' ', "-");
    let foreign = |name: &str, log: &Path, suite: &str| {
        Apt::foreign(&cx.paths.apt(name), log, distribution, suite, architecture.as_slice())
    };
    match from {
        Origin::Own => {
            let (state, log) = (cx.paths.apt(&name), cx.start_log(&name)?);
            unpack(Apt::updated(&state, &log, distribution, Versions::UpdatedIfPossible, architecture)?, into)
        }
        Origin::Suite(suite) => unpack(foreign(&name, &cx.start_log(&name)?, suite)?, into),
        Origin::Guests => {
            let mut failures = Vec::new();
            for suite in &cx.data.debian.guest_suites {
                let name = format!("guest-{name}-{suite}");
                let log = cx.start_log(&name)?;
                files::recreate_dir(into)?;
                let Err(error) = foreign(&name, &log, suite).and_then(|apt| unpack(apt, into)) else {
                    say(format_args!("fetched {what} from Debian {suite}"));
                    return Ok(());
                };
                // The first line of a failed program's error names the log, which has its output.
                let error = format!("{error:#}");
                let first = error.lines().next().unwrap_or_default().trim_end_matches(':');
                failures.push(format!("Debian {suite}: {first}"));
            }
            bail!(Skip(format!("no suite provides {what}: {}", failures.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_packages_and_origin() {
        let id = |from, packages: &[&str]| {
            let packages = packages.iter().map(|&package| package.to_owned()).collect();
            id(&PackageSet { from, packages, reason: "test".to_owned() })
        };
        let one = id(Origin::Own, &["a", "b"]);
        assert_eq!(one, id(Origin::Own, &["a", "b"]));
        for other in [
            id(Origin::Own, &["a"]),
            id(Origin::Guests, &["a", "b"]),
            id(Origin::Suite("sid".into()), &["a", "b"]),
        ] {
            assert_ne!(one, other);
        }
    }
}
