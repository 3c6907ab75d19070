//! `cargo xtask build-qemu`: QEMU's source into static emulators.
//!
//! All targets of a host are configured in one folder and share what they can; ninja then makes only
//! the emulators that are missing. An emulator is therefore the same whichever others were asked for,
//! and lies in the cache under a key of everything that went into it. Configuring only what was asked
//! for would be some seconds quicker once, and rebuild all shared files with each further target.

mod compile;
mod nodes;
mod store;
mod training;
mod wanted;

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use qemu_src::{Patch, QemuSrc};
use qus_core::arch::{Arch, Host};
use qus_core::bundle::Profile;
use qus_core::table::Table;
use serde::Serialize;
use xshell::Shell;

use crate::apt::Updates;
use crate::artefact;
use crate::bundle::{Bundle, Emulator, PatchId, Recipe};
use crate::cache;
use crate::paths::Paths;
use crate::progress::say;
use crate::runner::Runner;
use crate::source::{self, Given, Source};
use crate::sysroot::Sysroot;
use crate::toolchain::Toolchain;
use crate::{out, parallel, preflight};
use compile::{Compile, Phase};
use nodes::Nodes;
use store::Cached;
use wanted::Wanted;

/// Build static emulators from QEMU's source
///
/// Without targets: those of Docker's official images that the host is not. Targets may be spelt as
/// QEMU, Docker, Debian, GNU or uname spell them. The emulators, bundle.json and SHA256SUMS are left in
/// target/qus/bundle/HOST; a table of them goes to standard output. Nothing is installed and root is not
/// needed. Interrupted, the same command continues; repeated, it builds nothing.
#[derive(clap::Args)]
#[command(after_help = "Environment:
  QUS_SOURCE      an archive of QEMU or a folder of archives, tried first
  CC              C compiler instead of cc, for this machine
  QUS_COMPILER_CACHE
                  ccache or sccache, called before the compiler; their own variables name what machines share
  QUS_BUILDX_OPTIONS
                  further options of `docker buildx build` for --builder, as `--build-arg BASE=IMAGE`
  XDG_CACHE_HOME  where the cache qus/ lies, instead of ~/.cache")]
