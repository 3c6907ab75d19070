//! `cargo xtask build-qemu`: builds static emulators from QEMU's source.
//!
//! All targets of a host are configured in one build directory and share object files; ninja then builds only the
//! missing emulators. An emulator is therefore independent of the other requested targets, and is cached under a key of
//! all its inputs. Configuring only the requested targets would save a few seconds once, and rebuild all shared files
//! for each additional target.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Error, Result};
use qemu_src::Patch;
use qus_core::arch::{Arch, Host};
use qus_core::bundle::{Bundle, BundledEmulator, PatchId, Profile, Recipe};
use qus_core::digest::Sha256;
use qus_core::hint::WithHint;
use qus_core::table::Table;
use serde::Serialize;
use serde_json::json;

use crate::base::context::Context;
use crate::base::lock::{self, Lock};
use crate::base::output::{OutputArgs, out, out_json};
use crate::base::progress::say;
use crate::bundle::artefact;
use crate::bundle::runner::Runner;
use crate::debian::versions::Versions;
use crate::qemu::archive::Source;
use crate::qemu::args::Args;
use crate::qemu::compile::{BuildKind, Compile};
use crate::qemu::licences;
use crate::qemu::request::Request;
use crate::qemu::source::{self, SourceLocation};
use crate::qemu::store::{self, EmulatorCache};
use crate::qemu::sysroot::{Sysroot, kept};
use crate::qemu::toolchain;
use crate::qemu::{pgo, preflight, tree};

/// An emulator in a [`BundleReport`].
#[derive(Serialize)]
struct EmulatorRow {
    #[serde(flatten)]
    emulator: BundledEmulator,
    state: EmulatorState,
    /// Compiler time of this target's own files in seconds; `None` if this run did not build it.
    seconds: Option<f64>,
    /// The fraction of the total compiler time, 0 to 1.
    share: Option<f64>,
}

/// The origin of an emulator in the bundle. Its probe has passed in each case.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum EmulatorState {
    /// Built by this run.
    Built,
    /// Copied from the cache by this run.
    Cached,
    /// Already in the bundle.
    Kept,
}

/// The bundle of a host, as `--json` prints it.
#[derive(Serialize)]
struct BundleReport {
    qemu: semver::Version,
    host: &'static str,
    bundle: PathBuf,
    up_to_date: bool,
    emulators: Vec<EmulatorRow>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let requests = Request::resolve_all(cx, args)?;
    note_missing_patches(cx, &requests);
    let OutputArgs { dry_run, json } = args.output;
    if dry_run {
        let given = given_source(cx, args);
        return requests.iter().try_for_each(|request| print_plan(cx, request, given, json));
    }
    Session::start(cx, args)?.build(&requests)
}

/// Says which patches of the default channel the requested versions lack.
fn note_missing_patches(cx: &Context, requests: &[Request<'_>]) {
    let versions: BTreeSet<_> = requests.iter().map(|request| &request.release.version).collect();
    for version in versions {
        let lacking = cx.data.lacking(version);
        if !lacking.is_empty() {
            let parts: Vec<_> =
                lacking.iter().map(|(purpose, count)| format!("{count} for {purpose}")).collect();
            let count: usize = lacking.values().sum();
            say(format_args!(
                "note: {count} patches do not apply to QEMU {version}: {}; see qemu-src/patches",
                parts.join(", ")
            ));
        }
    }
}

/// A build run: the machine has been checked, and the locks are held.
pub(crate) struct Session<'a> {
    build: Build<'a>,
    json: bool,
    _locks: [Lock; 2],
}

impl<'a> Session<'a> {
    /// Checks the machine, and acquires the locks.
    pub(crate) fn start(cx: &'a Context, args: &'a Args) -> Result<Self> {
        let build = Build::new(cx, given_source(cx, args))?;
        let cache = lock::lock(cx.paths.cache()).hint("set XDG_CACHE_HOME to a writable directory")?;
        Ok(Self { build, json: args.output.json, _locks: [cache, lock::lock(cx.paths.out())?] })
    }

