//! The programs of the throwaway engine: Debian's packages, unpacked into the cache.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::{Origin, PackageSet};
use qus_core::arch::Host;
use serde_json::{Map, Value, json};

use crate::base::context::Context;
use crate::base::progress::say;
use crate::base::settings::Settings;
use crate::base::{cache, files};
use crate::debian::distribution::Distribution;
use crate::debian::packages;
use crate::engine::client::Client;

/// The directory of the unpacked programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Fetches the programs if they are not in the cache.
    pub(crate) fn ensure(cx: &Context) -> Result<Self> {
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
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The client of an engine with this socket, whose configuration is in the directory `config`.
    pub(crate) fn client(&self, socket: &Path, config: &Path) -> Client {
        Client {
            program: self.docker().into(),
            env: vec![
                ("BUILDX_CONFIG", config.join("buildx").into()),
                ("DOCKER_CONFIG", config.into()),
                ("DOCKER_HOST", format!("unix://{}", socket.display()).into()),
            ],
        }
    }

    /// Writes the client's configuration: its plugins, and the credentials of the user's own client.
    pub(crate) fn write_client_config(&self, settings: &Settings, config: &Path) -> Result<()> {
        let mut client = credentials(settings);
        client.insert("cliPluginsExtraDirs".to_owned(), json!([self.plugins()]));
        fs::create_dir_all(config)?;
        files::write(&config.join("config.json"), &serde_json::to_vec_pretty(&client)?)
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

/// The registry credentials of the user's docker client, for the engine's client.
fn credentials(settings: &Settings) -> Map<String, Value> {
    let dir = settings.docker_config();
    let text = dir.and_then(|dir| fs::read(dir.join("config.json")).ok());
    let mut config: Map<_, _> = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    config.retain(|name, _| ["auths", "credHelpers", "credsStore"].contains(&&**name));
    config
}
