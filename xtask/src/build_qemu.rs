//! `cargo xtask build-qemu`: QEMU's source into static emulators.
//!
//! All targets of a host are configured in one folder and share what they can; ninja then makes only
//! the emulators that are missing. An emulator is therefore the same whichever others were asked for,
//! and lies in the cache under a key of everything that went into it. Configuring only what was asked
//! for would be some seconds quicker once, and rebuild all shared files with each further target.

mod compile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use qemu_src::{Patch, Profile, QemuSrc, Release};
use qus_core::arch::{ARCHES, Arch, Host};
use serde::Serialize;
use xshell::Shell;

use crate::artefact;
use crate::bundle::{Bundle, Emulator, PatchId, Recipe};
use crate::cache;
use crate::paths::Paths;
use crate::progress::say;
use crate::source::{self, Given, Source};
use crate::sysroot::Sysroot;
use crate::toolchain::Toolchain;
use crate::{Usage, out, preflight};
use qus_core::table::Table;

/// Build static emulators from QEMU's source
///
/// Without targets: those of Docker's official images that the host is not. Targets may be spelt as
/// QEMU, Docker, Debian, GNU or uname spell them. The emulators, bundle.json and SHA256SUMS are left in
/// target/qus/bundle/HOST; a table of them goes to standard output. Nothing is installed and root is not
/// needed. Interrupted, the same command continues; repeated, it builds nothing.
#[derive(clap::Args)]
#[command(after_help = "Environment:
  QUS_SOURCE      an archive of QEMU or a folder of archives, tried first
  CC              C compiler instead of cc
  XDG_CACHE_HOME  where the cache qus/ lies, instead of ~/.cache")]
pub(crate) struct Args {
    /// Architectures to emulate
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    targets: Vec<&'static Arch>,
    /// All 33 linux-user targets
    #[arg(long)]
    all: bool,
    /// The machine that the emulators run on: amd64, arm64v8, … [default: this one]
    #[arg(long)]
    host: Option<&'static Host>,
    /// Channel (default, lts, edge) or version of QEMU
    #[arg(long, value_name = "CHANNEL|VERSION", default_value = "default")]
    qemu: String,
    /// An archive of QEMU's source or a folder of archives
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
    /// dev is quick to build, release is for shipping
    #[arg(long, value_enum, default_value_t = ProfileArg::Dev)]
    profile: ProfileArg,
    /// Accept the pinned archive only, not a newer patch level (implied by --profile release)
    #[arg(long)]
    locked: bool,
    /// How many compilers run at once [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Print what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProfileArg {
    Dev,
    Release,
}

/// What was asked for, with all names resolved.
struct Wanted<'a> {
    release: &'a Release,
    host: &'static Host,
    targets: Vec<&'static Arch>,
    profile: Profile,
    exact: bool,
    jobs: Option<u32>,
}

/// An emulator in the report.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    emulator: Emulator,
    state: State,
    /// Compiler seconds for this target's own files; `None` if it was not built just now.
    seconds: Option<f64>,
    /// The same as a part of all compiler seconds, 0 to 1.
    share: Option<f64>,
}

/// Where an emulator in the bundle comes from. In every case it has run its probe.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Built by this run.
    Built,
    /// Copied from the cache by this run.
    Cached,
    /// Left as it was.
    Kept,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    qemu: &'a semver::Version,
    host: &'a str,
    bundle: PathBuf,
    up_to_date: bool,
    emulators: Vec<Row>,
}

