//! `cargo xtask build-qemu`: QEMU's source into static emulators.
//!
//! All targets of a host are configured in one folder and share what they can; ninja then makes only
//! the emulators that are missing. An emulator is therefore the same whichever others were asked for,
//! and lies in the cache under a key of everything that went into it. Configuring only what was asked
//! for would be some seconds quicker once, and rebuild all shared files with each further target.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use qemu_src::Patch;
use qus_core::arch::{Arch, Host};
use qus_core::bundle::Profile;
use qus_core::bundle::{Bundle, BundledEmulator, PatchId, Recipe};
use qus_core::digest::Sha256;
use qus_core::hint::WithHint;
use qus_core::table::Table;
use serde::Serialize;

use crate::base::context::Context;
use crate::base::lock::{self, Lock};
use crate::base::output::out;
use crate::base::progress::say;
use crate::bundle::artefact;
use crate::bundle::runner::Runner;
use crate::debian::updates::Updates;
use crate::qemu::archive::Source;
use crate::qemu::args::Args;
use crate::qemu::compile::{Compile, Phase};
use crate::qemu::request::Request;
use crate::qemu::source::{self, Given};
use crate::qemu::store::{self, Cached};
use crate::qemu::sysroot::Sysroot;
use crate::qemu::toolchain;
use crate::qemu::{pgo, preflight, tree};

/// An emulator in the report.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    emulator: BundledEmulator,
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

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    if args.dry_run {
        let given = args.source.is_some() || cx.settings.source.is_some();
        let plans = Request::all(cx, args)?;
        return plans.iter().try_for_each(|request| print_plan(cx, request, given, args.json));
    }
    let requests = Request::all(cx, args)?;
    Session::start(cx, args)?.build(&requests)
}

/// A run that builds: the machine was checked, and nobody else builds here.
pub(crate) struct Session<'a> {
    build: Build<'a>,
    json: bool,
    _locks: [Lock; 2],
}

impl<'a> Session<'a> {
    /// Checks the machine, and waits for others that build here.
    pub(crate) fn start(cx: &'a Context, args: &'a Args) -> Result<Self> {
        let build = Build::new(cx, args.source.as_deref().map(Given::Argument))?;
        let cache =
            lock::lock(cx.paths.cache()).hint("set XDG_CACHE_HOME to a directory that can be written")?;
        Ok(Self { build, json: args.json, _locks: [cache, lock::lock(cx.paths.out())?] })
    }

    /// Builds what is missing of bundles, and prints what they have.
    pub(crate) fn build(&self, requests: &[Request<'a>]) -> Result<()> {
        requests.iter().try_for_each(|request| self.build.bundle(request)?.print(self.json))
    }

    /// The source of a request.
    pub(crate) fn source(&self, request: &Request<'_>) -> Result<Source> {
        self.build.source(request)
    }

    /// Prints what a bundle has that another machine has built.
    pub(crate) fn print_built_elsewhere(&self, request: &Request<'_>, bundle: Bundle) -> Result<()> {
        Report::of_node(self.build.cx.paths.bundle(request.host), request, bundle).print(self.json)
    }
}

/// How programs of a host run here, for those who build others than emulators. The cache is theirs.
pub(crate) fn runner(cx: &Context, host: &Host) -> Result<Runner> {
    match Runner::takes_emulator(host) {
        true => Build::new(cx, None)?.runner(host),
        false => Ok(Runner::native()),
    }
}

/// What all hosts are built with.
struct Build<'a> {
    cx: &'a Context,
    given: Option<Given<'a>>,
}

impl<'a> Build<'a> {
    /// Checks that this machine can build; `given` is where the source is, if not where the environment says.
    fn new(cx: &'a Context, given: Option<Given<'a>>) -> Result<Self> {
        check_folders(cx)?;
        preflight::check(cx)?;
        Ok(Self { cx, given: given.or(cx.settings.source.as_deref().map(Given::Environment)) })
    }
}

/// Everything that emulators of a host are made from.
struct Ready<'a> {
    source: Source,
    sysroot: Sysroot,
    patches: Vec<&'a Patch>,
    recipe: Recipe,
    profile: Option<pgo::ProfileData>,
}

/// What was not in the cache.
struct Built {
    targets: Vec<&'static Arch>,
    /// Compiler seconds by target, `""` for what they share.
    seconds: BTreeMap<String, f64>,
}

impl<'a> Build<'a> {
    /// Has the bundle of a host contain what is request.
    fn bundle(&self, request: &Request<'a>) -> Result<Report> {
        let ready = self.ready(request)?;
        let dir = request.dir(self.cx);
        let bundled = store::intact(&dir, &ready.recipe);
        let has = |arch: &Arch| bundled.iter().any(|emulator| *emulator.target == *arch);
        let new: Vec<_> = request.targets.iter().copied().filter(|arch| !has(arch)).collect();
        let runner = match &*new {
            [] => Runner::native(),
            _ => self.runner(request.host)?,
        };
        let built = self.fill(request, &ready, &new, &runner)?;
        let bundle = self.cached(&ready).bundle(&dir, bundled, &new)?;
        if let Some(profile) = &ready.profile {
            profile.write(&dir)?;
        }
        for arch in &new {
            artefact::run_probe(&runner, &dir.join(arch.emulator()), arch)?;
        }
        let all: f64 = built.seconds.values().sum();
        let row = |emulator: BundledEmulator| {
            let is = |arch: &&Arch| **arch == *emulator.target;
            let (state, seconds) = match built.seconds.get(emulator.target.name) {
                Some(&seconds) if built.targets.iter().any(is) => (State::Built, Some(seconds)),
                _ if new.iter().any(is) => (State::Cached, None),
                _ => (State::Kept, None),
            };
            Row { emulator, state, seconds, share: seconds.map(|seconds| seconds / all) }
        };
        let asked =
            |emulator: &BundledEmulator| request.targets.iter().any(|arch| **arch == *emulator.target);
        Ok(Report {
            qemu: ready.recipe.qemu,
            host: request.host.name,
            bundle: dir,
            up_to_date: new.is_empty(),
            emulators: bundle.emulators.into_iter().filter(asked).map(row).collect(),
        })
    }