pub(crate) struct Args {
    /// Architectures to emulate
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    targets: Vec<&'static Arch>,
    /// All 33 linux-user targets
    #[arg(long)]
    all: bool,
    /// Machines that the emulators run on: amd64, arm64v8, …, or all [default: this one]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<String>,
    /// Channel (default, lts, edge) or version of QEMU [default: default, for 32-bit hosts lts]
    #[arg(long, value_name = "CHANNEL|VERSION")]
    qemu: Option<String>,
    /// An archive of QEMU's source or a folder of archives
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
    /// dev is quick to build; release is for shipping: optimised by what training runs use
    #[arg(long, value_enum, default_value_t = ProfileArg::Dev)]
    profile: ProfileArg,
    /// Take the training.tar.zst of another release bundle instead of training, and make the same emulators
    #[arg(long, value_name = "FILE", conflicts_with = "builder")]
    training: Option<PathBuf>,
    /// Leave a patch out, to see what it is good for (repeatable)
    #[arg(long, value_name = "PATCH", conflicts_with = "builder")]
    without: Vec<String>,
    /// Accept the pinned archive only, not a newer patch level (implied by --profile release)
    #[arg(long)]
    locked: bool,
    /// Leave the emulators of the only host in this folder instead of target/qus/bundle/HOST
    #[arg(long, value_name = "DIR", conflicts_with = "builder")]
    into: Option<PathBuf>,
    /// Builder of buildx whose nodes build the hosts that they are; all others are built here
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// How many compilers run at once [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Print what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of a table, an object for each host
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProfileArg {
    Dev,
    Release,
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
struct Report {
    qemu: semver::Version,
    host: &'static str,
    bundle: PathBuf,
    up_to_date: bool,
    emulators: Vec<Row>,
}

pub(crate) fn run(sh: &Shell, paths: &Paths, args: &Args) -> Result<()> {
    let data = QemuSrc::load(&paths.qemu_src())?;
    let mut wanted = Wanted::all(&data, args)?;
    let variable = source_variable();
    let given = match (&args.source, &variable) {
        (Some(path), _) => Some(Given::Argument(path)),
        (None, Some(path)) => Some(Given::Environment(path)),
        (None, None) => None,
    };
    if args.dry_run {
        return wanted.iter().try_for_each(|wanted| plan(paths, &data, wanted, given.is_some(), args.json));
    }
    check_folders(paths)?;
    preflight::check(sh, &data.tools)?;
    let remedy = "set XDG_CACHE_HOME to a folder that can be written";
    let _cache_lock = cache::lock(paths.cache()).context(remedy)?;
    let _out_lock = cache::lock(paths.out())?;
    let build = Build { sh, paths, data: &data, given };
    if let Some(name) = &args.builder {
        let nodes = Nodes::of(sh, paths, name)?;
        let mut native = Vec::new();
        for wanted in wanted.iter().filter(|wanted| nodes.have(wanted.host)) {
            native.push((source::resolve(sh, paths, wanted.release, given, wanted.exact)?, wanted));
        }
        let made = parallel::each(&native, |(source, wanted)| nodes.build(paths, source, wanted))?;
        for ((_, wanted), bundle) in native.iter().zip(made) {
            Report::of_node(paths.bundle(wanted.host.name), wanted, bundle).print(args.json)?;
        }
        wanted.retain(|wanted| !nodes.have(wanted.host));
    }
    wanted.iter().try_for_each(|wanted| build.bundle(wanted)?.print(args.json))
}

/// How programs of a host run here, for those who build others than emulators. The cache is theirs.
pub(crate) fn runner(sh: &Shell, paths: &Paths, data: &QemuSrc, host: &Host) -> Result<Runner> {
    if Runner::takes_emulator(host) {
        check_folders(paths)?;
        preflight::check(sh, &data.tools)?;
    }
    let variable = source_variable();
    let given = variable.as_ref().map(|path| Given::Environment(path));
    Build { sh, paths, data, given }.runner(host)
}

fn source_variable() -> Option<PathBuf> {
    env::var_os("QUS_SOURCE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What all hosts are built with.
struct Build<'a> {
    sh: &'a Shell,
    paths: &'a Paths,
    data: &'a QemuSrc,
    given: Option<Given<'a>>,
}

/// Everything that emulators of a host are made from.
struct Ready<'a> {
    source: Source,
    sysroot: Sysroot,
    patches: Vec<&'a Patch>,
    recipe: Recipe,
    profile: Option<training::Profile>,
}

/// What was not in the cache.
struct Built {
    targets: Vec<&'static Arch>,
    /// Compiler seconds by target, `""` for what they share.
    seconds: BTreeMap<String, f64>,
}

impl<'a> Build<'a> {
    /// Has the bundle of a host contain what is wanted.
    fn bundle(&self, wanted: &Wanted<'a>) -> Result<Report> {
        let ready = self.ready(wanted)?;
        let dir = wanted.dir(self.paths);
        let bundled = store::intact(&dir, &ready.recipe);
        let has = |arch: &Arch| bundled.iter().any(|emulator| emulator.target == arch.name);
        let new: Vec<_> = wanted.targets.iter().copied().filter(|arch| !has(arch)).collect();
        let runner = match &*new {
            [] => Runner::native(),
            _ => self.runner(wanted.host)?,
        };
        let built = self.fill(wanted, &ready, &new, &runner)?;
        let bundle = self.cached(&ready).bundle(&dir, bundled, &new)?;
        if let Some(profile) = &ready.profile {
            profile.write(self.sh, self.paths, &dir)?;
        }
        for arch in &new {
            artefact::run_probe(self.sh, &runner, &dir.join(arch.emulator()), arch)?;
        }
        let all: f64 = built.seconds.values().sum();
        let row = |emulator: Emulator| {
            let is = |arch: &&Arch| arch.name == emulator.target;
            let (state, seconds) = match built.seconds.get(&emulator.target) {
                Some(&seconds) if built.targets.iter().any(is) => (State::Built, Some(seconds)),
                _ if new.iter().any(is) => (State::Cached, None),
                _ => (State::Kept, None),
            };
            Row { emulator, state, seconds, share: seconds.map(|seconds| seconds / all) }
        };
        let asked = |emulator: &Emulator| wanted.targets.iter().any(|arch| arch.name == emulator.target);
        Ok(Report {
            qemu: ready.recipe.qemu,
            host: wanted.host.name,
            bundle: dir,
            up_to_date: new.is_empty(),
            emulators: bundle.emulators.into_iter().filter(asked).map(row).collect(),
        })
    }

    /// How programs of a host run here. The emulator that they may take is in the cache, or made now.
    fn runner(&self, host: &Host) -> Result<Runner> {
        Runner::of(host, |arch| {
            let wanted = Wanted::to_run(self.data, arch)?;
            let ready = self.ready(&wanted)?;
            self.fill(&wanted, &ready, &[arch], &Runner::native())?;
            self.cached(&ready).emulator(arch)
        })
    }

    fn cached<'b>(&'b self, ready: &'b Ready<'_>) -> Cached<'b> {
        Cached { paths: self.paths, recipe: &ready.recipe }
    }

