//! Queries and changes a registry with `docker buildx imagetools`.
//!
//! Transient errors are retried a limited number of times.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qus_core::digest::Sha256;
use qus_core::release::ReleaseVersion;
use serde::Deserialize;
use serde_json::Value;
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::say;
use crate::engine::client::Client;
use crate::ship::images::fault::Fault;
use crate::ship::images::plan::{Labels, VERSION, split_repo};

/// The maximum number of attempts.
const ATTEMPTS: u32 = 4;

/// The limit in bytes on buildx's address space. buildx holds responses of any size in memory.
const MEMORY: u64 = 2 << 30;

/// The maximum delay in seconds that a registry can request.
const LONGEST_WAIT: u64 = 300;

/// A repository in a registry.
pub(super) struct Registry<'a> {
    pub(super) client: &'a Client,
    pub(super) builder: Option<&'a str>,
    pub(super) repo: &'a str,
}

/// The manifest or index of a tag in the registry.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RemoteManifest {
    manifest: Manifest,
    /// The image configuration; of an index, one for each platform.
    image: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Manifest {
    digest: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { os, architecture, variant } = self;
        write!(f, "{os}/{architecture}")?;
        variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl RemoteManifest {
    pub(super) fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// The digest of the image for each platform. An image without an index has its own digest.
    pub(super) fn platforms(&self) -> BTreeMap<String, &str> {
        let attestation = |platform: &Platform| platform.os == "unknown";
        let listed = self.manifest.manifests.iter().filter_map(|descriptor| {
            let platform = descriptor.platform.as_ref().filter(|platform| !attestation(platform))?;
            Some((platform.to_string(), &*descriptor.digest))
        });
        let mut platforms: BTreeMap<_, _> = listed.collect();
        if let (true, Some(image)) = (self.manifest.manifests.is_empty(), &self.image) {
            let field = |name: &str| image[name].as_str().unwrap_or_default();
            let variant = image["variant"].as_str().map(|variant| format!("/{variant}")).unwrap_or_default();
            platforms
                .insert(format!("{}/{}{variant}", field("os"), field("architecture")), &self.manifest.digest);
        }
        platforms
    }

    /// The release that it is of, for an index that of its first image.
    pub(super) fn release(&self) -> Option<ReleaseVersion> {
        let of_index =
            || self.image.as_ref()?.as_object()?.values().next()?["config"]["Labels"][VERSION].as_str();
        self.label(VERSION).or_else(of_index)?.parse().ok()
    }

    /// The configuration of a single-platform image.
    pub(super) fn configuration(&self) -> &Value {
        self.image.as_ref().unwrap_or(&Value::Null)
    }

    /// A label of a single-platform image.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.image.as_ref()?["config"]["Labels"][name].as_str()
    }
}

/// The parts of an image manifest that determine its download size.
#[derive(Deserialize)]
struct ImageParts {
    config: BlobDescriptor,
    layers: Vec<BlobDescriptor>,
}

impl ImageParts {
    /// The total size in bytes. A registry may report sizes that overflow.
    fn sum(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }
}

#[derive(Deserialize)]
struct BlobDescriptor {
    size: u64,
}

/// Reads a text as both kinds of manifests, and all that this program takes from them, for fuzzing.
pub(crate) fn inspect(text: &str) {
    if let Ok(found) = serde_json::from_str::<RemoteManifest>(text) {
        let _ = (found.digest(), found.platforms(), found.release(), found.label(VERSION));
    }
    let _ = serde_json::from_str::<ImageParts>(text).map(|parts| parts.sum());
}