    /// How programs of a host run here. The emulator that they may take is in the cache, or made now.
    fn runner(&self, host: &Host) -> Result<Runner> {
        Runner::of(host, |arch| {
            let request = Request::to_run(self.cx, arch)?;
            let ready = self.ready(&request)?;
            self.fill(&request, &ready, &[arch], &Runner::native())?;
            self.cached(&ready).emulator(arch)
        })
    }

    fn cached<'b>(&'b self, ready: &'b Ready<'_>) -> Cached<'b> {
        Cached { cx: self.cx, recipe: &ready.recipe }
    }

    /// Has the cache contain emulators.
    fn fill(
        &self,
        request: &Request<'a>,
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
        let tree = &tree::prepare(self.cx, source, patches)?;
        let phase = profile.as_ref().map_or(Phase::Plain, |profile| Phase::Trained(&profile.dir));
        let cx = self.cx;
        let compile = Compile { cx, recipe, tree, sysroot, runner, request, phase };
        let seconds = compile.run(&targets, |arch, emulator| cached.keep(arch, emulator))?;
        Ok(Built { targets, seconds })
    }

    fn source(&self, request: &Request<'_>) -> Result<Source> {
        source::resolve(self.cx, request.release, self.given, request.exact)
    }

    fn ready(&self, request: &Request<'a>) -> Result<Ready<'a>> {
        let cx = self.cx;
        let source = self.source(request)?;
        let updates = if request.exact { Updates::Required } else { Updates::Wanted };
        let sysroot = Sysroot::ensure(cx, request.host, updates)?;
        let patches = request.patches(&source.version);
        let mut flags: Vec<_> = cx
            .data
            .configure
            .args(&source.version, request.host, request.profile)
            .into_iter()
            .map(str::to_owned)
            .collect();
        flags.extend(sysroot.configure());
        let id = |patch: &&Patch| PatchId { name: patch.name.clone(), sha256: Sha256::of(&patch.text) };
        let mut recipe = Recipe {
            qemu: source.version.clone(),
            source_sha256: source.sha256,
            patches: patches.iter().map(id).collect(),
            host: request.host,
            profile: request.profile,
            flags,
            toolchain: toolchain::identify(&sysroot)?,
            profile_data_sha256: None,
            dependencies: sysroot.manifest()?,
        };
        let profile = match (request.profile, &request.training) {
            (Profile::Dev, _) => None,
            (Profile::Release, Some(file)) => Some(pgo::ProfileData::given(cx, file)?),
            (Profile::Release, None) if sysroot.is_cross() || toolchain::is_clang(&recipe.toolchain) => {
                say(format_args!("no profile-guided optimisation for {}", request.host));
                None
            }
            (Profile::Release, None) => {
                let tree = &tree::prepare(cx, &source, &patches)?;
                let (recipe, sysroot, runner, phase) = (&recipe, &sysroot, &Runner::native(), Phase::Plain);
                let compile = Compile { cx, recipe, tree, sysroot, runner, request, phase };
                Some(pgo::ensure(&compile)?)
            }
        };
        recipe.profile_data_sha256 = profile.as_ref().map(|profile| profile.sha256);
        Ok(Ready { source, sysroot, patches, recipe, profile })
    }
}

/// Refuses what QEMU's configure cannot cope with, before anything is fetched.
fn check_folders(cx: &Context) -> Result<()> {
    for dir in [cx.paths.out(), cx.paths.cache()] {
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
fn print_plan(cx: &Context, request: &Request<'_>, given: bool, json: bool) -> Result<()> {
    let version = &request.release.version;
    let source = match (given, source::is_cached(cx, request.release)) {
        (true, _) => "the given place, else the cache, upstream, Debian",
        (false, true) => "the cache",
        (false, false) => "upstream, else Debian",
    };
    let targets: Vec<_> = request.targets.iter().map(|arch| arch.name).collect();
    let flags = cx.data.configure.args(version, request.host, request.profile);
    let patches: Vec<_> = request.patches(version).into_iter().map(|patch| &*patch.name).collect();
    let bundle = request.dir(cx);
    if json {
        let plan = serde_json::json!({
            "qemu": version, "host": request.host.name, "profile": request.profile.to_string(),
            "source": source, "patches": patches, "flags": flags, "targets": targets, "bundle": bundle,
        });
        return out(&format!("{plan:#}\n"));
    }
    out(&format!(
        "build QEMU {version} for {} ({})\nsource    {source}\npatches   {}\nconfigure {}\ntargets   {}\nbundle    {}\n",
        request.host,
        request.profile,
        patches.join(" "),
        flags.join(" "),
        targets.join(" "),
        bundle.display(),
    ))
}

impl Report {
    fn of_node(dir: PathBuf, request: &Request<'_>, bundle: Bundle) -> Self {
        let row = |emulator| Row { emulator, state: State::Built, seconds: None, share: None };
        Self {
            qemu: bundle.recipe.qemu,
            host: request.host.name,
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
            table.row([row.emulator.target.to_string(), size, build, "passed".to_owned()]);
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
