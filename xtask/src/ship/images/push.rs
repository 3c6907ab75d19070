//! Images into a registry, or into the engine.

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use serde_json::{Map, Value};

use crate::base::error::Usage;
use crate::base::parallel;
use crate::base::progress::say;
use crate::ship::images::check::{self, Pushed};
use crate::ship::images::index;
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{INPUTS, Image, Kind, REVISION};
use crate::ship::images::registry::Found;
use crate::ship::images::work::Work;

/// How an image is pushed: all layers compressed the same way, as small as BuildKit can.
pub(super) fn pushed_as(gzip: bool) -> String {
    let (compression, level) = if gzip { ("gzip", 9) } else { ("zstd", 19) };
    format!(
        "type=image,push=true,compression={compression},compression-level={level},force-compression=true,\
         oci-mediatypes=true"
    )
}

impl Work<'_> {
    pub(super) fn push(&self, images: &[Image], kinds: &[Kind]) -> Result<Vec<TagOutcome>> {
        let registry = self.registry();
        let version = &self.release.version;
        say(format_args!("asking {} what it has …", self.args.repo));
        let known = parallel::each(images, |image| registry.find(&image.tag))?;
        let indexes = parallel::each(kinds, |kind| registry.find(&kind.tag(version)))?;
        let is_new = |image: &Image, found: &Option<Found>| {
            let wanted = image.labels.get(INPUTS).map(String::as_str);
            found.as_ref().is_none_or(|found| found.label(INPUTS) != wanted)
        };
        let of_kind = |kind: Kind| images.iter().zip(&known).filter(move |(image, _)| image.kind == kind);
        let mut conflicts = Vec::new();
        for (image, found) in images.iter().zip(&known) {
            if let Some(found) = found.as_ref().filter(|_| is_new(image, found)) {
                let revision = found.label(REVISION).unwrap_or("an unknown commit");
                conflicts.push(format!("{} is {}, made from {revision}", image.tag, found.digest()));
            }
        }
        for (kind, found) in kinds.iter().zip(&indexes) {
            // An index may get another host, and nothing else.
            let replaced = |(image, of_image): (&Image, &Option<Found>)| {
                is_new(image, of_image) && found.as_ref().is_some_and(|found| index::has(found, image.host))
            };
            if let (Some(found), true) = (found, of_kind(*kind).any(replaced)) {
                conflicts.push(index::over_others(&kind.tag(version), found));
            }
        }
        self.may_move(&conflicts)?;
        let missing: Vec<&Image> = images
            .iter()
            .zip(&known)
            .filter(|(image, found)| is_new(image, found))
            .map(|(image, _)| image)
            .collect();
        let classic = "type=image,push=true".to_owned();
        let output = if self.builder.modern { pushed_as(self.args.gzip) } else { classic };
        let told = self.bake(&missing, |image| vec![registry.name(&image.tag)], &output)?;

        say("looking at what was pushed …");
        let pairs: Vec<_> = images.iter().zip(known).collect();
        let pushed = parallel::each(&pairs, |(image, found)| match found {
            Some(found) if !is_new(image, &Some(found.clone())) => check::unchanged(&registry, image, found),
            _ => check::pushed(&registry, image, &pushed_digest(&told, image)?),
        })?;
        let new: Vec<&Pushed> = pushed.iter().filter(|pushed| pushed.row.state == TagState::Pushed).collect();
        check::entry_points(self.client, &registry, &new)?;
        let kinds: Vec<_> = kinds.iter().zip(indexes).collect();
        let others = index::others(&registry, images, version)?;
        let rows = parallel::each(&kinds, |(kind, found)| {
            let of_kind: Vec<&Pushed> = pushed.iter().filter(|pushed| pushed.image.kind == **kind).collect();
            self.index(&registry, **kind, &of_kind, &others, found.as_ref())
        })?;
        Ok(pushed.into_iter().map(|pushed| pushed.row).chain(rows.into_iter().flatten()).collect())
    }

    pub(super) fn load(&self, images: &[Image]) -> Result<Vec<TagOutcome>> {
        let own: Vec<&Image> = images.iter().filter(|image| Some(image.host) == Host::current()).collect();
        ensure!(!own.is_empty(), Usage("--load is for images of this machine".to_owned()));
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
fn pushed_digest(told: &Map<String, Value>, image: &Image) -> Result<String> {
    let digest = told.get(&image.target()).and_then(|told| told["containerimage.digest"].as_str());
    digest.map(str::to_owned).with_context(|| format!("buildx tells no digest of {}", image.tag))
}
