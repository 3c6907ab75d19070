//! Checks images as users run them: docker/setup-qemu-action, our own action, services, and the entry point.

mod entry;
mod services;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use qus_core::arch::{ARCHES, Arch};
use qus_core::emulator::is_own;
use serde_json::Value;
use xshell::cmd;

use crate::base::exec::sh;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};
use crate::check::smoke::fixture::handlers::{
    check_all_registered, check_each_handler, check_none_registered, handlers, parse_platforms, privileged,
};
use crate::check::smoke::fixture::kernel::FOREIGN;

/// A second architecture that this machine does not run.
const OTHER: &str = if cfg!(target_arch = "s390x") { "ppc64le" } else { "s390x" };

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("docker/setup-qemu-action: its steps, and the platforms that buildx lists", setup_qemu)?;
    checks.check(
        "the action: registers and reports handlers; a handler that differs is an error, reset replaces it",
        action,
    )?;
    checks.check("the action: the image is cached and loaded", image_cached)?;
    checks.check("the action: every failure is an annotation", failures_annotated)?;
    services::run(checks)?;
    entry::run(checks)
}

/// Runs the commands of docker/setup-qemu-action v3 and v4 (`src/main.ts`), and of docker/actions-toolkit with
/// `cache-image` (`Docker.pull`), in the same order and with the same arguments.
fn setup_qemu(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let archive = &*fixture.path("setup-qemu.tar").to_string_lossy().into_owned();
    fixture.kernel.install(&["hppa"])?;
    fixture.docker(&["pull", image])?.succeeds()?;
    fixture.docker(&["save", "-o", archive, image])?.succeeds()?;
    fixture.docker(&["image", "rm", image])?.succeeds()?;
    fixture.docker(&["load", "-i", archive])?.succeeds()?;
    fixture.docker(&["pull", image])?.succeeds()?;
    fixture.docker(&["image", "inspect", image])?.succeeds()?;
    privileged(fixture, &["--version"])?.succeeds()?;
    privileged(fixture, &["--uninstall", "qemu-*"])?.succeeds()?;
    check_none_registered(fixture)?;
    let foreign = FOREIGN[1];
    privileged(fixture, &["--install", &format!("{foreign},{OTHER}")])?.succeeds()?;
    ensure!(
        handlers(fixture)? == [format!("qemu-{}", FOREIGN[0]), format!("qemu-{OTHER}")],
        "other handlers are registered"
    );
    let platforms = parse_platforms(&privileged(fixture, &[])?.succeeds()?)?;
    let own: &Arch =
        ARCHES.iter().find(|arch| is_own(arch)).context("the table has no row for this machine")?;
    let first = format!("linux/{}", own.platforms[0]);
    ensure!(platforms.first() == Some(&first), "the first platform is not the machine's own: {platforms:?}");
    let installed = [foreign, OTHER].map(|platform| format!("linux/{platform}"));
    for platform in &installed {
        ensure!(platforms.contains(platform), "{platform} is not supported: {platforms:?}");
    }
    // Only the new platforms are compared: the daemon detects new ones on every request, but lists removed ones until
    // it is restarted, and never lists 32-bit platforms of a 64-bit processor (moby's `Worker.Platforms`).
    let inspected = fixture.docker(&["buildx", "inspect", "--bootstrap"])?.succeeds()?;
    let listed = inspected.lines().find_map(|line| line.strip_prefix("Platforms:"));
    let listed: Vec<_> = listed.context("buildx lists no platforms")?.split(',').map(str::trim).collect();
    for platform in &installed {
        ensure!(listed.contains(&&**platform), "buildx does not list {platform}: {listed:?}");
    }
    // `all` is the action's default.
    privileged(fixture, &["--install", "all"])?.succeeds()?;
    check_all_registered(fixture, "POCF")
}

/// Runs a step of our action, and returns its result and what it writes to `GITHUB_OUTPUT`.
fn run_step(
    fixture: &EngineFixture<'_>,
    step: &str,
    variables: &[(&str, &str)],
) -> Result<(CommandOutput, String)> {
    let script = fixture.kernel.cx.paths.images().join("action/install.sh");
    let outputs = fixture.path("output");
    fs::write(&outputs, "")?;
    let mut cmd = cmd!(sh(), "{script} {step}").env("GITHUB_OUTPUT", &outputs);
    for (name, value) in fixture.engine.client().variables(&fixture.kernel.cx.settings)? {
        cmd = cmd.env(name, value);
    }
    for (name, value) in variables {
        cmd = cmd.env(name, value);
    }
    Ok((fixture.kernel.run(cmd)?, fs::read_to_string(outputs)?))
}

