//! Checks what the patches in `qemu-src/patches/compat` repair.
//!
//! Each program prints `ok`, or a line for each difference from Linux. It first runs natively, which checks the program
//! itself, and then in guests of both word sizes, whose compilers build the emulators of other hosts.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use qus_core::elf::Class;
use tempfile::TempDir;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::bundle::hosts;
use crate::check::report::{self, Report};
use crate::check::smoke::emulator::{check_output, emulator};
use crate::check::smoke::fixture::kernel::require_instances;
use crate::check::smoke::fixture::tools::{compile, macros};

const LEVEL: &str = "emulator";

/// Hosts whose compilers compile the programs: guests with words of 64 and of 32 bits.
const COMPILERS: [&str; 2] = ["arm64v8", "arm32v7"];

macro_rules! programs {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("programs/compat/", $name, ".c")))),*]
    };
}

const PROGRAMS: [(&str, &str); 16] = programs![
    "aio",
    "brk-room",
    "code-in-shared-views",
    "directory-positions",
    "extended-attributes",
    "flat-ioctls",
    "late-syscalls",
    "message-queues",
    "mremap-errors",
    "namespaces",
    "netlink-families",
    "pi-mutex",
    "processor-file",
    "signal-numbers",
    "socket-options",
    "tracing-hint",
];

/// Programs that run in an address space of limited size.
const LIMITED: [(&str, &str); 1] = programs!["limited-address-space"];

/// Programs that execute themselves, which takes a handler.
const EXECUTED: [(&str, &str); 4] = programs!["fexecve", "memory-rlimits", "other-process", "robust-futex"];

const SYSTEM_CALLS: &str = include_str!("programs/system-calls.c");

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let own = hosts::own()?;
    let bundle = cx.paths.bundle(own);
    let with_emulator = |host: &'static Host| Ok(vec![emulator(&bundle, host.arch)?.into_os_string()]);
    let with_limit = |host: &'static Host| {
        let script = r#"ulimit -v 2000000; exec "$@""#;
        let shell = ["sh", "-c", script, "sh"].map(OsString::from).to_vec();
        Ok([shell, with_emulator(host)?].concat())
    };
    let with_handler = |host: &'static Host| {
        emulator(&bundle, host.arch)?;
        require_instances()?;
        let qus = bundle.join("qus").into_os_string();
        let dir = bundle.clone().into_os_string();
        Ok(vec![qus, "run".into(), "--dir".into(), dir, host.arch.name.into(), "--".into()])
    };
    compare(cx, report, &PROGRAMS, with_emulator)?;
    compare(cx, report, &LIMITED, with_limit)?;
    compare(cx, report, &EXECUTED, with_handler)?;
    let native = LazyCell::new(|| absent_calls(cx, own, &[]));
    for compiler in COMPILERS {
        let host: &Host = compiler.parse()?;
        report.check(LEVEL, format!("compat: system calls in {}", host.arch), || {
            let native = native.as_ref().map_err(report::copy_error).context("natively")?;
            let emulated = absent_calls(cx, host, &with_emulator(host)?)?;
            let documented: BTreeSet<_> = cx.data.syscalls.absent().collect();
            // The kernel itself answers so to the arguments of some calls. Those with 64-bit times have another name in
            // 64-bit programs.
            let is_expected =
                |name: &&str| native.contains(name.trim_end_matches("_time64")) || documented.contains(*name);
            let unexpected: Vec<_> =
                emulated.iter().map(String::as_str).filter(|name| !is_expected(name)).collect();
            ensure!(
                unexpected.is_empty(),
                "these fail with ENOSYS, and are not in syscalls.toml: {unexpected:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Runs programs natively and in each guest, which `runner` has the command for.
fn compare(
    cx: &Context,
    report: &mut Report,
    programs: &[(&str, &str)],
    runner: impl Fn(&'static Host) -> Result<Vec<OsString>>,
) -> Result<()> {
    for (name, text) in programs {
        let native = LazyCell::new(|| Program::compile(cx, hosts::own()?, text)?.run(&[]));
        for compiler in COMPILERS {
            let host: &Host = compiler.parse()?;
            report.check(LEVEL, format!("compat: {name} in {}", host.arch), || {
                native.as_ref().map_err(report::copy_error).context("natively")?;
                Program::compile(cx, host, text)?.run(&runner(host)?)
            })?;
        }
    }
    Ok(())
}

/// The system calls that fail with `ENOSYS`.
fn absent_calls(cx: &Context, host: &'static Host, runner: &[OsString]) -> Result<BTreeSet<String>> {
    let header = macros(cx, host, "sys/syscall.h")?;
    let known = header.lines().filter_map(|line| line.strip_prefix("#define SYS_")?.split(' ').next());
    let known: BTreeSet<_> = known.collect();
    let mut calls: String = known.iter().map(|name| format!("{{ \"{name}\", SYS_{name} }},\n")).collect();
    for (name, number) in &cx.data.syscalls.newer {
        if !known.contains(&**name) {
            calls += &format!("{{ \"{name}\", {number} }},\n");
        }
    }
    let program = Program::compile(cx, host, &SYSTEM_CALLS.replace("CALLS\n", &calls))?;
    Ok(program.output(runner)?.lines().map(str::to_owned).collect())
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
        // Programs of distributions are PIEs. Debian's libc for 32-bit ARM cannot link static ones.
        let link: &[&str] = match host.arch.class {
            Class::Elf64 => &["-static-pie", "-fPIE"],
            Class::Elf32 => &["-static"],
        };
        compile(cx, host, text, &[link, &["-pthread", "-w"]].concat(), &path)?;
        Ok(Self { dir, path })
    }

    fn run(&self, runner: &[OsString]) -> Result<()> {
        let Self { dir, path } = self;
        let run = cmd!(sh(), "timeout 60 {runner...} {path}");
        check_output(exec::output(run.in_dir(dir.path()))?, "the program", "ok\n")
    }

    fn output(&self, runner: &[OsString]) -> Result<String> {
        let Self { dir, path } = self;
        exec::read(cmd!(sh(), "timeout 60 {runner...} {path}").in_dir(dir.path()))
    }
}
