//! Engines and builders of other kinds than the usual one: Docker's classic image store, builders elsewhere, images
//! that are not pushed, and bills of materials.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use qus_core::arch::{HOSTS, Host};
use serde_json::{Value, json};

use crate::base::{exec, files};
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture, digests};
use crate::engine::throwaway::{Options, Throwaway};

/// What a push of the small bundle makes: of three kinds and a guest an image and an index each, and floating tags of
/// the kinds.
pub(super) const TAGS_OF_SMALL: usize = 11;

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("push from docker's classic image store, and again", classic)?;
    checks.check("push through a remote builder, and one with two nodes", remote)?;
    checks.check("load into the engine, and run", load)?;
    checks.check("SBOM from a scanner; from an unavailable one", sbom)
}

fn classic(fixture: &EngineFixture<'_>) -> Result<()> {
    let options = Options { containerd_store: false, ..Options::default() };
    let engine = Throwaway::start(fixture.kernel.cx, &fixture.path("c/run"), &options)?;
    let repo = fixture.repo("classic");
    let push = || -> Result<_> {
        let args = ["images", "--push", "--repo", &repo, "--sbom", "none", "--json"];
        fixture.kernel.run(fixture.xtask_with(&engine, &fixture.small, &args)?)
    };
    let first = push()?;
    let note = "note: Docker's classic image store supports neither attestations nor zstd layers";
    ensure!(first.stderr.contains(note), "it does not say what is missing: {}", first.stderr);
    let first = digests(&first.succeeds()?)?;
    let mut layers = 0;
    for digest in first.values() {
        let name = format!("{repo}@{digest}");
        let raw = fixture.docker(&["buildx", "imagetools", "inspect", "--raw", &name])?.succeeds()?;
        let raw: Value = serde_json::from_str(&raw)?;
        let types = raw["layers"].as_array().into_iter().flatten().map(|layer| layer["mediaType"].as_str());
        for kind in types {
            ensure!(kind.is_some_and(|kind| kind.ends_with("gzip")), "a layer of {name} is {kind:?}");
            layers += 1;
        }
        let attested = raw["manifests"]
            .as_array()
            .is_some_and(|listed| listed.iter().any(|manifest| manifest["platform"]["os"] == "unknown"));
        ensure!(!attested, "{name} has an attestation, which the note denies");
    }
    ensure!(layers > 0, "no image has a layer");
    let second = push()?.succeeds()?;
    let rows: Vec<Value> = serde_json::from_str(&second)?;
    ensure!(rows.iter().all(|row| row["state"] == "unchanged"), "the second push changed tags: {second}");
    ensure!(digests(&second)? == first, "the second push tells other digests");
    Ok(())
}

/// A socket on which an engine's BuildKit answers, as a builder elsewhere does; it serves until this process ends.
pub(super) fn socket(fixture: &EngineFixture<'_>, engine: &Throwaway, name: &str) -> Result<String> {
    let path = fixture.path(name);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
    // Whoever makes a builder holds a lock in buildx's folder, for which another buildx that he calls would wait.
    let client = engine.client().env("BUILDX_CONFIG", path.with_extension("buildx"));
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let client = client.clone();
            thread::spawn(move || -> Result<()> {
                let dial = ["buildx", "--builder", "default", "dial-stdio"];
                exec::run_connected(client.cmd(&dial), connection.into()).map(drop)
            });
        }
    });
    Ok(format!("unix://{}", path.display()))
}

fn remote(fixture: &EngineFixture<'_>) -> Result<()> {
    let here = socket(fixture, &fixture.engine, "here.sock")?;
    let create = |name: &str, args: &[&str]| -> Result<()> {
        let create = ["buildx", "create", "--driver", "remote", "--name", name];
        fixture.docker(&[&create, args].concat())?.succeeds().map(drop)
    };
    create("one", &[&here])?;
    let pushed = fixture.push(&fixture.small, &fixture.repo("remote"), &["--builder", "one"])?;
    ensure!(pushed.stderr.contains("with the driver remote"), "another builder was used: {}", pushed.stderr);
    // The engine that answers is not the builder, and runs what was pushed.
    ensure!(!pushed.stderr.contains("images were not run"), "nothing was run: {}", pushed.stderr);
    let pushed = digests(&pushed.succeeds()?)?;
    ensure!(pushed.len() == TAGS_OF_SMALL, "not the usual tags: {pushed:?}");

    // Images of another host, built on another engine. Nothing tells these emulators from real ones but running them,
    // which no machine does that has no handler.
    let there = Throwaway::start(fixture.kernel.cx, &fixture.path("r/run"), &Options::default())?;
    let other = other_host(fixture)?;
    let target = fixture.path("two");
    fixture.small_bundle(&target, &["aarch64"], None)?;
    let bundles = target.join("qus/bundle");
    copy_dir(&bundles.join(fixture.host.name), &bundles.join(other.name))?;
    let platform = |host: &Host| format!("--platform=linux/{}", host.platform);
    create("two", &[&platform(fixture.host), &here])?;
    let there_socket = socket(fixture, &there, "there.sock")?;
    create("two", &["--append", "--node", "there", &platform(other), &there_socket])?;
    let hosts = format!("{},{other}", fixture.host);
    let repo = fixture.repo("two");
    fixture.push(&target, &repo, &["--builder", "two", "--host", &hosts])?.succeeds()?;
    let found = fixture.inspect(&format!("{repo}:latest"))?;
    let images = found["image"].as_object().context("latest is no index")?;
    for host in [fixture.host, other] {
        let platform = format!("linux/{}", host.platform);
        ensure!(images.contains_key(&platform), "latest has nothing for {platform}: {found}");
    }
    let cached = fixture.kernel.run(there.client().cmd(&["buildx", "du"]))?.succeeds()?;
    ensure!(cached.contains("true"), "the second node has built nothing: {cached}");
    Ok(())
}

