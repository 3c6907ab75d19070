//! Checks other engines and builders: Docker's classic image store, remote builders, images that are only loaded, and
//! SBOM scanners.

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

/// Number of tags that a push of the small bundle creates: an image and an index for each of three kinds and one guest,
/// four moving tags of each, and two short ones.
pub(super) const TAGS_OF_SMALL: usize = 4 * (2 + 4) + 2;

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("push from docker's classic image store, and again", classic_store)?;
    checks.check("push through a remote builder, and one with two nodes", remote)?;
    checks.check("load into the engine, and run", load)?;
    checks.check("SBOM from a scanner; from an unavailable one", sbom)
}

fn classic_store(fixture: &EngineFixture<'_>) -> Result<()> {
    let options = Options { containerd_store: false, ..Options::default() };
    let engine = Throwaway::start(fixture.kernel.cx, &fixture.path("c/run"), &options)?;
    let repo = fixture.repo("classic");
    let push = || -> Result<_> {
        let args = ["images", "--push", "--allow-dev", "--repo", &repo, "--sbom", "none", "--json"];
        fixture.kernel.run(fixture.xtask_with(&engine, &fixture.small, &args)?)
    };
    let first = push()?;
    let note = "note: Docker's classic image store supports neither attestations nor zstd layers";
    ensure!(first.stderr.contains(note), "`{note}` is not in: {}", first.stderr);
    let first = digests(&first.succeeds()?)?;
    let mut layers = 0;
    for digest in first.values() {
        let name = format!("{repo}@{digest}");
        let raw = fixture.docker(&["buildx", "imagetools", "inspect", "--raw", &name])?.succeeds()?;
        let raw: Value = serde_json::from_str(&raw)?;
        let types = raw["layers"].as_array().into_iter().flatten().map(|layer| layer["mediaType"].as_str());
        for media_type in types {
            ensure!(
                media_type.is_some_and(|media_type| media_type.ends_with("gzip")),
                "a layer of {name} is {media_type:?}"
            );
            layers += 1;
        }
        let attested = raw["manifests"]
            .as_array()
            .is_some_and(|listed| listed.iter().any(|manifest| manifest["platform"]["os"] == "unknown"));
        ensure!(!attested, "{name} has an attestation, despite the note");
    }
    ensure!(layers > 0, "no image has a layer");
    let second = push()?.succeeds()?;
    let rows: Vec<Value> = serde_json::from_str(&second)?;
    ensure!(rows.iter().all(|row| row["state"] == "unchanged"), "the second push changed tags: {second}");
    ensure!(digests(&second)? == first, "the second push reports other digests");
    Ok(())
}

