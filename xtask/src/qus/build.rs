//! `cargo xtask build-qus`: the static program `qus`, its completions and manual pages.
//!
//! The program is written next to the emulators of the bundle, where it finds them. The C library is linked statically
//! with the machine's default Rust target; no musl target is needed. Paths of this machine are remapped, so that builds
//! in different directories are identical. For another host, the linker is that of its emulators, and Rust's standard
//! library comes from rustup (`rust.rs`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::Host;
use qus_core::digest::Sha256;
use qus_core::table::Table;
use serde::Serialize;
use serde_json::json;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::git::Checkout;
use crate::base::output::{OutputArgs, out, out_json};
use crate::base::progress::{Bar, say};
use crate::base::{cache, files, lock};
use crate::bundle::hosts::HostArgs;
use crate::bundle::licences::{Licensed, write_parts};
use crate::bundle::runner::Runner;
use crate::bundle::{artefact, hosts};
use crate::debian::distribution::Distribution;
use crate::debian::versions::Versions;
use crate::qemu;
use crate::qemu::sysroot::kept;
use crate::qus::licences;
use crate::qus::rust::Rust;

/// Build the static program qus
///
/// Writes the program to target/qus/bundle/HOST, next to the emulators, and completions and manual pages to share/.
/// Like an emulator, it is verified: static, built for the host, without paths of this machine, and able to run. With
/// --json, prints one object for each host.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    hosts: HostArgs,
    /// Use the packages in sysroot.tar.zst of another bundle, to reproduce its program; for its host
    #[arg(long, value_name = "FILE")]
    sysroot: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The maximum size of the program in bytes. The program for ppc64le is the largest: its segments begin at multiples of
/// 64 KiB.
const MAX_SIZE: u64 = 20 << 17;

/// Completion scripts: the shell, and the standard path below `share`.
const COMPLETIONS: [(&str, &str); 4] = [
    ("bash", "bash-completion/completions/qus"),
    ("elvish", "elvish/lib/qus.elv"),
    ("fish", "fish/vendor_completions.d/qus.fish"),
    ("zsh", "zsh/site-functions/_qus"),
];

#[derive(Serialize)]
struct ProgramReport {
    host: &'static str,
    file: PathBuf,
    /// In bytes.
    size: u64,
    sha256: Sha256,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let hosts = args.hosts.supported()?;
    hosts::check_single(&hosts, "--sysroot", args.sysroot.is_some())?;
    let OutputArgs { dry_run, json } = args.output;
    if dry_run {
        return hosts.into_iter().try_for_each(|host| print_plan(cx, host, json));
    }
    // Packages for other hosts are written to the cache. It is locked first, as by build-qemu: two commands that lock in
    // different orders could wait for each other.
    let own = hosts::own()?;
    let cache = hosts.iter().any(|host| *host != own).then(|| lock::lock(cx.paths.cache())).transpose()?;
    let _lock = lock::lock(cx.paths.out())?;
    // This machine's own program needs no packages.
    let kept = args.sysroot.as_deref().filter(|_| cache.is_some());
    let kept = kept.map(|file| kept::unpack(cx, file)).transpose()?;
    let versions = kept.as_deref().map_or(Versions::UpdatedIfPossible, Versions::Kept);
    let toolchains: Vec<_> = hosts
        .into_iter()
        .map(|host| Ok((host, qemu::build::runner(cx, host)?, Rust::ensure(cx, host, versions)?)))
        .collect::<Result<_>>()?;
    drop(cache);
    toolchains.iter().try_for_each(|(host, runner, rust)| build(cx, host, runner, rust)?.print(json))
}

fn print_plan(cx: &Context, host: &Host, json: bool) -> Result<()> {
    let bundle = cx.paths.bundle(host);
    if json {
        return out_json(&json!({ "host": host.name, "bundle": bundle }));
    }
    out(&format!("build qus for {host}\nbundle  {}\n", bundle.display()))
}

