//! The common properties of a run's images, and the list of images.

use anyhow::Result;
use qus_core::arch::Host;
use qus_core::digest::Sha256;
use qus_core::release::ReleaseVersion;
use serde_json::Value;

use crate::base::context::Context;
use crate::base::files;
use crate::base::git::Checkout;
use crate::ship::images::plan::{self, GUESTS, INPUTS, Image, ImageKind, Labels, REVISION, VERSION};
use crate::ship::images::stage::Staged;
use crate::ship::version;

/// Properties that all images of a run share.
pub(super) struct Release {
    pub(super) qemu: String,
    /// The version in fixed tags, as in `10.2.2-1`, or the value of --tag.
    pub(super) version: String,
    /// The release, unless --tag is given.
    release: Option<qemu_src::Release>,
    /// SPDX expression of the licence of QEMU's source.
    licence: String,
    pub(super) checkout: Checkout,
    /// Creation time of the images, in seconds since 1970.
    pub(super) epoch: u64,
}

impl Release {
    pub(super) fn new(
        cx: &Context,
        staged: &mut [Staged],
        qemu: Option<&str>,
        tag: Option<&str>,
    ) -> Result<Self> {
        let bundles = staged.iter().map(|staged| &staged.bundle);
        let qemu = version::of_bundles(cx, bundles, qemu)?;
        let release = match tag {
            Some(_) => None,
            None => Some(version::release(cx, &qemu)?),
        };
        if let Some(release) = release {
            for staged in staged {
                staged.bundle.release = Some(release.release_version());
            }
        }
        let checkout = Checkout::read(cx.paths.root());
        Ok(Self {
            version: tag.map_or_else(
                || release.map(|release| release.release_version().to_string()).unwrap_or_default(),
                str::to_owned,
            ),
            release: release.cloned(),
            licence: cx.data.sources.licence.clone(),
            epoch: checkout.epoch(cx),
            qemu: qemu.to_string(),
            checkout,
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
                    inputs["licences of qus"] = Value::from(staged.licences_sha256[0].to_string());
                }
                if kind != ImageKind::Register {
                    image.contexts.insert("emulators", plan::emulators_dir(kind, &staged.dir));
                    let bundle = match kind {
                        ImageKind::Guest(arch) => staged.bundle.only(arch),
                        _ => staged.bundle.clone(),
                    };
                    image.labels.insert("qus.qemu", staged.bundle.recipe.qemu.to_string());
                    inputs["emulators"] = Value::from(bundle.json());
                    inputs["licences of emulators"] = Value::from(staged.licences_sha256[1].to_string());
                }
                if matches!(kind, ImageKind::Pkg | ImageKind::Full) {
                    let guests: Vec<_> = staged.guests().map(|arch| arch.name).collect();
                    image.labels.insert(GUESTS, guests.join(" "));
                }
                image.labels.insert(INPUTS, Sha256::of(inputs.to_string()).to_string());
                // Not part of the hash: a new commit with equal inputs does not change the image.
                image.labels.extend(self.checkout.revision().map(|revision| (REVISION, revision)));
                images.push(image);
            }
        }
        Ok(images)
    }

    /// The version of the release; `None` with --tag.
    pub(super) fn release_version(&self) -> Option<ReleaseVersion> {
        self.release.as_ref().map(qemu_src::Release::release_version)
    }

    /// The tags of an index that move from release to release.
    pub(super) fn moving_tags(&self, kind: ImageKind) -> Vec<String> {
        let of = |release: &qemu_src::Release| kind.moving_tags(&release.version, &release.channel);
        self.release.as_ref().map_or_else(Vec::new, of)
    }

    pub(super) fn labels(&self, kind: ImageKind) -> Labels {
        let own = env!("CARGO_PKG_LICENSE");
        let licences = match kind {
            ImageKind::Pkg => self.licence.clone(),
            ImageKind::Register => own.to_owned(),
            ImageKind::Full | ImageKind::Guest(_) => format!("({own}) AND {}", self.licence),
        };
        let public = self.checkout.origin.clone().filter(|url| url.starts_with("https://"));
        let source = public.map(|source| ("org.opencontainers.image.source", source));
        [
            ("org.opencontainers.image.title", kind.title()),
            (VERSION, self.version.clone()),
            ("qus.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("org.opencontainers.image.licenses", licences),
        ]
        .into_iter()
        .chain(source)
        .collect()
    }
}
