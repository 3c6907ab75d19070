//! Pushes images to a registry, or loads them into the engine.

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use serde_json::{Map, Value};

use crate::base::error::Usage;
use crate::base::parallel;
use crate::base::progress::Bar;
use crate::ship::images::builder::Destination;
use crate::ship::images::check::{self, VerifiedImage};
use crate::ship::images::index;
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{INPUTS, Image, ImageKind, REVISION};
use crate::ship::images::policy;
use crate::ship::images::registry::{Registry, RemoteManifest};
use crate::ship::images::release::Release;
use crate::ship::images::work::ImageRun;

/// An image, and the manifest that the registry has under its tag.
struct KnownImage<'a> {
    image: &'a Image,
    found: Option<RemoteManifest>,
}

impl KnownImage<'_> {
    /// The registry's image if it was made from the same inputs.
    fn unchanged(&self) -> Option<&RemoteManifest> {
        let inputs = self.image.labels.get(INPUTS).map(String::as_str);
        self.found.as_ref().filter(|found| found.label(INPUTS) == inputs)
    }
}

/// An index of a kind, and the manifest that the registry has under its tag.
type KnownIndex = (ImageKind, Option<RemoteManifest>);

impl ImageRun<'_> {
    pub(super) fn push(&self, images: &[Image], kinds: &[ImageKind]) -> Result<Vec<TagOutcome>> {
        let registry = self.registry();
        let version = &self.release.version;
        let bar = Bar::new(format!("querying existing images of {}", self.args.repo));
        let known = parallel::map(images.iter().collect::<Vec<_>>().as_slice(), |&image| {
            Ok(KnownImage { image, found: registry.find(&image.tag)? })
        })?;
        let indexes: Vec<KnownIndex> =
            parallel::map(kinds, |&kind| Ok((kind, registry.find(&kind.tag(version))?)))?;
        let others = policy::find_other_hosts(&registry, self.policy.staged, version)?;
        drop(bar);
        self.policy.check_guests(&others)?;
        self.check_conflicts(&conflicts(&known, &indexes, version))?;
        let missing = known.iter().filter(|known| known.unchanged().is_none());
        let missing: Vec<&Image> = missing.map(|known| known.image).collect();
        let tags = |image: &Image| vec![registry.name(&image.tag)];
        let metadata = self.bake(&missing, tags, Destination::Registry)?;

        let _bar = Bar::new("verifying the pushed images");
        let pushed = parallel::map(&known, |known| verify(&registry, known, &metadata))?;
        let new: Vec<&VerifiedImage> =
            pushed.iter().filter(|pushed| pushed.row.state == TagState::Pushed).collect();
        check::run_programs(self.client, &registry, &new)?;
        let others = index::find_other_hosts(&registry, images, version)?;
        let rows = parallel::map(&indexes, |(kind, found)| {
            let of_kind: Vec<&VerifiedImage> =
                pushed.iter().filter(|pushed| pushed.image.kind == *kind).collect();
            self.push_index(&registry, *kind, &of_kind, &others, found.as_ref())
        })?;
        Ok(pushed.into_iter().map(|pushed| pushed.row).chain(rows.into_iter().flatten()).collect())
    }

    pub(super) fn load(&self, images: &[Image]) -> Result<Vec<TagOutcome>> {
        let own = loadable(images)?;
        let tags = |image: &Image| loaded_tags(&self.args.repo, self.release, image);
        self.bake(&own, tags, Destination::Engine)?;
        let row = |image: &&Image| TagOutcome {
            tag: image.kind.tag(&self.release.version),
            digest: None,
            platforms: vec![format!("linux/{}", image.host.platform)],
            sizes: Vec::new(),
            state: TagState::Loaded,
        };
        Ok(own.iter().map(row).collect())
    }
}

/// Describes the tags that have other content. A host may be added to an index, but not replaced.
fn conflicts(known: &[KnownImage<'_>], indexes: &[KnownIndex], version: &str) -> Vec<String> {
    let changed = || known.iter().filter(|known| known.unchanged().is_none());
    let images = changed().filter_map(|KnownImage { image, found }| {
        let found = found.as_ref()?;
        let revision = found.label(REVISION).unwrap_or("an unknown commit");
        Some(format!("{} is {}, made from {revision}", image.tag, found.digest()))
    });
    let indexes = indexes.iter().filter_map(|(kind, found)| {
        let found = found.as_ref()?;
        let replaced =
            |known: &KnownImage| known.image.kind == *kind && index::has_host(found, known.image.host);
        changed().any(replaced).then(|| index::describe_conflict(&kind.tag(version), found))
    });
    images.chain(indexes).collect()
}

/// Verifies an image in the registry: one that it already had, or one that this run has pushed.
fn verify<'a>(
    registry: &Registry<'_>,
    known: &KnownImage<'a>,
    metadata: &Map<String, Value>,
) -> Result<VerifiedImage<'a>> {
    match known.unchanged() {
        Some(found) => check::verify_unchanged(registry, known.image, found),
        None => check::verify_pushed(registry, known.image, &pushed_digest(metadata, known.image)?),
    }
}

/// The images that this machine's engine can run.
pub(super) fn loadable(images: &[Image]) -> Result<Vec<&Image>> {
    let own: Vec<&Image> = images.iter().filter(|image| Some(image.host) == Host::current()).collect();
    ensure!(!own.is_empty(), Usage("--load requires images for this machine's host".to_owned()));
    Ok(own)
}

/// The tags of a loaded image, which are those of the index.
pub(super) fn loaded_tags(repo: &str, release: &Release, image: &Image) -> Vec<String> {
    let tags = [vec![image.kind.tag(&release.version)], release.moving_tags(image.kind)].concat();
    tags.iter().map(|tag| format!("{repo}:{tag}")).collect()
}

/// The digest under which an image was pushed.
fn pushed_digest(metadata: &Map<String, Value>, image: &Image) -> Result<String> {
    let digest = metadata.get(&image.target()).and_then(|target| target["containerimage.digest"].as_str());
    digest.map(str::to_owned).with_context(|| format!("buildx reported no digest of {}", image.tag))
}