/// Serves an engine's BuildKit on a socket, like a remote builder, until this process exits.
pub(super) fn serve_buildkit(fixture: &EngineFixture<'_>, engine: &Throwaway, name: &str) -> Result<String> {
    let path = fixture.path(name);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot create {}", path.display()))?;
    // `buildx create` connects to this socket while it locks the configuration directory. With the same directory,
    // `buildx dial-stdio` would wait for that lock.
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
    let here = serve_buildkit(fixture, &fixture.engine, "here.sock")?;
    let create = |name: &str, args: &[&str]| -> Result<()> {
        let create = ["buildx", "create", "--driver", "remote", "--name", name];
        fixture.docker(&[&create, args].concat())?.succeeds().map(drop)
    };
    create("one", &[&here])?;
    let pushed = fixture.push(&fixture.small, &fixture.repo("remote"), &["--builder", "one"])?;
    ensure!(pushed.stderr.contains("with the driver remote"), "another builder was used: {}", pushed.stderr);
    // The engine runs the pushed images, although it is not the builder.
    ensure!(!pushed.stderr.contains("images were not run"), "the images were not run: {}", pushed.stderr);
    let pushed = digests(&pushed.succeeds()?)?;
    ensure!(pushed.len() == TAGS_OF_SMALL, "unexpected tags: {pushed:?}");

    // Images of another host, built by another engine. They contain emulators of this host, which nothing detects because
    // images of another host are not run without a handler.
    let there = Throwaway::start(fixture.kernel.cx, &fixture.path("r/run"), &Options::default())?;
    let other = other_host(fixture)?;
    let target = fixture.path("two");
    fixture.small_bundle(&target, &["aarch64"], None)?;
    let bundles = target.join("qus/bundle");
    copy_dir(&bundles.join(fixture.host.name), &bundles.join(other.name))?;
    let platform = |host: &Host| format!("--platform=linux/{}", host.platform);
    create("two", &[&platform(fixture.host), &here])?;
    let there_socket = serve_buildkit(fixture, &there, "there.sock")?;
    create("two", &["--append", "--node", "there", &platform(other), &there_socket])?;
    let hosts = format!("{},{other}", fixture.host);
    let repo = fixture.repo("two");
    fixture.push(&target, &repo, &["--builder", "two", "--host", &hosts])?.succeeds()?;
    let found = fixture.inspect(&format!("{repo}:latest"))?;
    let images = found["image"].as_object().context("latest is not an index")?;
    for host in [fixture.host, other] {
        let platform = format!("linux/{}", host.platform);
        ensure!(images.contains_key(&platform), "latest has no image for {platform}: {found}");
    }
    check_has_built(fixture, &there)
}

/// Asserts that an engine has built something: its cache has records, whose second column is `RECLAIMABLE`.
pub(super) fn check_has_built(fixture: &EngineFixture<'_>, engine: &Throwaway) -> Result<()> {
    let records = fixture.kernel.run(engine.client().cmd(&["buildx", "du"]))?.succeeds()?;
    let is_record = |line: &str| matches!(line.split_whitespace().nth(1), Some("true" | "false"));
    ensure!(records.lines().any(is_record), "the engine has built nothing: {records}");
    Ok(())
}

/// Returns a host whose programs this machine does not run.
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
        let version = fixture.docker(&run)?.succeeds()?;
        ensure!(version.starts_with("qus "), "{name} prints {version:?}");
    }
    Ok(())
}

fn sbom(fixture: &EngineFixture<'_>) -> Result<()> {
    let scanner = push_scanner(fixture)?;
    let repo = fixture.repo("sbom");
    let push = |repo: &str, scanner: &str| -> Result<_> {
        fixture.kernel.run(fixture.xtask(
            &fixture.small,
            &["images", "--push", "--allow-dev", "--repo", repo, "--sbom", scanner, "--json"],
        )?)
    };
    push(&repo, &scanner)?.succeeds()?;
    let inspect = ["buildx", "imagetools", "inspect", "--format", "{{json .SBOM}}"];
    let sbom = fixture.docker(&[&inspect[..], &[&format!("{repo}:latest")]].concat())?.succeeds()?;
    let sbom: Value = serde_json::from_str(&sbom)?;
    ensure!(sbom["SPDX"]["name"] == "qus-smoke", "latest has another SBOM: {sbom}");

    let absent = fixture.repo("no-scanner:1");
    let repo = fixture.repo("no-sbom");
    let note = format!("note: images have no SBOM, because {absent} is not available");
    push(&repo, &absent)?.exits(0, &[&note])?;
    let sbom = fixture.docker(&[&inspect[..], &[&format!("{repo}:latest")]].concat())?.succeeds()?;
    ensure!(!sbom.contains("SPDX"), "latest has an SBOM without a scanner: {sbom}");
    Ok(())
}

/// Pushes an SBOM scanner that writes the same empty SBOM for every image.
fn push_scanner(fixture: &EngineFixture<'_>) -> Result<String> {
    let dir = fixture.path("scanner");
    let busybox = ["usr/bin/busybox", "bin/busybox"].map(|path| fixture.engine.program(path));
    let busybox: &PathBuf = busybox.iter().find(|path| path.exists()).context("the engine has no busybox")?;
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
