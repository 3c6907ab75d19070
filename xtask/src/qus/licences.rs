//! Collects the licence texts of `qus`: its own, those of its crates, of Rust's library and of the C library.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use serde::Deserialize;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::files;
use crate::bundle::licences::{self, Part};

/// `Cargo.lock`
#[derive(Deserialize)]
struct Lock {
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// What `cargo metadata` prints.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    /// None is in the workspace.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None is a normal one.
    kind: Option<String>,
}

/// Writes the licence of qus and those of its crates for a target, and returns these.
pub(crate) fn write_of_crates(cx: &Context, triple: &str, into: &Path) -> Result<Vec<Part>> {
    let own = into.join(concat!("qus-", env!("CARGO_PKG_VERSION")));
    licences::copy_from(cx.paths.root(), &own)?;
    let metadata = cmd!(sh(), "cargo metadata --locked --format-version 1 --filter-platform {triple}");
    let metadata = exec::read(metadata.in_dir(cx.paths.root()))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cannot parse cargo's metadata")?;
    let lock: Lock = toml::from_str(&fs::read_to_string(cx.paths.root().join("Cargo.lock"))?)?;
    let mut parts = vec![Part {
        name: "qus".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        purl: concat!("pkg:generic/qus@", env!("CARGO_PKG_VERSION")).to_owned(),
        licence: Some(env!("CARGO_PKG_LICENSE").to_owned()),
        sha256: None,
    }];
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked(&metadata)? {
        let dir = package.manifest_path.parent().context("a manifest without a directory")?;
        let names = licences::names(dir)?;
        let name = format!("{} {}", package.name, package.version);
        ensure!(!names.is_empty(), "the crate {name} has no licence text");
        // Old crates separate licences by a slash.
        let licence = package.license.as_ref().map(|licence| licence.replace('/', " OR "));
        let locked = lock.package.iter().find(|of| of.name == package.name && of.version == package.version);
        parts.push(Part {
            name: package.name.clone(),
            version: package.version.clone(),
            purl: format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B")),
            licence: licence.clone(),
            sha256: locked.and_then(|of| of.checksum.as_ref()?.parse().ok()),
        });
        let licence = licence.unwrap_or_else(|| "see below".to_owned());
        for file in names {
            let text = fs::read_to_string(dir.join(file))?.trim_end().to_owned();
            texts.entry(text).or_default().insert(format!("{name}: {licence}"));
        }
    }
    let all = licences::grouped("qus contains these crates:", &texts);
    files::write(&own.join("CRATES"), all.as_bytes())?;
    Ok(parts)
}

/// The crates that are linked into qus, which are not in the workspace.
fn linked(metadata: &Metadata) -> Result<Vec<&Package>> {
    let nodes: HashMap<_, _> = metadata.resolve.nodes.iter().map(|node| (&*node.id, node)).collect();
    let root =
        metadata.packages.iter().find(|package| package.name == "qus-core" && package.source.is_none());
    let mut queue = vec![&*root.context("cargo knows no qus-core")?.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if seen.insert(id) {
            let normal = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|of| of.kind.is_none());
            let node = nodes.get(id).with_context(|| format!("cargo does not resolve {id}"))?;
            queue.extend(node.deps.iter().filter(normal).map(|dependency| &*dependency.pkg));
        }
    }
    let is_linked = |package: &&Package| seen.contains(&*package.id) && package.source.is_some();
    Ok(metadata.packages.iter().filter(is_linked).collect())
}

/// Writes the licences of Rust's library, from where the compiler is installed, and returns it.
pub(crate) fn write_of_rust(sysroot: &Path, version: &str, into: &Path) -> Result<Part> {
    let part = into.join(format!("rust-{version}"));
    // Those of rustup, and of Debian's packages.
    for dir in ["share/doc/rust", "share/doc/rustc", "share/doc/rustc-web"] {
        let dir = sysroot.join(dir);
        if dir.is_dir() && !licences::names(&dir)?.is_empty() {
            for name in licences::names(&dir)? {
                // 14 MB for the compiler itself, of which nothing is in qus.
                if name != "COPYRIGHT.html" {
                    files::write(&part.join(&name), &fs::read(dir.join(&name))?)?;
                }
            }
            return Ok(Part {
                name: "rust".to_owned(),
                version: version.to_owned(),
                purl: format!("pkg:github/rust-lang/rust@{version}"),
                licence: Some("MIT OR Apache-2.0".to_owned()),
                sha256: None,
            });
        }
    }
    anyhow::bail!("there is no licence text of Rust in {}", sysroot.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_dependencies_are_linked() {
        let package = |name: &str, source: &str| {
            format!(
                r#"{{ "id": "{name}", "name": "{name}", "version": "1", "license": null, "manifest_path": "/{name}/Cargo.toml", "source": {source} }}"#
            )
        };
        let registry = "\"registry\"";
        let packages = [
            package("qus-core", "null"),
            package("a", registry),
            package("b", registry),
            package("dev", registry),
        ];
        let node = |name: &str, of: &str, kind: &str| {
            format!(
                r#"{{ "id": "{name}", "deps": [{{ "pkg": "{of}", "dep_kinds": [{{ "kind": {kind} }}] }}] }}"#
            )
        };
        let nodes = [
            node("qus-core", "a", "null"),
            node("a", "b", "null"),
            node("b", "dev", "\"dev\""),
            r#"{ "id": "dev", "deps": [] }"#.to_owned(),
        ];
        let json = format!(
            r#"{{ "packages": [{}], "resolve": {{ "nodes": [{}] }} }}"#,
            packages.join(","),
            nodes.join(",")
        );
        let metadata: Metadata = serde_json::from_str(&json).unwrap();
        let names: Vec<_> = linked(&metadata).unwrap().iter().map(|package| &*package.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
