//! A run that builds images: its engine, builder and repository.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::hint::hinted;
use serde_json::{Map, Value};

use crate::base::context::Context;
use crate::base::exec::{self, InDir};
use crate::base::files;
use crate::base::progress::{Bar, say};
use crate::engine::client::Client;
use crate::ship::images::args::Args;
use crate::ship::images::builder::{Builder, Destination};
use crate::ship::images::plan::{self, Image};
use crate::ship::images::policy::Policy;
use crate::ship::images::registry::Registry;
use crate::ship::images::release::Release;

/// The number of images that are built at once.
const BATCH: usize = 12;

/// The context of a run that builds images.
pub(super) struct ImageRun<'a> {
    pub(super) cx: &'a Context,
    pub(super) args: &'a Args,
    pub(super) release: &'a Release,
    pub(super) policy: &'a Policy<'a>,
    pub(super) client: &'a Client,
    pub(super) builder: &'a Builder,
}

impl ImageRun<'_> {
    pub(super) fn registry(&self) -> Registry<'_> {
        Registry { client: self.client, builder: self.args.builder.as_deref(), repo: &self.args.repo }
    }

    /// Refuses to move tags with other content, unless --force is given.
    pub(super) fn check_conflicts(&self, conflicts: &[String]) -> Result<()> {
        if conflicts.is_empty() {
            return Ok(());
        }
        let list = conflicts.join("\n  ");
        if !self.args.force {
            return Err(hinted(
                format!("tags of {} exist with other content and are never moved:\n  {list}", self.args.repo),
                match self.args.tag {
                    Some(_) => "choose another --tag, or move the tags with --force if they are not in use",
                    None => {
                        "for a new release, increase `revision` in qemu-src/sources.toml; or move the tags with --force \
                         if they are not in use"
                    }
                },
            ));
        }
        say(format_args!("warning: moving tags of {} (--force):\n  {list}", self.args.repo));
        Ok(())
    }

    /// Builds images with buildx; returns buildx's metadata of each.
    pub(super) fn bake(
        &self,
        images: &[&Image],
        tags: impl Fn(&Image) -> Vec<String>,
        destination: Destination,
    ) -> Result<Map<String, Value>> {
        let mut metadata = Map::new();
        if images.is_empty() {
            return Ok(metadata);
        }
        let (attest, doing) = match destination {
            Destination::Registry => {
                (self.builder.attestations(self.client, &self.args.sbom)?, "building and pushing")
            }
            Destination::Engine => (Vec::new(), "building"),
        };
        let output = destination.output(self.builder.classic, self.args.gzip);
        let log = self.cx.start_log("images")?;
        let driver = &self.builder.driver;
        let mut bar = Bar::new(format!("{doing} {} images with the driver {driver}", images.len()));
        // With all images at once, builds wait for each other until the engine times out.
        for batch in images.chunks(BATCH) {
            let bake = plan::bake(batch, &tags, &output, &attest, !self.builder.classic);
            metadata.extend(self.registry().retry("building images", || self.bake_batch(&bake, &log))?);
            bar.set(metadata.len() as u64, images.len() as u64);
        }
        bar.finish();
        Ok(metadata)
    }

    fn bake_batch(&self, bake: &Value, log: &Path) -> Result<Map<String, Value>> {
        let dir = self.cx.paths.out().join("images");
        let (targets, metadata) = (dir.join("bake.json"), dir.join("metadata.json"));
        files::write(&targets, &serde_json::to_vec_pretty(bake)?)?;
        let [targets, metadata_file] = [&targets, &metadata].map(|path| path.display().to_string());
        let mut args = vec!["buildx", "bake", "--progress", "plain", "--metadata-file", &*metadata_file];
        args.extend(["--file", "docker-bake.hcl", "--file", &*targets]);
        if let Some(builder) = &self.args.builder {
            args.extend(["--builder", builder]);
        }
        exec::run(self.client.cmd(&args).in_dir(&self.cx.paths.images()), log, |_| {})?;
        let text =
            fs::read(&metadata).with_context(|| format!("buildx did not write {}", metadata.display()))?;
        serde_json::from_slice(&text).context("cannot parse buildx's metadata")
    }
}