fn action(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let (step, outputs) = run_step(fixture, "image", &[("QUS_IMAGE", image)])?;
    step.writes("")?;
    ensure!(outputs == format!("image={image}\n"), "unexpected outputs: {outputs}");

    let platforms = format!("linux/{},\n {OTHER}", FOREIGN[1]);
    let variables = [("QUS_IMAGE", image), ("QUS_PLATFORMS", &platforms)];
    let (step, outputs) = run_step(fixture, "install", &variables)?;
    for word in ["@sha256:", FOREIGN[0], OTHER] {
        ensure!(step.stderr.contains(word), "`{word}` is not in the log: {}", step.stderr);
    }
    step.writes("")?;
    let (platforms, status) = outputs.split_once("\nstatus<<END\n").context("no output `status`")?;
    let platforms = platforms.strip_prefix("platforms=").context("no output `platforms`")?;
    let platforms: Vec<_> = platforms.split(',').collect();
    for platform in [FOREIGN[1], OTHER].map(|platform| format!("linux/{platform}")) {
        ensure!(platforms.contains(&&*platform), "{platform} is not listed: {platforms:?}");
    }
    let status: Value =
        serde_json::from_str(status.strip_suffix("END\n").context("the output `status` has no end marker")?)?;
    ensure!(status["handlers"].as_array().is_some_and(|rows| rows.len() == 2), "not two handlers: {status}");

    // A handler of qus with another path and other flags.
    privileged(fixture, &["remove", "all"])?.succeeds()?;
    fixture.kernel.install(&[FOREIGN[0], "--no-credentials"])?;
    let (step, outputs) = run_step(fixture, "install", &variables)?;
    step.exits(1, &["::error title=qus::qus install ", "flags: is ", "should be POCF"])?;
    ensure!(outputs.is_empty(), "the failed step has outputs: {outputs}");
    let variables = [&variables[..], &[("QUS_RESET", "true")]].concat();
    run_step(fixture, "install", &variables)?.0.succeeds()?;
    check_each_handler(fixture, "interpreter /usr/bin/qemu-")
}

fn image_cached(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("cached");
    fixture.push(&fixture.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    let cache = fixture.path("cached");
    let cache_dir = &*cache.to_string_lossy();
    let variables = [("QUS_IMAGE", image), ("QUS_PLATFORMS", "all"), ("QUS_CACHE", cache_dir)];
    run_step(fixture, "install", &variables)?.0.succeeds()?;
    ensure!(cache.join("image.tar").is_file(), "the image is not in the cache directory");
    fixture.docker(&["image", "rm", image])?.succeeds()?;
    privileged(fixture, &["remove", "all"])?.succeeds()?;
    let (step, _) = run_step(fixture, "install", &variables)?;
    ensure!(!step.stderr.contains("Pulling"), "the image was pulled again: {}", step.stderr);
    step.succeeds()?;
    ensure!(!handlers(fixture)?.is_empty(), "the loaded image registered no handler");
    fs::write(cache.join("image.tar"), "no image")?;
    let expected = ["::error title=qus::docker cannot load ", "delete the cache"];
    run_step(fixture, "install", &variables)?.0.exits(1, &expected)
}

fn failures_annotated(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let fails = |variables: &[(&str, &str)], expected: &[&str]| -> Result<()> {
        let (step, outputs) = run_step(fixture, "install", variables)?;
        ensure!(outputs.is_empty(), "the failed step has outputs: {outputs}");
        step.exits(1, expected)
    };
    let expected = ["::error title=qus::qus install vax 100%25 failed%0A", "not installed: vax 100%25\n"];
    fails(&[("QUS_IMAGE", image), ("QUS_PLATFORMS", "vax,100%")], &expected)?;
    let missing = &*fixture.repo("missing:1");
    let expected = ["::error title=qus::docker cannot pull ", missing, "name another with `image`"];
    fails(&[("QUS_IMAGE", missing), ("QUS_PLATFORMS", "all")], &expected)?;
    check_none_registered(fixture)
}
