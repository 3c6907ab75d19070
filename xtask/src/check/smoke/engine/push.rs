//! Checks pushing images: all kinds, again, with different content, and with other compression.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use qus_core::arch::{ARCHES, Host};
use qus_core::bundle::{Bundle, Profile, Recipe};
use serde_json::Value;

use crate::base::error::Usage;
use crate::base::files;
use crate::bundle::manifest;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture, digests};

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check(
        "without Docker: a throwaway engine pushes all kinds; a repeated push changes no digest",
        all_kinds,
    )?;
    checks.check("pushed images: indexes, labels, provenance, sizes", contents)?;
    checks.check("images contain the licences and bills of materials of their parts", licences)?;
    checks.check("a tag with different content is moved only with --force", tags_immutable)?;
    checks.check(
        "a second release with the same QEMU: fixed tags stay, others move, and never back",
        second_release,
    )?;
    checks.check("the dev profile and hosts with other guests are refused", not_for_a_release)?;
    checks.check("layers as gzip, for engines that do not read zstd", gzip)
}

fn all_kinds(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("qus");
    let push = || {
        fixture.kernel.run(fixture.xtask_without_docker(
            &fixture.target,
            &["images", "--push", "--allow-dev", "--repo", &repo, "--json"],
        )?)
    };
    let first = push()?;
    let stderr = first.stderr.clone();
    let first = first.succeeds()?;
    ensure!(
        stderr.contains("using a throwaway engine, because the installed one cannot be used"),
        "the throwaway engine is not reported: {stderr}"
    );
    let pushed = digests(&first)?;
    // An image and an index for each kind, and four moving tags; two kinds have a short tag, too.
    let kinds = 3 + ARCHES.len();
    ensure!(pushed.len() == kinds * (2 + 4) + 2, "{} tags: {:?}", pushed.len(), pushed.keys());
    let second = push()?.succeeds()?;
    ensure!(digests(&second)? == pushed, "the second push changed digests");
    ensure!(!second.contains("\"pushed\""), "something was pushed again: {second}");
    Ok(())
}

fn contents(fixture: &EngineFixture<'_>) -> Result<()> {
    let name = fixture.full_image()?;
    let repo = fixture.repo("qus");
    let (qemu, version) = (bundle_version(fixture)?, release(fixture)?);
    let index = fixture.inspect(&format!("{repo}:{version}"))?;
    let manifests = index["manifest"]["manifests"].as_array().context("it is not an index")?;
    let platforms: Vec<_> =
        manifests.iter().filter_map(|manifest| manifest["platform"]["architecture"].as_str()).collect();
    ensure!(platforms.contains(&"unknown") && platforms.len() == 2, "no attestation: {platforms:?}");
    ensure!(
        fixture.inspect(&name)?["manifest"]["digest"] == index["manifest"]["digest"],
        "latest is not the image of {version}"
    );
    let labels = &index["image"]["config"]["Labels"];
    let expected = [
        ("org.opencontainers.image.version", version.as_str()),
        ("org.opencontainers.image.title", "qus, with all emulators"),
        ("qus.qemu", qemu.as_str()),
    ];
    for (label, value) in expected {
        ensure!(labels[label] == value, "{label} is {}", labels[label]);
    }
    ensure!(
        labels["org.opencontainers.image.licenses"].as_str().is_some_and(|text| text.contains("GPL-2.0")),
        "no licence"
    );
    ensure!(
        index["manifest"]["annotations"]["org.opencontainers.image.version"] == *version,
        "no annotation"
    );
    let provenance = ["buildx", "imagetools", "inspect", "--format", "{{json .Provenance}}", &name];
    let provenance = fixture.docker(&provenance)?.succeeds()?;
    ensure!(provenance.contains("mobyproject.org/buildkit"), "no provenance: {provenance}");
    for path in [fixture.kernel.cx.paths.root(), fixture.kernel.cx.paths.cache(), &fixture.target] {
        let path = path.to_string_lossy();
        ensure!(!provenance.contains(&*path), "the provenance contains {path}");
    }
    // All kinds share one layer with the program and one with the emulators.
    let layers = |tag: &str| -> Result<Vec<Value>> {
        let layers = &fixture.inspect(&format!("{repo}:{tag}"))?["image"]["rootfs"]["diff_ids"];
        Ok(layers.as_array().context("no layers")?.clone())
    };
    let full = layers("latest")?;
    ensure!([layers("register")?, layers("pkg")?].concat() == full, "kinds do not share their layers");
    ensure!(
        layers(&format!("{version}-aarch64"))?.first() == full.first(),
        "the image of one guest has another program"
    );
    Ok(())
}

