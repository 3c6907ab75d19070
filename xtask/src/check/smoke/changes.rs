//! Checks that emulators retranslate code that changes, with several threads and with shared memory.
//!
//! The test program is compiled for each host that is built, because its compiler is available, and runs under the bundle's
//! emulator of that host.

use anyhow::Result;
use qus_core::arch::{Arch, Host};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::bundle::hosts;
use crate::check::report::Report;
use crate::check::smoke::emulator::{check_output, emulator};
use crate::check::smoke::fixture::tools::compile;

const LEVEL: &str = "emulator";

const PROGRAM: &str = include_str!("programs/changes.c");

/// The output after the two lines with counts.
const JUMPS: &str = "a jump to another page: 1\n\
                     made writable, written, made executable: 2\n\
                     replaced by another mapping: 3\n\
                     written while executable: 4\n\
                     not accessible: a signal\n\
                     executable again: 4\n\
                     unmapped: a signal\n\
                     mapped again: 5\n\
                     another mapping moved there: 6\n";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    for host in hosts::built(cx) {
        report.check(
            LEVEL,
            format!("program for {host}: self-modifying code, threads, shared memory"),
            || check(cx, host),
        )?;
    }
    Ok(())
}

fn check(cx: &Context, host: &'static Host) -> Result<()> {
    let arch: &Arch = host.arch;
    let emulator = emulator(&cx.paths.bundle(hosts::own()?), arch)?;
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("changes");
    compile(cx, host, PROGRAM, &["-static", "-pthread"], &program)?;
    let modes = [
        ("processes", "four processes: 8000000", ""),
        ("threads", "four more threads: 10000000", "the first thread exits first\n"),
    ];
    for (mode, count, end) in modes {
        let run = exec::output(cmd!(sh(), "timeout 120 {emulator} {program} {mode}"))?;
        check_output(run, mode, &format!("one thread: 2000000\n{count}\n{JUMPS}{end}"))?;
    }
    Ok(())
}
