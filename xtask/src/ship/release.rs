//! `cargo xtask release`: everything that belongs to a release, in one directory.
//!
//! The directory gets its name when it is complete. Publishing it is a matter of a few commands, which are printed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{HOSTS, Host};
use qus_core::digest::Sha256;
use qus_core::hint::{WithHint as _, hinted};
use qus_core::release::ReleaseVersion;
use serde_json::{Value, json};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::git::Checkout;
use crate::base::output::out;
use crate::base::progress::say;
use crate::base::tarball::TarballEntry;
use crate::base::{cache, files, lock};
use crate::bundle::hosts::{self, HostArgs};
use crate::bundle::manifest;
use crate::qemu::pgo;
use crate::qemu::sysroot::kept;
use crate::ship::images::plan::check_repo;
use crate::ship::publish::Publication;
use crate::ship::releasable::{self, Fault};
use crate::ship::sign::{self, NAMESPACE, Signer};
use crate::ship::tarballs::{self, PackedFile, Plan, PlannedFile};
use crate::ship::verify;
use crate::ship::verify::released::{self, NOTES, PROVENANCE, packed_name};

/// Assemble a release in a directory
///
/// Writes to target/qus/release/VERSION: the tarballs and packages of all hosts that are built, their sources, and what is
/// needed to build them again; install.sh, SHA256SUMS, its signature, provenance, and notes from CHANGELOG.md. Refuses
/// what is no release. Nothing is published without --publish. With --verify, builds a release again and compares.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("with images").args(["publish", "verify"]))]
#[command(mut_arg("names", |arg| arg.help("Hosts, such as amd64,arm64v8 [default: all, none of which may be missing]")))]
pub(crate) struct Args {
    #[command(flatten)]
    hosts: HostArgs,
    /// Channel or version of QEMU of the release; 32-bit hosts may have an older version [default: the newest]
    #[arg(long, value_name = "CHANNEL|VERSION")]
    qemu: Option<String>,
    /// Sign SHA256SUMS with this key of SSH, minisign or cosign, whose passphrase is asked for on a terminal; with one of
    /// cosign, also the images (repeatable)
    #[arg(long, value_name = "FILE")]
    sign: Vec<PathBuf>,
    /// Leave out the sources, which need the network and apt
    #[arg(long)]
    no_sources: bool,
    /// Assemble what is no release, for a test
    #[arg(long)]
    allow_dev: bool,
    /// Publish the release: a draft on GitHub is filled and read back, images are pushed, and then it becomes public
    #[arg(long, requires = "images", conflicts_with = "allow_dev")]
    publish: bool,
    /// Repository of the images, such as ghcr.io/example/qus; --publish without images needs `none`
    #[arg(long, value_name = "REPO", requires = "with images")]
    images: Option<String>,
    /// Publish the directory of an earlier run; what has been published is not repeated
    #[arg(long, requires = "publish")]
    resume: bool,
    /// Publish without a signature, when the files have attestations
    #[arg(long, requires = "publish")]
    unsigned: bool,
    /// Build the release in this directory again, from its commit and the packages that it keeps, and compare all files;
    /// with --images, also the images
    #[arg(long, value_name = "DIR", conflicts_with_all = ["names", "qemu", "sign", "no_sources", "allow_dev"])]
    verify: Option<PathBuf>,
}

/// Files of bundles with which emulators can be built again.
const TO_BUILD_AGAIN: [&str; 2] = [pgo::FILE, kept::FILE];

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let images = args.images.as_deref().filter(|images| *images != "none");
    images.map_or(Ok(()), check_repo)?;
    if let Some(dir) = &args.verify {
        return verify::verify(cx, dir, images);
    }
    let signers = args.sign.iter().map(|key| Signer::new(key)).collect::<Result<Vec<_>>>()?;
    let checkout = Checkout::read(cx.paths.root());
    let (release, dir) = assemble(cx, args, &checkout, &signers)?;
    if !args.publish {
        return out(&commands(&dir, &release, &checkout));
    }
    let keys: Vec<_> = signers.iter().filter_map(Signer::image_key).collect();
    publish(cx, args, &checkout, &release, &dir, images.map(|repo| (repo, &*keys)))
}

