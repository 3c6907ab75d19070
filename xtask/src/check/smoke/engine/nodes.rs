//! Checks a builder with two nodes, each of which builds its own host: two throwaway engines on this machine, which
//! runs amd64 and i386 natively.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use qus_core::arch::{Arch, Host};
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::{cache, files};
use crate::bundle::artefact;
use crate::bundle::manifest;
use crate::bundle::runner::Runner;
use crate::check::smoke::engine::builders::{check_has_built, serve_buildkit};
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};
use crate::debian::distribution::Distribution;
use crate::debian::packages;
use crate::engine::throwaway::{Options, Throwaway};
use crate::qus::rust;

/// Quick to build, and supported by both hosts.
const GUEST: &str = "or1k";

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("two nodes of a builder each build their own host", two_nodes)
}

fn two_nodes(fixture: &EngineFixture<'_>) -> Result<()> {
    if fixture.host.name != "amd64" {
        return Err(Skip("requires an amd64 machine, which runs amd64 and i386 natively".to_owned()).into());
    }
    let hosts: [&Host; 2] = [fixture.host, "i386".parse()?];
    let there = Throwaway::start(fixture.kernel.cx, &fixture.path("n/run"), &Options::default())?;
    let create = |args: &[&str]| -> Result<()> {
        let create = ["buildx", "create", "--driver", "remote", "--name", "farm"];
        fixture.docker(&[&create, args].concat())?.succeeds().map(drop)
    };
    let platform = |host: &Host| format!("--platform=linux/{}", host.platform);
    create(&[&platform(hosts[0]), &serve_buildkit(fixture, &fixture.engine, "farm1.sock")?])?;
    create(&[
        "--append",
        "--node",
        "there",
        &platform(hosts[1]),
        &serve_buildkit(fixture, &there, "farm2.sock")?,
    ])?;

    let base = fixture.repo("base");
    for host in hosts {
        base_image(fixture, host, &format!("{base}:{host}"))?;
    }
    let both = hosts.map(|host| format!("{base}:{host}"));
    let merge = ["buildx", "imagetools", "create", "--tag", &format!("{base}:latest"), &both[0], &both[1]];
    fixture.docker(&merge)?.succeeds()?;

    let target = fixture.path("farm");
    let build = ["build-qemu", GUEST, "--host", "amd64,i386", "--builder", "farm"];
    let options = format!("--build-arg BASE={base}:latest --network host --allow network.host");
    fixture.kernel.run(fixture.xtask(&target, &build)?.env("QUS_BUILDX_OPTIONS", options))?.succeeds()?;
    let guest: &Arch = GUEST.parse()?;
    for host in hosts {
        let dir = target.join("qus/bundle").join(host.name);
        let bundle = manifest::read(&dir)?.with_context(|| format!("there is no bundle for {host}"))?;
        ensure!(bundle.recipe.host == host && bundle.emulators.len() == 1, "unexpected bundle: {bundle:?}");
        artefact::run_probe(&Runner::native(), &dir.join(guest.emulator()), guest)?;
        let qus = dir.join("qus");
        let version = exec::read(cmd!(sh(), "{qus} --version"))?;
        ensure!(version.starts_with("qus "), "qus of {host} prints {version:?}");
    }
    check_has_built(fixture, &there)
}

/// Pushes an image for one host in which this project can be built.
fn base_image(fixture: &EngineFixture<'_>, host: &Host, name: &str) -> Result<()> {
    let root = base_root(fixture, host)?;
    let dir = fixture.path("base");
    // By default, pip does not use the system's certificates.
    let dockerfile = format!("FROM scratch\nCOPY --from=root / /\nENV PIP_CERT={CERTIFICATES}\n");
    files::write(&dir.join("Dockerfile"), dockerfile.as_bytes())?;
    let [platform, context, output] = [
        format!("linux/{}", host.platform),
        format!("root={}", root.display()),
        format!("type=image,name={name},push=true,compression=uncompressed"),
    ];
    let build =
        ["buildx", "build", "--platform", &platform, "--build-context", &context, "--output", &output];
    fixture
        .docker(&[&build[..], &["--provenance", "false", &dir.display().to_string()]].concat())?
        .succeeds()
        .map(drop)
}

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Creates a root filesystem for builds: unpacked packages, files that their scripts would create, and this machine's
/// mirrors and certificates.
fn base_root(fixture: &EngineFixture<'_>, host: &Host) -> Result<PathBuf> {
    let cx = fixture.kernel.cx;
    let set = &cx.data.debian.packages.builder_rootfs;
    let distribution = Distribution::detect()?.ok_or_else(|| {
        Skip("the nodes require packages from apt, which this machine does not have".to_owned())
    })?;
    let id = format!("build-{}-{}-{}", distribution.codename, packages::id(set), host.debian);
    let dir = cx.paths.rootfs(&id);
    if dir.exists() {
        return Ok(dir);
    }
    cache::publish(&dir, |root| {
        let what = format!("a node of {host}");
        packages::fetch(cx, &distribution, &set.from, Some(host.debian), &what, root, |apt, root| {
            rust::first_available(&cx.data.hosts, |rust| {
                files::recreate_dir(root)?;
                let rust = [&rust.cargo, &rust.compiler];
                apt.unpack_all(&set.packages.iter().chain(rust).collect::<Vec<_>>(), root).map(drop)
            })
        })?;
        for name in ["passwd", "group"] {
            fs::copy(
                root.join("usr/share/base-passwd").join(format!("{name}.master")),
                root.join("etc").join(name),
            )?;
        }
        for (target, link) in [("gcc", "usr/bin/cc"), ("dash", "bin/sh")] {
            if !root.join(link).exists() {
                symlink(target, root.join(link))?;
            }
        }
        fs::create_dir_all(root.join("tmp"))?;
        fs::write(root.join("var/lib/dpkg/status"), "")?;
        for path in ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources", CERTIFICATES] {
            let to = root.join(path.trim_start_matches('/'));
            if Path::new(path).exists() {
                files::copy(Path::new(path), &to)?;
            }
        }
        Ok(())
    })?;
    Ok(dir)
}
