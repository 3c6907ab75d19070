//! `cargo xtask test`: all checks that this machine can run.
//!
//! All steps run even if one fails, so that one run reports all failures. The report includes the smoke checks, so that
//! the last line counts every skip.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qemu_src::Wheel;
use qus_core::hint::WithHint;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, InDir, is_installed, sh};
use crate::bundle::hosts::HostArgs;
use crate::check::layout;
use crate::check::report::Report;
use crate::check::schemas;
use crate::check::smoke;
use crate::debian::distribution::Distribution;
use crate::debian::versions::Versions;
use crate::fuzz;
use crate::qemu::sysroot::Sysroot;

/// Check everything: style, lints, licences, configuration files, unit and integration tests, all emulators, smoke tests
///
/// First builds all emulators, and a few for another host. This takes a quarter of an hour on two processors, unless
/// they are in the cache. Prints the totals at the end. The exit status is 1 if a step fails.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check only a part, and all of it: more than without it
    #[arg(conflicts_with_all = ["names", "code", "advisories"])]
    part: Option<Part>,
    #[command(flatten)]
    hosts: HostArgs,
    /// Levels whose skipped checks count as failures (see smoke), or `all`
    #[arg(long, value_name = "LEVEL", value_delimiter = ',', value_parser = smoke::requirable())]
    require: Vec<String>,
    /// Check only the code, its licences, workflows and configuration files: build and run no emulators
    #[arg(long, conflicts_with = "names")]
    code: bool,
    /// Also look for crates in RustSec's database of vulnerabilities; needs the network
    #[arg(long)]
    advisories: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Whole machines: every machine, every board, interrupted engines and conversions of disks
    Vm,
}

/// The other host for which emulators are built by default: the most common one that this machine is not.
const CROSS_HOST: &str = if cfg!(target_arch = "aarch64") { "s390x" } else { "arm64v8" };

/// The emulators that are built for it: both word sizes and both byte orders.
const CROSS_GUESTS: [&str; 5] = ["aarch64", "arm", "i386", "riscv64", "s390x"];

/// The time for each fuzz target. The workflow `test` fuzzes for longer, beside these checks.
const FUZZ_TIME: Duration = Duration::from_secs(3);

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let mut report = Report::new("test", &args.require);
    if let Some(Part::Vm) = args.part {
        smoke::machines(cx, &mut report)?;
        return report.finish(None);
    }
    let mut step = |name: &str, check: &dyn Fn() -> Result<()>| report.check("test", name, check);
    step("style", &|| run_program(cx, cmd!(sh(), "cargo fmt --all --check")))?;
    step("lints", &|| {
        run_program(
            cx,
            cmd!(sh(), "cargo clippy --quiet --workspace --all-targets --locked -- --deny warnings"),
        )
    })?;
    step("documentation", &|| {
        run_program(
            cx,
            cmd!(sh(), "cargo doc --quiet --workspace --no-deps --document-private-items --locked")
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )
    })?;
    step("layout of the code", &|| layout::check(cx))?;
    step("unit and integration tests", &|| {
        run_program(cx, cmd!(sh(), "cargo test --quiet --workspace --locked"))
    })?;
    step("fuzz targets", &|| fuzz::check(cx, FUZZ_TIME))?;
    step("licences", &|| cargo_deny(cx, &["check", "licenses", "bans", "sources"]))?;
    if args.advisories {
        step("advisories", &|| advisories(cx))?;
    }
    step("configuration files", &|| schemas::check(cx))?;
    step("workflows", &|| workflows(cx))?;
    step("scripts", &|| scripts(cx))?;
    step("derived files", &|| xtask(&["codegen", "--check"]))?;
    if args.code {
        return report.finish(None);
    }
    step("emulators", &|| xtask(&["build-qemu", "--all"]))?;
    step("program qus", &|| xtask(&["build-qus"]))?;
    let (hosts, guests) = match args.hosts.is_given() {
        true => (args.hosts.supported()?, &["--all"][..]),
        false => (vec![CROSS_HOST.parse()?], &CROSS_GUESTS[..]),
    };
    let names: Vec<&str> = hosts.iter().map(|host| host.name).collect();
    let host = &*names.join(",");
    step("emulators for another host", &|| {
        require_cross_compilers()?;
        xtask(&[&["build-qemu", "--host", host], guests].concat())
    })?;
    step("program qus for another host", &|| {
        require_cross_compilers()?;
        xtask(&["build-qus", "--host", host])
    })?;
    smoke::all(cx, &mut report)?;
    report.finish(None)
}

