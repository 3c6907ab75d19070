//! Runs guest programs through registered handlers, started in every way.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use qemu_src::Guest;
use qus_core::arch::ARCHES;
use serde_json::Value;
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture};

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("install all: all 33 probes run", all_probes)?;
    for guest in &checks.cx.data.debian.guests {
        checks.check(format!("busybox {guest} started directly and in a chroot"), |fixture| {
            busybox(fixture, guest)
        })?;
    }
    checks.check("argv[0], /proc/self/exe, scripts", arguments)?;
    checks.check("a repeated install changes nothing", idempotent)?;
    checks.check(
        "a handler that differs is reported, and --force replaces it without interruption",
        replaced,
    )?;
    checks.check("foreign handlers stay unchanged", foreign)?;
    checks.check("the latest of two matching handlers is used, and doctor reports both", overlap)?;
    checks.check("status, doctor, explain and platforms report the actual state", reports)?;
    checks.check("arguments of compatible tools", old_forms)
}

fn all_probes(fixture: &KernelFixture<'_>) -> Result<()> {
    let rows = fixture.install(&["all"])?;
    let mut states: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in &rows {
        let text = |key: &str| row[key].as_str().context("install --json lacks a field");
        states.entry(text("state")?).or_default().push(text("arch")?);
    }
    let native = states.remove("native").unwrap_or_default();
    let installed = states.remove("installed").unwrap_or_default();
    ensure!(states.is_empty(), "states other than installed and native: {states:?}");
    ensure!(native.len() + installed.len() == ARCHES.len(), "{} architectures are reported", rows.len());
    ensure!(native.contains(&std::env::consts::ARCH), "native architectures are {native:?}");
    // An architecture that the machine runs natively can be emulated too, except for the machine's own.
    if native.contains(&"i386") {
        let forced = fixture.install(&["--force", "i386"])?;
        ensure!(forced[0]["state"] == "installed", "{forced:?}");
    }
    let probes: Vec<Value> = serde_json::from_str(&fixture.qus(&["probe", "--json"])?.succeeds()?)?;
    let failing: Vec<_> = probes.iter().filter(|probe| probe["runs"] == "no").collect();
    ensure!(probes.len() == ARCHES.len() && failing.is_empty(), "{failing:?}");
    fixture.qus(&["remove", "all"])?.succeeds()?;
    ensure!(fixture.handler_contents()?.is_empty(), "handlers are left: {:?}", fixture.handler_contents()?);
    fixture.qus(&["probe", FOREIGN[0]])?.exits(1, &[&format!("not running: {}", FOREIGN[0])])
}

fn busybox(fixture: &KernelFixture<'_>, guest: &Guest) -> Result<()> {
    let program = fixture.guest(guest, "busybox")?;
    let rows = fixture.install(&[&guest.debian])?;
    let native = rows[0]["state"] == "native";
    let copy = fixture.copy(&program, "root/busybox")?;
    let root = fixture.path("root");
    // The kernel keeps the emulator open, so the root filesystem needs only the program.
    ensure!(fs::read_dir(&root)?.count() == 1, "the root filesystem contains more than the program");
    let expected = if native { std::env::consts::ARCH } else { &guest.machine };
    fixture.run(cmd!(sh(), "{copy} uname -m"))?.writes(&format!("{expected}\n"))?;
    fixture.run(cmd!(sh(), "chroot {root} /busybox uname -m"))?.writes(&format!("{expected}\n"))
}

fn arguments(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.install(&[FOREIGN[0]])?;
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    // Bash can set argv[0], by which busybox selects the applet.
    let script = r#"exec -a echo "$0" kept"#;
    fixture.run(cmd!(sh(), "bash -c {script} {busybox}"))?.writes("kept\n")?;
    let exe = format!("{}\n", busybox.display());
    fixture.run(cmd!(sh(), "{busybox} readlink /proc/self/exe"))?.writes(&exe)?;
    let script = fixture.path("script");
    fs::write(&script, format!("#!{} sh\necho ran by $(uname -m)\n", busybox.display()))?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    fixture
        .run(cmd!(sh(), "{script}"))?
        .writes("ran by aarch64\n".replace("aarch64", FOREIGN[0]).as_str())?;
    // A program that the guest starts goes through the kernel again.
    symlink(&busybox, fixture.path("uname"))?;
    let nested = format!("{} -m", fixture.path("uname").display());
    fixture.run(cmd!(sh(), "{busybox} sh -c {nested}"))?.writes(&format!("{}\n", FOREIGN[0]))
}

fn idempotent(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.install(&["all"])?;
    let before = fixture.handler_contents()?;
    let again = fixture.install(&["all"])?;
    let changed: Vec<_> =
        again.iter().filter(|row| row["state"] != "unchanged" && row["state"] != "native").collect();
    ensure!(changed.is_empty(), "{changed:?}");
    ensure!(fixture.handler_contents()? == before, "handlers have changed");
    Ok(())
}

