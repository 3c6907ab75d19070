//! Cross compiler and libraries for another host, from packages of a Debian-like distribution. Other systems do not
//! provide such compilers and static libraries.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::CrossHost;
use qus_core::arch::Host;
use qus_core::hint::hinted;

use crate::base::context::Context;
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::versions::{self, Versions};
use crate::qemu::sysroot::kept;

/// A cross compiler and libraries for another host.
pub(crate) struct Cross {
    pub(crate) dir: PathBuf,
    pub(crate) host: &'static Host,
    pub(crate) spec: CrossHost,
}

impl Cross {
    /// The cross compiler and libraries for a host, fetched if they are not in the cache.
    pub(crate) fn ensure(cx: &Context, host: &'static Host, versions: Versions<'_>) -> Result<Self> {
        let spec = cx.data.hosts.get(host).with_context(|| format!("hosts.toml has no {host}"))?.clone();
        let distribution = Distribution::detect()?.ok_or_else(|| {
            hinted(
                format_args!("the cross compiler for {host} requires packages of Debian or Ubuntu, and this machine has no apt"),
                format_args!("build on Debian or Ubuntu, on a {host} machine, or on a {host} node with --builder"),
            )
        })?;
        let base = spec.base.as_ref().unwrap_or(&cx.data.hosts.base);
        let libraries = spec.libraries.as_ref().unwrap_or(&cx.data.tools.debian.libraries);
        let wanted = [&spec.compiler[..], base, libraries, &[kept::layout(versions)]].concat().join(" ");
        let own = format!("{}-{}", distribution.id, distribution.codename);
        let suite = spec.suite.clone().map_or_else(|| own.clone(), |suite| format!("{own}-{suite}"));
        let dir = cx.paths.sysroot(&format!("{suite}-{host}-{}", files::short_id(wanted)));
        versions::discard_outdated(&dir, versions)?;
        cache::ensure(&dir, |partial| {
            let log = cx.start_log(&format!("sysroot-{host}"))?;
            say(format_args!(
                "fetching the cross compiler and libraries for {host} (nothing is installed) …"
            ));
            let state = cx.paths.apt(&format!("compiler-{host}"));
            let packages = partial.join(kept::PACKAGES);
            let compiler = Apt::programs(&state, &log, &distribution, versions)?.keeping(&packages)?;
            let mut manifest = compiler.unpack_all(&spec.compiler, &partial.join("compiler"))?;
            let state = cx.paths.apt(&format!("libraries-{host}"));
            let apt = match &spec.suite {
                Some(suite) if !matches!(versions, Versions::Kept(_)) => {
                    Apt::foreign(&state, &log, &distribution, suite, &[host.debian])?
                }
                _ => Apt::updated(&state, &log, &distribution, versions, Some(host.debian))?,
            };
            let apt = apt.keeping(&packages)?;
            if compiler.lacks_updates() || apt.lacks_updates() {
                versions::record_missing(partial)?;
            }
            let of_host = |packages: &[String]| -> Vec<String> {
                packages.iter().map(|package| format!("{package}:{}", host.debian)).collect()
            };
            let into = partial.join("libraries");
            manifest.extend(apt.unpack_all(&of_host(base), &into)?);
            manifest.extend(apt.unpack(&of_host(libraries), &into)?);
            link_loader(&into)?;
            Ok(fs::write(partial.join("manifest"), manifest.join("\n"))?)
        })
        .with_context(|| format!("cannot fetch the cross compiler and libraries for {host}"))?;
        Ok(Self { dir, host, spec })
    }

    /// The C compiler and its mandatory options.
    pub(crate) fn cc(&self) -> (String, Vec<String>) {
        let mut words = self.spec.cc.split(' ').map(str::to_owned);
        let program = words.next().unwrap_or_default();
        (program, words.chain([format!("--sysroot={}", self.libraries().display())]).collect())
    }

    /// The directory of the cross compiler, which runs on the build machine.
    pub(crate) fn compiler(&self) -> PathBuf {
        self.dir.join("compiler/usr")
    }

    pub(crate) fn libraries(&self) -> PathBuf {
        self.dir.join("libraries")
    }
}

/// Makes the linker find the dynamic loader. The tests of QEMU's configure also link dynamically, and the C library's
/// linker script contains the loader's path in `/lib` or `/lib64`. Packages lack these symbolic links, or contain
/// absolute ones.
fn link_loader(root: &Path) -> Result<()> {
    for name in ["lib", "lib64"] {
        let dir = root.join(name);
        if !dir.exists() {
            symlink(Path::new("usr").join(name), &dir)?;
            continue;
        }
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let target = fs::read_link(&path).unwrap_or_default();
            if let Ok(target) = target.strip_prefix("/") {
                fs::remove_file(&path)?;
                symlink(Path::new("..").join(target), &path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_found_in_either_layout() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("lib/triple")).unwrap();
        fs::create_dir_all(at("usr/lib64")).unwrap();
        fs::write(at("lib/triple/ld.so"), "loader").unwrap();
        fs::write(at("usr/lib64/ld.so"), "other").unwrap();
        link_loader(root.path()).unwrap();
        assert_eq!(fs::read_to_string(at("lib64/ld.so")).unwrap(), "other");

        fs::remove_file(at("lib64")).unwrap();
        fs::create_dir(at("lib64")).unwrap();
        symlink("/lib/triple/ld.so", at("lib64/ld.so")).unwrap();
        link_loader(root.path()).unwrap();
        assert_eq!(fs::read_to_string(at("lib64/ld.so")).unwrap(), "loader");
    }
}
