//! Checks signatures of images and of a release's checksums, which cosign makes.

use std::env;
use std::ffi::OsString;

use anyhow::{Context, Result, ensure};
use fs_err::os::unix::fs::symlink;
use xshell::{Cmd, cmd};

use crate::base::exec::sh;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture, digests};
use crate::check::smoke::fixture::kernel::FOREIGN;
use crate::check::smoke::fixture::tools;

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("cosign: signatures of images and checksums, by the right key and by another", signatures)
}

fn signatures(fixture: &EngineFixture<'_>) -> Result<()> {
    let program = tools::cosign(fixture.kernel.cx)?;
    let docker = fixture.engine.client().variables(&fixture.kernel.cx.settings)?;
    let docker: OsString =
        docker.into_iter().find_map(|(name, path)| (name == "PATH").then_some(path)).unwrap_or_default();
    let path = env::join_paths(program.into_iter().chain(env::split_paths(&docker)))?;
    let run = |command: Cmd<'_>, passphrase: &str| -> Result<CommandOutput> {
        fixture.kernel.run(command.env("PATH", &path).env("COSIGN_PASSWORD", passphrase))
    };
    let cosign = |args: &[&str]| run(cmd!(sh(), "cosign {args...}"), "passphrase");
    let at = |name: &str| fixture.path(name).to_string_lossy().into_owned();
    for name in ["ours", "other"] {
        cosign(&["generate-key-pair", "--output-key-prefix", &at(name)])?.succeeds()?;
    }
    let (key, public, other) = (at("ours.key"), at("ours.pub"), at("other.pub"));

    let repo = fixture.repo("signed");
    let push =
        ["images", "--push", "--repo", &repo, "--tag", "t", "--sbom", "none", "--json", "--sign", &key];
    let push = |passphrase| run(fixture.xtask(&fixture.small, &push)?, passphrase);
    push("wrong")?.exits(1, &["cosign cannot sign with"])?;
    let pushed = digests(&push("passphrase")?.succeeds()?)?;
    for digest in pushed.values() {
        let image = format!("{repo}@{digest}");
        let verify = |key: &str| cosign(&["verify", "--key", key, "--insecure-ignore-tlog", &image]);
        verify(&public)?.succeeds()?;
        ensure!(verify(&other)?.status != Some(0), "{image} is signed with another key");
    }

    let (host, target) = (fixture.host.name, fixture.path("signed"));
    fixture.small_bundle(&target, &[FOREIGN[0]], None)?;
    for name in ["share", "licenses"] {
        symlink(fixture.kernel.bundle.join(name), target.join("qus/bundle").join(host).join(name))?;
    }
    let release = ["release", "--host", host, "--no-sources", "--allow-dev", "--sign", &key];
    run(fixture.xtask(&target, &release)?, "passphrase")?.succeeds()?;
    let releases = target.join("qus/release").read_dir()?;
    let dir = releases.last().context("there is no release")??.path();
    let sums = dir.join("SHA256SUMS").to_string_lossy().into_owned();
    let bundle = format!("{sums}.sigstore.json");
    let verify = |key: &str, file: &str| {
        cosign(&["verify-blob", "--key", key, "--insecure-ignore-tlog", "--bundle", &bundle, file])
    };
    verify(&public, &sums)?.succeeds()?;
    ensure!(verify(&other, &sums)?.status != Some(0), "the checksums are signed with another key");
    ensure!(verify(&public, &bundle)?.status != Some(0), "the signature is one of any file");
    Ok(())
}
