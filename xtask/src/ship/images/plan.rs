//! The images and their tags, derived from the table of architectures.
//!
//! An image is for one host. An index combines the images of a kind for all hosts. Tags with a release, as in `10.2.2-1`,
//! are fixed. Others move to each new release: `10.2.2`, `10.2`, and those of channels, such as `latest`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use qus_core::arch::{Arch, Host};
use semver::Version;
use serde_json::{Value, json};

use crate::base::error::Usage;

/// The kind of an image, which determines its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    /// The emulators.
    Pkg,
    /// The program.
    Register,
    /// Both.
    Full,
    /// The program and one emulator.
    Guest(&'static Arch),
}

impl ImageKind {
    /// The kinds of a host's images, in their order.
    pub(super) fn all(guests: impl Iterator<Item = &'static Arch>) -> impl Iterator<Item = Self> {
        [Self::Pkg, Self::Register, Self::Full].into_iter().chain(guests.map(Self::Guest))
    }

    /// The target of the bake file from which the image's target inherits.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Pkg => "pkg",
            Self::Register => "register",
            Self::Full => "full",
            Self::Guest(_) => "guest",
        }
    }

    /// The value of `org.opencontainers.image.title`.
    pub(super) fn title(self) -> String {
        match self {
            Self::Pkg => "QEMU's user-mode emulators, static".to_owned(),
            Self::Register => "qus, without emulators".to_owned(),
            Self::Full => "qus, with all emulators".to_owned(),
            Self::Guest(arch) => format!("qus, with the emulator of {arch}"),
        }
    }

    pub(super) fn has_program(self) -> bool {
        self != Self::Pkg
    }

    /// The tag of the image for one host.
    pub(super) fn host_tag(self, host: &Host, version: &str) -> String {
        match self {
            Self::Full => format!("{host}-{version}"),
            kind => format!("{host}-{version}-{kind}"),
        }
    }

    /// The tag of the index over all hosts. The version comes first, because a tag that begins with a guest's name
    /// could be confused with an image of the host of the same name.
    pub(super) fn tag(self, version: &str) -> String {
        match self {
            Self::Full => version.to_owned(),
            kind => format!("{version}-{kind}"),
        }
    }

    /// The tags of the index that move: to each release with a version of QEMU, with a minor version, of a channel.
    pub(super) fn moving_tags(self, qemu: &Version, channel: &str) -> Vec<String> {
        let mut names = vec![qemu.to_string(), format!("{}.{}", qemu.major, qemu.minor), channel.to_owned()];
        let is_default = channel == "default";
        if is_default {
            names.push("latest".to_owned());
        }
        let tags = names.iter().map(|name| self.tag(name));
        let short = matches!(self, Self::Pkg | Self::Register).then(|| self.to_string());
        tags.chain(short.filter(|_| is_default)).collect()
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Guest(arch) => arch.name,
            kind => kind.target(),
        })
    }
}

/// The label with the hash of an image's inputs.
pub(super) const INPUTS: &str = "qus.inputs";

/// The label with the guests of an image that has all of its host, separated by spaces.
pub(super) const GUESTS: &str = "qus.guests";

/// The label with the release, or the value of --tag.
pub(super) const VERSION: &str = "org.opencontainers.image.version";

/// The label with the commit.
pub(super) const REVISION: &str = "org.opencontainers.image.revision";

/// Labels and annotations: `org.opencontainers.image.*` and `qus.*`.
pub(super) type Labels = BTreeMap<&'static str, String>;

/// An image of one host and its inputs.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) host: &'static Host,
    pub(super) kind: ImageKind,
    pub(super) tag: String,
    /// Build contexts by name: directories.
    pub(super) contexts: BTreeMap<&'static str, PathBuf>,
    pub(super) labels: Labels,
}

impl Image {
    /// The name of its target in the bake file.
    pub(super) fn target(&self) -> String {
        format!("{}-{}", self.host, self.kind)
    }
}

/// Every kind once, in the order of the images.
pub(super) fn kinds(images: &[Image]) -> Vec<ImageKind> {
    let mut kinds: Vec<ImageKind> = Vec::new();
    for image in images {
        if !kinds.contains(&image.kind) {
            kinds.push(image.kind);
        }
    }
    kinds
}

/// The bake file's targets for these images.
pub(super) fn bake(
    images: &[&Image],
    tags: impl Fn(&Image) -> Vec<String>,
    output: &str,
    attest: &[String],
    annotate: bool,
) -> Value {
    let target = |image: &&Image| {
        let annotations = |level: &str| {
            image.labels.iter().map(|(name, value)| format!("{level}:{name}={value}")).collect()
        };
        let annotations: Vec<String> = if annotate { annotations("manifest") } else { Vec::new() };
        let target = json!({
            "inherits": [image.kind.target()],
            "platforms": [format!("linux/{}", image.host.platform)],
            "contexts": image.contexts,
            "labels": image.labels,
            "annotations": annotations,
            "tags": tags(image),
            "output": [output],
            "attest": attest,
        });
        (image.target(), target)
    };
    let targets: serde_json::Map<_, _> = images.iter().map(target).collect();
    let names: Vec<_> = targets.keys().cloned().collect();
    json!({ "group": { "default": { "targets": names } }, "target": targets })
}

/// Splits a repository into its registry and its path. As for docker, the first component is a registry only if it looks
/// like a host name; without one, the registry is Docker Hub.
pub(crate) fn split_repo(repo: &str) -> (Option<&str>, &str) {
    match repo.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, repo),
    }
}

