//! The source that corresponds to the binaries of a release: that of QEMU and of its static libraries, and this repository
//! with the patches and everything that builds them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::bundle::Bundle;
use qus_core::hint::hinted;
use qus_core::release::ReleaseVersion;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::files;
use crate::base::git::Checkout;
use crate::base::tarball::Tarball;
use crate::bundle::licences::{Licensed, Part};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::qemu;
use crate::ship::version;

/// Collects the sources of bundles as a tarball, whose files it puts below `dir`.
///
/// # Errors
/// There are changes that are not committed, or a source cannot be fetched any more.
pub(crate) fn collect(
    cx: &Context,
    bundles: &[Bundle],
    release: &ReleaseVersion,
    dir: &Path,
) -> Result<Tarball> {
    files::recreate_dir(dir)?;
    let checkout = Checkout::read(cx.paths.root());
    let commit = checkout.commit.as_ref().filter(|_| !checkout.changed);
    let commit = commit.context("sources are those of a commit: commit all changes first")?;
    let (root, archive) = (cx.paths.root(), dir.join("qus.tar"));
    exec::read(cmd!(sh(), "git -C {root} archive --format=tar --prefix=qus/ --output={archive} {commit}"))?;
    for bundle in bundles {
        copy_qemu(cx, bundle, dir)?;
    }
    let packages = packages(cx, bundles)?;
    if !packages.is_empty() {
        fetch_packages(cx, bundles, &packages, &dir.join("debian"))?;
    }
    let mut names = vec!["qus.tar".to_owned()];
    for part in ["qemu", "debian"] {
        for file in fs::read_dir(dir.join(part)).into_iter().flatten() {
            names.push(format!("{part}/{}", file?.file_name().to_string_lossy()));
        }
    }
    names.sort();
    Tarball::from_files(&format!("qus-sources_{release}.tar.zst"), dir, &names)
}

/// Copies the archive of QEMU that a bundle was built from.
fn copy_qemu(cx: &Context, bundle: &Bundle, dir: &Path) -> Result<()> {
    let release = version::release(cx, &bundle.recipe.qemu)?;
    let source = qemu::source::pinned(cx, release)?;
    let host = bundle.recipe.host;
    ensure!(
        source.sha256 == bundle.recipe.source_sha256,
        "the emulators for {host} were built from another archive than {}",
        source.archive.display()
    );
    let name = source.archive.file_name().context("an archive without a name")?;
    files::copy(&source.archive, &dir.join("qemu").join(name))
}

/// The packages whose sources have to be given, with their versions. The licence of GCC's libraries permits to leave out
/// theirs.
fn packages(cx: &Context, bundles: &[Bundle]) -> Result<BTreeMap<String, String>> {
    let mut packages = BTreeMap::new();
    for bundle in bundles {
        let dir = cx.paths.bundle(bundle.recipe.host);
        for of in [Licensed::Emulators, Licensed::Program] {
            let is_wanted =
                |part: &Part| part.purl.starts_with("pkg:deb/") && !part.name.starts_with("libgcc-");
            let parts = of.parts(&dir)?.into_iter().filter(is_wanted);
            packages.extend(parts.map(|part| (format!("{}={}", part.name, part.version), part.version)));
        }
    }
    Ok(packages)
}

fn fetch_packages(
    cx: &Context,
    bundles: &[Bundle],
    packages: &BTreeMap<String, String>,
    into: &Path,
) -> Result<()> {
    let distribution = Distribution::detect()?.context("this machine has no apt, which fetches sources")?;
    let of_host = |bundle: &Bundle| cx.data.hosts.get(bundle.recipe.host)?.suite.clone();
    let suites: Vec<String> = bundles.iter().filter_map(of_host).collect();
    let log = cx.start_log("sources")?;
    let apt = Apt::sources(&cx.paths.apt("sources"), &log, &distribution, &suites)?;
    fs::create_dir_all(into)?;
    for package in packages.keys() {
        apt.download_sources(package, into).map_err(|error| {
            hinted(
                format!("cannot fetch the source of {package}: {error:#}"),
                "if the distribution has replaced it, build the emulators again with its current packages",
            )
        })?;
    }
    Ok(())
}
