//! `cargo xtask release`: everything that belongs to a release, in one directory.
//!
//! The directory gets its name when it is complete. Publishing it is a matter of a few commands, which are printed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{HOSTS, Host};
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use qus_core::release::ReleaseVersion;
use serde_json::{Value, json};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::exec::{self, is_installed, sh};
use crate::base::git::Checkout;
use crate::base::output::out;
use crate::base::progress::{Bar, say};
use crate::base::{cache, files, lock};
use crate::bundle::hosts::{self, HostArgs};
use crate::bundle::manifest;
use crate::ship::releasable::{self, Fault};
use crate::ship::tarballs::{self, PackedFile, Plan};

/// The namespace of signatures, so that none is valid for anything else.
const NAMESPACE: &str = "qus-release";

/// Assemble a release in a directory
///
/// Writes to target/qus/release/VERSION: the tarballs of all hosts that are built and their sources, install.sh,
/// SHA256SUMS, its signature, provenance, and notes from CHANGELOG.md. Refuses what is no release. Nothing is published:
/// the commands that do are printed.
#[derive(clap::Args)]
#[command(mut_arg("names", |arg| arg.help("Hosts, such as amd64,arm64v8 [default: all, none of which may be missing]")))]
pub(crate) struct Args {
    #[command(flatten)]
    hosts: HostArgs,
    /// Channel or version of QEMU of the release; 32-bit hosts may have an older version [default: the newest]
    #[arg(long, value_name = "CHANNEL|VERSION")]
    qemu: Option<String>,
    /// Sign SHA256SUMS with this SSH key, whose passphrase is asked for on a terminal
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Leave out the sources, which need the network and apt
    #[arg(long)]
    no_sources: bool,
    /// Assemble what is no release, for a test
    #[arg(long)]
    allow_dev: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let mut hosts = if args.hosts.is_given() { args.hosts.built(cx)? } else { hosts::built(cx).collect() };
    ensure!(
        !hosts.is_empty(),
        hinted("no host has a bundle", "`cargo xtask plan` lists the jobs that build them")
    );
    hosts.sort_by_key(|host| host.name);
    if let Some(key) = &args.sign {
        check_key(key)?;
    }
    let _locks = [lock::lock(cx.paths.cache())?, lock::lock(cx.paths.out())?];
    let mut plan = Plan::new(cx, &hosts, args.qemu.as_deref())?;
    let checkout = Checkout::read(cx.paths.root());
    let changelog = fs::read_to_string(cx.paths.root().join("CHANGELOG.md"))?;
    let notes = notes(&changelog, &plan.release);
    check(cx, args, &plan, &checkout, notes.is_some())?;
    if !args.no_sources {
        plan.add_sources(cx)?;
    }
    let dir = cx.paths.out().join("release").join(plan.release.to_string());
    fs::create_dir_all(dir.parent().context("a release has no parent directory")?)?;
    cache::publish(&dir, |partial| {
        let mut packed = tarballs::pack_into(partial, &plan.tarballs)?;
        packed.push(add(partial, "install.sh", &fs::read(cx.paths.images().join("install.sh"))?)?);
        let provenance = provenance(&plan, &checkout, &packed).to_string();
        packed.push(add(partial, "provenance.intoto.json", provenance.as_bytes())?);
        packed.sort_by(|a, b| a.file.cmp(&b.file));
        files::write(&partial.join(manifest::SUMS), tarballs::sums(&packed).as_bytes())?;
        // Not part of what is downloaded.
        files::write(&partial.join("NOTES.md"), notes.unwrap_or_default().as_bytes())?;
        args.sign.as_deref().map_or(Ok(()), |key| sign(key, &partial.join(manifest::SUMS)))
    })?;
    if args.sign.is_none() {
        say("note: SHA256SUMS is not signed; `--sign KEY` signs it with an SSH key");
    }
    out(&commands(&dir, &plan.release, &checkout))
}

/// Refuses what is no release.
fn check(cx: &Context, args: &Args, plan: &Plan, checkout: &Checkout, has_notes: bool) -> Result<()> {
    let Plan { release, bundles, .. } = plan;
    let mut faults = releasable::faults(cx, &bundles.iter().collect::<Vec<_>>(), checkout)?;
    let missing: Vec<_> =
        HOSTS.iter().filter(|host| !bundles.iter().any(|of| of.recipe.host == *host)).collect();
    if !missing.is_empty() && !args.hosts.is_given() {
        faults.push(Fault {
            what: format!("there are no bundles for {}", names(&missing)),
            hint: "build them: `cargo xtask plan` lists the jobs; or name hosts with --host".to_owned(),
        });
    }
    if !has_notes {
        faults.push(Fault {
            what: format!("CHANGELOG.md has no heading `## {release}`"),
            hint: "give `## Unreleased` this name".to_owned(),
        });
    }
    for Fault { what, hint } in faults {
        if !args.allow_dev {
            return Err(hinted(
                format!("this is no release: {what}"),
                format!("{hint}; --allow-dev assembles it nevertheless"),
            ));
        }
        say(format_args!("note: {what}; for a release, {hint}"));
    }
    Ok(())
}

fn names(hosts: &[&Host]) -> String {
    hosts.iter().map(|host| host.name).collect::<Vec<_>>().join(", ")
}

