//! Checks what the patches in `qemu-src/patches/compat` repair.
//!
//! Each program prints `ok`, or a line for each difference from Linux. It first runs natively, which checks the program
//! itself, and then in guests of both word sizes, whose compilers build the emulators of other hosts.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
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

const PROGRAMS: [(&str, &str); 25] = programs![
    "aio",
    "ancillary-data",
    "brk-room",
    "code-in-shared-views",
    "directory-positions",
    "extended-attributes",
    "fault-addresses",
    "flat-ioctls",
    "late-syscalls",
    "mappings-of-threads",
    "message-queues",
    "mount-ids",
    "mremap-errors",
    "namespaces",
    "netlink-families",
    "pi-mutex",
    "processor-file",
    "signal-actions",
    "signal-numbers",
    "socket-options",
    "sysv-ipc",
    "tracing-hint",
    "unaligned-access",
    "unwinding",
    "vfork",
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
    let native = LazyCell::new(|| Calls::make(cx, own, &[]));
    let documented: BTreeSet<_> = cx.data.syscalls.absent().collect();
    in_guests(report, "system calls", |host| {
        let native = native.as_ref().map_err(report::copy_error).context("natively")?;
        let emulated = Calls::make(cx, host, &with_emulator(host)?)?;
        // The kernel itself answers so to the arguments of some calls. Those with 64-bit times have another name in
        // 64-bit programs.
        let is_native = |name: &str| native.absent.contains(name.trim_end_matches("_time64"));
        let is_unexpected = |name: &&str| !is_native(name) && !documented.contains(name);
        let unexpected: Vec<_> = emulated.absent.iter().map(String::as_str).filter(is_unexpected).collect();
        ensure!(unexpected.is_empty(), "absent, but not in syscalls.toml: {unexpected:?}");
        let is_present = |name: &&&str| emulated.made.contains(**name) && !emulated.absent.contains(**name);
        let present: Vec<_> = documented.iter().filter(is_present).collect();
        ensure!(present.is_empty(), "not absent, contrary to syscalls.toml: {present:?}");
        Ok(())
    })
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
        in_guests(report, name, |host| {
            native.as_ref().map_err(report::copy_error).context("natively")?;
            Program::compile(cx, host, text)?.run(&runner(host)?)
        })?;
    }
    Ok(())
}

/// Makes a check for each guest.
fn in_guests(report: &mut Report, what: &str, check: impl Fn(&'static Host) -> Result<()>) -> Result<()> {
    for compiler in COMPILERS {
        let host: &Host = compiler.parse()?;
        report.check(LEVEL, format!("compat: {what} in {}", host.arch), || check(host))?;
    }
    Ok(())
}

/// The system calls that a program has made.
struct Calls {
    made: BTreeSet<String>,
    /// Those that failed with `ENOSYS`.
    absent: BTreeSet<String>,
}

impl Calls {
    fn make(cx: &Context, host: &'static Host, runner: &[OsString]) -> Result<Self> {
        let header = macros(cx, host, "sys/syscall.h")?;
        let known = header.lines().filter_map(|line| line.strip_prefix("#define SYS_")?.split(' ').next());
        let mut numbers: BTreeMap<_, _> = known.map(|name| (name, format!("SYS_{name}"))).collect();
        for (name, number) in &cx.data.syscalls.newer {
            numbers.entry(name).or_insert_with(|| number.to_string());
        }
        let calls: String =
            numbers.iter().map(|(name, number)| format!("{{ \"{name}\", {number} }},\n")).collect();
        let program = Program::compile(cx, host, &SYSTEM_CALLS.replace("CALLS\n", &calls))?;
        let absent = program.output(runner)?.lines().map(str::to_owned).collect();
        Ok(Self { made: numbers.into_keys().map(str::to_owned).collect(), absent })
    }
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
