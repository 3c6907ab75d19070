//! The programs of the throwaway engine: Debian's packages, unpacked into the cache.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use qemu_src::{Origin, PackageSet};
use qus_core::arch::Host;

use crate::base::cache;
use crate::base::context::Context;
use crate::base::progress::say;
use crate::base::settings::Settings;
use crate::debian::distribution::Distribution;
use crate::debian::packages;

/// The directory of the unpacked programs.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Fetches the programs if they are not in the cache.
    pub(super) fn ensure(cx: &Context) -> Result<Self> {
        let (engine, own) = (&cx.data.debian.packages.engine, &cx.data.debian.packages.engine_own);
        let distribution = Distribution::detect()?.context(
            "the engine's programs are Debian packages, and this machine lacks apt-get or dpkg-deb",
        )?;
        let id = format!("{}-{}-{}", distribution.codename, packages::id(engine), packages::id(own));
        let dir = cx.paths.engine_programs(&id);
        cache::ensure(&dir, |partial| {
            say("fetching a container engine and a registry (nothing is installed) …");
            let fetch = |from: &Origin, what: &str, set: &PackageSet| {
                packages::fetch(cx, &distribution, from, None, what, partial, |apt, into| {
                    apt.unpack(&set.packages, into).map(drop)
                })
            };
            // Other distributions do not have Debian's suites.
            let from = if distribution.id == "debian" { &engine.from } else { &Origin::Own };
            fetch(from, "engine programs", engine)?;
            fetch(&own.from, "own engine programs", own)
        })
        .context("cannot fetch the engine's programs")?;
        Ok(Self { dir })
    }

    /// Programs that have been unpacked into this directory.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn docker(&self) -> PathBuf {
        self.dir.join("usr/bin/docker")
    }

    pub(super) fn dockerd(&self) -> PathBuf {
        self.dir.join("usr/sbin/dockerd")
    }

    pub(super) fn registry(&self) -> PathBuf {
        self.dir.join("usr/bin/docker-registry")
    }

    /// The directory of the client's plugins, with buildx.
    pub(super) fn plugins(&self) -> PathBuf {
        self.dir.join("usr/libexec/docker/cli-plugins")
    }

    pub(super) fn busybox(&self) -> PathBuf {
        let paths = ["usr/bin/busybox", "bin/busybox"].map(|path| self.dir.join(path));
        let found = paths.iter().position(|path| path.exists()).unwrap_or(0);
        paths[found].clone()
    }

    /// `PATH` with these programs at the front.
    pub(super) fn path(&self, settings: &Settings) -> Result<OsString> {
        settings.path_with(["usr/sbin", "usr/bin"].map(|dir| self.dir.join(dir)))
    }

    /// `LD_LIBRARY_PATH` for libraries that the machine does not have.
    pub(super) fn libraries(&self) -> Result<OsString> {
        let host = Host::current().context("this machine's architecture is not a supported host")?;
        Ok(env::join_paths(["usr/lib", "lib"].map(|dir| self.dir.join(dir).join(host.triple)))?)
    }
}
