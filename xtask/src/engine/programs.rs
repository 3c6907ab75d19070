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

/// A folder into which they are unpacked, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Fetches them if they are not there.
    pub(super) fn ensure(cx: &Context) -> Result<Self> {
        let (engine, own) = (&cx.data.debian.packages.engine, &cx.data.debian.packages.engine_own);
        let distribution = Distribution::detect()?.context(
            "its programs come from Debian's packages, and this machine has no apt-get and dpkg-deb",
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
            // Other distributions have no suite of Debian.
            let from = if distribution.id == "debian" { &engine.from } else { &Origin::Own };
            fetch(from, "engine programs", engine)?;
            fetch(&own.from, "own engine programs", own)
        })
        .context("its programs cannot be fetched")?;
        Ok(Self { dir })
    }

    /// Those that were unpacked into this folder earlier.
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

    /// Where the client finds buildx.
    pub(super) fn plugins(&self) -> PathBuf {
        self.dir.join("usr/libexec/docker/cli-plugins")
    }

    pub(super) fn busybox(&self) -> PathBuf {
        let places = ["usr/bin/busybox", "bin/busybox"].map(|place| self.dir.join(place));
        let found = places.iter().position(|path| path.exists()).unwrap_or(0);
        places[found].clone()
    }

    /// `PATH` with these programs before the others.
    pub(super) fn path(&self, settings: &Settings) -> Result<OsString> {
        settings.path_with(["usr/sbin", "usr/bin"].map(|dir| self.dir.join(dir)))
    }

    /// Where their libraries are, where the machine has none.
    pub(super) fn libraries(&self) -> Result<OsString> {
        let host = Host::current().context("qus knows no such machine")?;
        Ok(env::join_paths(["usr/lib", "lib"].map(|dir| self.dir.join(dir).join(host.triple)))?)
    }
}
