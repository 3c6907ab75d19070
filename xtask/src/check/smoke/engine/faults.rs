//! Registries and engines that fail, and what is said then.
//!
//! All of them are real but one: no buildx that is too old can be had.

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
use crate::check::smoke::engine::faulty::{Answer, FOR_EVER, Faulty, Real, free_address, repo};
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture, digests};
use crate::check::smoke::fixture::process::{BackgroundProcess, Tmpfs, wait};
use crate::engine::throwaway::{Options, Throwaway};

const LOOPBACK: &str = "127.0.0.1";

/// The user `qus` with the password `right`, for a registry; with right and wrong password, for docker.
const HTPASSWD: &str = "qus:$2b$05$abcdefghijklmnopqrstuu8xaCxxL82bnl.UY74PMksDxIJShppPC\n";
const RIGHT: &str = "cXVzOnJpZ2h0";
const WRONG: &str = "cXVzOndyb25n";

/// A certificate that nobody has signed, and its key, which guards nothing.
const CERTIFICATE: &str = include_str!("faults/nobody.crt");
const KEY: &str = include_str!("faults/nobody.key");

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("registry is down", down)?;
    checks.check("registry requires a login: none, wrong, right", login)?;
    checks.check("registry forbids, has no such repository, is read-only", forbidden)?;
    checks.check("too many requests: temporarily, permanently", too_many)?;
    checks.check("registry fails: temporarily, permanently", failing)?;
    checks.check("connection lost during an upload", half_way)?;
    checks.check("malicious registry: another digest, an endless manifest, a redirect to a file", lying)?;
    checks.check("untrusted certificate; no HTTPS", tls)?;
    checks.check("registry's disk is full", full_registry)?;
    checks.check("engine's disk is full", full_engine)?;
    checks.check("push killed, then resumed", killed)?;
    checks.check("two concurrent pushes", twice)?;
    checks.check("no engine", no_engine)?;
    checks.check("no buildx; outdated buildx", no_buildx)
}

/// A push of the small bundle, to be run.
fn push<'a>(fixture: &EngineFixture<'a>, repo: &str) -> Result<Cmd<'a>> {
    fixture.xtask(&fixture.small, &["images", "--push", "--repo", repo, "--sbom", "none", "--json"])
}

/// A proxy before the engine's registry.
fn faulty(
    fixture: &EngineFixture<'_>,
    concerns: fn(&str) -> bool,
    answer: Answer,
    lasts: Duration,
) -> Result<Faulty> {
    Faulty::start(fixture, LOOPBACK, concerns, answer, lasts)
}

fn everything(_: &str) -> bool {
    true
}

/// An upload begins.
fn upload(line: &str) -> bool {
    line.starts_with("POST ") && line.contains("/blobs/uploads")
}

/// A part of a blob comes.
fn content(line: &str) -> bool {
    ["PUT ", "PATCH "].iter().any(|method| line.starts_with(method)) && line.contains("/blobs/uploads")
}

fn down(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = repo(free_address(LOOPBACK)?);
    let registry = repo.trim_end_matches("/qus");
    fixture
        .push(&fixture.small, &repo, &[])?
        .fails(1, &["connection refused: ", &format!("hint: check the name and port {registry}")])
}

