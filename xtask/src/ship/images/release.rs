//! The common properties of a run's images, and the list of images.

use anyhow::{Context as _, Result};
use qus_core::arch::Host;
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use serde_json::Value;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::exec::{self, sh};
use crate::base::files;
use crate::bundle::manifest;
use crate::ship::images::plan::{self, GUESTS, INPUTS, Image, ImageKind, Labels, REVISION};
use crate::ship::images::stage::Staged;

/// Properties that all images of a run share.
pub(super) struct Release {
    pub(super) qemu: String,
    /// The version in tags: QEMU's version, or the value of --tag.
    pub(super) version: String,
    /// The channel of QEMU's version, if tags contain that version.
    channel: Option<String>,
    /// SPDX expression of the licence of QEMU's source.
    licence: String,
    /// The git commit, if there is one.
    revision: Option<String>,
    /// URL of the git repository, if it is public.
    source: Option<String>,
    /// Creation time of the images, in seconds since 1970.
    pub(super) epoch: u64,
}

impl Release {
    pub(super) fn new(
        cx: &Context,
        staged: &[Staged],
        qemu: Option<&str>,
        tag: Option<&str>,
    ) -> Result<Self> {
        let recipes = || staged.iter().map(|staged| &staged.bundle.recipe);
        let qemu = match qemu {
            Some(name) => cx.data.release(name).map_err(Usage)?.version.clone(),
            None => recipes().map(|recipe| &recipe.qemu).max().context("no host is selected")?.clone(),
        };
        // 32-bit hosts may have an older version under the same tag; all other hosts must have the same version.
        for recipe in recipes() {
            let narrow = !recipe.host.arch.registers_64_bit;
            if recipe.qemu != qemu && !(narrow && recipe.qemu < qemu) {
                let host = recipe.host;
                return Err(hinted(
                    format!(
                        "the bundle of {host} has QEMU {}, but the images are for QEMU {qemu}",
                        recipe.qemu
                    ),
                    format!(
                        "to build it, run `cargo xtask build-qemu --all --host {host} --qemu {qemu}{}`",
                        manifest::profile_option(recipe.profile)
                    ),
                ));
            }
        }
        let git = |args: &[&str]| {
            let root = cx.paths.root();
            exec::read(cmd!(sh(), "git -C {root} {args...}")).ok().filter(|output| !output.is_empty())
        };
        let changed = git(&["status", "--porcelain"]).is_some();
        let revision = git(&["rev-parse", "HEAD"]);
        let channel = cx.data.release(&qemu.to_string()).ok().map(|release| release.channel.clone());
        Ok(Self {
            version: tag.map_or_else(|| qemu.to_string(), str::to_owned),
            channel: channel.filter(|_| tag.is_none()),
            licence: cx.data.sources.licence.clone(),
            revision: revision.map(|revision| if changed { revision + "-changed" } else { revision }),
            source: git(&["remote", "get-url", "origin"]).filter(|url| url.starts_with("https://")),
            epoch: cx
                .settings
                .source_date_epoch
                .or_else(|| git(&["log", "-1", "--format=%ct"])?.parse().ok())
                .unwrap_or(0),
            qemu: qemu.to_string(),
        })
    }

    /// Every image of every host.
    pub(super) fn images(
        &self,
        cx: &Context,
        hosts: &[&'static Host],
        staged: &[Staged],
    ) -> Result<Vec<Image>> {
        let dockerfile = files::sha256(&cx.paths.images().join("Dockerfile"))?;
        let mut images = Vec::new();
        for (host, staged) in hosts.iter().zip(staged) {
            for kind in ImageKind::all(staged.guests()) {
                let mut image = Image {
                    host,
                    kind,
                    tag: kind.host_tag(host, &self.version),
                    contexts: Default::default(),
                    labels: self.labels(kind),
                };
                let mut inputs = serde_json::json!({
                    "dockerfile": dockerfile, "kind": kind.target(), "platform": host.platform, "labels": image.labels,
                });
                if kind.has_program() {
                    image.contexts.insert("qus", staged.dir.join("qus"));
                    inputs["qus"] = Value::from(staged.program_sha256.to_string());
                }
                if kind != ImageKind::Register {
                    image.contexts.insert("emulators", plan::emulators_dir(kind, &staged.dir));
                    let bundle = match kind {
                        ImageKind::Guest(arch) => staged.bundle.only(arch),
                        _ => staged.bundle.clone(),
                    };
                    image.labels.insert("qus.qemu", staged.bundle.recipe.qemu.to_string());
                    inputs["emulators"] = Value::from(bundle.json());
                }
                if matches!(kind, ImageKind::Pkg | ImageKind::Full) {
                    let guests: Vec<_> = staged.guests().map(|arch| arch.name).collect();
                    image.labels.insert(GUESTS, guests.join(" "));
                }
                image.labels.insert(INPUTS, Sha256::of(inputs.to_string()).to_string());
                // Not part of the hash: a new commit with equal inputs does not change the image.
                image.labels.extend(self.revision.clone().map(|revision| (REVISION, revision)));
                images.push(image);
            }
        }
        Ok(images)
    }

    /// The floating tag of an index, if tags contain the version of a channel.
    pub(super) fn floating_tag(&self, kind: ImageKind) -> Option<String> {
        kind.floating_tag(self.channel.as_ref()?)
    }

    pub(super) fn labels(&self, kind: ImageKind) -> Labels {
        let own = env!("CARGO_PKG_LICENSE");
        let licences = match kind {
            ImageKind::Pkg => self.licence.clone(),
            ImageKind::Register => own.to_owned(),
            ImageKind::Full | ImageKind::Guest(_) => format!("({own}) AND {}", self.licence),
        };
        let source = self.source.clone().map(|source| ("org.opencontainers.image.source", source));
        [
            ("org.opencontainers.image.title", kind.title()),
            ("org.opencontainers.image.version", self.version.clone()),
            ("org.opencontainers.image.licenses", licences),
        ]
        .into_iter()
        .chain(source)
        .collect()
    }
}