pub(crate) fn run(sh: &Shell, paths: &Paths, args: &Args) -> Result<()> {
    let data = QemuSrc::load(&paths.qemu_src())?;
    let wanted = Wanted::new(&data, args)?;
    let variable = env::var_os("QUS_SOURCE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let given = match (&args.source, &variable) {
        (Some(path), _) => Some(Given::Argument(path)),
        (None, Some(path)) => Some(Given::Environment(path)),
        (None, None) => None,
    };
    if args.dry_run {
        return plan(paths, &data, &wanted, given.is_some(), args.json);
    }
    check_folders(paths)?;
    preflight::check(sh, &data.tools)?;
    let toolchain = Toolchain::identify(sh)?;
    let remedy = "set XDG_CACHE_HOME to a folder that can be written";
    let _cache_lock = cache::lock(paths.cache()).context(remedy)?;
    let _out_lock = cache::lock(paths.out())?;

    let source = source::resolve(sh, paths, wanted.release, given, wanted.exact)?;
    let sysroot = Sysroot::ensure(sh, paths, &data.tools, wanted.host)?;
    let patches: Vec<_> =
        data.patches.iter().filter(|patch| patch.versions.matches(&source.version)).collect();
    let recipe = recipe(&data, &wanted, &source, &patches, toolchain, sysroot.manifest()?);

    let dir = paths.bundle(wanted.host.name);
    let bundled = intact(&dir, &recipe);
    let has = |arch: &Arch| bundled.iter().any(|emulator| emulator.target == arch.name);
    let new: Vec<_> = wanted.targets.iter().copied().filter(|arch| !has(arch)).collect();
    let cached = Cached { paths, recipe: &recipe };
    let missing = cached.missing(&new)?;
    let mut seconds = BTreeMap::new();
    if !missing.is_empty() {
        let tree = crate::tree::prepare(sh, paths, &source, &patches)?;
        let compile =
            compile::Compile { sh, paths, recipe: &recipe, tree: &tree, sysroot: &sysroot, wanted: &wanted };
        seconds = compile.run(&missing, |arch, emulator| cached.keep(arch, emulator))?;
    }
    let bundle = cached.bundle(&dir, bundled, &new)?;
    for arch in &new {
        artefact::run_probe(sh, &dir.join(arch.emulator()), arch)?;
    }
    let all: f64 = seconds.values().sum();
    let row = |emulator: Emulator| {
        let is = |arch: &&Arch| arch.name == emulator.target;
        let (state, seconds) = match seconds.get(&emulator.target) {
            Some(&seconds) if missing.iter().any(is) => (State::Built, Some(seconds)),
            _ if new.iter().any(is) => (State::Cached, None),
            _ => (State::Kept, None),
        };
        Row { emulator, state, seconds, share: seconds.map(|seconds| seconds / all) }
    };
    let asked = |emulator: &Emulator| wanted.targets.iter().any(|arch| arch.name == emulator.target);
    let report = Report {
        qemu: &recipe.qemu,
        host: wanted.host.name,
        bundle: dir,
        up_to_date: new.is_empty(),
        emulators: bundle.emulators.into_iter().filter(asked).map(row).collect(),
    };
    report.print(args.json)
}

fn recipe(
    data: &QemuSrc,
    wanted: &Wanted<'_>,
    source: &Source,
    patches: &[&Patch],
    toolchain: Toolchain,
    dependencies: Vec<String>,
) -> Recipe {
    let flags = data.configure.args(&source.version, wanted.host.name, wanted.profile);
    let id =
        |patch: &&Patch| PatchId { name: patch.name.clone(), sha256: cache::sha256(patch.text.as_bytes()) };
    Recipe {
        qemu: source.version.clone(),
        source_sha256: source.sha256.clone(),
        patches: patches.iter().map(id).collect(),
        host: wanted.host.name.to_owned(),
        profile: wanted.profile.to_string(),
        flags: flags.into_iter().map(str::to_owned).collect(),
        toolchain,
        dependencies,
    }
}

impl<'a> Wanted<'a> {
    fn new(data: &'a QemuSrc, args: &Args) -> Result<Self> {
        let release = data.release(&args.qemu).map_err(Usage)?;
        let own = Host::current().context("qus builds no emulators for this kind of machine")?;
        let host = args.host.unwrap_or(own);
        if host != own {
            let message = format!(
                "emulators for {host} cannot be built on {own} yet: run this on a machine of that kind"
            );
            return Err(Usage(message).into());
        }
        let mut targets: Vec<_> = match (args.all, &*args.targets) {
            (true, _) => ARCHES.iter().collect(),
            (false, []) => host.container_set().collect(),
            (false, some) => some.to_vec(),
        };
        targets.sort_by_key(|arch| arch.name);
        targets.dedup();
        let profile = match args.profile {
            ProfileArg::Dev => Profile::Dev,
            ProfileArg::Release => Profile::Release,
        };
        let exact = args.locked || profile == Profile::Release;
        Ok(Self { release, host, targets, profile, exact, jobs: args.jobs })
    }
}

/// Refuses what QEMU's configure cannot cope with, before anything is fetched.
fn check_folders(paths: &Paths) -> Result<()> {
    for dir in [paths.out(), paths.cache()] {
        let text = dir.to_string_lossy();
        let bad = text.contains([' ', ':', '\n', '\t', '\'', '"']);
        ensure!(
            !bad,
            "QEMU cannot be built in {}: move the clone, or set CARGO_TARGET_DIR and XDG_CACHE_HOME, to a path \
             without spaces, colons and quotes",
            dir.display()
        );
    }
    Ok(())
}

/// Prints what would be done, from what is known without the network.
fn plan(paths: &Paths, data: &QemuSrc, wanted: &Wanted<'_>, given: bool, json: bool) -> Result<()> {
    let version = &wanted.release.version;
    let source = match (given, source::is_cached(paths, wanted.release)) {
        (true, _) => "the given place, else the cache, upstream, Debian",
        (false, true) => "the cache",
        (false, false) => "upstream, else Debian",
    };
    let targets: Vec<_> = wanted.targets.iter().map(|arch| arch.name).collect();
    let flags = data.configure.args(version, wanted.host.name, wanted.profile);
    let patches: Vec<_> = data
        .patches
        .iter()
        .filter(|patch| patch.versions.matches(version))
        .map(|patch| &*patch.name)
        .collect();
    let bundle = paths.bundle(wanted.host.name);
    if json {
        let plan = serde_json::json!({
            "qemu": version, "host": wanted.host.name, "profile": wanted.profile.to_string(),
            "source": source, "patches": patches, "flags": flags, "targets": targets, "bundle": bundle,
        });
        return out(&format!("{plan:#}\n"));
    }
    out(&format!(
        "build QEMU {version} for {} ({})\nsource    {source}\npatches   {}\nconfigure {}\ntargets   {}\nbundle    {}\n",
        wanted.host,
        wanted.profile,
        patches.join(" "),
        flags.join(" "),
        targets.join(" "),
        bundle.display(),
    ))
}