    /// Builds missing emulators, and prints the bundles.
    pub(crate) fn build(&self, requests: &[Request<'a>]) -> Result<()> {
        requests.iter().try_for_each(|request| self.build.ensure_bundle(request)?.print(self.json))
    }

    /// Resolves the source of a request.
    pub(crate) fn source(&self, request: &Request<'_>) -> Result<Source> {
        self.build.source(request)
    }

    /// Prints a bundle that a node has built.
    pub(crate) fn print_built_on_node(&self, request: &Request<'_>, bundle: Bundle) -> Result<()> {
        BundleReport::from_node(self.build.cx.paths.bundle(request.host), request, bundle).print(self.json)
    }
}

/// The runner for programs of a host, for commands other than `build-qemu`. The caller holds the lock of the cache.
pub(crate) fn runner(cx: &Context, host: &Host) -> Result<Runner> {
    match Runner::needs_emulator(host) {
        true => Build::new(cx, source::in_environment(cx))?.runner(host),
        false => Ok(Runner::native()),
    }
}

/// The unpacked and patched source of the default release, for commands other than `build-qemu`. The caller holds the
/// lock of the cache.
pub(crate) fn default_tree(cx: &Context) -> Result<PathBuf> {
    let source = source::pinned(cx, cx.data.release("default").map_err(Error::msg)?)?;
    tree::prepare(cx, &source, &cx.data.patches_for(&source.version).collect::<Vec<_>>())
}

/// The common context of all builds of a run.
struct Build<'a> {
    cx: &'a Context,
    given: Option<SourceLocation<'a>>,
}

impl<'a> Build<'a> {
    /// Checks that this machine can build.
    fn new(cx: &'a Context, given: Option<SourceLocation<'a>>) -> Result<Self> {
        preflight::check_directories(cx)?;
        preflight::check(cx)?;
        Ok(Self { cx, given })
    }
}

/// The location of the source on the command line, or the one in the environment.
fn given_source<'a>(cx: &'a Context, args: &'a Args) -> Option<SourceLocation<'a>> {
    args.source.as_deref().map(SourceLocation::Argument).or_else(|| source::in_environment(cx))
}

/// All inputs of a host's emulators.
struct Inputs<'a> {
    source: Source,
    sysroot: Sysroot,
    patches: Vec<&'a Patch>,
    recipe: Recipe,
    profile_data: Option<pgo::ProfileData>,
}

/// The emulators that were not in the cache.
struct BuiltEmulators {
    targets: Vec<&'static Arch>,
    /// Compiler time in seconds by target; `""` is the key of shared files.
    seconds: BTreeMap<String, f64>,
}

impl<'a> Build<'a> {
    /// Ensures that the bundle of a host contains the requested emulators.
    fn ensure_bundle(&self, request: &Request<'a>) -> Result<BundleReport> {
        let inputs = self.resolve_inputs(request)?;
        let dir = request.dir(self.cx);
        let bundled = store::intact(&dir, &inputs.recipe);
        let has = |arch: &Arch| bundled.iter().any(|emulator| *emulator.target == *arch);
        let new: Vec<_> = request.targets.iter().copied().filter(|arch| !has(arch)).collect();
        let runner = match &*new {
            [] => Runner::native(),
            _ => self.runner(request.host)?,
        };
        let built = self.build_missing(request, &inputs, &new, &runner)?;
        let bundle = self.cached(&inputs).bundle(&dir, bundled, &new)?;
        if let Some(profile_data) = &inputs.profile_data {
            profile_data.write(&dir)?;
        }
        if request.profile == Profile::Release {
            inputs.sysroot.keep(&dir)?;
        }
        licences::write(self.cx, &inputs.source, &inputs.patches, &inputs.recipe, &inputs.sysroot, &dir)?;
        for arch in &new {
            artefact::run_probe(&runner, &dir.join(arch.emulator()), arch)?;
        }
        let total: f64 = built.seconds.values().sum();
        let row = |emulator: BundledEmulator| {
            let is = |arch: &&Arch| **arch == *emulator.target;
            let (state, seconds) = match built.seconds.get(emulator.target.name) {
                Some(&seconds) if built.targets.iter().any(is) => (EmulatorState::Built, Some(seconds)),
                _ if new.iter().any(is) => (EmulatorState::Cached, None),
                _ => (EmulatorState::Kept, None),
            };
            EmulatorRow { emulator, state, seconds, share: seconds.map(|seconds| seconds / total) }
        };
        let requested =
            |emulator: &BundledEmulator| request.targets.iter().any(|arch| **arch == *emulator.target);
        Ok(BundleReport {
            qemu: inputs.recipe.qemu,
            host: request.host.name,
            bundle: dir,
            up_to_date: new.is_empty(),
            emulators: bundle.emulators.into_iter().filter(requested).map(row).collect(),
        })
    }

    /// The runner for programs of a host. An emulator that it needs is built if it is not in the cache.
    fn runner(&self, host: &Host) -> Result<Runner> {
        Runner::new(host, |arch| {
            let request = Request::for_runner(self.cx, arch)?;
            let given = self.given.and_then(|given| given.for_other_release(request.release));
            let build = Build { given, ..*self };
            let inputs = build.resolve_inputs(&request)?;
            build.build_missing(&request, &inputs, &[arch], &Runner::native())?;
            Ok(build.cached(&inputs).emulator(arch))
        })
    }

