//! Compares the images of a release with those that were built again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::{Arch, Host};
use qus_core::hint::hinted;
use serde_json::Value;

use crate::base::parallel;
use crate::engine::client::Client;
use crate::ship::images::plan::{ImageKind, REVISION};
use crate::ship::images::registry::{Registry, RemoteManifest};

/// The tags of a release's images in a repository, by the commit that each image was made from. This may be an older one
/// than that of the release, because an image with the same inputs is not pushed again.
///
/// # Errors
/// An image is missing, or was made from no commit.
pub(crate) fn tags_by_commit(
    client: &Client,
    repo: &str,
    version: &str,
    hosts: &[(&'static Host, Vec<&'static Arch>)],
) -> Result<BTreeMap<String, Vec<String>>> {
    let registry = Registry { client, builder: None, repo };
    let tags: Vec<String> = hosts
        .iter()
        .flat_map(|(host, guests)| {
            ImageKind::all(guests.iter().copied()).map(|kind| kind.host_tag(host, version))
        })
        .collect();
    let commits = parallel::map(&tags, |tag| {
        let image = find(&registry, tag)?;
        let commit = image.label(REVISION).unwrap_or("none");
        ensure!(
            commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{} was made from a checkout with changes, or without a commit: {commit}",
            registry.name(tag)
        );
        Ok(commit.to_owned())
    })?;
    let mut by_commit: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (commit, tag) in commits.into_iter().zip(tags) {
        by_commit.entry(commit).or_default().push(tag);
    }
    Ok(by_commit)
}

/// The first difference between the images that two repositories have under a tag; `None` if configurations and layers
/// are equal. Attestations, which say when and where an image was built, are not compared.
///
/// # Errors
/// One of them is missing, or is no image for one platform.
pub(crate) fn first_difference(client: &Client, repos: [&str; 2], tag: &str) -> Result<Option<String>> {
    let registries = repos.map(|repo| Registry { client, builder: None, repo });
    let images = [find(&registries[0], tag)?, find(&registries[1], tag)?];
    let digests = [digest(&images[0])?, digest(&images[1])?];
    if digests[0] == digests[1] {
        return Ok(None);
    }
    let manifest =
        |at: usize| -> Result<Value> { Ok(serde_json::from_str(&registries[at].raw(digests[at])?)?) };
    let [one, other] = &images;
    let difference = match difference(one.configuration(), other.configuration(), "") {
        Some(path) => format!("configuration{path} differs"),
        None => {
            format!("manifest{} differs", difference(&manifest(0)?, &manifest(1)?, "").unwrap_or_default())
        }
    };
    Ok(Some(difference))
}

fn find(registry: &Registry<'_>, tag: &str) -> Result<RemoteManifest> {
    let name = registry.name(tag);
    registry.find(tag)?.ok_or_else(|| {
        hinted(
            format!("there is no image {name}"),
            "--images needs the repository that the release was pushed to",
        )
    })
}

fn digest(image: &RemoteManifest) -> Result<&str> {
    let mut platforms = image.platforms().into_values();
    let digest = platforms.next().filter(|_| platforms.next().is_none());
    digest.with_context(|| format!("{} is no image for one platform", image.digest()))
}

/// The path of the first value, as in `/layers/0/digest`, that differs.
fn difference(one: &Value, other: &Value, path: &str) -> Option<String> {
    let child = |name: &str, one: &Value, other: Option<&Value>| {
        difference(one, other.unwrap_or(&Value::Null), &format!("{path}/{name}"))
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let added =
                other.keys().find(|name| !one.contains_key(*name)).map(|name| format!("{path}/{name}"));
            one.iter().find_map(|(name, value)| child(name, value, other.get(name))).or(added)
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut items = one.iter().zip(other).enumerate();
            items.find_map(|(at, (one, other))| child(&at.to_string(), one, Some(other)))
        }
        _ => (one != other).then(|| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_a_path() {
        let image = |label: &str, layers: &[&str]| {
            let labels = json!({ "a": 1, "b": label });
            json!({ "config": { "Labels": labels }, "rootfs": { "diff_ids": layers } })
        };
        let one = image("x", &["l", "m"]);
        let first = |other: &Value| difference(&one, other, "");
        assert_eq!(first(&one), None);
        assert_eq!(first(&image("y", &["l", "n"])).as_deref(), Some("/config/Labels/b"));
        assert_eq!(first(&image("x", &["l", "n"])).as_deref(), Some("/rootfs/diff_ids/1"));
        assert_eq!(first(&image("x", &["l"])).as_deref(), Some("/rootfs/diff_ids"));
        let mut more = one.clone();
        more["config"]["User"] = json!("0");
        assert_eq!(first(&more).as_deref(), Some("/config/User"));
        assert_eq!(difference(&more, &one, "").as_deref(), Some("/config/User"));
    }
}
