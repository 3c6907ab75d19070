//! The buildx builder: its driver, features and outputs.

use anyhow::{Context, Result};

use crate::base::exec;
use crate::base::progress::say;
use crate::engine::client::Client;

/// The destination of built images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Registry,
    Engine,
}

impl Destination {
    /// The output option of buildx. All pushed layers have the same compression, at a high level; Docker's classic image
    /// store supports no choice.
    pub(super) fn output(self, classic: bool, gzip: bool) -> String {
        match self {
            Self::Engine => "type=docker".to_owned(),
            Self::Registry if classic => "type=image,push=true".to_owned(),
            Self::Registry => {
                let (compression, level) = if gzip { ("gzip", 9) } else { ("zstd", 19) };
                format!(
                    "type=image,push=true,compression={compression},compression-level={level},\
                     force-compression=true,oci-mediatypes=true"
                )
            }
        }
    }
}

/// A builder.
pub(super) struct Builder {
    pub(super) driver: String,
    /// Whether it uses Docker's classic image store, which supports no attestations, annotations and zstd layers.
    pub(super) classic: bool,
}

impl Builder {
    pub(super) fn inspect(client: &Client, name: Option<&str>) -> Result<Self> {
        let name = name.as_slice();
        let output = exec::read(client.cmd(&[&["buildx", "inspect"], name].concat()))?;
        let driver = output
            .lines()
            .find_map(|line| line.strip_prefix("Driver:"))
            .map(|driver| driver.trim().to_owned());
        let driver = driver.context("cannot determine the builder's driver")?;
        let classic = driver == "docker" && {
            let status = exec::read(client.cmd(&["info", "--format", "{{json .DriverStatus}}"]))?;
            !status.contains("io.containerd.snapshotter")
        };
        Ok(Self { driver, classic })
    }

    /// The attestations to generate: provenance, and an SBOM if its scanner is available.
    pub(super) fn attestations(&self, client: &Client, scanner: &str) -> Result<Vec<String>> {
        if self.classic {
            say(
                "note: Docker's classic image store supports neither attestations nor zstd layers; use the containerd image store, or \
                 another builder: docker buildx create --use",
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
                say(format_args!("note: images have no SBOM, because {scanner} is not available: {error:#}"))
            }
        }
        Ok(attest)
    }
}