fn login(fixture: &EngineFixture<'_>) -> Result<()> {
    let users = fixture.path("htpasswd");
    fs::write(&users, HTPASSWD)?;
    let registry = Real::start(fixture, LOOPBACK, |config| {
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
    let words = ["the registry requires a login: ", &hint];
    fixture.push(&fixture.small, &repo, &[])?.fails(1, &words)?;
    fixture.kernel.run(logged_in(WRONG)?)?.fails(1, &words)?;
    fixture.kernel.run(logged_in(RIGHT)?)?.succeeds().map(drop)
}

fn forbidden(fixture: &EngineFixture<'_>) -> Result<()> {
    let forbids = faulty(fixture, upload, Answer::Head("403 Forbidden"), FOR_EVER)?.repo();
    let words = [
        "building images: the registry denies access: ",
        "403 Forbidden",
        &format!("needs permission to write to {forbids}"),
    ];
    fixture.push(&fixture.small, &forbids, &[])?.fails(1, &words)?;
    let lacks = faulty(fixture, upload, Answer::Head("404 Not Found"), FOR_EVER)?.repo();
    let words = ["404 Not Found", &format!("hint: create the repository {lacks} in the registry first")];
    fixture.push(&fixture.small, &lacks, &[])?.fails(1, &words)?;
    let read_only = Real::start(fixture, LOOPBACK, |config| {
        config["storage"]["maintenance"]["readonly"]["enabled"] = true.into();
    })?;
    let words =
        ["the registry denies access: ", "405 Method Not Allowed", "the registry may also be read-only"];
    fixture.push(&fixture.small, &read_only.repo(), &[])?.fails(1, &words)
}

fn too_many(fixture: &EngineFixture<'_>) -> Result<()> {
    let answer = Answer::Head("429 Too Many Requests\r\nRetry-After: 3");
    let while_ill = faulty(fixture, everything, answer, Duration::from_secs(3))?;
    let words = ["too many requests; retrying in 3 s, as requested by the registry (retry 1 of 3)"];
    fixture.push(&fixture.small, &while_ill.repo(), &[])?.fails(0, &words)?;
    let answer = Answer::Head("429 Too Many Requests\r\nRetry-After: 1");
    let for_ever = faulty(fixture, everything, answer, FOR_EVER)?;
    let words = ["(retry 3 of 3)", "too many requests, 4 times: ", "hint: retry later: "];
    fixture.push(&fixture.small, &for_ever.repo(), &[])?.fails(1, &words)
}

fn failing(fixture: &EngineFixture<'_>) -> Result<()> {
    let answer = Answer::Head("503 Service Unavailable");
    // Half-way between the second attempt and the third, so that a slow machine has time.
    let while_ill = faulty(fixture, everything, answer, Duration::from_secs(4))?;
    let words =
        ["the registry reports a server error; retrying in 2 s (retry 1 of 3)", "in 4 s (retry 2 of 3)"];
    fixture.push(&fixture.small, &while_ill.repo(), &[])?.fails(0, &words)?;
    let answer = Answer::Head("500 Internal Server Error\r\nRetry-After: 1");
    let for_ever = faulty(fixture, everything, answer, FOR_EVER)?;
    let words = [
        "retrying in 1 s, as requested by the registry",
        "the registry reports a server error, 4 times: ",
        "500 Internal Server Error",
        "its disk may be full",
    ];
    fixture.push(&fixture.small, &for_ever.repo(), &[])?.fails(1, &words)
}

fn half_way(fixture: &EngineFixture<'_>) -> Result<()> {
    // BuildKit itself tries again after a second.
    let once = faulty(fixture, content, Answer::HangUp, Duration::from_millis(500))?;
    fixture.push(&fixture.small, &once.repo(), &[])?.succeeds()?;
    ensure!(once.has_struck(), "no upload was cut off");
    // It is patient for 7 seconds, and we are after that.
    let longer = faulty(fixture, content, Answer::HangUp, Duration::from_secs(9))?;
    let words = ["building images: the connection was lost; retrying in 2 s (retry 1 of 3)"];
    fixture.push(&fixture.small, &longer.repo(), &[])?.fails(0, &words)
}

fn lying(fixture: &EngineFixture<'_>) -> Result<()> {
    let asked = |line: &str| line.contains("/manifests/");
    let elsewhere = Answer::Head("307 Temporary Redirect\r\nLocation: file:///etc/passwd");
    for (answer, word) in [
        (Answer::OtherDigest, "unexpected digest"),
        (Answer::Endless, "out of memory"),
        (elsewhere, "unsupported protocol scheme"),
    ] {
        let lies = faulty(fixture, asked, answer, FOR_EVER)?.repo();
        let words = ["the registry sends an invalid response: ", word, "hint: check that "];
        fixture.push(&fixture.small, &lies, &[])?.fails(1, &words)?;
    }
    Ok(())
}

/// At an address that is not of the loopback interface, where docker does without https.
fn tls(fixture: &EngineFixture<'_>) -> Result<()> {
    let gateway = "{{(index .IPAM.Config 0).Gateway}}";
    let ip = fixture.docker(&["network", "inspect", "--format", gateway, "bridge"])?.succeeds()?;
    let [certificate, key] = [("nobody.crt", CERTIFICATE), ("nobody.key", KEY)]
        .map(|(name, text)| files::write(&fixture.path(name), text.as_bytes()).map(|()| fixture.path(name)));
    let (certificate, key) = (certificate?, key?);
    let registry = Real::start(fixture, ip.trim(), |config| {
        config["http"]["tls"] = json!({ "certificate": certificate, "key": key });
    })?;
    let words = ["the registry's certificate is not trusted: ", "x509: ", "hint: add the certificate of "];
    fixture.push(&fixture.small, &registry.repo(), &[])?.fails(1, &words)?;
    let registry = Real::start(fixture, ip.trim(), |_| ())?;
    let words = ["the registry does not support HTTPS: ", "configure it as an insecure registry"];
    fixture.push(&fixture.small, &registry.repo(), &[])?.fails(1, &words)
}

fn full_registry(fixture: &EngineFixture<'_>) -> Result<()> {
    let disk = Tmpfs::mount(&fixture.path("registry-disk"), "size=1m")?;
    let registry = Real::start(fixture, LOOPBACK, |config| {
        config["storage"]["filesystem"]["rootdirectory"] = json!(disk.dir);
    })?;
    // A registry does not tell its clients why it has failed.
    let words = [
        "the registry reports a server error, 4 times: ",
        "500 Internal Server Error",
        "its disk may be full",
    ];
    fixture.push(&fixture.small, &registry.repo(), &[])?.fails(1, &words)
}

fn full_engine(fixture: &EngineFixture<'_>) -> Result<()> {
    let disk = Tmpfs::mount(&fixture.path("engine-disk"), "size=4m")?;
    let options = Options { daemon: json!({ "data-root": disk.dir }), ..Options::default() };
    let engine = Throwaway::start(fixture.kernel.cx, &fixture.path("f/run"), &options)?;
    let repo = fixture.repo("full");
    let args = ["images", "--push", "--repo", &repo, "--sbom", "none"];
    let ended = fixture.kernel.run(fixture.xtask_with(&engine, &fixture.small, &args)?)?;
    // Of dockerd 26.1, one in a dozen panics where the others say that the disk is full.
    let words: &[&str] = match ended.stderr.contains("the engine is not running") {
        true => &["Cannot connect to the Docker daemon", "hint: restart the engine", "its disk may be full"],
        false => &["no space left on a disk: ", "no space left on device", "hint: free disk space"],
    };
    ended.fails(1, words)
}

fn killed(fixture: &EngineFixture<'_>) -> Result<()> {
    let registry = faulty(fixture, content, Answer::Silence, FOR_EVER)?;
    let mut first = BackgroundProcess::start(fixture.path("killed.log"), push(fixture, &registry.repo())?)?;
    wait("nothing is uploaded", || Ok(registry.has_struck()))?;
    first.signal(Signal::SIGKILL)?;
    first.child.wait()?;
    registry.heal();
    let pushed = digests(&fixture.kernel.run(push(fixture, &registry.repo())?)?.succeeds()?)?;
    ensure!(pushed.len() == TAGS_OF_SMALL, "not all tags are there: {pushed:?}");
    for (tag, digest) in pushed {
        let found = fixture.inspect(&format!("{}:{tag}", registry.repo()))?;
        ensure!(found["manifest"]["digest"] == *digest, "{tag} is not {digest} but {found}");
    }
    Ok(())
}

fn twice(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("twice");
    let mut first = BackgroundProcess::start(fixture.path("first.log"), push(fixture, &repo)?)?;
    first.wait_for_output("querying ")?;
    let second = fixture.kernel.run(push(fixture, &repo)?)?;
    ensure!(
        second.stderr.contains(&format!("waiting for another cargo xtask (process {})", first.child.id())),
        "the second does not say that it waits: {}",
        second.stderr
    );
    let status = first.child.wait()?;
    ensure!(status.success(), "the first ended with {status}");
    let rows: Vec<Value> = serde_json::from_str(&second.succeeds()?)?;
    let stays = rows.iter().all(|row| row["state"] == "unchanged");
    ensure!(stays && !rows.is_empty(), "the second has changed what the first pushed: {rows:?}");
    Ok(())
}

fn no_engine(fixture: &EngineFixture<'_>) -> Result<()> {
    let words = [
        "no container engine is available:",
        "installed: docker is not installed",
        "throwaway: ",
        "lacks apt-get or dpkg-deb",
        "hint: install and start Docker",
    ];
    fixture.kernel.run(push(fixture, &fixture.repo("none"))?.env("PATH", "/nonexistent"))?.fails(1, &words)
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
        let places = ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"];
        let places = places.map(|place| Path::new(place).join("docker/cli-plugins"));
        let hidden = places.iter().filter(|place| place.is_dir());
        let _hidden = hidden.map(|place| Tmpfs::mount(place, "ro")).collect::<Result<Vec<_>>>()?;
        let words = [
            "cannot use the builder default: docker has no buildx",
            "hint: --builder needs docker with buildx",
        ];
        fixture.kernel.run(push()?)?.fails(1, &words)?;
    }
    // The only one that pretends: no distribution has one that is too old and runs with this docker.
    let plugin = config.join("cli-plugins/docker-buildx");
    let metadata = json!({ "SchemaVersion": "0.1.0", "Vendor": "qus", "Version": "v0.9.1" });
    let script = format!(
        "#!/bin/sh\ncase $1 in docker-cli-plugin-metadata) echo '{metadata}' ;; *) echo github.com/docker/buildx v0.9.1 ed00243 ;; esac\n"
    );
    files::write(&plugin, script.as_bytes())?;
    fs::set_permissions(&plugin, Permissions::from_mode(0o755)).context("cannot change its mode")?;
    let words = [
        "cannot use the builder default: buildx 0.9.1 is too old; 0.13.0 or newer is required",
        "hint: --builder needs docker with buildx 0.13.0",
    ];
    fixture.kernel.run(push()?)?.fails(1, &words)
}
