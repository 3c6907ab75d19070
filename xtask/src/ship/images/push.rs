//! Pushes images to a registry, or loads them into the engine.

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use serde_json::{Map, Value};

use crate::base::error::Usage;
use crate::base::parallel;
use crate::base::progress::say;
use crate::ship::images::check::{self, VerifiedImage};
use crate::ship::images::index;
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{INPUTS, Image, ImageKind, REVISION};
use crate::ship::images::registry::RemoteManifest;
use crate::ship::images::work::ImageRun;

/// The output option for pushing: all layers have the same compression, at a high level.
pub(super) fn push_output(gzip: bool) -> String {
    let (compression, level) = if gzip { ("gzip", 9) } else { ("zstd", 19) };
    format!(
        "type=image,push=true,compression={compression},compression-level={level},force-compression=true,\
         oci-mediatypes=true"
    )
}

impl ImageRun<'_> {
    pub(super) fn push(&self, images: &[Image], kinds: &[ImageKind]) -> Result<Vec<TagOutcome>> {
        let registry = self.registry();
        let version = &self.release.version;
        say(format_args!("querying existing images of {} …", self.args.repo));
        let known = parallel::map(images, |image| registry.find(&image.tag))?;
        let indexes = parallel::map(kinds, |kind| registry.find(&kind.tag(version)))?;
        let is_new = |image: &Image, found: &Option<RemoteManifest>| {
            let wanted = image.labels.get(INPUTS).map(String::as_str);
            found.as_ref().is_none_or(|found| found.label(INPUTS) != wanted)
        };
        let of_kind =
            |kind: ImageKind| images.iter().zip(&known).filter(move |(image, _)| image.kind == kind);
        let mut conflicts = Vec::new();
        for (image, found) in images.iter().zip(&known) {
            if let Some(found) = found.as_ref().filter(|_| is_new(image, found)) {
                let revision = found.label(REVISION).unwrap_or("an unknown commit");
                conflicts.push(format!("{} is {}, made from {revision}", image.tag, found.digest()));
            }
        }
        for (kind, found) in kinds.iter().zip(&indexes) {
            // Hosts may be added to an index, but not replaced.
            let replaced = |(image, of_image): (&Image, &Option<RemoteManifest>)| {
                is_new(image, of_image)
                    && found.as_ref().is_some_and(|found| index::has_host(found, image.host))
            };
            if let (Some(found), true) = (found, of_kind(*kind).any(replaced)) {
                conflicts.push(index::describe_conflict(&kind.tag(version), found));
            }
        }
        self.check_conflicts(&conflicts)?;
        let missing: Vec<&Image> = images
            .iter()
            .zip(&known)
            .filter(|(image, found)| is_new(image, found))
            .map(|(image, _)| image)
            .collect();
        let classic = "type=image,push=true".to_owned();
        let output = if self.builder.modern { push_output(self.args.gzip) } else { classic };
        let metadata = self.bake(&missing, |image| vec![registry.name(&image.tag)], &output)?;

        say("verifying the pushed images …");
        let pairs: Vec<_> = images.iter().zip(known).collect();
        let pushed = parallel::map(&pairs, |(image, found)| match found {
            Some(found) if !is_new(image, &Some(found.clone())) => {
                check::verify_unchanged(&registry, image, found)
            }
            _ => check::verify_pushed(&registry, image, &pushed_digest(&metadata, image)?),
        })?;
        let new: Vec<&VerifiedImage> =
            pushed.iter().filter(|pushed| pushed.row.state == TagState::Pushed).collect();
        check::run_programs(self.client, &registry, &new)?;
        let kinds: Vec<_> = kinds.iter().zip(indexes).collect();
        let others = index::find_other_hosts(&registry, images, version)?;
        let rows = parallel::map(&kinds, |(kind, found)| {
            let of_kind: Vec<&VerifiedImage> =
                pushed.iter().filter(|pushed| pushed.image.kind == **kind).collect();
            self.push_index(&registry, **kind, &of_kind, &others, found.as_ref())
        })?;
        Ok(pushed.into_iter().map(|pushed| pushed.row).chain(rows.into_iter().flatten()).collect())
    }

    pub(super) fn load(&self, images: &[Image]) -> Result<Vec<TagOutcome>> {
        let own: Vec<&Image> = images.iter().filter(|image| Some(image.host) == Host::current()).collect();
        ensure!(!own.is_empty(), Usage("--load requires images for this machine's host".to_owned()));
        let version = &self.release.version;
        let names = |image: &Image| {
            let floating = self.release.channel.as_ref().and_then(|channel| image.kind.floating_tag(channel));
            let tags = [Some(image.kind.tag(version)), floating].into_iter().flatten();
            tags.map(|tag| format!("{}:{tag}", self.args.repo)).collect()
        };
        self.bake(&own, names, "type=docker")?;
        let row = |image: &&Image| TagOutcome {
            tag: image.kind.tag(version),
            digest: None,
            platforms: vec![format!("linux/{}", image.host.platform)],
            sizes: Vec::new(),
            state: TagState::Loaded,
        };
        Ok(own.iter().map(row).collect())
    }
}

/// The digest under which an image was pushed.
fn pushed_digest(metadata: &Map<String, Value>, image: &Image) -> Result<String> {
    let digest = metadata.get(&image.target()).and_then(|target| target["containerimage.digest"].as_str());
    digest.map(str::to_owned).with_context(|| format!("buildx reported no digest of {}", image.tag))
}
