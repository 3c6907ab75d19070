//! Checks the messages about registries and engines that fail.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use xshell::Cmd;

use crate::base::files;
use crate::check::smoke::engine::builders::TAGS_OF_SMALL;
use crate::check::smoke::engine::faulty::{Fault, FaultyProxy, PERMANENT, Registry, free_address, repo};
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture, digests};
use crate::check::smoke::fixture::process::{BackgroundProcess, Tmpfs, wait};
use crate::engine::throwaway::{Options, Throwaway};

const LOOPBACK: &str = "127.0.0.1";

/// The user `qus` with the password `right`, as a registry stores it.
const HTPASSWD: &str = "qus:$2b$05$abcdefghijklmnopqrstuu8xaCxxL82bnl.UY74PMksDxIJShppPC\n";
/// `qus:right` and `qus:wrong`, as docker stores logins.
const RIGHT: &str = "cXVzOnJpZ2h0";
const WRONG: &str = "cXVzOndyb25n";

/// A self-signed certificate and its key, which protects nothing.
const CERTIFICATE: &str = include_str!("faults/self-signed.crt");
const KEY: &str = include_str!("faults/self-signed.key");

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("registry is down", registry_down)?;
    checks.check("registry requires a login: none, wrong, right", login_required)?;
    checks.check("registry forbids, has no such repository, is read-only", forbidden)?;
    checks.check("too many requests: temporarily, permanently", too_many_requests)?;
    checks.check("registry fails: temporarily, permanently", server_error)?;
    checks.check("connection lost during an upload", connection_lost)?;
    checks.check(
        "malicious registry: wrong digest, endless manifest, redirect to a file",
        malicious_registry,
    )?;
    checks.check("untrusted certificate; no HTTPS", untrusted_certificate)?;
    checks.check("registry's disk is full", full_registry)?;
    checks.check("engine's disk is full", full_engine)?;
    checks.check("push killed, then resumed", push_killed)?;
    checks.check("two concurrent pushes", concurrent_pushes)?;
    checks.check("no engine", no_engine)?;
    checks.check("no buildx; outdated buildx", no_buildx)
}

/// Prepares a push of the small bundle.
fn push<'a>(fixture: &EngineFixture<'a>, repo: &str) -> Result<Cmd<'a>> {
    fixture.xtask(
        &fixture.small,
        &["images", "--push", "--allow-dev", "--repo", repo, "--sbom", "none", "--json"],
    )
}

/// Starts a faulty proxy on the loopback interface.
fn faulty_proxy(
    fixture: &EngineFixture<'_>,
    affects: fn(&str) -> bool,
    fault: Fault,
    duration: Duration,
) -> Result<FaultyProxy> {
    FaultyProxy::start(fixture, LOOPBACK, affects, fault, duration)
}

fn any_request(_: &str) -> bool {
    true
}

/// Whether a request with this first line starts an upload.
fn starts_upload(line: &str) -> bool {
    line.starts_with("POST ") && line.contains("/blobs/uploads")
}

/// Whether a request with this first line uploads a part of a blob.
fn uploads_data(line: &str) -> bool {
    ["PUT ", "PATCH "].iter().any(|method| line.starts_with(method)) && line.contains("/blobs/uploads")
}

fn registry_down(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = repo(free_address(LOOPBACK)?);
    let registry = repo.trim_end_matches("/qus");
    fixture
        .push(&fixture.small, &repo, &[])?
        .exits(1, &["connection refused: ", &format!("hint: check the name and port {registry}")])
}