    /// Has the cache contain emulators.
    fn fill(
        &self,
        wanted: &Wanted<'a>,
        ready: &Ready<'_>,
        targets: &[&'static Arch],
        runner: &Runner,
    ) -> Result<Built> {
        let cached = self.cached(ready);
        let targets = cached.missing(targets)?;
        if targets.is_empty() {
            return Ok(Built { targets, seconds: BTreeMap::new() });
        }
        let Ready { source, sysroot, patches, recipe, profile } = ready;
        let tree = &crate::tree::prepare(self.sh, self.paths, source, patches)?;
        let phase = profile.as_ref().map_or(Phase::Plain, |profile| Phase::Trained(&profile.dir));
        let (sh, paths) = (self.sh, self.paths);
        let compile = Compile { sh, paths, recipe, tree, sysroot, runner, wanted, phase };
        let seconds = compile.run(&targets, |arch, emulator| cached.keep(arch, emulator))?;
        Ok(Built { targets, seconds })
    }

    fn ready(&self, wanted: &Wanted<'a>) -> Result<Ready<'a>> {
        let Self { sh, paths, data, .. } = *self;
        let source = source::resolve(sh, paths, wanted.release, self.given, wanted.exact)?;
        let updates = if wanted.exact { Updates::Required } else { Updates::Wanted };
        let sysroot = Sysroot::ensure(sh, paths, data, wanted.host, updates)?;
        let patches = wanted.patches(data, &source.version);
        let mut flags: Vec<_> = data
            .configure
            .args(&source.version, wanted.host.name, wanted.profile)
            .into_iter()
            .map(str::to_owned)
            .collect();
        flags.extend(sysroot.configure());
        let id = |patch: &&Patch| PatchId {
            name: patch.name.clone(),
            sha256: cache::sha256(patch.text.as_bytes()),
        };
        let mut recipe = Recipe {
            qemu: source.version.clone(),
            source_sha256: source.sha256.clone(),
            patches: patches.iter().map(id).collect(),
            host: wanted.host.name.to_owned(),
            profile: wanted.profile.to_string(),
            flags,
            toolchain: Toolchain::identify(sh, &sysroot)?,
            training_sha256: None,
            dependencies: sysroot.manifest()?,
        };
        let profile = match (wanted.profile, &wanted.training) {
            (Profile::Dev, _) => None,
            (Profile::Release, Some(file)) => Some(training::Profile::given(sh, paths, file)?),
            (Profile::Release, None) if sysroot.is_cross() || recipe.toolchain.is_clang() => {
                say(format_args!("emulators for {} are not trained", wanted.host));
                None
            }
            (Profile::Release, None) => {
                let tree = &crate::tree::prepare(sh, paths, &source, &patches)?;
                let (recipe, sysroot, runner, phase) = (&recipe, &sysroot, &Runner::native(), Phase::Plain);
                let compile = Compile { sh, paths, recipe, tree, sysroot, runner, wanted, phase };
                Some(training::ensure(&compile, &data.training)?)
            }
        };
        recipe.training_sha256 = profile.as_ref().map(|profile| profile.sha256.clone());
        Ok(Ready { source, sysroot, patches, recipe, profile })
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
    let patches: Vec<_> = wanted.patches(data, version).into_iter().map(|patch| &*patch.name).collect();
    let bundle = wanted.dir(paths);
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

impl Report {
    fn of_node(dir: PathBuf, wanted: &Wanted<'_>, bundle: Bundle) -> Self {
        let row = |emulator| Row { emulator, state: State::Built, seconds: None, share: None };
        Self {
            qemu: bundle.recipe.qemu,
            host: wanted.host.name,
            bundle: dir,
            up_to_date: false,
            emulators: bundle.emulators.into_iter().map(row).collect(),
        }
    }

    fn print(&self, json: bool) -> Result<()> {
        if json {
            return out(&(serde_json::to_string_pretty(self)? + "\n"));
        }
        let mut table = Table::new(["target", "size", "build", "probe"]);
        for row in &self.emulators {
            let size = format!("{:.1} MB", row.emulator.size as f64 / 1e6);
            let build = match (row.state, row.share) {
                (State::Built, Some(share)) => format!("{:.1} %", share * 100.0),
                (State::Built, None) => "built".to_owned(),
                (State::Kept, _) => "kept".to_owned(),
                (State::Cached, _) => "cached".to_owned(),
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
