//! `cargo xtask build-qus`: the static program `qus`, its completions and manual pages.
//!
//! It goes beside the emulators of the bundle, where it finds them by itself. The C library is linked
//! statically, by the Rust target that the machine has; a musl target need not be installed for that. Paths of
//! this machine are kept out, so that two builds in two places are equal. For another host the linker is that of
//! its emulators, and Rust's standard library comes from rustup (`rust.rs`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{HOSTS, Host};
use qus_core::digest::Sha256;
use qus_core::table::Table;
use serde::Serialize;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::output::out;
use crate::base::progress::say;
use crate::base::{files, lock};
use crate::bundle::hosts::HostArgs;
use crate::bundle::runner::Runner;
use crate::bundle::{artefact, hosts};
use crate::qemu;
use crate::qus::rust::Rust;

/// Build the static program qus
///
/// Left in target/qus/bundle/HOST beside the emulators, with completions and manual pages in share/. It is
/// checked like an emulator: static, for the right machine, no path of this machine in it; and it runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    hosts: HostArgs,
    /// Print what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of a table, an object for each host
    #[arg(long)]
    json: bool,
}

/// Largest program that we are willing to have everybody pull, in bytes. That of ppc64le comes closest.
const MAX_SIZE: u64 = 9 << 18;

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
    sha256: Sha256,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let hosts = args.hosts.resolve(|| Ok(HOSTS.iter().collect()))?;
    if args.dry_run {
        let plan =
            |host: &&Host| format!("build qus for {host}\nbundle  {}\n", cx.paths.bundle(host).display());
        return out(&hosts.iter().map(plan).collect::<String>());
    }
    let _lock = lock::lock(cx.paths.out())?;
    hosts.into_iter().try_for_each(|host| build(cx, host)?.print(args.json))
}

fn build(cx: &Context, host: &'static Host) -> Result<Report> {
    let (runner, rust) = {
        // What is fetched for another host goes there.
        let _lock = (host != hosts::own()?).then(|| lock::lock(cx.paths.cache())).transpose()?;
        (qemu::build::runner(cx, host)?, Rust::ensure(cx, host)?)
    };
    say(format_args!("building qus for {host} …"));
    let log = cx.start_log("build-qus")?;
    let remap: Vec<_> =
        build_paths(cx).iter().map(|path| format!("--remap-path-prefix={}=.", path.display())).collect();
    let cargo = cmd!(sh(), "cargo build --locked --profile qus --package qus-core --bin qus");
    exec::run(rust.enter(cargo, &remap).in_dir(cx.paths.root()), &log, |_| {})?;
    let target = cx.paths.out().parent().context("target/qus lies in target")?;
    let built = target.join(&rust.triple).join("qus/qus");
    artefact::verify(&built, host, &build_paths(cx))?;
    let size = fs::metadata(&built)?.len();
    ensure!(size < MAX_SIZE, "{} has {size} bytes, more than the {MAX_SIZE} it may have", built.display());
    run_it(&runner, &built, host)?;
    let dir = cx.paths.bundle(host);
    let program = dir.join("qus");
    files::copy(&built, &program)?;
    share(&runner, &program, &dir.join("share"))?;
    Ok(Report { host: host.name, sha256: files::sha256(&program)?, size, file: program })
}

/// Has the program say that it is one for its machine.
fn run_it(runner: &Runner, program: &Path, host: &Host) -> Result<()> {
    let arch = host.arch.name;
    if !runner.words().is_empty() {
        // No probe runs natively in an emulator that the kernel does not know.
        let told =
            exec::read(runner.cmd(program).arg("--version")).context("the finished program does not work")?;
        ensure!(told.starts_with("qus "), "the finished program says that it is {told:?}");
        return Ok(());
    }
    let probed = exec::read(cmd!(sh(), "{program} probe {arch} --json"))
        .context("the finished program does not work")?;
    ensure!(probed.contains("natively"), "the finished program does not know its own machine: {probed}");
    Ok(())
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return out(&(serde_json::to_string_pretty(self)? + "\n"));
        }
        let mut table = Table::new(["program", "size", "static", "probe"]);
        table.row(["qus".into(), format!("{:.2} MB", self.size as f64 / 1e6), "yes".into(), "passed".into()]);
        out(&table.to_string())?;
        say(format_args!("qus for {} in {}", self.host, self.file.display()));
        Ok(())
    }
}

/// Directories of this machine that a program could disclose.
fn build_paths(cx: &Context) -> Vec<PathBuf> {
    // Later prefixes win where several match.
    let mut paths = cx.settings.personal_dirs();
    paths.push(cx.paths.root().to_owned());
    paths
}

/// Completions and manual pages, made by the program itself.
fn share(runner: &Runner, program: &Path, dir: &Path) -> Result<()> {
    files::remove(dir)?;
    for (shell, place) in COMPLETIONS {
        let script = exec::read(runner.cmd(program).args(["completions", shell]))?;
        files::write(&dir.join(place), (script + "\n").as_bytes())?;
    }
    let man = dir.join("man/man1");
    exec::read(runner.cmd(program).arg("man").arg(man)).map(drop)
}
