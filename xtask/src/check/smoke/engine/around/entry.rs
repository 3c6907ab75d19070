//! The entry point in containers of every kind: what it says without rights, where handlers cannot be the
//! host's, and the words that other images are run with.

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde_json::json;
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::sh;
use crate::check::smoke::fixture::bench::FOREIGN;
use crate::check::smoke::fixture::dock::{Checks, Dock};
use crate::check::smoke::fixture::handlers::supported;
use crate::check::smoke::fixture::handlers::{
    all_stand, each_says, handlers, have_flags, none_is_left, privileged,
};
use crate::engine::throwaway::{Options, Throwaway};

pub(super) fn run(checks: &mut Checks<'_>) -> Result<()> {
    checks.check(
        "a container without rights: tells platforms; installs nothing, and says why",
        without_rights,
    )?;
    checks.check("binfmt_misc mounted into a container: read-only, writable", mounted)?;
    checks.check("an engine that maps users: never OK; --userns=host", mapped_users)?;
    checks.check("the image of qus alone, with emulators of the host", register_image)?;
    checks.check("--persist with the host's root folder mounted", persist)?;
    checks.check("the words of dbhi/qus", dbhi)?;
    checks.check("the words of tonistiigi/binfmt and multiarch/qemu-user-static", others)?;
    checks.check("programs run when container and image are gone", image_gone)
}

fn without_rights(dock: &Dock<'_>) -> Result<()> {
    let image = &*dock.full_image()?;
    let foreign = format!("linux/{}", FOREIGN[1]);
    let told = || supported(&dock.docker(&["run", "--rm", image])?.succeeds()?);
    ensure!(!told()?.contains(&foreign), "{foreign} is told before there is a handler");
    let words = ["cannot mount binfmt_misc", "hint: in a container, add `--privileged`"];
    for arch in ["all", FOREIGN[1]] {
        let ended = dock.docker(&["run", "--rm", image, "install", arch])?;
        ensure!(!ended.stderr.contains("run it as root"), "it is run by root: {}", ended.stderr);
        ended.fails(1, &words)?;
    }
    // The form in which setup-qemu-action asks.
    dock.docker(&["run", "--rm", image, "--install", "all"])?.fails(1, &words)?;
    dock.docker(&["run", "--rm", "--user=65534", "--privileged", image, "install", "all"])?
        .fails(1, &["hint: run it as root; in a container, add `--privileged`"])?;
    none_is_left(dock)?;
    privileged(dock, &["install", FOREIGN[1]])?.succeeds()?;
    ensure!(told()?.contains(&foreign), "{foreign} is not told without rights");
    Ok(())
}

/// As a volume that docker mounts, for a container that has no further right.
fn mounted(dock: &Dock<'_>) -> Result<()> {
    let image = &*dock.full_image()?;
    let mount = ["--opt", "type=binfmt_misc", "--opt", "device=binfmt_misc", "binfmt"];
    dock.docker(&[&["volume", "create"], &mount[..]].concat())?.succeeds()?;
    let install = |volume: &str| {
        dock.docker(&["run", "--rm", "-v", volume, image, "--mount", "/binfmt", "install", FOREIGN[1]])
    };
    install("binfmt:/binfmt:ro")?.fails(1, &["/binfmt is mounted read-only", "hint: "])?;
    none_is_left(dock)?;
    install("binfmt:/binfmt")?.succeeds()?;
    ensure!(handlers(dock)? == [format!("qemu-{}", FOREIGN[0])], "it is not registered");
    dock.bench.qus(&["probe", FOREIGN[0]])?.succeeds().map(drop)
}

