//! What was pushed is asked for again: digests, platforms, labels, and whether the program answers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::base::progress::say;
use crate::base::{exec, parallel};
use crate::engine::client::Client;
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{INPUTS, Image};
use crate::ship::images::registry::{Found, Registry};

/// An image in the registry, as it was found there.
pub(super) struct Pushed<'a> {
    pub(super) image: &'a Image,
    pub(super) found: Found,
    pub(super) row: TagOutcome,
}

impl Pushed<'_> {
    /// What there is to pull for each platform, by digest, in bytes.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.found.platforms().into_values().zip(self.row.sizes.iter().copied())
    }
}

/// An image that was there before.
pub(super) fn unchanged<'a>(registry: &Registry<'_>, image: &'a Image, found: &Found) -> Result<Pushed<'a>> {
    looked_at(registry, image, found.clone(), TagState::Unchanged)
}

/// An image that was pushed under its tag a moment ago.
pub(super) fn pushed<'a>(registry: &Registry<'_>, image: &'a Image, digest: &str) -> Result<Pushed<'a>> {
    looked_at(registry, image, find(registry, &image.tag, digest)?, TagState::Pushed)
}

fn looked_at<'a>(
    registry: &Registry<'_>,
    image: &'a Image,
    found: Found,
    state: TagState,
) -> Result<Pushed<'a>> {
    let name = registry.name(&image.tag);
    let platforms = found.platforms();
    ensure!(platforms.len() == 1, "{name} is for {} platforms instead of one", platforms.len());
    for label in [INPUTS, "org.opencontainers.image.version", "org.opencontainers.image.licenses"] {
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
    Ok(Pushed { image, found, row })
}

/// An index, which has to have these very images and no others.
pub(super) fn index(
    registry: &Registry<'_>,
    tag: &str,
    digest: &str,
    platforms: &BTreeMap<String, &str>,
    size: impl Fn(&str) -> Result<u64>,
    state: TagState,
) -> Result<TagOutcome> {
    let found = find(registry, tag, digest)?;
    let (name, has) = (registry.name(tag), found.platforms());
    for (platform, digest) in platforms {
        ensure!(has.get(platform) == Some(digest), "{name} does not have {digest} for {platform}");
    }
    ensure!(has.len() == platforms.len(), "{name} has platforms that nobody pushed");
    Ok(TagOutcome {
        tag: tag.to_owned(),
        digest: Some(digest.to_owned()),
        platforms: has.keys().cloned().collect(),
        sizes: has.values().map(|digest| size(digest)).collect::<Result<_>>()?,
        state,
    })
}

fn find(registry: &Registry<'_>, tag: &str, digest: &str) -> Result<Found> {
    let name = registry.name(tag);
    let found = registry.find(tag)?.with_context(|| format!("{name} was pushed, and is not there"))?;
    let now = found.digest();
    ensure!(now == digest, "{name} is {now} now, and {digest} was pushed: who else pushes there?");
    Ok(found)
}

/// Pulls each image that has the program, and has it tell its version.
pub(super) fn entry_points(client: &Client, registry: &Registry<'_>, images: &[&Pushed<'_>]) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    if !client.has_engine() {
        say("note: nothing was run, since there is a builder but no engine");
        return Ok(());
    }
    let programs: Vec<_> = images.iter().filter(|pushed| pushed.image.kind.has_program()).collect();
    parallel::each(&programs, |pushed| {
        let name = format!("{}@{}", registry.repo, pushed.found.digest());
        let platform = format!("linux/{}", pushed.image.host.platform);
        registry.patiently(&format!("pulling {name}"), || {
            exec::read(client.cmd(&["pull", "--quiet", "--platform", &platform, &name]))
        })?;
        let options = ["--rm", "--network", "none", "--platform", &*platform];
        let run = || exec::read(client.cmd(&[&["run"], &options[..], &[&*name, "--version"]].concat()));
        // Seen on a busy machine: exit status 0, and what the program has said was lost.
        let told = match run() {
            Ok(told) if told.is_empty() => run(),
            told => told,
        };
        // What it was pulled for is done.
        let _ = exec::read(client.cmd(&["image", "rm", &name]));
        match told {
            Ok(told) => ensure!(told.starts_with("qus "), "{} answers {told:?}", pushed.image.tag),
            Err(error) if error.to_string().contains("exec format error") => {
                let tag = &pushed.image.tag;
                say(format_args!(
                    "note: {tag} was not run, since this machine has no handler for {platform}"
                ));
            }
            Err(error) => return Err(error.context(format!("{} does not run", pushed.image.tag))),
        }
        Ok(())
    })
    .map(drop)
}