/// The emulators that the cache has of one recipe.
struct Cached<'a> {
    paths: &'a Paths,
    recipe: &'a Recipe,
}

impl Cached<'_> {
    fn dir(&self, arch: &Arch) -> Result<PathBuf> {
        Ok(self.paths.emulator(&self.recipe.key(arch.name)?))
    }

    /// The record of an emulator; `None` if there is none that can be read.
    fn record(&self, arch: &Arch) -> Result<Option<Emulator>> {
        let text = fs::read(self.dir(arch)?.join("emulator.json")).ok();
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Those that have to be built. One that was changed since counts as not there.
    fn missing(&self, targets: &[&'static Arch]) -> Result<Vec<&'static Arch>> {
        let mut missing = Vec::new();
        for &arch in targets {
            let dir = self.dir(arch)?;
            let intact = match self.record(arch)? {
                Some(record) => {
                    cache::sha256_file(&dir.join(&record.file)).is_ok_and(|sha256| sha256 == record.sha256)
                }
                None => false,
            };
            if !intact {
                if dir.exists() {
                    say(format_args!(
                        "cache: {} was changed, so it is built again",
                        dir.join(arch.emulator()).display()
                    ));
                    cache::remove(&dir)?;
                }
                missing.push(arch);
            }
        }
        Ok(missing)
    }

    /// Takes a verified emulator in.
    fn keep(&self, arch: &Arch, emulator: &Path) -> Result<()> {
        cache::publish(&self.dir(arch)?, |partial| {
            let file = arch.emulator();
            let kept = partial.join(&file);
            cache::copy(emulator, &kept)?;
            let record = Emulator {
                target: arch.name.to_owned(),
                size: fs::metadata(&kept)?.len(),
                sha256: cache::sha256_file(&kept)?,
                file,
            };
            cache::write(&partial.join("emulator.json"), &serde_json::to_vec_pretty(&record)?)
        })
    }

    /// Adds emulators of the cache to those that are intact in the bundle, and describes them all.
    fn bundle(&self, dir: &Path, intact: Vec<Emulator>, new: &[&Arch]) -> Result<Bundle> {
        if intact.is_empty() {
            if let Some(earlier) = Bundle::read(dir) {
                say(format_args!(
                    "replacing the bundle of QEMU {} in {}",
                    earlier.recipe.qemu,
                    dir.display()
                ));
            }
            clear(dir)?;
        }
        let mut emulators = intact;
        for arch in new {
            let record =
                self.record(arch)?.with_context(|| format!("the cache lost the emulator of {arch}"))?;
            cache::copy(&self.dir(arch)?.join(&record.file), &dir.join(&record.file))?;
            emulators.push(record);
        }
        let bundle = Bundle::new(self.recipe.clone(), emulators);
        bundle.write(dir)?;
        Ok(bundle)
    }
}

/// Removes what this command puts into a bundle; `qus` lies there too.
fn clear(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("qemu-") || ["bundle.json", "SHA256SUMS"].contains(&&*name) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Emulators of an earlier run that were built by the same recipe and have not been changed since.
fn intact(dir: &Path, recipe: &Recipe) -> Vec<Emulator> {
    let mut emulators = match Bundle::read(dir) {
        Some(bundle) if bundle.recipe == *recipe => bundle.emulators,
        _ => Vec::new(),
    };
    emulators
        .retain(|kept| cache::sha256_file(&dir.join(&kept.file)).is_ok_and(|sha256| sha256 == kept.sha256));
    emulators
}

impl Report<'_> {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return out(&(serde_json::to_string_pretty(self)? + "\n"));
        }
        let mut table = Table::new(["target", "size", "build", "probe"]);
        for row in &self.emulators {
            let size = format!("{:.1} MB", row.emulator.size as f64 / 1e6);
            let build = match (row.state, row.share) {
                (State::Built, Some(share)) => format!("{:.1} %", share * 100.0),
                (State::Kept, _) => "kept".to_owned(),
                _ => "cached".to_owned(),
            };
            table.row([row.emulator.target.clone(), size, build, "passed".to_owned()]);
        }
        out(&table.to_string())?;
        let state = if self.up_to_date { "up to date: " } else { "" };
        let emulators = match self.emulators.len() {
            1 => "1 emulator".to_owned(),
            count => format!("{count} emulators"),
        };
        say(format_args!("{state}{emulators} of QEMU {} in {}", self.qemu, self.bundle.display()));
        Ok(())
    }
}