/// Refuses names that are not valid for a repository.
pub(crate) fn check_repo(repo: &str) -> Result<()> {
    let (registry, path) = split_repo(repo);
    let bad = |why: &str| Usage(format!("`{repo}` is not a valid repository: {why}"));
    ensure!(
        !path.chars().any(char::is_uppercase),
        bad(&format!("repository names must be lowercase; did you mean {}?", repo.to_lowercase()))
    );
    ensure!(!path.rsplit('/').next().unwrap_or_default().contains([':', '@']), bad("use --tag for the tag"));
    ensure!(
        path.split('/').all(is_component) && registry.is_none_or(is_registry),
        bad("expected a name such as ghcr.io/example/qus")
    );
    Ok(())
}

/// Whether docker accepts a component of a repository's path: words with a dot, one or two underscores, or dashes
/// between them.
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = component.split(is_word).filter(|separator| !separator.is_empty());
    let between =
        |separator: &str| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-');
    component.starts_with(is_word) && component.ends_with(is_word) && separators.all(between)
}

/// Whether docker accepts the address of a registry: a host name or an IPv6 address in brackets, and a port.
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_label = |label: &str| {
        let ends = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(ends) && label.ends_with(ends) && label.chars().all(|c| ends(c) || c == '-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(|port| port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Refuses tags that are invalid or, with the added host and kind, too long.
pub(crate) fn check_tag(tag: &str) -> Result<()> {
    /// The maximum of 128 characters without the longest host and kind.
    const MAX_LENGTH: usize = 128 - "microblazeel-".len() * 2;
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = tag.starts_with(first) && tag.chars().all(|c| word(c) || c == '_') && tag.len() <= MAX_LENGTH;
    ensure!(
        fits,
        Usage(format!(
            "`{tag}` is not a valid tag: use at most {MAX_LENGTH} letters, digits, `_`, `.` and `-`, and do not begin \
             with `.` or `-`"
        ))
    );
    Ok(())
}

/// The directory of an image's staged emulators, below the directory of its host.
pub(super) fn emulators_dir(kind: ImageKind, host_dir: &Path) -> PathBuf {
    match kind {
        ImageKind::Guest(arch) => host_dir.join("guests").join(arch.name),
        _ => host_dir.join("emulators"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::arch::{ARCHES, HOSTS};
    use std::collections::BTreeSet;

    #[test]
    fn tags_are_unique() {
        let mut seen = BTreeSet::new();
        for kind in ImageKind::all(ARCHES.iter()) {
            let hosts = HOSTS.iter().map(|host| kind.host_tag(host, "10.2.2-1"));
            let moving = [("default", 2), ("lts", 0)]
                .into_iter()
                .flat_map(|(channel, minor)| kind.moving_tags(&Version::new(10, minor, 13), channel));
            for tag in hosts.chain(moving).chain([kind.tag("10.2.2-1")]) {
                check_tag(&tag).unwrap();
                assert!(seen.insert(tag.clone()), "{tag} twice");
            }
        }
    }

    #[test]
    fn tags_follow_the_documented_scheme() {
        let host: &Host = "arm64".parse().unwrap();
        assert_eq!(ImageKind::Full.host_tag(host, "1"), "arm64v8-1");
        assert_eq!(ImageKind::Pkg.host_tag(host, "1"), "arm64v8-1-pkg");
        assert_eq!(ImageKind::Guest("s390x".parse().unwrap()).tag("1"), "1-s390x");
        assert_eq!(ImageKind::Register.tag("1"), "1-register");
        let moving = |kind: ImageKind, channel| kind.moving_tags(&Version::new(10, 2, 2), channel).join(" ");
        assert_eq!(moving(ImageKind::Full, "default"), "10.2.2 10.2 default latest");
        assert_eq!(moving(ImageKind::Full, "lts"), "10.2.2 10.2 lts");
        assert_eq!(moving(ImageKind::Pkg, "default"), "10.2.2-pkg 10.2-pkg default-pkg latest-pkg pkg");
        assert_eq!(moving(ImageKind::Guest("arm".parse().unwrap()), "lts"), "10.2.2-arm 10.2-arm lts-arm");
    }

    #[test]
    fn repositories_are_validated() {
        for repo in
            ["qus", "localhost:5000/qus", "ghcr.io/some-body/qus", "127.0.0.1:5000/a/b_c", "some/body"]
        {
            check_repo(repo).unwrap();
        }
        let message = |repo| check_repo(repo).unwrap_err().to_string();
        assert!(message("ghcr.io/Some/qus").contains("did you mean ghcr.io/some/qus?"));
        assert!(message("qus:latest").contains("--tag"));
        for repo in ["[::1]:5000/a", "a--b/c__d.e"] {
            check_repo(repo).unwrap();
        }
        for repo in [
            "",
            "a//b",
            "-a",
            "a b",
            "https://x/y",
            "ghcr.io/",
            "./a",
            "-x.io/a",
            ":/a",
            "x.io:/a",
            "x.io:port/a",
            "x.io:+1/a",
            "a..b",
            "a._b",
            "a___b",
            "[::g]/a",
        ] {
            assert!(check_repo(repo).is_err(), "{repo}");
        }
    }

    #[test]
    fn only_host_names_are_registries() {
        for (repo, registry) in [
            ("ghcr.io/a/b", Some("ghcr.io")),
            ("localhost/a", Some("localhost")),
            ("registry:5000/a", Some("registry:5000")),
            ("some/body", None),
            ("qus", None),
        ] {
            assert_eq!(split_repo(repo).0, registry, "{repo}");
        }
    }

    #[test]
    fn tags_are_validated() {
        for tag in ["", ".a", "-a", "a/b", "a b", "a:b", &"x".repeat(103)] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
        check_tag("10.2.2-1_x").unwrap();
    }
}
