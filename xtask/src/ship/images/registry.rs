//! What a registry has, asked and told through `docker buildx imagetools`.
//!
//! Only what passes by itself is tried again, a bounded number of times.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qus_core::digest::Sha256;
use serde::Deserialize;
use serde_json::Value;
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::say;
use crate::engine::client::Client;
use crate::ship::images::fault::Fault;
use crate::ship::images::plan::Labels;

/// How often a thing is tried at most.
const ATTEMPTS: u32 = 4;

/// The address space that buildx gets to ask a registry, in bytes. It holds in memory what it is sent, however much.
const MEMORY: u64 = 2 << 30;

/// The longest that a registry may have us wait, in seconds.
const LONGEST_WAIT: u64 = 300;

/// A repository in a registry.
pub(super) struct Registry<'a> {
    pub(super) client: &'a Client,
    pub(super) builder: Option<&'a str>,
    pub(super) repo: &'a str,
}

/// What a tag or digest stands for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Found {
    manifest: Manifest,
    /// The configuration; of several platforms, one for each.
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

impl Found {
    pub(super) fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// The image for each platform, by digest. One that stands alone has its own digest.
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

    /// A label of an image that is for one platform.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.image.as_ref()?["config"]["Labels"][name].as_str()
    }
}

/// Size of an image as it is pulled, in bytes.
#[derive(Deserialize)]
struct Parts {
    config: Part,
    layers: Vec<Part>,
}

impl Parts {
    /// A registry may name sizes that no image has.
    fn sum(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }
}

#[derive(Deserialize)]
struct Part {
    size: u64,
}

impl Registry<'_> {
    /// The full name of a tag.
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

    /// What a tag or, with an `@` before it, a digest stands for; `None` if it is not there.
    pub(super) fn find(&self, tag: &str) -> Result<Option<Found>> {
        let name = match tag.starts_with('@') {
            true => format!("{}{tag}", self.repo),
            false => self.name(tag),
        };
        let found = self.patiently(&format!("asking for {name}"), || {
            match self.imagetools(&["inspect", "--format", "{{json .}}", &name]) {
                Err(error) if Fault::of(&error.to_string()) == Fault::NotFound => Ok(None),
                told => told.map(Some),
            }
        })?;
        let Some(text) = found else { return Ok(None) };
        serde_json::from_str(&text).map(Some).with_context(|| format!("what buildx tells of {name}"))
    }

    /// How much there is to pull of an image, in bytes.
    pub(super) fn size(&self, digest: &str) -> Result<u64> {
        let name = format!("{}@{digest}", self.repo);
        let told =
            self.patiently(&format!("asking for {name}"), || self.imagetools(&["inspect", "--raw", &name]))?;
        // Unlike a tag's, a digest's manifest is not verified by buildx.
        let sent = format!("sha256:{}", Sha256::of(&told));
        ensure!(sent == digest, "the registry sends {sent} instead of {name}");
        let parts: Parts = serde_json::from_str(&told).with_context(|| format!("the manifest {name}"))?;
        Ok(parts.sum())
    }

    /// The digest that an index over these digests has.
    pub(super) fn index_digest(&self, digests: &[&str], annotations: &Labels) -> Result<String> {
        let index = self.create(&["--dry-run"], digests, annotations)?;
        Ok(format!("sha256:{}", Sha256::of(index.trim_end())))
    }

    /// Has a tag stand for an index over these digests.
    pub(super) fn tag(&self, tag: &str, digests: &[&str], annotations: &Labels) -> Result<()> {
        self.create(&["--tag", &self.name(tag)], digests, annotations).map(drop)
    }

    fn create(&self, options: &[&str], digests: &[&str], annotations: &Labels) -> Result<String> {
        let mut args: Vec<String> = ["create"].iter().chain(options).map(|&arg| arg.to_owned()).collect();
        for (name, value) in annotations {
            args.extend(["--annotation".to_owned(), format!("index:{name}={value}")]);
        }
        args.extend(digests.iter().map(|digest| format!("{}@{digest}", self.repo)));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.patiently("making an index", || self.imagetools(&args))
    }

    /// Tries again what may pass by itself.
    ///
    /// # Errors
    /// The last one, with what it means and what to do.
    pub(super) fn patiently<T>(&self, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match work() {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let fault = Fault::of(&error.to_string());
            if !fault.passes() || attempt == ATTEMPTS {
                return Err(fault.explain(error, what, attempt, self.repo));
            }
            let told = if fault.may_tell_when() { self.retry_after() } else { None };
            let asked = if told.is_some() { ", as the registry asks" } else { "" };
            let wait = told.unwrap_or(1 << attempt).min(LONGEST_WAIT);
            say(format_args!(
                "{what}: {fault}; trying again in {wait} s{asked} ({attempt} of {} times)",
                ATTEMPTS - 1
            ));
            thread::sleep(Duration::from_secs(wait));
            attempt += 1;
        }
    }

    /// What the registry's `Retry-After` says now, in seconds: buildx does not pass it on.
    fn retry_after(&self) -> Option<u64> {
        let (host, _) = self.repo.split_once('/')?;
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
    fn what_a_registry_makes_up_is_no_reason_to_panic() {
        let parts =
            r#"{ "config": { "size": 18446744073709551615 }, "layers": [{ "size": 1 }, { "size": 2 }] }"#;
        assert_eq!(serde_json::from_str::<Parts>(parts).unwrap().sum(), u64::MAX);
        assert!(serde_json::from_str::<Parts>(r#"{ "config": { "size": -1 }, "layers": [] }"#).is_err());
        let found = r#"{ "manifest": { "digest": "", "manifests": [] }, "image": ["no", "object"] }"#;
        let found: Found = serde_json::from_str(found).unwrap();
        assert_eq!(found.label("x"), None);
        assert_eq!(found.platforms().keys().collect::<Vec<_>>(), ["/"]);
    }
}
