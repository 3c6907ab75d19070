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
use crate::check::smoke::fixture::bench::FOREIGN;
use crate::check::smoke::fixture::dock::{Checks, Dock};
use crate::check::smoke::fixture::ended::Ended;
use crate::check::smoke::fixture::handlers::{
    all_stand, each_says, handlers, none_is_left, privileged, supported,
};

/// A second architecture that this machine does not run.
const OTHER: &str = if cfg!(target_arch = "s390x") { "ppc64le" } else { "s390x" };

pub(super) fn run(checks: &mut Checks<'_>) -> Result<()> {
    checks.check("docker/setup-qemu-action: its steps, and what buildx finds then", setup_qemu)?;
    checks.check("the action: registers and tells; what differs is an error, reset replaces it", action)?;
    checks.check("the action: the image is kept and loaded", kept)?;
    checks.check("the action: every failure is an annotation", annotated)?;
    services::run(checks)?;
    entry::run(checks)
}

/// `src/main.ts` of docker/setup-qemu-action v3 and v4, and `Docker.pull` of docker/actions-toolkit with
/// `cache-image`: their commands in their order, with their very arguments.
fn setup_qemu(dock: &Dock<'_>) -> Result<()> {
    let image = &*dock.full_image()?;
    let archive = &*dock.path("setup-qemu.tar").to_string_lossy().into_owned();
    dock.bench.install(&["hppa"])?;
    dock.docker(&["pull", image])?.succeeds()?;
    dock.docker(&["save", "-o", archive, image])?.succeeds()?;
    dock.docker(&["image", "rm", image])?.succeeds()?;
    dock.docker(&["load", "-i", archive])?.succeeds()?;
    dock.docker(&["pull", image])?.succeeds()?;
    dock.docker(&["image", "inspect", image])?.succeeds()?;
    privileged(dock, &["--version"])?.succeeds()?;
    privileged(dock, &["--uninstall", "qemu-*"])?.succeeds()?;
    none_is_left(dock)?;
    let foreign = FOREIGN[1];
    privileged(dock, &["--install", &format!("{foreign},{OTHER}")])?.succeeds()?;
    ensure!(
        handlers(dock)? == [format!("qemu-{}", FOREIGN[0]), format!("qemu-{OTHER}")],
        "others were registered"
    );
    let platforms = supported(&privileged(dock, &[])?.succeeds()?)?;
    let own: &Arch = ARCHES.iter().find(|arch| is_own(arch)).context("this machine has an architecture")?;
    let first = format!("linux/{}", own.platforms[0]);
    ensure!(platforms.first() == Some(&first), "the machine's own is not the first of {platforms:?}");
    let installed = [foreign, OTHER].map(|platform| format!("linux/{platform}"));
    for platform in &installed {
        ensure!(platforms.contains(platform), "{platform} is not supported: {platforms:?}");
    }
    // The daemon looks anew whenever it is asked, and adds what it finds; what has gone it tells until it is
    // restarted, and of what 64-bit processors may run besides it tells nothing (moby's `Worker.Platforms`).
    let inspected = dock.docker(&["buildx", "inspect", "--bootstrap"])?.succeeds()?;
    let listed = inspected.lines().find_map(|line| line.strip_prefix("Platforms:"));
    let listed: Vec<_> = listed.context("buildx tells no platforms")?.split(',').map(str::trim).collect();
    for platform in &installed {
        ensure!(listed.contains(&&**platform), "buildx does not tell {platform}: {listed:?}");
    }
    // `all` is the action's default.
    privileged(dock, &["--install", "all"])?.succeeds()?;
    all_stand(dock, "POCF")
}

/// A step of our action, and what it adds to the outputs.
fn act(dock: &Dock<'_>, step: &str, variables: &[(&str, &str)]) -> Result<(Ended, String)> {
    let script = dock.bench.cx.paths.images().join("action/install.sh");
    let output = dock.path("output");
    fs::write(&output, "")?;
    let mut cmd = cmd!(sh(), "{script} {step}").env("GITHUB_OUTPUT", &output);
    for (name, value) in dock.engine.client().variables(&dock.bench.cx.settings)? {
        cmd = cmd.env(name, value);
    }
    for (name, value) in variables {
        cmd = cmd.env(name, value);
    }
    Ok((dock.bench.ends(cmd)?, fs::read_to_string(output)?))
}

fn action(dock: &Dock<'_>) -> Result<()> {
    let image = &*dock.full_image()?;
    let (ended, output) = act(dock, "image", &[("QUS_IMAGE", image)])?;
    ended.writes("")?;
    ensure!(output == format!("image={image}\n"), "another image is meant: {output}");

    let platforms = format!("linux/{},\n {OTHER}", FOREIGN[1]);
    let variables = [("QUS_IMAGE", image), ("QUS_PLATFORMS", &platforms)];
    let (ended, output) = act(dock, "install", &variables)?;
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
    privileged(dock, &["remove", "all"])?.succeeds()?;
    dock.bench.install(&[FOREIGN[0], "--no-credentials"])?;
    let (ended, output) = act(dock, "install", &variables)?;
    ended.fails(1, &["::error title=qus::qus install ", "flags: is ", "should be POCF"])?;
    ensure!(output.is_empty(), "what has failed tells {output}");
    let variables = [&variables[..], &[("QUS_RESET", "true")]].concat();
    act(dock, "install", &variables)?.0.succeeds()?;
    each_says(dock, "interpreter /usr/bin/qemu-")
}

fn kept(dock: &Dock<'_>) -> Result<()> {
    let repo = dock.repo("kept");
    dock.push(&dock.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    let cache = dock.path("kept");
    let folder = &*cache.to_string_lossy();
    let variables = [("QUS_IMAGE", image), ("QUS_PLATFORMS", "all"), ("QUS_CACHE", folder)];
    act(dock, "install", &variables)?.0.succeeds()?;
    ensure!(cache.join("image.tar").is_file(), "the image was not kept");
    dock.docker(&["image", "rm", image])?.succeeds()?;
    privileged(dock, &["remove", "all"])?.succeeds()?;
    let (ended, _) = act(dock, "install", &variables)?;
    ensure!(!ended.stderr.contains("Pulling"), "it was pulled again: {}", ended.stderr);
    ended.succeeds()?;
    ensure!(!handlers(dock)?.is_empty(), "the image that was loaded has registered nothing");
    fs::write(cache.join("image.tar"), "no image")?;
    let words = ["::error title=qus::docker cannot load ", "delete the cache"];
    act(dock, "install", &variables)?.0.fails(1, &words)
}

fn annotated(dock: &Dock<'_>) -> Result<()> {
    let image = &*dock.full_image()?;
    let fails = |variables: &[(&str, &str)], words: &[&str]| -> Result<()> {
        let (ended, output) = act(dock, "install", variables)?;
        ensure!(output.is_empty(), "what has failed tells {output}");
        ended.fails(1, words)
    };
    let wrong = ["::error title=qus::qus install vax 100%25 failed%0A", "not installed: vax 100%25\n"];
    fails(&[("QUS_IMAGE", image), ("QUS_PLATFORMS", "vax,100%")], &wrong)?;
    let missing = &*dock.repo("nobody:1");
    let words = ["::error title=qus::docker cannot pull ", missing, "name another with `image`"];
    fails(&[("QUS_IMAGE", missing), ("QUS_PLATFORMS", "all")], &words)?;
    none_is_left(dock)
}