/// Root in its containers is nobody on the host, and a binfmt_misc that it mounts is its own.
fn mapped_users(dock: &Dock<'_>) -> Result<()> {
    let repo = dock.repo("mapped");
    dock.push(&dock.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    let with = |name: &str, line: &str| -> Result<String> {
        Ok(fs::read_to_string(format!("/etc/{name}")).unwrap_or_default() + line)
    };
    let options = Options {
        // Docker 26 cannot map users with images in containerd.
        containerd_store: false,
        // Where the mapped root may look.
        daemon: json!({"userns-remap": "qus-smoke", "data-root": dock.bench.path("mapped")}),
        etc: vec![
            ("passwd", with("passwd", "qus-smoke:x:654321:654321::/:/bin/false\n")?),
            ("group", with("group", "qus-smoke:x:654321:\n")?),
            ("subuid", "qus-smoke:700000:65536\n".to_owned()),
            ("subgid", "qus-smoke:700000:65536\n".to_owned()),
        ],
        ..Options::default()
    };
    let engine = Throwaway::start(dock.bench.cx, &dock.path("u/run"), &options)
        .map_err(|error| Skip(format!("no engine that maps users can be started here: {error:#}")))?;
    let docker = |args: &[&str]| dock.bench.ends(engine.client().cmd(args));
    docker(&["pull", image])?.succeeds()?;
    docker(&["run", "--rm", image])?.succeeds()?;
    let arch = FOREIGN[1];
    for rights in [&["--cap-add=ALL", "--security-opt=seccomp=unconfined"][..], &["--cap-add=SYS_ADMIN"], &[]]
    {
        let run = [&["run", "--rm"], rights, &[image, "install", arch]].concat();
        docker(&run)?.fails(1, &["this user namespace", "hint: ", "--userns=host"])?;
        none_is_left(dock)?;
    }
    docker(&["run", "--rm", "--privileged", "--userns=host", image, "install", arch])?.succeeds()?;
    dock.bench.qus(&["probe", arch])?.succeeds().map(drop)
}

fn register_image(dock: &Dock<'_>) -> Result<()> {
    let image = dock.full_image()?.replace(":latest", ":register");
    let run = |options: &[&str], args: &[&str]| {
        dock.docker(&[&["run", "--rm", "--privileged"], options, &[&image], args].concat())
    };
    run(&[], &["install", "all"])?.fails(1, &["emulator", "--dir"])?;
    none_is_left(dock)?;
    let volume = format!("{}:/emulators:ro", dock.bench.bundle.display());
    let options = ["-v", &volume, "-e", "QEMU_BIN_DIR=/emulators"];
    run(&options, &["install", "all"])?.succeeds()?;
    all_stand(dock, "POCF")?;
    each_says(dock, "interpreter /emulators/qemu-")?;
    run(&options, &["status", "all"])?.succeeds()?;
    run(&[], &["remove", "all"])?.succeeds()?;
    none_is_left(dock)
}

fn persist(dock: &Dock<'_>) -> Result<()> {
    let host = dock.bench.path("host");
    fs::create_dir_all(host.join("usr/lib/systemd"))?;
    fs::write(host.join("usr/lib/systemd/systemd-binfmt"), "")?;
    let (volume, image) = (format!("{}:/host", host.display()), dock.full_image()?);
    let files = || dock.bench.ends(cmd!(sh(), "find {host}").env("LC_ALL", "C"))?.succeeds();
    let before = files()?;
    let run = |args: &[&str]| {
        let options = ["run", "--rm", "--privileged", "-v", &volume, &image];
        dock.docker(&[&options[..], args, &["--persist", "--host-root", "/host"]].concat())
    };
    run(&["install", FOREIGN[1], "hppa"])?.fails(0, &["registered at every boot"])?;
    let rules = fs::read_to_string(host.join("etc/binfmt.d/qus.conf"))?;
    for arch in [FOREIGN[0], "hppa"] {
        let rule = rules.lines().find(|line| line.starts_with(&format!(":qemu-{arch}:")));
        let rule = rule.with_context(|| format!("there is no rule for {arch}: {rules}"))?;
        let interpreter = rule.split(':').nth(6).context("a rule has an interpreter")?;
        ensure!(interpreter.starts_with("/usr/local/lib/qus/"), "not a path on the host: {rule}");
        let kept = host.join(interpreter.trim_start_matches('/'));
        let emulator = dock.bench.bundle.join(format!("qemu-{arch}"));
        ensure!(fs::read(&kept)? == fs::read(emulator)?, "{} is another file", kept.display());
    }
    dock.bench.qus(&["probe", FOREIGN[0], "hppa"])?.succeeds()?;
    run(&["remove", "all"])?.fails(0, &["/etc/binfmt.d/qus.conf removed"])?;
    ensure!(files()? == before, "something is left on the host: {}", files()?);
    none_is_left(dock)
}

fn dbhi(dock: &Dock<'_>) -> Result<()> {
    let handler = format!("qemu-{}", FOREIGN[0]);
    privileged(dock, &["-s", "--", "-p", FOREIGN[0]])?.succeeds()?;
    ensure!(handlers(dock)? == [&*handler], "-s -- -p {} has registered others", FOREIGN[0]);
    // Without credentials, as there.
    have_flags(dock, "PF")?;
    let listed = privileged(dock, &["-l"])?.succeeds()?;
    ensure!(listed.contains(&handler), "-l does not list {handler}: {listed}");
    privileged(dock, &["-s", "--", "-t"])?.fails(0, &["would be installed"])?;
    ensure!(handlers(dock)? == [&*handler], "-t has changed something");
    privileged(dock, &["--", "-r"])?.succeeds()?;
    none_is_left(dock)?;
    privileged(dock, &["-s", "--", "-p"])?.succeeds()?;
    all_stand(dock, "PF")?;
    privileged(dock, &["--", "-r", FOREIGN[0]])?.succeeds()?;
    ensure!(!handlers(dock)?.contains(&handler), "-r {} has not removed it", FOREIGN[0]);
    ensure!(!handlers(dock)?.is_empty(), "-r {} has removed all", FOREIGN[0]);
    Ok(())
}

fn others(dock: &Dock<'_>) -> Result<()> {
    let told = privileged(dock, &["--version"])?.succeeds()?;
    ensure!(told.starts_with("qus "), "--version tells {told}");
    let foreign = format!("linux/{}", FOREIGN[1]);
    let told = supported(&privileged(dock, &["--install", "all"])?.succeeds()?)?;
    ensure!(told.contains(&foreign), "{foreign} is not told: {told:?}");
    all_stand(dock, "POCF")?;
    let told = supported(&privileged(dock, &["--uninstall", &format!("qemu-{}", FOREIGN[0])])?.succeeds()?)?;
    ensure!(!told.contains(&foreign), "{foreign} is still told: {told:?}");
    ensure!(!handlers(dock)?.is_empty(), "one was to be removed");
    privileged(dock, &["--uninstall", "qemu-*"])?.succeeds()?;
    none_is_left(dock)?;
    for (words, flags) in [
        (&["--reset", "-p", "yes"][..], "PF"),
        (&["--reset", "-p", "yes", "--credential", "yes"], "POCF"),
        // Also where others' flags stand.
        (&["--reset", "-p", "yes"], "PF"),
    ] {
        privileged(dock, words)?.succeeds()?;
        all_stand(dock, flags)?;
    }
    Ok(())
}

/// The kernel keeps the emulators open.
fn image_gone(dock: &Dock<'_>) -> Result<()> {
    let repo = dock.repo("gone");
    dock.push(&dock.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    dock.docker(&["run", "--rm", "--privileged", image, "install", "all"])?.succeeds()?;
    dock.docker(&["image", "rm", image])?.succeeds()?;
    let left = dock.docker(&["image", "inspect", image])?;
    ensure!(left.status != Some(0), "the image is still there");
    let program = dock.bench.foreign("busybox")?;
    dock.bench.ends(cmd!(sh(), "{program} uname -m"))?.writes(&format!("{}\n", FOREIGN[0]))
}
