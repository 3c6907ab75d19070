//! Indexes over the images of all hosts in a repository, whichever machine has pushed them.
//!
//! A host can be added to an index. The image of a host in an index is not replaced without --force.

use std::collections::BTreeMap;

use anyhow::Result;
use qus_core::arch::{HOSTS, Host};

use crate::base::parallel;
use crate::base::progress::say;
use crate::ship::images::check::{self, VerifiedImage};
use crate::ship::images::outcome::{TagOutcome, TagState};
use crate::ship::images::plan::{self, Image, ImageKind};
use crate::ship::images::registry::{Registry, RemoteManifest};
use crate::ship::images::work::ImageRun;

/// Images of hosts that are not part of this run.
pub(super) type OtherHosts = Vec<(&'static Host, ImageKind, RemoteManifest)>;

/// Finds the repository's images of a version for hosts other than those of these images.
pub(super) fn find_other_hosts(
    registry: &Registry<'_>,
    images: &[Image],
    version: &str,
) -> Result<OtherHosts> {
    let kinds = plan::kinds(images);
    let absent: Vec<&'static Host> =
        HOSTS.iter().filter(|host| !images.iter().any(|image| image.host == *host)).collect();
    // Every host has this image.
    let found = parallel::map(&absent, |host| registry.find(&ImageKind::Register.host_tag(host, version)))?;
    let present = absent.iter().zip(found).filter(|(_, found)| found.is_some()).map(|(host, _)| host);
    let wanted: Vec<_> = present.flat_map(|host| kinds.iter().map(move |kind| (*host, *kind))).collect();
    let found = parallel::map(&wanted, |(host, kind)| registry.find(&kind.host_tag(host, version)))?;
    Ok(wanted.into_iter().zip(found).filter_map(|((host, kind), found)| Some((host, kind, found?))).collect())
}

/// Whether an index has an image for a host.
pub(super) fn has_host(index: &RemoteManifest, host: &Host) -> bool {
    // The platform of arm64 may lack its only variant.
    let names =
        [format!("linux/{}", host.platform), format!("linux/{}", host.platform.trim_end_matches("/v8"))];
    index.platforms().keys().any(|platform| names.contains(platform))
}

/// Describes an index that contains other images than expected.
pub(super) fn describe_conflict(tag: &str, found: &RemoteManifest) -> String {
    format!("{tag} is {}, an index over other images", found.digest())
}

impl ImageRun<'_> {
    /// Pushes the index of a kind over the images of all hosts.
    pub(super) fn push_index(
        &self,
        registry: &Registry<'_>,
        kind: ImageKind,
        images: &[&VerifiedImage<'_>],
        others: &OtherHosts,
        found: Option<&RemoteManifest>,
    ) -> Result<Vec<TagOutcome>> {
        let others = others.iter().filter(|(_, of, _)| *of == kind).map(|(host, _, found)| (*host, found));
        let mut all: Vec<_> =
            images.iter().map(|image| (image.image.host, &image.found)).chain(others).collect();
        // Sorted, so that the index does not depend on which machine pushes last.
        all.sort_by_key(|(host, _)| HOSTS.iter().position(|row| row == *host));
        let digests: Vec<&str> = all.iter().map(|(_, found)| found.digest()).collect();
        let platforms: BTreeMap<String, &str> = all.iter().flat_map(|(_, found)| found.platforms()).collect();
        let sizes: BTreeMap<&str, u64> = images.iter().flat_map(|image| image.sizes()).collect();
        let size = |digest: &str| sizes.get(digest).map_or_else(|| registry.size(digest), |&size| Ok(size));
        let annotations = self.release.labels(kind);
        let digest = registry.index_digest(&digests, &annotations)?;
        let version = kind.tag(&self.release.version);
        if let Some(found) = found.filter(|found| found.digest() != digest) {
            let has = found.platforms();
            match has.iter().all(|(platform, digest)| platforms.get(platform) == Some(digest)) {
                true if has.len() < platforms.len() => say(format_args!(
                    "adding {} platforms to the {} of {version}",
                    platforms.len() - has.len(),
                    has.len()
                )),
                _ => self.check_conflicts(&[describe_conflict(&version, found)])?,
            }
        }
        let verify = |tag: &str, found: &RemoteManifest, state| {
            check::verify_index(registry, tag, found, &platforms, size, state)
        };
        let ours = self.release.release_version();
        let moving = self.release.moving_tags(kind);
        let moving = moving.into_iter().map(|tag| anyhow::Ok((registry.find(&tag)?, tag)));
        let (mut rows, mut new) = (Vec::new(), Vec::new());
        for tag in std::iter::once(Ok((found.cloned(), version.clone()))).chain(moving) {
            match tag? {
                (Some(found), tag) if found.digest() == digest => {
                    rows.push(verify(&tag, &found, TagState::Unchanged)?);
                }
                (Some(found), tag) if tag != version && found.release() > ours && !self.args.force => {
                    rows.push(check::index_outcome(&tag, &found, Vec::new(), TagState::Newer));
                }
                (_, tag) => new.push(tag),
            }
        }
        if !new.is_empty() {
            registry.push_index(&new, &digests, &annotations)?;
        }
        for tag in new {
            rows.push(verify(&tag, &check::find(registry, &tag, &digest)?, TagState::Pushed)?);
        }
        Ok(rows)
    }
}
