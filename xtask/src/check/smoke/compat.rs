//! Checks what the patches in `qemu-src/patches/compat` repair.
//!
//! Each program prints `ok`, or a line for each difference from Linux. It first runs natively, which checks the program
//! itself, and then in guests of both word sizes, whose compilers build the emulators of other hosts.

use std::cell::LazyCell;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use qus_core::arch::Host;
use tempfile::TempDir;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::bundle::hosts;
use crate::check::report::{self, Report};
use crate::check::smoke::emulator::{check_output, emulator};
use crate::check::smoke::fixture::tools::compile;

const LEVEL: &str = "emulator";

/// Hosts whose compilers compile the programs: guests with words of 64 and of 32 bits.
const COMPILERS: [&str; 2] = ["arm64v8", "arm32v7"];

macro_rules! programs {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("programs/compat/", $name, ".c")))),*]
    };
}

const PROGRAMS: [(&str, &str); 1] = programs!["extended-attributes"];

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let own = hosts::own()?;
    for (name, text) in PROGRAMS {
        let native = LazyCell::new(|| Program::compile(cx, own, text)?.run(&[]));
        for compiler in COMPILERS {
            let host: &Host = compiler.parse()?;
            report.check(LEVEL, format!("compat: {name} in {}", host.arch), || {
                native.as_ref().map_err(report::copy_error).context("natively")?;
                let emulator = emulator(&cx.paths.bundle(own), host.arch)?;
                Program::compile(cx, host, text)?.run(&[emulator])
            })?;
        }
    }
    Ok(())
}

/// A compiled program in a directory of its own, which is the working directory when it runs.
struct Program {
    dir: TempDir,
    path: PathBuf,
}

impl Program {
    fn compile(cx: &Context, host: &'static Host, text: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("program");
        compile(cx, host, text, &["-pthread"], &path)?;
        Ok(Self { dir, path })
    }

    fn run(&self, runner: &[PathBuf]) -> Result<()> {
        let Self { dir, path } = self;
        let run = cmd!(sh(), "timeout 60 {runner...} {path}");
        check_output(exec::output(run.in_dir(dir.path()))?, "the program", "ok\n")
    }
}
