//! `sources.toml`: the releases of QEMU and where their source comes from.

use std::num::NonZeroU32;

use qus_core::digest::Sha256;
use qus_core::release::ReleaseVersion;
use semver::{Version, VersionReq};
use serde::Deserialize;

/// `sources.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    /// SPDX expression of QEMU's source.
    pub licence: String,
    /// Page that announces new releases.
    pub updates: String,
    /// Fingerprint of the key that signs releases.
    pub signing_key: String,
    /// The releases for 32-bit hosts.
    pub narrow_hosts: NarrowHosts,
    /// The releases.
    #[serde(rename = "release")]
    pub releases: Vec<Release>,
}

/// The releases for 32-bit hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NarrowHosts {
    /// The channel that is built unless another one is requested.
    pub channel: String,
    /// Versions that can be built, because they still support 32-bit hosts.
    pub versions: VersionReq,
}

/// A release of QEMU and its locations, of which it has at least one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// As in `10.2.2`.
    pub version: Version,
    /// A name for it: `default`, `lts`, `edge`.
    pub channel: String,
    /// Which release of qus with this version of QEMU is the current one, from 1.
    pub revision: NonZeroU32,
    /// The project's own archive.
    pub upstream: Option<Upstream>,
    /// Debian's repacked archive.
    pub debian: Option<DebianArchive>,
}

/// An archive at a fixed address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Address of the `.tar.xz`.
    pub url: String,
    /// Checksum of the archive.
    pub sha256: Sha256,
    /// In bytes, where known.
    pub size: Option<u64>,
    /// How the hash was confirmed.
    pub verified: String,
}

/// An archive in a Debian source package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianArchive {
    /// The suite whose source index lists it.
    pub suite: String,
    /// Version of the source package.
    pub version: String,
    /// Name of the original archive.
    pub file: String,
    /// Checksum of the archive.
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
    /// How the hash was confirmed.
    pub verified: String,
}

/// A hash and file name that an archive of a release may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin<'a> {
    /// `upstream` or `Debian`.
    pub origin: &'static str,
    /// File name.
    pub file: &'a str,
    /// Checksum of the archive.
    pub sha256: Sha256,
    /// In bytes, if it is known.
    pub size: Option<u64>,
}

impl Pin<'_> {
    /// No archive of QEMU has this size, in bytes.
    const TOO_LARGE: u64 = 1 << 30;

    /// The largest size that the archive can have, in bytes.
    pub fn limit(&self) -> u64 {
        self.size.unwrap_or(Self::TOO_LARGE)
    }
}

impl Release {
    /// The version of qus's release.
    pub fn release_version(&self) -> ReleaseVersion {
        ReleaseVersion { qemu: self.version.clone(), revision: self.revision.get() }
    }

    /// Every archive of this release, in order of preference.
    pub fn pins(&self) -> impl Iterator<Item = Pin<'_>> {
        let upstream = self.upstream.iter().map(|upstream| Pin {
            origin: "upstream",
            file: upstream.url.rsplit('/').next().unwrap_or(&upstream.url),
            sha256: upstream.sha256,
            size: upstream.size,
        });
        let debian = self.debian.iter().map(|debian| Pin {
            origin: "Debian",
            file: &debian.file,
            sha256: debian.sha256,
            size: Some(debian.size),
        });
        upstream.chain(debian)
    }
}

impl Sources {
    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let mut check = |ok: bool, finding: &dyn Fn() -> String| {
            if !ok {
                findings.push(finding());
            }
        };
        let key = &self.signing_key;
        check(key.len() == 40 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), &|| {
            format!("signing-key {key}: not a fingerprint")
        });
        let NarrowHosts { channel, versions } = &self.narrow_hosts;
        match self.releases.iter().find(|release| release.channel == *channel) {
            None => check(false, &|| format!("narrow-hosts: no release has the channel {channel}")),
            Some(release) => check(versions.matches(&release.version), &|| {
                format!("narrow-hosts: {} is not in {versions}", release.version)
            }),
        }
        for release in &self.releases {
            let version = &release.version;
            let same = |other: &&Release| other.channel == release.channel || other.version == *version;
            check(self.releases.iter().filter(same).count() == 1, &|| {
                format!("{version}: duplicate version or channel {}", release.channel)
            });
            check(release.pins().next().is_some(), &|| format!("{version}: no location"));
            for pin in release.pins() {
                let named = pin.file.contains(&version.to_string());
                check(named, &|| format!("{version}, {}: file of another version", pin.origin));
            }
            for url in release.upstream.iter().map(|upstream| &upstream.url) {
                check(url.starts_with("https://"), &|| format!("{version}: {url} is not https"));
            }
        }
        findings
    }
}