fn login_required(fixture: &EngineFixture<'_>) -> Result<()> {
    let users = fixture.path("htpasswd");
    fs::write(&users, HTPASSWD)?;
    let registry = Registry::start(fixture, LOOPBACK, |config| {
        config["auth"] = json!({ "htpasswd": { "realm": "qus", "path": users } });
    })?;
    let repo = registry.repo();
    let name = repo.trim_end_matches("/qus");
    let logged_in = |auth: &str| -> Result<Cmd<'_>> {
        let config = fs::read(fixture.engine.dir().join("client/config.json"))?;
        let mut config: Value = serde_json::from_slice(&config)?;
        config["auths"] = json!({ name: { "auth": auth } });
        let dir = fixture.path("login");
        files::write(&dir.join("config.json"), &serde_json::to_vec(&config)?)?;
        Ok(push(fixture, &repo)?.env("DOCKER_CONFIG", dir))
    };
    let hint = format!("hint: to log in, run `docker login {name}`");
    let expected = ["the registry requires a login: ", &hint];
    fixture.push(&fixture.small, &repo, &[])?.exits(1, &expected)?;
    fixture.kernel.run(logged_in(WRONG)?)?.exits(1, &expected)?;
    fixture.kernel.run(logged_in(RIGHT)?)?.succeeds().map(drop)
}

fn forbidden(fixture: &EngineFixture<'_>) -> Result<()> {
    let forbids = faulty_proxy(fixture, starts_upload, Fault::Status("403 Forbidden"), PERMANENT)?.repo();
    let expected = [
        "building images: the registry denies access: ",
        "403 Forbidden",
        &format!("needs permission to write to {forbids}"),
    ];
    fixture.push(&fixture.small, &forbids, &[])?.exits(1, &expected)?;
    let missing = faulty_proxy(fixture, starts_upload, Fault::Status("404 Not Found"), PERMANENT)?.repo();
    let expected = ["404 Not Found", &format!("hint: create the repository {missing} in the registry first")];
    fixture.push(&fixture.small, &missing, &[])?.exits(1, &expected)?;
    let read_only = Registry::start(fixture, LOOPBACK, |config| {
        config["storage"]["maintenance"]["readonly"]["enabled"] = true.into();
    })?;
    let expected =
        ["the registry denies access: ", "405 Method Not Allowed", "the registry may also be read-only"];
    fixture.push(&fixture.small, &read_only.repo(), &[])?.exits(1, &expected)
}

fn too_many_requests(fixture: &EngineFixture<'_>) -> Result<()> {
    let fault = Fault::Status("429 Too Many Requests\r\nRetry-After: 3");
    let temporary = faulty_proxy(fixture, any_request, fault, Duration::from_secs(3))?;
    let expected = ["too many requests; retrying in 3 s, as requested by the registry (retry 1 of 3)"];
    fixture.push(&fixture.small, &temporary.repo(), &[])?.exits(0, &expected)?;
    let fault = Fault::Status("429 Too Many Requests\r\nRetry-After: 1");
    let permanent = faulty_proxy(fixture, any_request, fault, PERMANENT)?;
    let expected = ["(retry 3 of 3)", "too many requests, 4 times: ", "hint: retry later: "];
    fixture.push(&fixture.small, &permanent.repo(), &[])?.exits(1, &expected)
}

fn server_error(fixture: &EngineFixture<'_>) -> Result<()> {
    let fault = Fault::Status("503 Service Unavailable");
    // The fault ends halfway between the second and the third attempt, so that slow machines have time.
    let temporary = faulty_proxy(fixture, any_request, fault, Duration::from_secs(4))?;
    let expected =
        ["the registry reports a server error; retrying in 2 s (retry 1 of 3)", "in 4 s (retry 2 of 3)"];
    fixture.push(&fixture.small, &temporary.repo(), &[])?.exits(0, &expected)?;
    let fault = Fault::Status("500 Internal Server Error\r\nRetry-After: 1");
    let permanent = faulty_proxy(fixture, any_request, fault, PERMANENT)?;
    let expected = [
        "retrying in 1 s, as requested by the registry",
        "the registry reports a server error, 4 times: ",
        "500 Internal Server Error",
        "its disk may be full",
    ];
    fixture.push(&fixture.small, &permanent.repo(), &[])?.exits(1, &expected)
}

