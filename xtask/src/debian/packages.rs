//! Sets of packages of `debian.toml`, from where that file says that they come from.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use qemu_src::{Origin, PackageSet};

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::updates::Updates;

/// Stands for the packages of a set and their origin in the cache's names.
pub(crate) fn id(set: &PackageSet) -> String {
    let from = match &set.from {
        Origin::Own => "own",
        Origin::Guests => "guests",
        Origin::Suite(name) => name,
    };
    files::short_id(format!("{from} {}", set.packages.join(" ")))
}

/// The directory of packages that were unpacked to be run here.
pub(crate) fn program_dir(cx: &Context, distribution: &Distribution, set: &PackageSet) -> PathBuf {
    cx.paths.root_folder(&format!("{}-{}", distribution.codename, id(set)))
}

/// Has the cache contain the packages of a program that is to run here, unpacked.
pub(crate) fn ensure_program(cx: &Context, distribution: &Distribution, set: &PackageSet) -> Result<PathBuf> {
    let dir = program_dir(cx, distribution, set);
    cache::ensure(&dir, |partial| {
        fetch(cx, distribution, &set.from, None, &set.packages.join(" "), partial, |apt, into| {
            apt.beside_apt().unpack(&set.packages, into).map(drop)
        })
    })?;
    Ok(dir)
}

/// Unpacks packages into a directory with an apt for where they come from, for another architecture if one is named.
/// `what` names them in messages and logs.
///
/// Of the guests' suites, the first with which `unpack` succeeds is used; the directory is cleared before each. If it
/// succeeds with none, that is the reason of a skip.
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
            unpack(Apt::updated(&state, &log, distribution, Updates::Wanted, architecture)?, into)
        }
        Origin::Suite(suite) => unpack(foreign(&name, &cx.start_log(&name)?, suite)?, into),
        Origin::Guests => {
            let mut failures = Vec::new();
            for suite in &cx.data.debian.guest_suites {
                let name = format!("guest-{name}-{suite}");
                let log = cx.start_log(&name)?;
                files::clear(into)?;
                if foreign(&name, &log, suite).and_then(|apt| unpack(apt, into)).is_ok() {
                    say(format_args!("fetched {what} from Debian {suite}"));
                    return Ok(());
                }
                failures.push(format!("Debian {suite} (see {})", log.display()));
            }
            bail!(Skip(format!("no suite gave {what}: {}", failures.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_known_by_packages_and_origin() {
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
