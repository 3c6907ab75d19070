//! Indexes over the images of all hosts that a repository has, whichever machine has pushed them.
//!
//! An index may get a host that it did not have. What it says of a host never changes, unless by force.

use std::collections::BTreeMap;

use anyhow::Result;
use qus_core::arch::{HOSTS, Host};

use crate::base::parallel;
use crate::base::progress::say;
use crate::ship::images::check::{self, Pushed};
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{self, Image, Kind};
use crate::ship::images::registry::{Found, Registry};
use crate::ship::images::work::Work;

/// Images of hosts that are not in this run.
pub(super) type Others = Vec<(&'static Host, Kind, Found)>;

/// Asks the repository for images of a version for other hosts than those of these images.
pub(super) fn others(registry: &Registry<'_>, images: &[Image], version: &str) -> Result<Others> {
    let kinds = plan::kinds(images);
    let absent: Vec<&'static Host> =
        HOSTS.iter().filter(|host| !images.iter().any(|image| image.host == *host)).collect();
    // The image that every host has tells which hosts there are.
    let found = parallel::each(&absent, |host| registry.find(&Kind::Register.host_tag(host, version)))?;
    let present = absent.iter().zip(found).filter(|(_, found)| found.is_some()).map(|(host, _)| host);
    let wanted: Vec<_> = present.flat_map(|host| kinds.iter().map(move |kind| (*host, *kind))).collect();
    let found = parallel::each(&wanted, |(host, kind)| registry.find(&kind.host_tag(host, version)))?;
    Ok(wanted.into_iter().zip(found).filter_map(|((host, kind), found)| Some((host, kind, found?))).collect())
}

/// Whether an index has something for a host.
pub(super) fn has(index: &Found, host: &Host) -> bool {
    // Registries are told arm64 without its only variant.
    let names =
        [format!("linux/{}", host.platform), format!("linux/{}", host.platform.trim_end_matches("/v8"))];
    index.platforms().keys().any(|platform| names.contains(platform))
}

pub(super) fn over_others(tag: &str, found: &Found) -> String {
    format!("{tag} is {}, an index over other images", found.digest())
}

impl Work<'_> {
    /// Has the tags of a kind stand for the images of all hosts.
    pub(super) fn index(
        &self,
        registry: &Registry<'_>,
        kind: Kind,
        images: &[&Pushed<'_>],
        others: &Others,
        found: Option<&Found>,
    ) -> Result<Vec<TagOutcome>> {
        let others = others.iter().filter(|(_, of, _)| *of == kind).map(|(host, _, found)| (*host, found));
        let mut all: Vec<_> =
            images.iter().map(|image| (image.image.host, &image.found)).chain(others).collect();
        // Whoever pushes last, it is the same index.
        all.sort_by_key(|(host, _)| HOSTS.iter().position(|row| row == *host));
        let digests: Vec<&str> = all.iter().map(|(_, found)| found.digest()).collect();
        let platforms: BTreeMap<String, &str> = all.iter().flat_map(|(_, found)| found.platforms()).collect();
        let sizes: BTreeMap<&str, u64> = images.iter().flat_map(|image| image.sizes()).collect();
        let size = |digest: &str| sizes.get(digest).map_or_else(|| registry.size(digest), |&size| Ok(size));
        let annotations = self.release.labels(kind);
        let digest = registry.index_digest(&digests, &annotations)?;
        let put = |tag: &str, found: Option<&Found>| {
            let same = found.is_some_and(|found| found.digest() == digest);
            if !same {
                registry.tag(tag, &digests, &annotations)?;
            }
            let state = if same { TagState::Unchanged } else { TagState::Pushed };
            check::index(registry, tag, &digest, &platforms, size, state)
        };
        let version = kind.tag(&self.release.version);
        if let Some(found) = found.filter(|found| found.digest() != digest) {
            let has = found.platforms();
            match has.iter().all(|(platform, digest)| platforms.get(platform) == Some(digest)) {
                true if has.len() < platforms.len() => say(format_args!(
                    "{version} gets {} to its {} platforms",
                    platforms.len() - has.len(),
                    has.len()
                )),
                _ => self.may_move(&[over_others(&version, found)])?,
            }
        }
        let mut rows = vec![put(&version, found)?];
        if let Some(floating) = self.release.channel.as_ref().and_then(|channel| kind.floating_tag(channel)) {
            rows.push(put(&floating, registry.find(&floating)?.as_ref())?);
        }
        Ok(rows)
    }
}