/// The text below the heading of a release.
fn notes(changelog: &str, release: &ReleaseVersion) -> Option<String> {
    let is_heading = |line: &&str| {
        line.strip_prefix("## ").is_some_and(|rest| rest.split(' ').next() == Some(&*release.to_string()))
    };
    let mut lines = changelog.lines().skip_while(|line| !is_heading(line));
    lines.next()?;
    let text: Vec<_> = lines.take_while(|line| !line.starts_with("## ")).collect();
    Some(text.join("\n").trim().to_owned() + "\n")
}

/// Writes a file of the release, and returns its name and checksum.
fn add(dir: &Path, name: &str, content: &[u8]) -> Result<PackedFile> {
    files::write(&dir.join(name), content)?;
    Ok(PackedFile { file: name.to_owned(), size: content.len() as u64, sha256: Sha256::of(content) })
}

/// A statement of what the files were built from: in-toto, with SLSA's predicate for provenance.
fn provenance(plan: &Plan, checkout: &Checkout, files: &[PackedFile]) -> Value {
    let Plan { release, bundles, .. } = plan;
    let subject = |of: &PackedFile| json!({ "name": of.file, "digest": { "sha256": of.sha256 } });
    let mut dependencies = vec![json!({
        "uri": checkout.origin.as_ref().map_or("git+file:.".to_owned(), |origin| format!("git+{origin}")),
        "digest": { "gitCommit": checkout.revision() },
    })];
    for bundle in bundles {
        let recipe = &bundle.recipe;
        dependencies.push(json!({
            "name": format!("qemu for {}", recipe.host),
            "uri": format!("pkg:generic/qemu@{}", recipe.qemu),
            "digest": { "sha256": recipe.source_sha256 },
        }));
        for line in &recipe.dependencies {
            let words: Vec<_> = line.split(' ').collect();
            if let (Some(name), Some(version), Some(sha256)) = (words.first(), words.get(1), words.last()) {
                dependencies.push(json!({
                    "name": format!("{name} {version} for {}", recipe.host), "digest": { "sha256": sha256 },
                }));
            }
        }
    }
    let hosts: Vec<_> = bundles.iter().map(|bundle| bundle.recipe.host.name).collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": files.iter().map(subject).collect::<Vec<_>>(),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://github.com/OWNER/qus/blob/main/docs/releasing.md",
                "externalParameters": { "release": release, "hosts": hosts },
                "resolvedDependencies": dependencies,
            },
            "runDetails": { "builder": { "id": "https://github.com/OWNER/qus/blob/main/xtask" } },
        },
    })
}

/// Refuses a key that cannot be used, before anything is packed.
fn check_key(key: &Path) -> Result<()> {
    ensure!(is_installed("ssh-keygen"), "ssh-keygen, which signs, is not installed");
    ensure!(key.is_file(), Usage(format!("there is no key {}", key.display())));
    Ok(())
}

/// Signs a file with an SSH key, next to it.
fn sign(key: &Path, file: &Path) -> Result<()> {
    let _bar = Bar::new("signing SHA256SUMS");
    let status = exec::interactive(cmd!(sh(), "ssh-keygen -q -Y sign -n {NAMESPACE} -f {key} {file}"))?;
    ensure!(status.success(), "ssh-keygen cannot sign with {}: it ended with {status}", key.display());
    Ok(())
}

/// The commands that publish a release, and that verify it.
fn commands(dir: &Path, release: &ReleaseVersion, checkout: &Checkout) -> String {
    let commit = checkout.revision().unwrap_or_else(|| "COMMIT".to_owned());
    let dir = dir.display();
    format!(
        "release {release} is in {dir}\n\nto publish it:\n  \
         git tag --sign v{release} {commit} --message 'qus {release}' && git push origin v{release}\n  \
         gh release create v{release} --verify-tag --title {release} --notes-file {dir}/NOTES.md \
         $(find {dir} -type f -not -name NOTES.md)\n  \
         cargo xtask images --host all --push --repo ghcr.io/OWNER/qus\n\
         to verify it:\n  \
         cd {dir} && sha256sum --check SHA256SUMS\n  \
         ssh-keygen -Y verify -n {NAMESPACE} -f ALLOWED_SIGNERS -I SIGNER -s SHA256SUMS.sig < SHA256SUMS\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_those_of_the_release() {
        let changelog = "# Changelog\n\n## Unreleased\n\nx\n\n## 10.2.2-12 - 2026-12-01\n\n- a\n\n### Fixed\n\n- b\n\n## 10.2.2-1\n\nc\n";
        let notes = |release: &str| super::notes(changelog, &release.parse().unwrap());
        assert_eq!(notes("10.2.2-12").as_deref(), Some("- a\n\n### Fixed\n\n- b\n"));
        assert_eq!(notes("10.2.2-1").as_deref(), Some("c\n"));
        assert_eq!(notes("10.2.2-2"), None);
    }

    #[test]
    fn the_provenance_names_files_and_commit() {
        let file = PackedFile { file: "a".to_owned(), size: 1, sha256: Sha256::of("a") };
        let checkout = Checkout { commit: Some("c0ffee".to_owned()), ..Checkout::default() };
        let plan = Plan { release: "10.2.2-1".parse().unwrap(), bundles: Vec::new(), tarballs: Vec::new() };
        let statement = provenance(&plan, &checkout, &[file]);
        assert_eq!(statement["subject"][0]["digest"]["sha256"], Sha256::of("a").to_string());
        let built = &statement["predicate"]["buildDefinition"];
        assert_eq!(built["resolvedDependencies"][0]["digest"]["gitCommit"], "c0ffee");
        assert_eq!(built["externalParameters"]["release"], "10.2.2-1");
    }
}
