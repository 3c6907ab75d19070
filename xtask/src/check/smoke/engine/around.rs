//! What comes with the images, used as its users use it: the steps of docker/setup-qemu-action, our own
//! action, and further below services and the entry point.

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
    checks.check("the action: the image is cached and loaded", kept)?;
    checks.check("the action: every failure is an annotation", annotated)?;
    services::run(checks)?;
    entry::run(checks)
}

/// `src/main.ts` of docker/setup-qemu-action v3 and v4, and `Docker.pull` of docker/actions-toolkit with
/// `cache-image`: their commands in their order, with their very arguments.
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
        "others were registered"
    );
    let platforms = parse_platforms(&privileged(fixture, &[])?.succeeds()?)?;
    let own: &Arch = ARCHES.iter().find(|arch| is_own(arch)).context("this machine has an architecture")?;
    let first = format!("linux/{}", own.platforms[0]);
    ensure!(platforms.first() == Some(&first), "the machine's own is not the first of {platforms:?}");
    let installed = [foreign, OTHER].map(|platform| format!("linux/{platform}"));
    for platform in &installed {
        ensure!(platforms.contains(platform), "{platform} is not supported: {platforms:?}");
    }
    // The daemon looks anew whenever it is asked, and adds what it finds; what has gone it tells until it is
    // restarted, and of what 64-bit processors may run besides it tells nothing (moby's `Worker.Platforms`).
    let inspected = fixture.docker(&["buildx", "inspect", "--bootstrap"])?.succeeds()?;
    let listed = inspected.lines().find_map(|line| line.strip_prefix("Platforms:"));
    let listed: Vec<_> = listed.context("buildx tells no platforms")?.split(',').map(str::trim).collect();
    for platform in &installed {
        ensure!(listed.contains(&&**platform), "buildx does not tell {platform}: {listed:?}");
    }
    // `all` is the action's default.
    privileged(fixture, &["--install", "all"])?.succeeds()?;
    check_all_registered(fixture, "POCF")
}

/// A step of our action, and what it adds to the outputs.
fn act(
    fixture: &EngineFixture<'_>,
    step: &str,
    variables: &[(&str, &str)],
) -> Result<(CommandOutput, String)> {
    let script = fixture.kernel.cx.paths.images().join("action/install.sh");
    let output = fixture.path("output");
    fs::write(&output, "")?;
    let mut cmd = cmd!(sh(), "{script} {step}").env("GITHUB_OUTPUT", &output);
    for (name, value) in fixture.engine.client().variables(&fixture.kernel.cx.settings)? {
        cmd = cmd.env(name, value);
    }
    for (name, value) in variables {
        cmd = cmd.env(name, value);
    }
    Ok((fixture.kernel.run(cmd)?, fs::read_to_string(output)?))
}

fn action(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let (ended, output) = act(fixture, "image", &[("QUS_IMAGE", image)])?;
    ended.writes("")?;
    ensure!(output == format!("image={image}\n"), "another image is meant: {output}");

    let platforms = format!("linux/{},\n {OTHER}", FOREIGN[1]);
    let variables = [("QUS_IMAGE", image), ("QUS_PLATFORMS", &platforms)];
    let (ended, output) = act(fixture, "install", &variables)?;
    for word in ["@sha256:", FOREIGN[0], OTHER] {
        ensure!(ended.stderr.contains(word), "the log does not tell {word}: {}", ended.stderr);
    }
    ended.writes("")?;
    let (names, status) = output.split_once("\nstatus<<END\n").context("there is no output `status`")?;
    let names: Vec<_> = names.strip_prefix("platforms=").context("no `platforms`")?.split(',').collect();
    for platform in [FOREIGN[1], OTHER].map(|platform| format!("linux/{platform}")) {
        ensure!(names.contains(&&*platform), "{platform} is not among {names:?}");
    }
    let status: Value = serde_json::from_str(status.strip_suffix("END\n").context("`status` has no end")?)?;
    ensure!(status["handlers"].as_array().is_some_and(|rows| rows.len() == 2), "other handlers: {status}");

    // Ours, from elsewhere.
    privileged(fixture, &["remove", "all"])?.succeeds()?;
    fixture.kernel.install(&[FOREIGN[0], "--no-credentials"])?;
    let (ended, output) = act(fixture, "install", &variables)?;
    ended.fails(1, &["::error title=qus::qus install ", "flags: is ", "should be POCF"])?;
    ensure!(output.is_empty(), "what has failed tells {output}");
    let variables = [&variables[..], &[("QUS_RESET", "true")]].concat();
    act(fixture, "install", &variables)?.0.succeeds()?;
    check_each_handler(fixture, "interpreter /usr/bin/qemu-")
}

fn kept(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("kept");
    fixture.push(&fixture.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    let cache = fixture.path("kept");
    let cache_dir = &*cache.to_string_lossy();
    let variables = [("QUS_IMAGE", image), ("QUS_PLATFORMS", "all"), ("QUS_CACHE", cache_dir)];
    act(fixture, "install", &variables)?.0.succeeds()?;
    ensure!(cache.join("image.tar").is_file(), "the image was not kept");
    fixture.docker(&["image", "rm", image])?.succeeds()?;
    privileged(fixture, &["remove", "all"])?.succeeds()?;
    let (ended, _) = act(fixture, "install", &variables)?;
    ensure!(!ended.stderr.contains("Pulling"), "it was pulled again: {}", ended.stderr);
    ended.succeeds()?;
    ensure!(!handlers(fixture)?.is_empty(), "the image that was loaded has registered nothing");
    fs::write(cache.join("image.tar"), "no image")?;
    let words = ["::error title=qus::docker cannot load ", "delete the cache"];
    act(fixture, "install", &variables)?.0.fails(1, &words)
}

fn annotated(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let fails = |variables: &[(&str, &str)], words: &[&str]| -> Result<()> {
        let (ended, output) = act(fixture, "install", variables)?;
        ensure!(output.is_empty(), "what has failed tells {output}");
        ended.fails(1, words)
    };
    let wrong = ["::error title=qus::qus install vax 100%25 failed%0A", "not installed: vax 100%25\n"];
    fails(&[("QUS_IMAGE", image), ("QUS_PLATFORMS", "vax,100%")], &wrong)?;
    let missing = &*fixture.repo("nobody:1");
    let words = ["::error title=qus::docker cannot pull ", missing, "name another with `image`"];
    fails(&[("QUS_IMAGE", missing), ("QUS_PLATFORMS", "all")], &words)?;
    check_none_registered(fixture)
}
