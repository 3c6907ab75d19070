//! Verifies pushed images and indexes: digests, platforms, labels, and that the program runs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::base::progress::say;
use crate::base::{exec, parallel};
use crate::engine::client::Client;
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{INPUTS, Image, VERSION};
use crate::ship::images::registry::{Registry, RemoteManifest};

/// A verified image in the registry.
pub(super) struct VerifiedImage<'a> {
    pub(super) image: &'a Image,
    pub(super) found: RemoteManifest,
    pub(super) row: TagOutcome,
}

impl VerifiedImage<'_> {
    /// The download size in bytes for each platform's digest.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.found.platforms().into_values().zip(self.row.sizes.iter().copied())
    }
}

/// Verifies an image that the registry already had.
pub(super) fn verify_unchanged<'a>(
    registry: &Registry<'_>,
    image: &'a Image,
    found: &RemoteManifest,
) -> Result<VerifiedImage<'a>> {
    verify_image(registry, image, found.clone(), TagState::Unchanged)
}

/// Verifies an image that this run has pushed.
pub(super) fn verify_pushed<'a>(
    registry: &Registry<'_>,
    image: &'a Image,
    digest: &str,
) -> Result<VerifiedImage<'a>> {
    verify_image(registry, image, find(registry, &image.tag, digest)?, TagState::Pushed)
}

fn verify_image<'a>(
    registry: &Registry<'_>,
    image: &'a Image,
    found: RemoteManifest,
    state: TagState,
) -> Result<VerifiedImage<'a>> {
    let name = registry.name(&image.tag);
    let platforms = found.platforms();
    ensure!(platforms.len() == 1, "{name} has {} platforms instead of one", platforms.len());
    for label in [INPUTS, VERSION, "org.opencontainers.image.licenses"] {
        let (has, wanted) = (found.label(label), image.labels.get(label).map(String::as_str));
        ensure!(has == wanted, "{name} has the label {label} = {has:?} instead of {wanted:?}");
    }
    let row = TagOutcome {
        tag: image.tag.clone(),
        digest: Some(found.digest().to_owned()),
        sizes: platforms.values().map(|digest| registry.size(digest)).collect::<Result<_>>()?,
        platforms: platforms.into_keys().collect(),
        state,
    };
    Ok(VerifiedImage { image, found, row })
}

/// Verifies that an index contains exactly these images.
pub(super) fn verify_index(
    registry: &Registry<'_>,
    tag: &str,
    found: &RemoteManifest,
    platforms: &BTreeMap<String, &str>,
    size: impl Fn(&str) -> Result<u64>,
    state: TagState,
) -> Result<TagOutcome> {
    let (name, has) = (registry.name(tag), found.platforms());
    for (platform, digest) in platforms {
        ensure!(has.get(platform) == Some(digest), "{name} does not have {digest} for {platform}");
    }
    ensure!(has.len() == platforms.len(), "{name} has unexpected platforms");
    let sizes = has.values().map(|digest| size(digest)).collect::<Result<_>>()?;
    Ok(index_outcome(tag, found, sizes, state))
}

/// The result for an index.
pub(super) fn index_outcome(
    tag: &str,
    found: &RemoteManifest,
    sizes: Vec<u64>,
    state: TagState,
) -> TagOutcome {
    TagOutcome {
        tag: tag.to_owned(),
        digest: Some(found.digest().to_owned()),
        platforms: found.platforms().into_keys().collect(),
        sizes,
        state,
    }
}

/// The manifest of a tag that was pushed with this digest.
pub(super) fn find(registry: &Registry<'_>, tag: &str, digest: &str) -> Result<RemoteManifest> {
    let name = registry.name(tag);
    let found = registry
        .find(tag)?
        .with_context(|| format!("{name} was pushed, but the registry does not have it"))?;
    let now = found.digest();
    ensure!(
        now == digest,
        "{name} is {now}, but {digest} was pushed; another process may have pushed the same tag"
    );
    Ok(found)
}

/// Pulls each image with the program, and runs `qus --version` in it.
pub(super) fn run_programs(
    client: &Client,
    registry: &Registry<'_>,
    images: &[&VerifiedImage<'_>],
) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    if client.check_engine().is_err() {
        say("note: images were not run, because there is a builder but no engine");
        return Ok(());
    }
    let programs: Vec<_> = images.iter().filter(|pushed| pushed.image.kind.has_program()).collect();
    parallel::map(&programs, |pushed| {
        let name = format!("{}@{}", registry.repo, pushed.found.digest());
        let platform = format!("linux/{}", pushed.image.host.platform);
        registry.retry(&format!("pulling {name}"), || {
            exec::read(client.cmd(&["pull", "--quiet", "--platform", &platform, &name]))
        })?;
        let options = ["--rm", "--network", "none", "--platform", &*platform];
        let run = || exec::read(client.cmd(&[&["run"], &options[..], &[&*name, "--version"]].concat()));
        // On a busy machine, docker sometimes loses the output and exits with status 0.
        let output = match run() {
            Ok(output) if output.is_empty() => run(),
            output => output,
        };
        let _ = exec::read(client.cmd(&["image", "rm", &name]));
        match output {
            Ok(output) => ensure!(output.starts_with("qus "), "{} printed {output:?}", pushed.image.tag),
            Err(error) if error.to_string().contains("exec format error") => {
                let tag = &pushed.image.tag;
                say(format_args!(
                    "note: {tag} was not run, because this machine has no handler for {platform}"
                ));
            }
            Err(error) => return Err(error.context(format!("{} does not run", pushed.image.tag))),
        }
        Ok(())
    })
    .map(drop)
}