fn connection_lost(fixture: &EngineFixture<'_>) -> Result<()> {
    // BuildKit itself retries after a second.
    let short = faulty_proxy(fixture, uploads_data, Fault::CloseConnection, Duration::from_millis(500))?;
    fixture.push(&fixture.small, &short.repo(), &[])?.succeeds()?;
    ensure!(short.has_failed(), "no upload was interrupted");
    // BuildKit retries for 7 seconds, and then xtask does.
    let long = faulty_proxy(fixture, uploads_data, Fault::CloseConnection, Duration::from_secs(9))?;
    let expected = ["building images: the connection was lost; retrying in 2 s (retry 1 of 3)"];
    fixture.push(&fixture.small, &long.repo(), &[])?.exits(0, &expected)
}

fn malicious_registry(fixture: &EngineFixture<'_>) -> Result<()> {
    let manifest_request = |line: &str| line.contains("/manifests/");
    let redirect = Fault::Status("307 Temporary Redirect\r\nLocation: file:///etc/passwd");
    for (fault, cause) in [
        (Fault::WrongDigest, "unexpected digest"),
        (Fault::EndlessManifest, "out of memory"),
        (redirect, "unsupported protocol scheme"),
    ] {
        let repo = faulty_proxy(fixture, manifest_request, fault, PERMANENT)?.repo();
        let expected = ["the registry sends an invalid response: ", cause, "hint: check that "];
        fixture.push(&fixture.small, &repo, &[])?.exits(1, &expected)?;
    }
    Ok(())
}

/// The registries are at the address of a bridge, because docker accepts HTTP on the loopback interface.
fn untrusted_certificate(fixture: &EngineFixture<'_>) -> Result<()> {
    let gateway = "{{(index .IPAM.Config 0).Gateway}}";
    let ip = fixture.docker(&["network", "inspect", "--format", gateway, "bridge"])?.succeeds()?;
    let [certificate, key] = [("self-signed.crt", CERTIFICATE), ("self-signed.key", KEY)]
        .map(|(name, text)| files::write(&fixture.path(name), text.as_bytes()).map(|()| fixture.path(name)));
    let (certificate, key) = (certificate?, key?);
    let registry = Registry::start(fixture, ip.trim(), |config| {
        config["http"]["tls"] = json!({ "certificate": certificate, "key": key });
    })?;
    let expected = ["the registry's certificate is not trusted: ", "x509: ", "hint: add the certificate of "];
    fixture.push(&fixture.small, &registry.repo(), &[])?.exits(1, &expected)?;
    let registry = Registry::start(fixture, ip.trim(), |_| ())?;
    let expected = ["the registry does not support HTTPS: ", "configure it as an insecure registry"];
    fixture.push(&fixture.small, &registry.repo(), &[])?.exits(1, &expected)
}

fn full_registry(fixture: &EngineFixture<'_>) -> Result<()> {
    let disk = Tmpfs::mount(&fixture.path("registry-disk"), "size=1m")?;
    let registry = Registry::start(fixture, LOOPBACK, |config| {
        config["storage"]["filesystem"]["rootdirectory"] = json!(disk.dir);
    })?;
    // A registry does not report the cause of a server error to clients.
    let expected = [
        "the registry reports a server error, 4 times: ",
        "500 Internal Server Error",
        "its disk may be full",
    ];
    fixture.push(&fixture.small, &registry.repo(), &[])?.exits(1, &expected)
}

fn full_engine(fixture: &EngineFixture<'_>) -> Result<()> {
    let disk = Tmpfs::mount(&fixture.path("engine-disk"), "size=4m")?;
    let options = Options { daemon: json!({ "data-root": disk.dir }), ..Options::default() };
    let engine = Throwaway::start(fixture.kernel.cx, &fixture.path("f/run"), &options)?;
    let repo = fixture.repo("full");
    let args = ["images", "--push", "--allow-dev", "--repo", &repo, "--sbom", "none"];
    let output = fixture.kernel.run(fixture.xtask_with(&engine, &fixture.small, &args)?)?;
    // In about one of twelve runs, dockerd 26.1 panics instead of reporting that the disk is full.
    let expected: &[&str] = match output.stderr.contains("the engine is not running") {
        true => &["Cannot connect to the Docker daemon", "hint: restart the engine", "its disk may be full"],
        false => &["no space left on a disk: ", "no space left on device", "hint: free disk space"],
    };
    output.exits(1, expected)
}

