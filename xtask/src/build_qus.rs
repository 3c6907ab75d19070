//! `cargo xtask build-qus`: the static program `qus`, its completions and manual pages.
//!
//! It goes beside the emulators of the bundle, where it finds them by itself. The C library is linked
//! statically, by the Rust target that the machine has; a musl target need not be installed for that. Paths of
//! this machine are kept out, so that two builds in two places are equal.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qus_core::arch::Host;
use qus_core::table::Table;
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::paths::Paths;
use crate::progress::say;
use crate::{Usage, artefact, cache, exec, out};

/// Build the static program qus
///
/// Left in target/qus/bundle/HOST beside the emulators, with completions and manual pages in share/. It is
/// checked like an emulator: static, for the right machine, no path of this machine in it; and it runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The machine that it runs on: amd64, arm64v8, … [default: this one]
    #[arg(long)]
    host: Option<&'static Host>,
    /// Print what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Largest program that we are willing to have everybody pull, in bytes.
const MAX_SIZE: u64 = 2 << 20;

/// Completion scripts: the shell, and where its users' systems look for them below `share`.
const COMPLETIONS: [(&str, &str); 4] = [
    ("bash", "bash-completion/completions/qus"),
    ("elvish", "elvish/lib/qus.elv"),
    ("fish", "fish/vendor_completions.d/qus.fish"),
    ("zsh", "zsh/site-functions/_qus"),
];

#[derive(Serialize)]
struct Report {
    host: &'static str,
    file: PathBuf,
    /// In bytes.
    size: u64,
    sha256: String,
}

pub(crate) fn run(sh: &Shell, paths: &Paths, args: &Args) -> Result<()> {
    let own = Host::current().context("qus is not built for this kind of machine")?;
    let host = args.host.unwrap_or(own);
    if host != own {
        let message =
            format!("qus for {host} cannot be built on {own} yet: run this on a machine of that kind");
        return Err(Usage(message).into());
    }
    let dir = paths.bundle(host.name);
    if args.dry_run {
        return out(&format!("build qus for {host}\nbundle  {}\n", dir.display()));
    }
    let _lock = cache::lock(paths.out())?;
    let built = compile(sh, paths)?;
    artefact::verify(&built, host, &build_paths(paths))?;
    let size = fs::metadata(&built)?.len();
    ensure!(size < MAX_SIZE, "{} has {size} bytes, more than the {MAX_SIZE} it may have", built.display());
    let arch = host.arch;
    let probed =
        exec::read(cmd!(sh, "{built} probe {arch} --json")).context("the finished program does not work")?;
    ensure!(probed.contains("natively"), "the finished program does not know its own machine: {probed}");
    let program = dir.join("qus");
    cache::copy(&built, &program)?;
    share(sh, &program, &dir.join("share"))?;
    let report = Report { host: host.name, sha256: cache::sha256_file(&program)?, size, file: program };
    if args.json {
        return out(&(serde_json::to_string_pretty(&report)? + "\n"));
    }
    let mut table = Table::new(["program", "size", "static", "probe"]);
    table.row(["qus".into(), format!("{:.2} MB", size as f64 / 1e6), "yes".into(), "passed".into()]);
    out(&table.to_string())?;
    say(format_args!("qus for {host} in {}", report.file.display()));
    Ok(())
}

/// Has cargo build it, and returns where cargo has put it.
fn compile(sh: &Shell, paths: &Paths) -> Result<PathBuf> {
    let _dir = sh.push_dir(paths.root());
    let version = exec::read(cmd!(sh, "rustc -vV"))?;
    let triple =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(build_paths(paths).iter().map(|path| format!("--remap-path-prefix={}=.", path.display())));
    let log = paths.log("build-qus");
    exec::start_log(&log)?;
    say("building qus …");
    // With a target named, cargo keeps these flags from build scripts and macros, which cannot be static.
    let build = cmd!(sh, "cargo build --locked --profile qus --package qus-core --bin qus --target {triple}")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    exec::run(build, &log, |_| {})?;
    let target = paths.out().parent().context("target/qus lies in target")?;
    Ok(target.join(triple).join("qus/qus"))
}

/// Folders of this machine that a program could tell of.
fn build_paths(paths: &Paths) -> Vec<PathBuf> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(home.as_ref()?.join(".cargo")));
    // Later prefixes win where several match.
    [home, cargo, Some(paths.root().to_owned())].into_iter().flatten().collect()
}

/// Completions and manual pages, made by the program itself.
fn share(sh: &Shell, program: &Path, dir: &Path) -> Result<()> {
    cache::remove(dir)?;
    for (shell, place) in COMPLETIONS {
        let script = exec::read(cmd!(sh, "{program} completions {shell}"))?;
        cache::write(&dir.join(place), (script + "\n").as_bytes())?;
    }
    let man = dir.join("man/man1");
    exec::read(cmd!(sh, "{program} man {man}")).map(drop)
}
