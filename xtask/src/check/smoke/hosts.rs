//! Checks all hosts that are built, under our own emulators of them: emulators run each guest's probe and programs, and
//! `qus` runs its unit tests.
//!
//! An emulator under another emulator is slow, so that only a few programs run.

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::{ARCHES, Arch, HOSTS, Host};
use qus_core::bundle::Bundle;
use qus_core::probe;
use qus_core::table::Table;
use serde_json::Value;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, InDir, sh};
use crate::base::output::out;
use crate::bundle::manifest;
use crate::bundle::runner::Runner;
use crate::bundle::{artefact, hosts};
use crate::check::report::{Outcome, Report};
use crate::check::smoke::emulator::{Busybox, emulator};
use crate::debian::guests;
use crate::debian::versions::Versions;
use crate::qus::rust::Rust;

const LEVEL: &str = "hosts";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let own = hosts::own()?;
    let others: Vec<_> = hosts::built(cx).filter(|host| *host != own).collect();
    if others.is_empty() {
        return report.check(LEVEL, "other hosts", || {
            Err(Skip(
                "no other host is built; to build one, run `cargo xtask build-qemu --host arm64v8`"
                    .to_owned(),
            )
            .into())
        });
    }
    for host in std::iter::once(own).chain(others.iter().copied()) {
        emulators(cx, host, report)?;
    }
    for host in others {
        report.check(LEVEL, format!("{host}: qus"), || program(cx, host))?;
        report.check(LEVEL, format!("{host}: unit tests of qus"), || unit_tests(cx, host))?;
    }
    out(&overview(report))
}

/// Returns how programs of a host run on this machine, and its bundle.
fn runner_and_bundle(cx: &Context, host: &'static Host) -> Result<(Runner, Bundle)> {
    let runner = Runner::new(host, |arch| emulator(&cx.paths.bundle(hosts::own()?), arch))?;
    let bundle = manifest::read(&cx.paths.bundle(host))?.context("the bundle cannot be read")?;
    Ok((runner, bundle))
}

fn probe_name(host: &Host, arch: &Arch) -> String {
    format!("{host}: probe {arch}")
}

fn emulators(cx: &Context, host: &'static Host, report: &mut Report) -> Result<()> {
    let (runner, bundle) = match runner_and_bundle(cx, host) {
        Ok(built) => built,
        Err(why) => return report.check(LEVEL, format!("{host}: emulators"), || Err(why)),
    };
    let dir = cx.paths.bundle(host);
    let has = |arch: &Arch| bundle.emulators.iter().any(|emulator| emulator.target == arch);
    for arch in ARCHES.iter().filter(|arch| has(arch)) {
        report.check(LEVEL, probe_name(host, arch), || {
            artefact::run_probe(&runner, &emulator(&dir, arch)?, arch)
        })?;
    }
    for guest in &cx.data.debian.guests {
        if host == hosts::own()? || !has(guest.target) {
            continue;
        }
        report.check(LEVEL, format!("{host}: busybox {guest}"), || {
            let program = guests::program(cx, guest, "busybox")?;
            let busybox = Busybox { runner: &runner, emulator: emulator(&dir, guest.target)?, program };
            busybox.expect(&["uname", "-m"], &format!("{}\n", guest.machine))?;
            busybox.shell_loop()?;
            busybox.tar()
        })?;
    }
    Ok(())
}

/// Runs `qus` of a host as a user would.
fn program(cx: &Context, host: &'static Host) -> Result<()> {
    let (runner, bundle) = runner_and_bundle(cx, host)?;
    let qus = cx.paths.bundle(host).join("qus");
    if !qus.exists() {
        let command = format!("cargo xtask build-qus --host {host}");
        return Err(Skip(format!("qus is not in the bundle; to build it, run `{command}`")).into());
    }
    let version = exec::read(runner.cmd(&qus).arg("--version"))?;
    ensure!(version.starts_with("qus "), "--version prints {version:?}");
    // `status` finds the emulators in its own directory and reports each as not registered, except those of targets that
    // this machine runs natively, even when an emulator starts them.
    let status = exec::output(runner.cmd(&qus).args(["status", "all"]))?;
    let stderr = String::from_utf8_lossy(&status.stderr);
    let names = stderr.lines().find_map(|line| line.strip_prefix("error: no handler for "));
    let named = |target: &Arch| names.is_some_and(|names| names.split(' ').any(|name| name == target.name));
    let targets = bundle.emulators.iter().map(|emulator| emulator.target);
    let missing = targets.filter(|target| !named(target) && !probe::is_native(target));
    let missing: Vec<_> = missing.map(|target| target.name).collect();
    ensure!(missing.is_empty(), "status does not report {}: {stderr}", missing.join(", "));
    Ok(())
}

/// Runs the unit tests of the library, except those that depend on what the machine runs natively.
fn unit_tests(cx: &Context, host: &'static Host) -> Result<()> {
    let (runner, _) = runner_and_bundle(cx, host)?;
    let rust =
        Rust::ensure(cx, host, Versions::UpdatedIfPossible).map_err(|error| Skip(format!("{error:#}")))?;
    let cargo =
        cmd!(sh(), "cargo test --quiet --locked --package qus-core --lib --no-run --message-format json");
    let output = exec::read(rust.enter(cargo, &[]).in_dir(cx.paths.root()))?;
    let messages = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program =
        messages.filter_map(|message| message["executable"].as_str().map(str::to_owned)).next_back();
    let program = program.context("cargo built no tests")?;
    // Cargo runs tests in the directory of their package.
    let tests = runner.cmd(program.as_ref()).args(["--skip", "natively"]);
    let output = exec::read(tests.in_dir(&cx.paths.root().join("qus-core")))?;
    let passed =
        output.lines().rev().find_map(|line| line.strip_prefix("test result: ok. ")?.split_once(" passed"));
    let passed: usize = passed
        .and_then(|(count, _)| count.parse().ok())
        .context("the tests do not report how many passed")?;
    ensure!(passed > 0, "no test ran");
    Ok(())
}

/// Formats a table of all hosts and guests with the outcomes of their probes.
fn overview(report: &Report) -> String {
    const COLUMNS: usize = HOSTS.len() + 1;
    let cell = |host: &Host, arch: &Arch| match report.outcome(LEVEL, &probe_name(host, arch)) {
        Some(Outcome::Passed) => "passed",
        Some(Outcome::Failed(_)) => "failed",
        Some(Outcome::Skipped(_)) => "skipped",
        None if !host.can_emulate(arch) => "not possible",
        None => "not built",
    };
    let row = |first: &'static str, cell: &dyn Fn(&Host) -> &'static str| -> [&str; COLUMNS] {
        std::array::from_fn(|column| if column == 0 { first } else { cell(&HOSTS[column - 1]) })
    };
    let mut table = Table::new(row("guest", &|host| host.name));
    for arch in &ARCHES {
        table.row(row(arch.name, &|host| cell(host, arch)).map(str::to_owned));
    }
    format!(
        "{table}not possible: QEMU has no emulators of 64-bit processors for 32-bit hosts since version 10.0\n"
    )
}