/// One that this machine does not run.
fn other_host(fixture: &EngineFixture<'_>) -> Result<&'static Host> {
    let name = if fixture.host.name == "s390x" { "ppc64le" } else { "s390x" };
    HOSTS.iter().find(|host| host.name == name).context("the table has no such host")
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        files::copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn load(fixture: &EngineFixture<'_>) -> Result<()> {
    let args = ["images", "--load", "--repo", "loaded", "--json"];
    let rows = fixture.kernel.run(fixture.xtask(&fixture.small, &args)?)?.succeeds()?;
    let rows: Vec<Value> = serde_json::from_str(&rows)?;
    ensure!(rows.len() == 4, "not four images: {rows:?}");
    for row in &rows {
        ensure!(row["state"] == "loaded", "{row} is not loaded");
        let name = format!("loaded:{}", row["tag"].as_str().context("no tag")?);
        fixture.docker(&["image", "inspect", &name])?.succeeds()?;
    }
    for tag in ["latest", "register"] {
        let name = format!("loaded:{tag}");
        let run = ["run", "--rm", "--pull", "never", "--network", "none", &name, "--version"];
        let told = fixture.docker(&run)?.succeeds()?;
        ensure!(told.starts_with("qus "), "{name} answers {told:?}");
    }
    Ok(())
}

fn sbom(fixture: &EngineFixture<'_>) -> Result<()> {
    let scanner = scanner(fixture)?;
    let repo = fixture.repo("sbom");
    let push = |repo: &str, scanner: &str| -> Result<_> {
        fixture.kernel.run(
            fixture
                .xtask(&fixture.small, &["images", "--push", "--repo", repo, "--sbom", scanner, "--json"])?,
        )
    };
    push(&repo, &scanner)?.succeeds()?;
    let of_latest = ["buildx", "imagetools", "inspect", "--format", "{{json .SBOM}}"];
    let told = fixture.docker(&[&of_latest[..], &[&format!("{repo}:latest")]].concat())?.succeeds()?;
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["SPDX"]["name"] == "qus-smoke", "latest has another SBOM: {told}");

    let absent = fixture.repo("no-scanner:1");
    let repo = fixture.repo("no-sbom");
    let note = format!("note: images have no SBOM, because {absent} is not available");
    push(&repo, &absent)?.fails(0, &[&note])?;
    let told = fixture.docker(&[&of_latest[..], &[&format!("{repo}:latest")]].concat())?.succeeds()?;
    ensure!(!told.contains("SPDX"), "there is an SBOM from nowhere: {told}");
    Ok(())
}

/// An image that says of everything that it is nothing.
fn scanner(fixture: &EngineFixture<'_>) -> Result<String> {
    let dir = fixture.path("scanner");
    let busybox = ["usr/bin/busybox", "bin/busybox"].map(|place| fixture.engine.program(place));
    let busybox: &PathBuf = busybox.iter().find(|path| path.exists()).context("there is no busybox")?;
    files::copy(busybox, &dir.join("busybox"))?;
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://spdx.dev/Document",
        "predicate": {
            "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "qus-smoke",
            "dataLicense": "CC0-1.0", "documentNamespace": "https://example.org/qus-smoke",
            "creationInfo": { "created": "1970-01-01T00:00:00Z", "creators": ["Tool: qus-smoke"] },
        },
    });
    let dockerfile = "FROM scratch\nCOPY busybox scan /\nENTRYPOINT [\"/busybox\", \"sh\", \"/scan\"]\n";
    let scan = "cd \"$BUILDKIT_SCAN_SOURCE\" || exit 1\n/busybox cat >\"$BUILDKIT_SCAN_DESTINATION/it.spdx.json\" <<'E'\n";
    files::write(&dir.join("Dockerfile"), dockerfile.as_bytes())?;
    files::write(&dir.join("scan"), format!("{scan}{statement}\nE\n").as_bytes())?;
    for name in ["busybox", "scan"] {
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o755))?;
    }
    let name = fixture.repo("scanner:1");
    fixture.docker(&["buildx", "build", "--push", "--tag", &name, &dir.display().to_string()])?.succeeds()?;
    Ok(name)
}
