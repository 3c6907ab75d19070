//! What builds images: the driver of buildx, and what it can do.

use anyhow::{Context, Result};

use crate::base::exec;
use crate::base::progress::say;
use crate::engine::client::Client;

/// What the builder can do.
pub(super) struct Builder {
    pub(super) driver: String,
    /// Whether it makes attestations, annotations and compressed layers: all but Docker's classic image store.
    pub(super) modern: bool,
}

impl Builder {
    pub(super) fn of(client: &Client, name: Option<&str>) -> Result<Self> {
        let name = name.as_slice();
        let told = exec::read(client.cmd(&[&["buildx", "inspect"], name].concat()))?;
        let driver =
            told.lines().find_map(|line| line.strip_prefix("Driver:")).map(|driver| driver.trim().to_owned());
        let driver = driver.context("buildx tells no driver of the builder")?;
        let modern = driver != "docker" || {
            let status = exec::read(client.cmd(&["info", "--format", "{{json .DriverStatus}}"]))?;
            status.contains("io.containerd.snapshotter")
        };
        Ok(Self { driver, modern })
    }

    /// Provenance, and an SBOM where its scanner can be had.
    pub(super) fn attestations(&self, client: &Client, scanner: &str) -> Result<Vec<String>> {
        if !self.modern {
            say(
                "note: Docker's classic image store makes neither attestations nor zstd layers; containerd's does, and other \
                 builders: docker buildx create --use",
            );
            return Ok(Vec::new());
        }
        let mut attest = vec!["type=provenance,mode=max".to_owned()];
        if scanner == "none" {
            return Ok(attest);
        }
        match exec::read(client.cmd(&["buildx", "imagetools", "inspect", scanner])) {
            Ok(_) => attest.push(format!("type=sbom,generator={scanner}")),
            Err(error) => {
                say(format_args!("note: images get no SBOM, since {scanner} cannot be had: {error:#}"))
            }
        }
        Ok(attest)
    }
}