/// Compiles a static program of qus-core for a host, and verifies the file.
pub(super) fn compile(cx: &Context, host: &Host, rust: &Rust, program: &str) -> Result<PathBuf> {
    let bar = Bar::new(format!("building {program} for {host}"));
    let log = cx.start_log(&format!("build-{program}"))?;
    let remap: Vec<_> =
        build_paths(cx).iter().map(|path| format!("--remap-path-prefix={}=.", path.display())).collect();
    let cargo = cmd!(sh(), "cargo build --locked --profile qus --package qus-core --bin {program}");
    let cargo = match Checkout::read(cx.paths.root()).revision() {
        Some(revision) => cargo.env("QUS_COMMIT", revision),
        None => cargo,
    };
    exec::run(rust.enter(cargo, &remap).in_dir(cx.paths.root()), &log, |line| bar.detail(line))?;
    let built = cx.paths.cargo_target().join(&rust.triple).join("qus").join(program);
    artefact::verify(&built, host, &build_paths(cx))?;
    let size = fs::metadata(&built)?.len();
    ensure!(size < MAX_SIZE, "{} has {size} bytes; the maximum is {MAX_SIZE}", built.display());
    Ok(built)
}

fn build(cx: &Context, host: &'static Host, runner: &Runner, rust: &Rust) -> Result<ProgramReport> {
    let built = compile(cx, host, rust, "qus")?;
    verify_runs(runner, &built, host)?;
    let dir = cx.paths.bundle(host);
    let program = dir.join("qus");
    files::copy(&built, &program)?;
    write_share(runner, &program, &dir.join("share"))?;
    write_licences(cx, rust, &dir)?;
    let size = fs::metadata(&program)?.len();
    Ok(ProgramReport { host: host.name, sha256: files::sha256(&program)?, size, file: program })
}

/// Writes the licences of the program into its bundle. On systems without Debian's packages, those of the C library are
/// not known, and no release can be made.
fn write_licences(cx: &Context, rust: &Rust, bundle: &Path) -> Result<()> {
    let into = Licensed::Program.dir(bundle);
    let Some(distribution) = Distribution::detect()? else { return files::remove_dir(&into) };
    fs::create_dir_all(into.parent().context("licences have no parent directory")?)?;
    cache::publish(&into, |partial| {
        let mut parts = licences::write_of_crates(cx, &rust.triple, partial)?;
        parts.extend(rust.write_licences(&distribution.id, partial)?);
        write_parts(parts, partial)
    })
}

/// Runs the program, and verifies that it is native to the host.
fn verify_runs(runner: &Runner, program: &Path, host: &Host) -> Result<()> {
    let arch = host.arch.name;
    if !runner.words().is_empty() {
        // Under an emulator without a registered handler, no probe runs natively.
        let version =
            exec::read(runner.cmd(program).arg("--version")).context("the built program does not run")?;
        ensure!(version.starts_with("qus "), "the built program reports the version {version:?}");
        return Ok(());
    }
    let report =
        exec::read(cmd!(sh(), "{program} probe {arch} --json")).context("the built program does not run")?;
    ensure!(
        report.contains("natively"),
        "the built program does not run its host's probe natively: {report}"
    );
    Ok(())
}

impl ProgramReport {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return out_json(self);
        }
        let mut table = Table::new(["program", "size", "static", "probe"]);
        table.row(["qus".into(), format!("{:.2} MB", self.size as f64 / 1e6), "yes".into(), "passed".into()]);
        out(&table.to_string())?;
        say(format_args!("qus for {} in {}", self.host, self.file.display()));
        Ok(())
    }
}

/// Directories of this machine whose paths must not occur in the program.
fn build_paths(cx: &Context) -> Vec<PathBuf> {
    // If several prefixes match, rustc uses the last one.
    let mut paths = cx.settings.personal_dirs();
    paths.push(cx.paths.root().to_owned());
    paths
}

/// Writes completions and manual pages, which the program generates.
fn write_share(runner: &Runner, program: &Path, dir: &Path) -> Result<()> {
    files::remove_dir(dir)?;
    for (shell, path) in COMPLETIONS {
        let script = exec::read(runner.cmd(program).args(["completions", shell]))?;
        files::write(&dir.join(path), (script + "\n").as_bytes())?;
    }
    let man = dir.join("man/man1");
    exec::read(runner.cmd(program).arg("man").arg(man)).map(drop)
}