/// Skips a step that requires cross compilers, if this machine cannot fetch them.
fn require_cross_compilers() -> Result<()> {
    let why = "cross compilers come from Debian's packages, and this machine has no apt";
    Distribution::detect()?.map(drop).ok_or_else(|| Skip(why.to_owned()).into())
}

/// Runs a program in the workspace.
fn run_program(cx: &Context, cmd: Cmd<'_>) -> Result<()> {
    let line = cmd.to_string();
    let status = exec::interactive(cmd.in_dir(cx.paths.root()))?;
    ensure!(status.success(), "{line} ended with {status}");
    Ok(())
}

/// Runs another command of this program.
fn xtask(args: &[&str]) -> Result<()> {
    let program = std::env::current_exe()?;
    let status = exec::interactive(cmd!(sh(), "{program} {args...}"))?;
    ensure!(status.success(), "cargo xtask {} ended with {status}", args.join(" "));
    Ok(())
}

/// Finds a checker: the installed one, or that of a pinned wheel, which is fetched if it is not in the cache.
fn checker(cx: &Context, name: &str, wheel: &Wheel) -> Result<PathBuf> {
    if is_installed(name) {
        return Ok(name.into());
    }
    let fetched =
        Sysroot::native(cx, Versions::UpdatedIfPossible).and_then(|sysroot| sysroot.wheel(cx, wheel));
    let dir =
        fetched.map_err(|error| Skip(format!("{name} is not installed and cannot be fetched: {error:#}")))?;
    Ok(dir.join("bin").join(name))
}

/// Runs zizmor on the workflows and the action.
fn workflows(cx: &Context) -> Result<()> {
    let program = checker(cx, "zizmor", &cx.data.tools.zizmor)?;
    run_program(cx, cmd!(sh(), "{program} --offline --no-progress --quiet .github images/action"))
}

/// Runs shellcheck on all scripts. Those of cells have no first line, because the guest's shell gets them as a file.
fn scripts(cx: &Context) -> Result<()> {
    let program = checker(cx, "shellcheck", &cx.data.tools.shellcheck)?;
    let files = exec::read(cmd!(sh(), "git ls-files *.sh .ci/run").in_dir(cx.paths.root()))?;
    let (with_line, without): (Vec<_>, Vec<_>) = files
        .lines()
        .partition(|file| fs::read(cx.paths.root().join(file)).is_ok_and(|text| text.starts_with(b"#!")));
    let run = |options: &[&str], files: &[&str]| {
        run_program(cx, cmd!(sh(), "{program} --severity warning {options...} {files...}"))
    };
    run(&[], &with_line)?;
    // The guests' shells have `ulimit -v`.
    run(&["--shell", "dash"], &without)
}

/// Looks for vulnerabilities of crates. It fails without the database, because nothing else has been checked then.
fn advisories(cx: &Context) -> Result<()> {
    cargo_deny(cx, &["fetch", "db"])
        .context("cannot fetch RustSec's database, so that no crate was checked")
        .hint("try again with network access, or without --advisories")?;
    cargo_deny(cx, &["check", "advisories"])
}

/// Runs a command of cargo-deny.
fn cargo_deny(cx: &Context, args: &[&str]) -> Result<()> {
    let config = cx.paths.root().join(".cargo/deny.toml");
    let program = checker(cx, "cargo-deny", &cx.data.tools.cargo_deny)?;
    run_program(cx, cmd!(sh(), "{program} --log-level warn --config {config} {args...}"))
}
