//! Checks images of several hosts: pushed separately to one index, and run under emulation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use qus_core::arch::Host;
use qus_core::probe;
use serde_json::Value;

use crate::base::error::Skip;
use crate::bundle::hosts::built;
use crate::bundle::manifest;
use crate::check::smoke::engine::push::bundle_version;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("every built host: added to an index, and its qus runs", several_hosts)
}

fn several_hosts(fixture: &EngineFixture<'_>) -> Result<()> {
    let cx = fixture.kernel.cx;
    let others: Vec<_> = built(cx).filter(|host| *host != fixture.host).collect();
    let without_qus: Vec<_> = others
        .iter()
        .filter(|host| !cx.paths.bundle(host).join("qus").exists())
        .map(|host| host.name)
        .collect();
    if others.is_empty() || !without_qus.is_empty() {
        let hosts = if without_qus.is_empty() { "arm64v8".to_owned() } else { without_qus.join(",") };
        return Err(Skip(format!(
            "other hosts are not built; to build them, run `cargo xtask build-qemu --host {hosts}` and `cargo xtask \
             build-qus --host {hosts}`"
        ))
        .into());
    }
    let target = fixture.path("hosts");
    let mut guests = BTreeSet::new();
    for host in &others {
        let bundle = cx.paths.bundle(host);
        let emulators = manifest::read(&bundle)?.context("the bundle cannot be read")?.emulators;
        guests.extend(emulators.into_iter().map(|emulator| emulator.target.name));
        fs::create_dir_all(target.join("qus/bundle"))?;
        std::os::unix::fs::symlink(&bundle, target.join("qus/bundle").join(host.name))?;
    }
    // Targets that no other host has are left out, so that less is pushed.
    let guests: Vec<&str> = guests.into_iter().collect();
    fixture.small_bundle(&target, &guests, None)?;

    let repo = fixture.repo("hosts");
    let version = bundle_version(fixture)?;
    let images = |tag: &str| -> Result<BTreeMap<String, String>> {
        let index = fixture.inspect(&format!("{repo}:{tag}"))?;
        let listed = index["manifest"]["manifests"].as_array().context("it is not an index")?.iter();
        let images = listed.filter(|manifest| manifest["platform"]["os"] == "linux");
        images.map(|image| Ok((platform(&image["platform"]), digest(&image["digest"])?))).collect()
    };
    fixture.push(&target, &repo, &[])?.succeeds()?;
    let alone = images("latest")?;
    ensure!(alone.len() == 1, "not exactly one host: {alone:?}");
    // Like a push from another machine, which has only the bundles of other hosts.
    let names: Vec<_> = others.iter().map(|host| host.name).collect();
    let pushed =
        fixture.push(&target, &repo, &["--host", &names.join(","), "--qemu", &version, "--allow-partial"])?;
    ensure!(
        pushed.stderr.contains(" platforms to the 1 of "),
        "the added platforms are not reported: {}",
        pushed.stderr
    );
    pushed.succeeds()?;
    let all = images("latest")?;
    ensure!(all.len() == 1 + others.len(), "not {} hosts: {all:?}", 1 + others.len());
    ensure!(
        alone.iter().all(|(platform, digest)| all.get(platform) == Some(digest)),
        "an image was replaced: {all:?}"
    );
    for tag in
        [version.clone(), format!("{version}-pkg"), format!("{version}-register"), format!("{version}-arm")]
    {
        ensure!(images(&tag)?.len() == all.len(), "{tag} does not have all hosts");
    }
    let again = fixture.push(&target, &repo, &["--host", "all", "--allow-partial"])?.succeeds()?;
    ensure!(!again.contains("\"pushed\""), "something was pushed again: {again}");

    let foreign = |host: &&&Host| !probe::is_native(host.arch);
    // Two hosts are 32-bit Arm.
    let arches: BTreeSet<_> = others.iter().filter(foreign).map(|host| host.arch.name).collect();
    fixture.kernel.install(&arches.iter().copied().collect::<Vec<_>>())?;
    for host in &others {
        let platform = format!("linux/{}", host.platform);
        let run = [
            "run",
            "--rm",
            "--pull",
            "always",
            "--quiet",
            "--network",
            "none",
            "--privileged",
            "--platform",
            &*platform,
        ];
        let name = format!("{repo}:latest");
        let version = fixture.docker(&[&run[..], &[&*name, "--version"]].concat())?.succeeds()?;
        ensure!(version.starts_with("qus "), "{host} prints {version:?}");
        let status = fixture.docker(&[&run[..], &[&*name, "status", "--json"]].concat())?.succeeds()?;
        let status: Value = serde_json::from_str(&status)?;
        let handlers = status["handlers"].as_array().context("no handlers")?;
        ensure!(
            handlers.len() >= arches.len(),
            "{host} lists {} of {} handlers",
            handlers.len(),
            arches.len()
        );
    }
    Ok(())
}

fn platform(of: &Value) -> String {
    let field = |name: &str| of[name].as_str().unwrap_or_default();
    format!("{}/{}", field("architecture"), field("variant"))
}

fn digest(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).context("no digest")
}
