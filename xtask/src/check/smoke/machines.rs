//! Checks every machine and every board with a program that reads its input to the end, writes to both outputs and fails.

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::Machine;
use qus_core::digest::Sha256;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::debian::guests;

/// Runs in a root filesystem that has busybox alone.
const SCRIPT: &str = "/busybox uname -nm; /busybox sha256sum; echo problem >&2; exit 7";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    for machine in &cx.data.machines.machines {
        let kind = if machine.board().is_some() { "board" } else { "machine" };
        let name = format!("{kind} {}: streams and exit status", machine.name());
        report.check("vm", &name, || check(cx, machine))?;
    }
    Ok(())
}

fn check(cx: &Context, machine: &Machine) -> Result<()> {
    let guest = cx.data.debian.guest(machine.host.debian).context("debian.toml lacks a guest")?;
    let dir = tempfile::tempdir()?;
    let root = dir.path();
    fs::copy(guests::program(cx, guest, "busybox")?, root.join("busybox"))?;
    let option = if machine.board().is_some() { "--board" } else { "--arch" };
    let name = machine.name();
    let xtask = std::env::current_exe()?;
    let run = "seq 30000 | \"$0\" vm run \"$@\"";
    let ended =
        exec::output(cmd!(sh(), "sh -c {run} {xtask} {option} {name} {root} /busybox sh -c {SCRIPT}"))?;
    let input: String = (1..=30_000).map(|number| format!("{number}\n")).collect();
    let expected = format!("{name} {}\n{}  -\n", guest.machine, Sha256::of(&input));
    CommandOutput::new(format!("vm run {option} {name}"), ended).ends(7, &expected, "problem\n")
}
