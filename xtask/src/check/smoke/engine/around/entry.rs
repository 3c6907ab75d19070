//! Checks the entry point of images: without privileges, with other mounts and user namespaces, and with the arguments
//! of other images.

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde_json::json;
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::sh;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};
use crate::check::smoke::fixture::handlers::parse_platforms;
use crate::check::smoke::fixture::handlers::{
    check_all_registered, check_each_handler, check_flags, check_none_registered, handlers, privileged,
};
use crate::check::smoke::fixture::kernel::FOREIGN;
use crate::engine::throwaway::{Options, Throwaway};

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check(
        "an unprivileged container: reports platforms; cannot install, and prints a hint",
        unprivileged,
    )?;
    checks.check("binfmt_misc mounted into a container: read-only, writable", mounted_binfmt)?;
    checks.check("an engine with user remapping: refused; works with --userns=host", remapped_users)?;
    checks.check("the image of qus alone, with emulators of the host", register_image)?;
    checks.check("--persist with the host's root filesystem mounted", persist)?;
    checks.check("the arguments of dbhi/qus", dbhi_arguments)?;
    checks.check("the arguments of tonistiigi/binfmt and multiarch/qemu-user-static", other_arguments)?;
    checks.check("programs run after container and image are removed", image_removed)
}

fn unprivileged(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let foreign = format!("linux/{}", FOREIGN[1]);
    let platforms = || parse_platforms(&fixture.docker(&["run", "--rm", image])?.succeeds()?);
    ensure!(!platforms()?.contains(&foreign), "{foreign} is listed without a handler");
    let expected = ["cannot mount binfmt_misc", "hint: in a container, add `--privileged`"];
    for arch in ["all", FOREIGN[1]] {
        let output = fixture.docker(&["run", "--rm", image, "install", arch])?;
        ensure!(!output.stderr.contains("run it as root"), "wrong hint, root runs it: {}", output.stderr);
        output.exits(1, &expected)?;
    }
    // The arguments of docker/setup-qemu-action.
    fixture.docker(&["run", "--rm", image, "--install", "all"])?.exits(1, &expected)?;
    fixture
        .docker(&["run", "--rm", "--user=65534", "--privileged", image, "install", "all"])?
        .exits(1, &["hint: run it as root; in a container, add `--privileged`"])?;
    check_none_registered(fixture)?;
    privileged(fixture, &["install", FOREIGN[1]])?.succeeds()?;
    ensure!(platforms()?.contains(&foreign), "{foreign} is not listed without privileges");
    Ok(())
}

/// Mounts binfmt_misc as a volume into a container without other privileges.
fn mounted_binfmt(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = &*fixture.full_image()?;
    let options = ["--opt", "type=binfmt_misc", "--opt", "device=binfmt_misc", "binfmt"];
    fixture.docker(&[&["volume", "create"], &options[..]].concat())?.succeeds()?;
    let install = |volume: &str| {
        fixture.docker(&["run", "--rm", "-v", volume, image, "--mount", "/binfmt", "install", FOREIGN[1]])
    };
    install("binfmt:/binfmt:ro")?.exits(1, &["/binfmt is mounted read-only", "hint: "])?;
    check_none_registered(fixture)?;
    install("binfmt:/binfmt")?.succeeds()?;
    ensure!(handlers(fixture)? == [format!("qemu-{}", FOREIGN[0])], "the handler is not registered");
    fixture.kernel.qus(&["probe", FOREIGN[0]])?.succeeds().map(drop)
}

