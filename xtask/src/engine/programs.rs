//! The programs of the throwaway engine: Debian's packages, unpacked into the cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use qus_core::arch::Host;
use serde::Deserialize;
use xshell::Shell;

use crate::apt::{Apt, Distribution};
use crate::paths::Paths;
use crate::progress::say;
use crate::{cache, exec};

/// `images/engine.toml`, which describes its fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Packages {
    suite: String,
    packages: Vec<String>,
    own: Vec<String>,
}

/// A folder into which they are unpacked, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Fetches them if they are not there.
    pub(super) fn ensure(sh: &Shell, paths: &Paths) -> Result<Self> {
        let path = paths.images().join("engine.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wanted: Packages = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let distribution = Distribution::detect()?.context(
            "its programs come from Debian's packages, and this machine has no apt-get and dpkg-deb",
        )?;
        let id = cache::sha256(text.as_bytes());
        let dir = paths.engine_programs(&format!("{}-{}", distribution.codename, &id[..12]));
        cache::ensure(&dir, |partial| {
            let log = paths.log("engine-programs");
            exec::start_log(&log)?;
            say("fetching a container engine and a registry (nothing is installed) …");
            let state = paths.apt("engine");
            let mut own = wanted.own;
            if distribution.id == "debian" {
                let apt = Apt::foreign(sh, &state, &log, &distribution, &wanted.suite, &[])?;
                apt.unpack(&wanted.packages, partial)?;
            } else {
                own.extend(wanted.packages);
            }
            Apt::own(sh, &state, &log, &distribution)?.unpack(&own, partial).map(drop)
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
    pub(super) fn path(&self) -> Result<OsString> {
        let path = env::var_os("PATH").unwrap_or_default();
        let ours = ["usr/sbin", "usr/bin"].map(|dir| self.dir.join(dir));
        Ok(env::join_paths(ours.into_iter().chain(env::split_paths(&path)))?)
    }

    /// Where their libraries are, where the machine has none.
    pub(super) fn libraries(&self) -> Result<OsString> {
        let host = Host::current().context("qus knows no such machine")?;
        Ok(env::join_paths(["usr/lib", "lib"].map(|dir| self.dir.join(dir).join(host.triple)))?)
    }
}
