//! The programs of the throwaway engine: Debian's packages, unpacked into the cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use qus_core::arch::Host;
use serde::Deserialize;

use crate::base::cache;
use crate::base::context::Context;
use crate::base::files;
use crate::base::progress::say;
use crate::base::settings::Settings;
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;

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
    pub(super) fn ensure(cx: &Context) -> Result<Self> {
        let path = cx.paths.images().join("engine.toml");
        let text = fs::read_to_string(&path)?;
        let wanted: Packages = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let distribution = Distribution::detect()?.context(
            "its programs come from Debian's packages, and this machine has no apt-get and dpkg-deb",
        )?;
        let id = files::short_id(&text);
        let dir = cx.paths.engine_programs(&format!("{}-{}", distribution.codename, id));
        cache::ensure(&dir, |partial| {
            let log = cx.start_log("engine-programs")?;
            say("fetching a container engine and a registry (nothing is installed) …");
            let state = cx.paths.apt("engine");
            let mut own = wanted.own;
            if distribution.id == "debian" {
                let apt = Apt::foreign(&state, &log, &distribution, &wanted.suite, &[])?;
                apt.unpack(&wanted.packages, partial)?;
            } else {
                own.extend(wanted.packages);
            }
            Apt::own(&state, &log, &distribution)?.unpack(&own, partial).map(drop)
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
