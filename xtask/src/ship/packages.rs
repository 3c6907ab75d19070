//! Packages for Debian, Fedora and their derivatives, made from what tarballs are made from.
//!
//! `qus` has the program, `qus-user-static` the emulators and rules with which systemd registers them. Both put files where
//! `install.sh` puts them below its prefix: `/usr/libexec/qus` is one directory with emulators and program.

mod deb;
mod package;
mod rpm;

use std::path::{Path, PathBuf};

use anyhow::Result;
use qus_core::arch::Host;
use qus_core::binfmt::Flags;
use qus_core::bundle::{Bundle, FILE};
use qus_core::emulator::Emulator;
use qus_core::export;

use crate::base::tarball::TarballEntry;
use crate::bundle::licences::Licensed;
use crate::bundle::manifest;
use crate::ship::sbom;
use package::{About, Format, Scripts, gzip};

pub(crate) use package::Package;

/// The directory of the program and its emulators, without the first slash.
const DIR: &str = "usr/libexec/qus";

/// The directory of files that systemd-binfmt reads.
const BINFMT_D: &str = "usr/lib/binfmt.d";

static PROGRAM: About = About {
    name: "qus",
    content: Licensed::Program,
    summary: "registers emulators of other architectures with the kernel",
    description: "qus lets programs and container images of other architectures run, with\n\
                  emulators of QEMU's user mode that it registers in binfmt_misc. It lists\n\
                  all handlers, reports what is wrong with a machine, and explains why a\n\
                  program does not run. The package qus-user-static has emulators.",
    licence: "MIT OR Apache-2.0",
    recommends: &["qus-user-static"],
    replaces: &[],
    provides: &[],
    scripts: None,
};

static EMULATORS: About = About {
    name: "qus-user-static",
    content: Licensed::Emulators,
    summary: "static emulators of QEMU's user mode",
    description: "Programs and container images of other architectures run after this\n\
                  package was installed: systemd-binfmt registers its emulators with the\n\
                  kernel. Where systemd does not run, `qus install all` of the package qus\n\
                  does so.",
    licence: "GPL-2.0-only",
    recommends: &[],
    // As Debian's qemu-user-static does. Nothing else provides its /usr/bin/qemu-*-static.
    replaces: &["qemu-user-binfmt", "qemu-user-static"],
    provides: &["qemu-user-binfmt"],
    scripts: Some(Scripts {
        installed: include_str!("packages/installed.sh"),
        removed: include_str!("packages/removed.sh"),
    }),
};

/// The packages of a bundle, with the time of the commit; none for hosts without [`architectures`].
///
/// # Errors
/// A file is missing in its directory.
pub(crate) fn plan(bundle: &Bundle, dir: &Path, epoch: u64) -> Result<Vec<Package>> {
    let Some((deb, rpm)) = architectures(bundle.recipe.host) else { return Ok(Vec::new()) };
    let version = bundle.version();
    let mut packages = Vec::new();
    for about in [&PROGRAM, &EMULATORS] {
        let entries = entries(about, bundle, dir, epoch)?;
        let licences = about.content.entries(dir)?;
        let package = |format, file, architecture| {
            let (version, entries) = (version.clone(), entries.clone());
            Package { file, format, about, version, architecture, epoch, entries }
        };
        let name = about.name;
        packages
            .push(package(Format::Deb, format!("{name}_{version}_{deb}.deb"), deb).for_debian(&licences)?);
        packages.push(package(Format::Rpm, format!("{name}-{version}.{rpm}.rpm"), rpm).for_fedora(&licences));
    }
    Ok(packages)
}

/// Names of a host's architecture in `.deb` and `.rpm`; `None` where there is none: both Debian's armel and the armhf of
/// others include machines that cannot run programs for ARMv6 with its floating-point unit.
fn architectures(host: &Host) -> Option<(&'static str, &'static str)> {
    let rpm = match host.name {
        "arm32v6" => return None,
        "arm32v7" => "armv7hl",
        "i386" => "i686",
        _ => host.arch.name,
    };
    Some((host.debian, rpm))
}

/// What both formats have in common.
fn entries(about: &About, bundle: &Bundle, dir: &Path, epoch: u64) -> Result<Vec<TarballEntry>> {
    let documents = sbom::documents(bundle, dir, about.content, epoch)?;
    let mut entries: Vec<_> = documents
        .into_iter()
        .map(|(file, text)| TarballEntry::made(&format!("usr/{}/{file}", sbom::INSTALLED), text))
        .collect();
    match about.content {
        Licensed::Program => {
            entries.push(TarballEntry::new(dir, "qus", 0o755)?.with_path(&format!("{DIR}/qus")));
            entries.push(TarballEntry::link("usr/bin/qus", "../libexec/qus/qus"));
            for entry in manifest::share(dir)? {
                let path = format!("usr/{}", entry.path);
                entries.push(if path.starts_with("usr/share/man/") {
                    TarballEntry::made(&format!("{path}.gz"), gzip(&entry.bytes()?)?)
                } else {
                    entry.with_path(&path)
                });
            }
        }
        Licensed::Emulators => {
            entries.push(TarballEntry::made(&format!("{DIR}/{FILE}"), bundle.json()));
            for emulator in &bundle.emulators {
                let path = format!("{DIR}/{}", emulator.file);
                entries.push(TarballEntry::new(dir, &emulator.file, 0o755)?.with_path(&path));
                if !bundle.recipe.host.may_run(emulator.target) {
                    let file = format!("qus-{}.conf", emulator.target);
                    let emulator = Emulator {
                        arch: emulator.target,
                        path: Path::new("/").join(path),
                        build: emulator.build(),
                    };
                    let rules = export::raw(&[emulator], Flags::DEFAULT)?;
                    let head = format!("# To turn this off: ln -s /dev/null /etc/binfmt.d/{file}\n");
                    entries.push(TarballEntry::made(
                        &format!("{BINFMT_D}/{file}"),
                        [head.into_bytes(), rules].concat(),
                    ));
                }
            }
        }
    }
    Ok(entries)
}

/// Writes a package into a directory that is not yet published, and returns its path.
pub(crate) fn write(package: &Package, dir: &Path) -> Result<PathBuf> {
    match package.format {
        Format::Deb => deb::write(package, dir),
        Format::Rpm => rpm::write(package, dir),
    }
}

#[cfg(test)]
mod tests;