fn licences(fixture: &EngineFixture<'_>) -> Result<()> {
    fixture.full_image()?;
    let qemu = format!("qemu-{}", bundle_version(fixture)?);
    let parts = |tag: &str| -> Result<Vec<String>> {
        let (name, dir) = (format!("licences-{tag}"), fixture.path("licences").join(tag));
        fs::create_dir_all(&dir)?;
        // Its command is not run.
        let image = format!("{}:{tag}", fixture.repo("qus"));
        fixture.docker(&["create", "--quiet", "--name", &name, &image, "none"])?.succeeds()?;
        let from = format!("{name}:/usr/share");
        fixture.docker(&["cp", "--quiet", &from, &dir.to_string_lossy()])?.succeeds()?;
        fixture.docker(&["rm", &name])?.succeeds()?;
        let mut parts = Vec::new();
        for papers in ["licenses", "sbom"] {
            for part in fs::read_dir(dir.join("share").join(papers))? {
                parts.push(part?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(parts)
    };
    for (tag, of_qemu, of_qus) in [("latest", true, true), ("pkg", true, false), ("register", false, true)] {
        let parts = parts(tag)?;
        let has = |beginning: &str| parts.iter().any(|part| part.starts_with(beginning));
        for (part, wanted) in [
            (&*qemu, of_qemu),
            ("qemu_", of_qemu),
            ("qus_", of_qus),
            ("libglib", of_qemu),
            ("libpcre2", of_qemu),
            ("zlib1g", of_qemu),
            ("qus-", of_qus),
            ("rust-", of_qus),
            ("libc6-dev", true),
            ("libgcc-", true),
            ("common-licenses", true),
        ] {
            ensure!(has(part) == wanted, "{tag}, {part}: {parts:?}");
        }
    }
    Ok(())
}

/// Returns the version of QEMU that the bundle was built from.
pub(super) fn bundle_version(fixture: &EngineFixture<'_>) -> Result<String> {
    let bundle = manifest::read(&fixture.kernel.bundle)?.context("the bundle cannot be read")?;
    Ok(bundle.recipe.qemu.to_string())
}

/// Returns the version of the release that these bundles are pushed as.
fn release(fixture: &EngineFixture<'_>) -> Result<String> {
    let release = fixture.kernel.cx.data.release(&bundle_version(fixture)?).map_err(Usage)?;
    Ok(release.release_version().to_string())
}

fn tags_immutable(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("immutable");
    let target = fixture.path("immutable");
    fixture.small_bundle(&target, &["aarch64"], None)?;
    let first = digests(&fixture.push(&target, &repo, &["--tag", "1"])?.succeeds()?)?;
    ensure!(!first.contains_key("latest"), "--tag moved latest");
    // Another program changes all images except `pkg`, which has only the emulators.
    fixture.small_bundle(&target, &["aarch64"], Some(&other_program(fixture)?))?;
    let host = fixture.host;
    let expected = [
        "exist with other content and are never moved",
        &format!("{host}-1-register is sha256:"),
        "hint: choose another --tag, or move the tags with --force",
    ];
    let refused = fixture.push(&target, &repo, &["--tag", "1"])?;
    ensure!(
        !refused.stderr.contains("1-pkg"),
        "pkg is refused, although it has not changed: {}",
        refused.stderr
    );
    refused.exits(1, &expected)?;
    for (tag, digest) in &first {
        let now = fixture.inspect(&format!("{repo}:{tag}"))?;
        ensure!(now["manifest"]["digest"] == **digest, "{tag} was moved without --force");
    }
    let forced = fixture.push(&target, &repo, &["--tag", "1", "--force"])?;
    ensure!(forced.stderr.contains("warning: moving tags"), "no warning: {}", forced.stderr);
    let forced = digests(&forced.succeeds()?)?;
    ensure!(forced["1-register"] != first["1-register"] && forced["1-pkg"] == first["1-pkg"], "{forced:?}");
    Ok(())
}

/// Returns a program `qus` with another checksum.
fn other_program(fixture: &EngineFixture<'_>) -> Result<PathBuf> {
    let program = fixture.path("another");
    let mut bytes = fs::read(fixture.kernel.program())?;
    bytes.push(0);
    fs::write(&program, bytes)?;
    fs::set_permissions(&program, fs::metadata(fixture.kernel.program())?.permissions())?;
    Ok(program)
}

fn second_release(fixture: &EngineFixture<'_>) -> Result<()> {
    let (repo, target) = (fixture.repo("second"), fixture.path("second"));
    let (qemu, first_name) = (bundle_version(fixture)?, release(fixture)?);
    fixture.small_bundle(&target, &["aarch64"], None)?;
    let first = digests(&fixture.push(&target, &repo, &[])?.succeeds()?)?;

    // The same release cannot have another content.
    fixture.small_bundle(&target, &["aarch64"], Some(&other_program(fixture)?))?;
    let hint = "hint: for a new release, increase `revision` in qemu-src/sources.toml";
    fixture.push(&target, &repo, &[])?.exits(1, &["are never moved", &first_name, hint])?;

    let sources = fixture.kernel.cx.paths.qemu_src().join("sources.toml");
    let next = fixture.path("sources.toml");
    fs::write(&next, fs::read_to_string(&sources)?.replace("\nrevision = ", "\nrevision = 9"))?;
    let second_name = first_name.replace('-', "-9");
    let second = digests(&fixture.push_with_sources(&next, &target, &repo)?.succeeds()?)?;
    let now = |tag: &str| -> Result<Value> {
        Ok(fixture.inspect(&format!("{repo}:{tag}"))?["manifest"]["digest"].clone())
    };
    for (tag, digest) in first.iter().filter(|(tag, _)| tag.contains(&first_name)) {
        ensure!(now(tag)? == **digest, "the fixed tag {tag} has moved");
    }
    let series = qemu.rsplit_once('.').context("a version without dots")?.0;
    for tag in [&*qemu, series, "latest", "default"] {
        ensure!(now(tag)? == *second[&second_name], "{tag} is not {second_name}");
        let guest = format!("{tag}-aarch64");
        ensure!(now(&guest)? == *second[&format!("{second_name}-aarch64")], "{guest} has not moved");
    }
    let run = ["run", "--rm", "--network", "none", &*format!("{repo}:{qemu}"), "--version"];
    let version = fixture.docker(&run)?.succeeds()?;
    ensure!(version.contains(&format!("release {second_name}")), "{version}");

    // Pushing the first again changes nothing.
    fixture.small_bundle(&target, &["aarch64"], None)?;
    let again = fixture.push(&target, &repo, &[])?;
    ensure!(again.stderr.contains("are at a newer release and stay there"), "{}", again.stderr);
    let rows: Vec<Value> = serde_json::from_str(&again.succeeds()?)?;
    let is_fixed = |row: &Value| row["tag"].as_str().is_some_and(|tag| tag.contains(&first_name));
    for row in &rows {
        let expected = if is_fixed(row) { "unchanged" } else { "newer" };
        ensure!(row["state"] == expected, "{row} is not {expected}");
    }
    ensure!(now("latest")? == *second[&second_name], "latest has moved back");
    Ok(())
}

fn not_for_a_release(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("policy");
    let target = fixture.path("policy");
    let own = fixture.host;
    let other: &Host = if own.name == "s390x" { "ppc64le" } else { "s390x" }.parse()?;
    // Emulators of this host, which are also pushed as those of another one: its images are not run.
    let bundle = |host: &'static Host, guests: &[&str], profile| -> Result<()> {
        fixture.small_bundle(&target, guests, None)?;
        let bundles = target.join("qus/bundle");
        let dir = bundles.join(host.name);
        if host != own {
            files::remove_dir(&dir)?;
            fs::rename(bundles.join(own.name), &dir)?;
        }
        let Bundle { recipe, emulators, .. } = manifest::read(&dir)?.context("the bundle cannot be read")?;
        manifest::write(&Bundle::new(Recipe { host, profile, ..recipe }, emulators), &dir)
    };
    let push = |host: &Host, args: &[&str]| {
        let qemu = bundle_version(fixture)?;
        let push = ["images", "--push", "--repo", &repo, "--sbom", "none", "--json"];
        let args = [&push[..], &["--host", host.name, "--qemu", &qemu], args].concat();
        fixture.kernel.run(fixture.xtask(&target, &args)?)
    };
    let latest = format!("{repo}:latest");

    bundle(own, &["aarch64", "arm"], Profile::Dev)?;
    push(own, &[])?.exits(1, &["were built with the dev profile", "--profile release", "--allow-dev"])?;
    ensure!(fixture.inspect(&latest).is_err(), "the dev profile is in the repository");
    push(own, &["--allow-dev"])?.succeeds()?;

    // The first host is in the repository only.
    bundle(other, &["arm"], Profile::Release)?;
    let hint = format!("hint: run `cargo xtask build-qemu aarch64 --host {other} --qemu ");
    let dev = "--allow-dev";
    push(other, &[dev])?.exits(1, &[&format!("{other} lacks aarch64"), &hint, "--allow-partial"])?;
    ensure!(fixture.inspect(&format!("{repo}:{other}-{}", release(fixture)?)).is_err(), "it is pushed");
    bundle(other, &["aarch64", "arm", "i386"], Profile::Release)?;
    let expected = [&*format!("{own} lacks i386"), "push", "again with --force; or add --allow-partial"];
    push(other, &[dev])?.exits(1, &expected)?;
    push(other, &[dev, "--allow-partial"])?.exits(0, &["warning: some hosts lack guests"])?;
    let hosts = fixture.inspect(&latest)?["image"].as_object().map_or(0, serde_json::Map::len);
    ensure!(hosts == 2, "latest has {hosts} hosts");
    Ok(())
}

fn gzip(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("gzip");
    for (compression, args) in [("zstd", &["--tag", "zstd"][..]), ("gzip", &["--tag", "gzip", "--gzip"])] {
        fixture.push(&fixture.small, &repo, args)?.succeeds()?;
        let index = fixture.inspect(&format!("{repo}:{compression}"))?;
        let digest = index["manifest"]["manifests"][0]["digest"].as_str().context("it is not an index")?;
        let name = format!("{repo}@{digest}");
        let raw = fixture.docker(&["buildx", "imagetools", "inspect", "--raw", &name])?.succeeds()?;
        let raw: Value = serde_json::from_str(&raw)?;
        let layers = raw["layers"].as_array().context("it has no layers")?;
        let has_compression = |layer: &Value| {
            layer["mediaType"].as_str().is_some_and(|kind| kind.ends_with(&format!("tar+{compression}")))
        };
        ensure!(
            layers.len() == 2 && layers.iter().all(has_compression),
            "not two layers of {compression}: {layers:?}"
        );
    }
    fixture.push(&fixture.small, &repo, &["--gzip"])?.exits(2, &["--tag"])
}