/// Assembles the release, unless it is resumed, and returns its directory.
fn assemble(
    cx: &Context,
    args: &Args,
    checkout: &Checkout,
    signers: &[Signer],
) -> Result<(ReleaseVersion, PathBuf)> {
    let mut hosts = if args.hosts.is_given() { args.hosts.built(cx)? } else { hosts::built(cx).collect() };
    ensure!(
        !hosts.is_empty(),
        hinted("no host has a bundle", "`cargo xtask plan` lists the jobs that build them")
    );
    hosts.sort_by_key(|host| host.name);
    let _locks = [lock::lock(cx.paths.cache())?, lock::lock(cx.paths.out())?];
    let mut plan = Plan::new(cx, &hosts, args.qemu.as_deref())?;
    let release = plan.release.clone();
    let dir = cx.paths.out().join("release").join(release.to_string());
    if args.resume && dir.exists() {
        released::check_commit(&dir, checkout)?;
        return Ok((release, dir));
    }
    let changelog = fs::read_to_string(cx.paths.root().join("CHANGELOG.md"))?;
    let notes = notes(&changelog, &release);
    check(cx, args, &plan, checkout, notes.is_some())?;
    plan.add_packages(cx)?;
    if !args.no_sources {
        plan.add_sources(cx)?;
    }
    fs::create_dir_all(dir.parent().context("a release has no parent directory")?)?;
    cache::publish(&dir, |partial| {
        let mut packed = tarballs::pack_into(partial, &plan.files)?;
        packed.push(add(partial, "install.sh", &fs::read(cx.paths.images().join("install.sh"))?)?);
        for bundle in &plan.bundles {
            let host = bundle.recipe.host;
            let (name, list) = list_of_bundle(&plan.files, &release, host)?;
            packed.push(add(partial, &name, list.as_bytes())?);
            for file in TO_BUILD_AGAIN {
                let from = cx.paths.bundle(host).join(file);
                if from.exists() {
                    packed.push(add(partial, &packed_name(file, &release, host.name), &fs::read(from)?)?);
                }
            }
        }
        let provenance = provenance(&plan, checkout, &packed).to_string();
        packed.push(add(partial, PROVENANCE, provenance.as_bytes())?);
        packed.sort_by(|a, b| a.file.cmp(&b.file));
        files::write(&partial.join(manifest::SUMS), tarballs::sums(&packed).as_bytes())?;
        files::write(&partial.join(NOTES), notes.unwrap_or_default().as_bytes())?;
        signers.iter().try_for_each(|signer| signer.sign(&partial.join(manifest::SUMS)))
    })?;
    if signers.is_empty() {
        say("note: SHA256SUMS is not signed; `--sign KEY` signs it with a key of SSH, minisign or cosign");
    }
    Ok((release, dir))
}

/// Publishes the directory, and the images of all hosts in a repository, signed with keys.
fn publish(
    cx: &Context,
    args: &Args,
    checkout: &Checkout,
    release: &ReleaseVersion,
    dir: &Path,
    images: Option<(&str, &[&Path])>,
) -> Result<()> {
    let is_signed = sign::is_signed(&dir.join(manifest::SUMS));
    ensure!(
        is_signed || args.unsigned,
        hinted("the release is not signed", "sign it with --sign KEY, or publish it with --unsigned")
    );
    let gh = which::which("gh").context("gh, which publishes, is not installed");
    let gh = gh.hint("publish it with the commands that are printed without --publish")?;
    let commit = checkout.commit.as_deref().context("git knows no commit of this directory")?;
    let publication = Publication { gh, root: cx.paths.root(), dir, release: release.to_string(), commit };
    let push_images = || {
        let Some((repo, keys)) = images else { return Ok(()) };
        let sign = keys.iter().flat_map(|key| [Path::new("--sign"), key]);
        let push = cmd!(sh(), "cargo xtask images --host all --push --repo {repo} {sign...}");
        let status = exec::interactive(push)?;
        ensure!(status.success(), "the images cannot be pushed: cargo xtask images ended with {status}");
        Ok(())
    };
    let state = if publication.run(push_images)? { "published" } else { "already published" };
    say(format_args!("{state}: release {release}"));
    Ok(())
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

/// The name and text of the list with the checksums of all files of a bundle, which `qus self verify` reads.
fn list_of_bundle(
    planned: &[PlannedFile],
    release: &ReleaseVersion,
    host: &Host,
) -> Result<(String, String)> {
    let top = format!("qus-bundle_{release}_{host}");
    let tarball = planned.iter().find(|file| file.name().starts_with(&format!("{top}.")));
    let entries = tarball.with_context(|| format!("there is no {top}"))?.entries();
    let line = |entry: &TarballEntry| {
        Some(format!("{}  {}\n", entry.sha256, entry.path.strip_prefix(&top)?.strip_prefix('/')?))
    };
    Ok((format!("{top}.sha256"), entries.iter().filter_map(line).collect()))
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

/// The commands that publish a release, and that verify it.
fn commands(dir: &Path, release: &ReleaseVersion, checkout: &Checkout) -> String {
    let commit = checkout.revision().unwrap_or_else(|| "COMMIT".to_owned());
    let dir = dir.display();
    format!(
        "release {release} is in {dir}\n\nto publish it, `cargo xtask release --resume --publish --images ghcr.io/OWNER/qus`, or:\n  \
         git tag --sign v{release} {commit} --message 'qus {release}' && git push origin v{release}\n  \
         gh release create v{release} --verify-tag --title {release} --notes-file {dir}/{NOTES} \
         $(find {dir} -type f -not -name {NOTES})\n  \
         cargo xtask images --host all --push --repo ghcr.io/OWNER/qus\n\
         to verify it:\n  \
         cd {dir} && sha256sum --check SHA256SUMS\n  \
         ssh-keygen -Y verify -n {NAMESPACE} -f ALLOWED_SIGNERS -I SIGNER -s SHA256SUMS.sig < SHA256SUMS\n  \
         cargo xtask release --verify {dir} --images ghcr.io/OWNER/qus\n"
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
        let plan = Plan { release: "10.2.2-1".parse().unwrap(), bundles: Vec::new(), files: Vec::new() };
        let statement = provenance(&plan, &checkout, &[file]);
        assert_eq!(statement["subject"][0]["digest"]["sha256"], Sha256::of("a").to_string());
        let built = &statement["predicate"]["buildDefinition"];
        assert_eq!(built["resolvedDependencies"][0]["digest"]["gitCommit"], "c0ffee");
        assert_eq!(built["externalParameters"]["release"], "10.2.2-1");
    }
}