fn replaced(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.install(&[FOREIGN[0]])?;
    let before = fixture.handler_contents()?;
    let differs = [
        "flags: is POCF, should be PF",
        "`--force` to replace it",
        &format!("not installed: {}", FOREIGN[0]),
    ];
    fixture.qus(&["install", FOREIGN[0], "--no-credentials"])?.exits(1, &differs)?;
    ensure!(fixture.handler_contents()? == before, "a refused install has changed something");
    let other = fixture
        .copy(&fixture.bundle.join(format!("qemu-{}", FOREIGN[0])), &format!("qemu-{}", FOREIGN[0]))?;
    let dir = fixture.dir.path().to_string_lossy().into_owned();
    let interpreter = format!("should be {}", other.display());
    let hash = "emulator's hash: is ";
    fixture
        .qus(&["install", FOREIGN[0], "--dir", &dir])?
        .exits(1, &["interpreter: is ", &interpreter, hash])?;

    // Starts programs during the replacement: each must find a handler.
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    let (end, started, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let programs = scope.spawn(|| -> Result<()> {
            while !end.load(Ordering::Relaxed) {
                let ran =
                    exec::output(cmd!(sh(), "{busybox} true")).is_ok_and(|output| output.status.success());
                (if ran { &started } else { &failed }).fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let replace = || -> Result<()> {
            while started.load(Ordering::Relaxed) < 200 && failed.load(Ordering::Relaxed) == 0 {
                let rows = fixture.install(&[FOREIGN[0], "--force", "--no-probe", "--no-credentials"])?;
                ensure!(rows[0]["state"] == "replaced", "{rows:?}");
                fixture.install(&[FOREIGN[0], "--force", "--no-probe"])?;
            }
            Ok(())
        };
        let replaced = replace();
        end.store(true, Ordering::Relaxed);
        programs.join().map_err(|_| anyhow::anyhow!("the programs' thread panicked"))??;
        replaced
    })?;
    let (started, failed) = (started.into_inner(), failed.into_inner());
    ensure!(failed == 0, "{failed} of {} programs found no handler", started + failed);
    ensure!(fixture.handler_contents()? == before, "the handler differs from the first one");
    Ok(())
}

fn foreign(fixture: &KernelFixture<'_>) -> Result<()> {
    // As QEMU's own script registers it: the mask covers the padding, and there is no flag F.
    let line = r":qemu-sh4:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x2a\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/bin/false:OC";
    let sh4 = fixture.foreign_handler("qemu-sh4", line)?;
    let jar = fixture.foreign_handler("qus-smoke-jar", ":qus-smoke-jar:E::qus-smoke-jar::/bin/true:")?;
    let before = (sh4.text()?, jar.text()?);
    let words = [
        "another program has registered a handler of this name",
        "interpreter: is /bin/false",
        "not installed: sh4",
    ];
    fixture.qus(&["install", "all"])?.exits(1, &words)?;
    fixture.qus(&["probe", "arm", "sh4"])?.exits(1, &["not running: sh4\n"])?;
    let rows = fixture.install(&["sh4", "--force"])?;
    ensure!(rows[0]["state"] == "shadowing" && rows[0]["handlers"][0] == "qemu-sh4-qus", "{rows:?}");
    fixture.qus(&["probe", "sh4"])?.succeeds()?;
    ensure!((sh4.text()?, jar.text()?) == before, "foreign handlers were changed");
    ensure!(fixture.install(&["sh4"])?[0]["state"] == "unchanged", "a repeated install is not `unchanged`");
    fixture
        .qus(&["remove", "sh4"])?
        .exits(1, &["qemu-sh4-qus removed", "qemu-sh4 was not registered by qus and is left unchanged"])?;
    fixture.install(&["sh4", "--force"])?;
    fixture.qus(&["remove", "all"])?.succeeds()?;
    ensure!((sh4.text()?, jar.text()?) == before, "foreign handlers were changed");
    let names: Vec<_> = fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect();
    ensure!(names == ["qemu-sh4", "qus-smoke-jar"], "there are {names:?}");
    Ok(())
}

fn overlap(fixture: &KernelFixture<'_>) -> Result<()> {
    let magic = r"\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x2a\x00";
    let probe = fixture.path("sh4-probe");
    fs::write(&probe, qus_core::probe::image("sh4".parse()?))?;
    fs::set_permissions(&probe, Permissions::from_mode(0o755))?;
    let first = fixture.foreign_handler("qus-smoke-1", &format!(":qus-smoke-1:M::{magic}::/bin/echo:"))?;
    fixture.install(&["sh4"])?;
    let called = fixture.run(cmd!(sh(), "{probe}"))?;
    ensure!(called.status == Some(qus_core::probe::STATUS), "qus's handler is the latest, and was not used");
    let second = fixture.foreign_handler("qus-smoke-2", &format!(":qus-smoke-2:M::{magic}::/bin/echo:P"))?;
    fixture.run(cmd!(sh(), "{probe}"))?.succeeds()?;
    let explained = fixture.qus(&["explain", "--json", &probe.to_string_lossy()])?;
    let explained: Value = serde_json::from_str(&explained.stdout)?;
    ensure!(explained[0]["handler"] == "qus-smoke-2", "{explained}");
    let findings = fixture.qus(&["doctor", "sh4"])?;
    for expected in ["qemu-sh4: qus-smoke-2 shadows it", "qus-smoke-1: qemu-sh4 shadows it"] {
        ensure!(findings.stdout.contains(expected), "`{expected}` is not in {}", findings.stdout);
    }
    findings.exits(1, &[" found\n"])?;
    fixture.qus(&["status", "sh4", "--probe"])?.exits(1, &["not working: qemu-sh4\n"])?;
    drop((first, second));
    Ok(())
}

fn reports(fixture: &KernelFixture<'_>) -> Result<()> {
    let arch = FOREIGN[0];
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    let path = busybox.to_string_lossy().into_owned();
    fixture.qus(&["status", arch])?.exits(1, &[&format!("hint: as root: `qus install {arch}`")])?;
    let command = format!("qus install {arch}");
    let explained = fixture.qus(&["explain", &path])?;
    ensure!(explained.status == Some(1) && explained.stdout.contains(&command), "{}", explained.stdout);
    fixture.qus(&["doctor", arch])?.exits(1, &[" found\n"])?;

    fixture.install(&[arch])?;
    let status: Value =
        serde_json::from_str(&fixture.qus(&["status", arch, "--probe", "--json"])?.succeeds()?)?;
    let row = &status["handlers"][0];
    ensure!(row["owner"] == "qus" && row["flags"] == "POCF" && row["probe"] == true, "{row}");
    let version = qus_core::emulator::version(&fixture.bundle).context("bundle.json has no version")?;
    ensure!(row["emulator_version"] == version.to_string(), "{row}");
    fixture.qus(&["doctor", arch])?.succeeds()?;
    let explained = fixture.qus(&["explain", &path])?.succeeds()?;
    ensure!(explained.contains(&format!("handler    qemu-{arch}")), "{explained}");
    let platforms: Value = serde_json::from_str(&fixture.qus(&["platforms"])?.succeeds()?)?;
    ensure!(platforms["emulators"] == serde_json::json!([format!("qemu-{arch}")]), "{platforms}");
    let platform = Value::from(format!("linux/{}", FOREIGN[1]));
    ensure!(platforms["supported"].as_array().is_some_and(|list| list.contains(&platform)), "{platforms}");
    fs::write(fixture.binfmt.root().join(format!("qemu-{arch}")), "0")?;
    let findings = fixture.qus(&["doctor"])?;
    ensure!(findings.stdout.contains("it is disabled"), "{}", findings.stdout);
    fixture.qus(&["install", arch])?.exits(1, &["enabled: is false, should be true"])?;
    fixture.install(&[arch, "--force"])?;
    fixture.qus(&["doctor", arch])?.succeeds().map(drop)
}

fn old_forms(fixture: &KernelFixture<'_>) -> Result<()> {
    let arch = FOREIGN[0];
    let handlers = || -> Result<Vec<String>> {
        Ok(fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect())
    };
    let only = [format!("qemu-{arch}")];
    let none: [String; 0] = [];
    let lists_platforms = |output: &str| -> Result<bool> {
        let platforms: Value = serde_json::from_str(output)?;
        Ok(platforms["supported"].is_array() && platforms["emulators"].is_array())
    };
    ensure!(lists_platforms(&fixture.qus(&[])?.succeeds()?)?, "no arguments");
    let output = fixture.qus(&["--install", FOREIGN[1]])?.succeeds()?;
    ensure!(lists_platforms(&output)? && handlers()? == only, "--install: {output}");
    let output = fixture.qus(&["--uninstall", "qemu-*"])?.succeeds()?;
    ensure!(lists_platforms(&output)? && handlers()? == none, "--uninstall: {output}");
    fixture.qus(&["-s", "--", "-p", arch])?.succeeds()?;
    ensure!(handlers()? == only, "-s -- -p");
    ensure!(fixture.qus(&["-l"])?.succeeds()?.contains(&only[0]), "-l");
    fixture.qus(&["--", "-r"])?.succeeds()?;
    ensure!(handlers()? == none, "-- -r");
    fixture.qus(&["-s", "--", "-t", arch])?.succeeds()?;
    ensure!(handlers()? == none, "-- -t");
    fixture.qus(&["--reset", "-p", "yes", "--credential", "yes"])?.succeeds()?;
    ensure!(handlers()?.len() > 30, "--reset -p yes");
    fixture.qus(&["--uninstall", FOREIGN[1]])?.succeeds()?;
    ensure!(!handlers()?.contains(&only[0]), "--uninstall of one");
    fixture.qus(&["--install", "vax"])?.exits(1, &["unknown architecture `vax`"])
}