fn push_killed(fixture: &EngineFixture<'_>) -> Result<()> {
    let registry = faulty_proxy(fixture, uploads_data, Fault::NoResponse, PERMANENT)?;
    let mut first = BackgroundProcess::start(fixture.path("killed.log"), push(fixture, &registry.repo())?)?;
    wait("an upload starts", || Ok(registry.has_failed()))?;
    first.signal(Signal::SIGKILL)?;
    first.child.wait()?;
    registry.repair();
    let pushed = digests(&fixture.kernel.run(push(fixture, &registry.repo())?)?.succeeds()?)?;
    ensure!(pushed.len() == TAGS_OF_SMALL, "unexpected tags: {pushed:?}");
    for (tag, digest) in pushed {
        let found = fixture.inspect(&format!("{}:{tag}", registry.repo()))?;
        ensure!(found["manifest"]["digest"] == *digest, "{tag} is not {digest}: {found}");
    }
    Ok(())
}

fn concurrent_pushes(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("twice");
    let mut first = BackgroundProcess::start(fixture.path("first.log"), push(fixture, &repo)?)?;
    first.wait_for_output("querying ")?;
    let second = fixture.kernel.run(push(fixture, &repo)?)?;
    ensure!(
        second.stderr.contains(&format!("waiting for another cargo xtask (process {})", first.child.id())),
        "the second push does not report that it waits: {}",
        second.stderr
    );
    let status = first.child.wait()?;
    ensure!(status.success(), "the first push failed: {status}");
    let rows: Vec<Value> = serde_json::from_str(&second.succeeds()?)?;
    let unchanged = rows.iter().all(|row| row["state"] == "unchanged");
    ensure!(unchanged && !rows.is_empty(), "the second push changed tags: {rows:?}");
    Ok(())
}

fn no_engine(fixture: &EngineFixture<'_>) -> Result<()> {
    let expected = [
        "no container engine is available:",
        "installed: docker is not installed",
        "throwaway: ",
        "lacks apt-get or dpkg-deb",
        "hint: install and start Docker",
    ];
    fixture.kernel.run(push(fixture, &fixture.repo("none"))?.env("PATH", "/nonexistent"))?.exits(1, &expected)
}

fn no_buildx(fixture: &EngineFixture<'_>) -> Result<()> {
    let config = fixture.path("no-buildx");
    files::write(&config.join("config.json"), b"{}")?;
    let push = || -> Result<Cmd<'_>> {
        let push = push(fixture, &fixture.repo("none"))?.args(["--builder", "default"]);
        Ok(push.env("DOCKER_CONFIG", &config))
    };
    {
        // The directories where docker always looks for plugins are hidden in this namespace only.
        let dirs = ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"];
        let dirs = dirs.map(|dir| Path::new(dir).join("docker/cli-plugins"));
        let hidden = dirs.iter().filter(|dir| dir.is_dir());
        let _hidden = hidden.map(|dir| Tmpfs::mount(dir, "ro")).collect::<Result<Vec<_>>>()?;
        let expected = [
            "cannot use the builder default: docker has no buildx",
            "hint: --builder needs docker with buildx",
        ];
        fixture.kernel.run(push()?)?.exits(1, &expected)?;
    }
    // A script, because no distribution has a buildx that is too old and runs with this docker.
    let plugin = config.join("cli-plugins/docker-buildx");
    let metadata = json!({ "SchemaVersion": "0.1.0", "Vendor": "qus", "Version": "v0.9.1" });
    let script = format!(
        "#!/bin/sh\ncase $1 in docker-cli-plugin-metadata) echo '{metadata}' ;; *) echo github.com/docker/buildx v0.9.1 ed00243 ;; esac\n"
    );
    files::write(&plugin, script.as_bytes())?;
    fs::set_permissions(&plugin, Permissions::from_mode(0o755)).context("cannot change its mode")?;
    let expected = [
        "cannot use the builder default: buildx 0.9.1 is too old; 0.13.0 or newer is required",
        "hint: --builder needs docker with buildx 0.13.0",
    ];
    fixture.kernel.run(push()?)?.exits(1, &expected)
}