impl Registry<'_> {
    /// The full reference of a tag.
    pub(super) fn name(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repo)
    }

    fn imagetools(&self, args: &[&str]) -> Result<String> {
        let builder: &[&str] = match &self.builder {
            Some(builder) => &["--builder", builder],
            None => &[],
        };
        let args = [&["buildx", "imagetools"], &args[..1], builder, &args[1..]].concat();
        exec::read_limited(self.client.cmd(&args), MEMORY)
    }

    /// The manifest of a tag; `None` if the registry does not have it.
    pub(super) fn find(&self, tag: &str) -> Result<Option<RemoteManifest>> {
        let name = self.name(tag);
        let found = self.retry(&format!("querying {name}"), || {
            match self.imagetools(&["inspect", "--format", "{{json .}}", &name]) {
                Err(error) if Fault::classify(&error.to_string()) == Fault::NotFound => Ok(None),
                output => output.map(Some),
            }
        })?;
        let Some(text) = found else { return Ok(None) };
        serde_json::from_str(&text).map(Some).with_context(|| format!("cannot parse the manifest of {name}"))
    }

    /// The manifest of a digest, as text.
    pub(super) fn raw(&self, digest: &str) -> Result<String> {
        let name = format!("{}@{digest}", self.repo);
        let manifest =
            self.retry(&format!("querying {name}"), || self.imagetools(&["inspect", "--raw", &name]))?;
        // buildx does not verify the manifest of a digest.
        let sent = format!("sha256:{}", Sha256::of(&manifest));
        ensure!(sent == digest, "the registry sent {sent} instead of {name}");
        Ok(manifest)
    }

    /// The download size of an image in bytes.
    pub(super) fn size(&self, digest: &str) -> Result<u64> {
        let parts: ImageParts = serde_json::from_str(&self.raw(digest)?)
            .with_context(|| format!("cannot parse the manifest {}@{digest}", self.repo))?;
        Ok(parts.sum())
    }

    /// The digest of an index over these digests.
    pub(super) fn index_digest(&self, digests: &[&str], annotations: &Labels) -> Result<String> {
        let index = self.create(&["--dry-run"], digests, annotations)?;
        Ok(format!("sha256:{}", Sha256::of(index.trim_end())))
    }

    /// Pushes an index over these digests under tags.
    pub(super) fn push_index(&self, tags: &[String], digests: &[&str], annotations: &Labels) -> Result<()> {
        let names: Vec<_> = tags.iter().map(|tag| self.name(tag)).collect();
        let options: Vec<_> = names.iter().flat_map(|name| ["--tag", name]).collect();
        self.create(&options, digests, annotations).map(drop)
    }

    fn create(&self, options: &[&str], digests: &[&str], annotations: &Labels) -> Result<String> {
        let mut args: Vec<String> = ["create"].iter().chain(options).map(|&arg| arg.to_owned()).collect();
        for (name, value) in annotations {
            args.extend(["--annotation".to_owned(), format!("index:{name}={value}")]);
        }
        args.extend(digests.iter().map(|digest| format!("{}@{digest}", self.repo)));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.retry("creating an index", || self.imagetools(&args))
    }

    /// Retries an operation after transient errors.
    ///
    /// # Errors
    /// The last error, with its cause and a hint.
    pub(super) fn retry<T>(&self, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match work() {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let fault = Fault::classify(&error.to_string());
            if !fault.is_transient() || attempt == ATTEMPTS {
                return Err(fault.explain(error, what, attempt, self.repo));
            }
            let requested = if fault.may_have_retry_after() { self.retry_after() } else { None };
            let reason = if requested.is_some() { ", as requested by the registry" } else { "" };
            let wait = requested.unwrap_or(1 << attempt).min(LONGEST_WAIT);
            say(format_args!(
                "{what}: {fault}; retrying in {wait} s{reason} (retry {attempt} of {})",
                ATTEMPTS - 1
            ));
            thread::sleep(Duration::from_secs(wait));
            attempt += 1;
        }
    }

    /// The registry's current `Retry-After` in seconds, which buildx does not report.
    fn retry_after(&self) -> Option<u64> {
        let host = split_repo(self.repo).0?;
        if !is_installed("curl") {
            return None;
        }
        let local = ["localhost", "127."].iter().any(|name| host.starts_with(name));
        let url = format!("{}://{host}/v2/", if local { "http" } else { "https" });
        let head = exec::read(cmd!(sh(), "curl --silent --max-time 20 --head {url}")).ok()?;
        let value = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("retry-after").then(|| value.trim().parse().ok()).flatten()
        };
        head.lines().find_map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_responses_do_not_panic() {
        let parts =
            r#"{ "config": { "size": 18446744073709551615 }, "layers": [{ "size": 1 }, { "size": 2 }] }"#;
        assert_eq!(serde_json::from_str::<ImageParts>(parts).unwrap().sum(), u64::MAX);
        assert!(serde_json::from_str::<ImageParts>(r#"{ "config": { "size": -1 }, "layers": [] }"#).is_err());
        let found = r#"{ "manifest": { "digest": "", "manifests": [] }, "image": ["no", "object"] }"#;
        let found: RemoteManifest = serde_json::from_str(found).unwrap();
        assert_eq!(found.label("x"), None);
        assert_eq!(found.platforms().keys().collect::<Vec<_>>(), ["/"]);
        assert_eq!(found.release(), None);
    }
}