    fn cached<'b>(&'b self, inputs: &'b Inputs<'_>) -> EmulatorCache<'b> {
        EmulatorCache { cx: self.cx, recipe: &inputs.recipe }
    }

    /// Builds the emulators that are not in the cache.
    fn build_missing(
        &self,
        request: &Request<'a>,
        inputs: &Inputs<'_>,
        targets: &[&'static Arch],
        runner: &Runner,
    ) -> Result<BuiltEmulators> {
        let cached = self.cached(inputs);
        let targets = cached.missing(targets)?;
        if targets.is_empty() {
            return Ok(BuiltEmulators { targets, seconds: BTreeMap::new() });
        }
        let Inputs { source, sysroot, patches, recipe, profile_data } = inputs;
        let tree = &tree::prepare(self.cx, source, patches)?;
        let kind = profile_data.as_ref().map_or(BuildKind::Plain, |data| BuildKind::ProfileGuided(&data.dir));
        let cx = self.cx;
        let compile = Compile { cx, recipe, tree, sysroot, runner, request, kind };
        let seconds = compile.run(&targets, |arch, emulator| cached.store(arch, emulator))?;
        Ok(BuiltEmulators { targets, seconds })
    }

    fn source(&self, request: &Request<'_>) -> Result<Source> {
        source::resolve(self.cx, request.release, self.given, request.exact)
    }

    fn resolve_inputs(&self, request: &Request<'a>) -> Result<Inputs<'a>> {
        let cx = self.cx;
        let source = self.source(request)?;
        let kept = request.sysroot.as_deref().map(|file| kept::unpack(cx, file)).transpose()?;
        let versions = match &kept {
            Some(packages) => Versions::Kept(packages),
            None if request.exact => Versions::Updated,
            None => Versions::UpdatedIfPossible,
        };
        let sysroot = Sysroot::ensure(cx, request.host, versions)?;
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
        let profile_data = match (request.profile, &request.training) {
            (Profile::Dev, _) => None,
            (Profile::Release, Some(file)) => Some(pgo::ProfileData::from_file(cx, file)?),
            (Profile::Release, None) if sysroot.is_cross() || toolchain::is_clang(&recipe.toolchain) => {
                say(format_args!("no profile-guided optimisation for {}", request.host));
                None
            }
            (Profile::Release, None) => {
                let tree = &tree::prepare(cx, &source, &patches)?;
                let (recipe, sysroot, runner, kind) =
                    (&recipe, &sysroot, &Runner::native(), BuildKind::Plain);
                let compile = Compile { cx, recipe, tree, sysroot, runner, request, kind };
                Some(pgo::ensure(&compile)?)
            }
        };
        recipe.profile_data_sha256 = profile_data.as_ref().map(|data| data.sha256);
        Ok(Inputs { source, sysroot, patches, recipe, profile_data })
    }
}

/// Prints the plan, without using the network.
fn print_plan(
    cx: &Context,
    request: &Request<'_>,
    given: Option<SourceLocation<'_>>,
    json: bool,
) -> Result<()> {
    let version = &request.release.version;
    let source = source::describe_locations(cx, request.release, given);
    let targets: Vec<_> = request.targets.iter().map(|arch| arch.name).collect();
    let flags = cx.data.configure.args(version, request.host, request.profile);
    let patches: Vec<_> = request.patches(version).into_iter().map(|patch| &*patch.name).collect();
    let bundle = request.dir(cx);
    if json {
        return out_json(&json!({
            "qemu": version, "host": request.host.name, "profile": request.profile.to_string(),
            "source": source, "patches": patches, "flags": flags, "targets": targets, "bundle": bundle,
        }));
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

impl BundleReport {
    fn from_node(dir: PathBuf, request: &Request<'_>, bundle: Bundle) -> Self {
        let row =
            |emulator| EmulatorRow { emulator, state: EmulatorState::Built, seconds: None, share: None };
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
            return out_json(self);
        }
        let mut table = Table::new(["target", "size", "build", "probe"]);
        for row in &self.emulators {
            let size = format!("{:.1} MB", row.emulator.size as f64 / 1e6);
            let build = match (row.state, row.share) {
                (EmulatorState::Built, Some(share)) => format!("{:.1} %", share * 100.0),
                (EmulatorState::Built, None) => "built".to_owned(),
                (EmulatorState::Kept, _) => "kept".to_owned(),
                (EmulatorState::Cached, _) => "cached".to_owned(),
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