/// Root of these containers is an unprivileged user of the host, and binfmt_misc that it mounts is another instance.
fn remapped_users(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("mapped");
    fixture.push(&fixture.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    let extended = |name: &str, line: &str| -> Result<String> {
        Ok(fs::read_to_string(format!("/etc/{name}")).unwrap_or_default() + line)
    };
    let options = Options {
        // Docker 26 does not support user remapping with the containerd image store.
        containerd_store: false,
        // The default directory is not accessible to the remapped root.
        daemon: json!({"userns-remap": "qus-smoke", "data-root": fixture.kernel.path("mapped")}),
        etc: vec![
            ("passwd", extended("passwd", "qus-smoke:x:654321:654321::/:/bin/false\n")?),
            ("group", extended("group", "qus-smoke:x:654321:\n")?),
            ("subuid", "qus-smoke:700000:65536\n".to_owned()),
            ("subgid", "qus-smoke:700000:65536\n".to_owned()),
        ],
        ..Options::default()
    };
    let engine = Throwaway::start(fixture.kernel.cx, &fixture.path("u/run"), &options)
        .map_err(|error| Skip(format!("cannot start an engine with user remapping: {error:#}")))?;
    let docker = |args: &[&str]| fixture.kernel.run(engine.client().cmd(args));
    docker(&["pull", image])?.succeeds()?;
    docker(&["run", "--rm", image])?.succeeds()?;
    let arch = FOREIGN[1];
    for privileges in
        [&["--cap-add=ALL", "--security-opt=seccomp=unconfined"][..], &["--cap-add=SYS_ADMIN"], &[]]
    {
        let run = [&["run", "--rm"], privileges, &[image, "install", arch]].concat();
        docker(&run)?.exits(1, &["this user namespace", "hint: ", "--userns=host"])?;
        check_none_registered(fixture)?;
    }
    docker(&["run", "--rm", "--privileged", "--userns=host", image, "install", arch])?.succeeds()?;
    fixture.kernel.qus(&["probe", arch])?.succeeds().map(drop)
}

fn register_image(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = fixture.full_image()?.replace(":latest", ":register");
    let run = |options: &[&str], args: &[&str]| {
        fixture.docker(&[&["run", "--rm", "--privileged"], options, &[&image], args].concat())
    };
    run(&[], &["install", "all"])?.exits(1, &["emulator", "--dir"])?;
    check_none_registered(fixture)?;
    let volume = format!("{}:/emulators:ro", fixture.kernel.bundle.display());
    let options = ["-v", &volume, "-e", "QEMU_BIN_DIR=/emulators"];
    run(&options, &["install", "all"])?.succeeds()?;
    check_all_registered(fixture, "POCF")?;
    check_each_handler(fixture, "interpreter /emulators/qemu-")?;
    run(&options, &["status", "all"])?.succeeds()?;
    run(&[], &["remove", "all"])?.succeeds()?;
    check_none_registered(fixture)
}

fn persist(fixture: &EngineFixture<'_>) -> Result<()> {
    let host = fixture.kernel.path("host");
    fs::create_dir_all(host.join("usr/lib/systemd"))?;
    fs::write(host.join("usr/lib/systemd/systemd-binfmt"), "")?;
    let (volume, image) = (format!("{}:/host", host.display()), fixture.full_image()?);
    let files = || fixture.kernel.run(cmd!(sh(), "find {host}").env("LC_ALL", "C"))?.succeeds();
    let before = files()?;
    let run = |args: &[&str]| {
        let options = ["run", "--rm", "--privileged", "-v", &volume, &image];
        fixture.docker(&[&options[..], args, &["--persist", "--host-root", "/host"]].concat())
    };
    run(&["install", FOREIGN[1], "hppa"])?.exits(0, &["registered at every boot"])?;
    let rules = fs::read_to_string(host.join("etc/binfmt.d/qus.conf"))?;
    for arch in [FOREIGN[0], "hppa"] {
        let rule = rules.lines().find(|line| line.starts_with(&format!(":qemu-{arch}:")));
        let rule = rule.with_context(|| format!("there is no rule for {arch}: {rules}"))?;
        let interpreter = rule.split(':').nth(6).context("the rule has no interpreter")?;
        ensure!(interpreter.starts_with("/usr/local/lib/qus/"), "not a path on the host: {rule}");
        let persisted = host.join(interpreter.trim_start_matches('/'));
        let emulator = fixture.kernel.bundle.join(format!("qemu-{arch}"));
        ensure!(fs::read(&persisted)? == fs::read(emulator)?, "wrong emulator: {}", persisted.display());
    }
    fixture.kernel.qus(&["probe", FOREIGN[0], "hppa"])?.succeeds()?;
    run(&["remove", "all"])?.exits(0, &["/etc/binfmt.d/qus.conf removed"])?;
    ensure!(files()? == before, "files are left on the host: {}", files()?);
    check_none_registered(fixture)
}

fn dbhi_arguments(fixture: &EngineFixture<'_>) -> Result<()> {
    let handler = format!("qemu-{}", FOREIGN[0]);
    privileged(fixture, &["-s", "--", "-p", FOREIGN[0]])?.succeeds()?;
    ensure!(handlers(fixture)? == [&*handler], "-s -- -p {} registered other handlers", FOREIGN[0]);
    // Like dbhi/qus, without the flag C.
    check_flags(fixture, "PF")?;
    let listed = privileged(fixture, &["-l"])?.succeeds()?;
    ensure!(listed.contains(&handler), "-l does not list {handler}: {listed}");
    privileged(fixture, &["-s", "--", "-t"])?.exits(0, &["would be installed"])?;
    ensure!(handlers(fixture)? == [&*handler], "-t changed the handlers");
    privileged(fixture, &["--", "-r"])?.succeeds()?;
    check_none_registered(fixture)?;
    privileged(fixture, &["-s", "--", "-p"])?.succeeds()?;
    check_all_registered(fixture, "PF")?;
    privileged(fixture, &["--", "-r", FOREIGN[0]])?.succeeds()?;
    ensure!(!handlers(fixture)?.contains(&handler), "-r {} did not remove the handler", FOREIGN[0]);
    ensure!(!handlers(fixture)?.is_empty(), "-r {} removed all handlers", FOREIGN[0]);
    Ok(())
}

fn other_arguments(fixture: &EngineFixture<'_>) -> Result<()> {
    let version = privileged(fixture, &["--version"])?.succeeds()?;
    ensure!(version.starts_with("qus "), "--version prints {version:?}");
    let foreign = format!("linux/{}", FOREIGN[1]);
    let platforms = parse_platforms(&privileged(fixture, &["--install", "all"])?.succeeds()?)?;
    ensure!(platforms.contains(&foreign), "{foreign} is not listed: {platforms:?}");
    check_all_registered(fixture, "POCF")?;
    let platforms = parse_platforms(
        &privileged(fixture, &["--uninstall", &format!("qemu-{}", FOREIGN[0])])?.succeeds()?,
    )?;
    ensure!(!platforms.contains(&foreign), "{foreign} is still listed: {platforms:?}");
    ensure!(!handlers(fixture)?.is_empty(), "all handlers were removed");
    privileged(fixture, &["--uninstall", "qemu-*"])?.succeeds()?;
    check_none_registered(fixture)?;
    for (args, flags) in [
        (&["--reset", "-p", "yes"][..], "PF"),
        (&["--reset", "-p", "yes", "--credential", "yes"], "POCF"),
        // Again, to replace handlers that have other flags.
        (&["--reset", "-p", "yes"], "PF"),
    ] {
        privileged(fixture, args)?.succeeds()?;
        check_all_registered(fixture, flags)?;
    }
    Ok(())
}

/// With the flag F, the kernel keeps the emulators open.
fn image_removed(fixture: &EngineFixture<'_>) -> Result<()> {
    let repo = fixture.repo("removed");
    fixture.push(&fixture.small, &repo, &[])?.succeeds()?;
    let image = &*format!("{repo}:latest");
    fixture.docker(&["run", "--rm", "--privileged", image, "install", "all"])?.succeeds()?;
    fixture.docker(&["image", "rm", image])?.succeeds()?;
    fixture.docker(&["image", "inspect", image])?.exits(1, &["No such image"])?;
    let program = fixture.kernel.foreign("busybox")?;
    fixture.kernel.run(cmd!(sh(), "{program} uname -m"))?.writes(&format!("{}\n", FOREIGN[0]))
}
