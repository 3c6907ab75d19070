//! `cargo xtask tarballs`: packs release tarballs for use without a container engine.
//!
//! Tarballs contain only files of verified bundles. The directory of tarballs is replaced as a whole, so that no files
//! of an earlier release remain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use fs_err as fs;
use qus_core::arch::Host;
use qus_core::bundle::{Bundle, FILE};
use qus_core::digest::Sha256;
use qus_core::release::ReleaseVersion;
use qus_core::table::Table;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::context::Context;
use crate::base::git::Checkout;
use crate::base::output::{OutputArgs, out, out_json};
use crate::base::progress::{Bar, say};
use crate::base::tarball::{Tarball, TarballEntry};
use crate::base::{cache, files, lock, parallel};
use crate::bundle::hosts::HostArgs;
use crate::bundle::licences::Licensed;
use crate::bundle::manifest;
use crate::ship::packages::{self, Package};
use crate::ship::{sbom, sources, version};

/// Pack emulators and qus into release tarballs
///
/// For each host, packs one tarball for each emulator, one with qus, and one with all emulators, qus and bundle.json, and
/// writes them with SHA256SUMS to target/qus/tarballs. Build the bundle with build-qemu and build-qus first. Emulators are
/// verified against bundle.json before they are packed. Files that are up to date are not packed again.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    hosts: HostArgs,
    /// Channel or version of QEMU in names; 32-bit hosts may have an older version [default: the newest]
    #[arg(long, value_name = "CHANNEL|VERSION")]
    qemu: Option<String>,
    /// Also pack .deb and .rpm packages
    #[arg(long)]
    packages: bool,
    /// Also pack the sources of QEMU, of its static libraries and of this repository; needs the network
    #[arg(long)]
    sources: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A file that is ready to be published.
#[derive(Serialize, Deserialize)]
pub(crate) struct PackedFile {
    pub(crate) file: String,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) sha256: Sha256,
}

/// The record of the last run: the tarballs and the hash of their inputs.
#[derive(Serialize, Deserialize)]
struct PackRecord {
    inputs: Sha256,
    files: Vec<PackedFile>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct TarballReport<'a> {
    tarballs: &'a Path,
    up_to_date: bool,
    files: &'a [PackedFile],
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let mut hosts = args.hosts.built(cx)?;
    hosts.sort_by_key(|host| host.name);
    let OutputArgs { dry_run, json } = args.output;
    if dry_run {
        return print_plan(cx, &args.plan(cx, &hosts)?.files, json);
    }
    // As for build-qemu: two commands that lock in different orders could wait for each other.
    let _cache = args.sources.then(|| lock::lock(cx.paths.cache())).transpose()?;
    let _lock = lock::lock(cx.paths.out())?;
    let mut plan = args.plan(cx, &hosts)?;
    if args.sources {
        plan.add_sources(cx)?;
    }
    let dir = cx.paths.tarballs();
    let inputs = hash_inputs(&plan.files)?;
    let valid = PackRecord::read(cx).filter(|record| record.inputs == inputs && record.is_intact(&dir));
    let up_to_date = valid.is_some();
    let record = match valid {
        Some(record) => record,
        None => {
            let record = PackRecord { inputs, files: pack(cx, &plan.files)? };
            files::write(&cx.paths.tarballs_record(), &serde_json::to_vec_pretty(&record)?)?;
            record
        }
    };
    TarballReport { tarballs: &dir, up_to_date, files: &record.files }.print(json)
}

impl Args {
    /// What is packed, without sources.
    fn plan(&self, cx: &Context, hosts: &[&'static Host]) -> Result<Plan> {
        let mut plan = Plan::new(cx, hosts, self.qemu.as_deref())?;
        if self.packages {
            plan.add_packages(cx)?;
        }
        Ok(plan)
    }
}

/// The files of a release that are packed.
pub(crate) struct Plan {
    pub(crate) release: ReleaseVersion,
    pub(crate) bundles: Vec<Bundle>,
    pub(crate) files: Vec<PlannedFile>,
}

/// A file that is to be packed.
#[derive(Serialize)]
pub(crate) enum PlannedFile {
    Tarball(Tarball),
    Package(Package),
}

impl Plan {
    /// The tarballs of these hosts.
    ///
    /// # Errors
    /// A host has no bundle, or that of another version of QEMU; a file is missing or has changed.
    pub(crate) fn new(cx: &Context, hosts: &[&'static Host], qemu: Option<&str>) -> Result<Self> {
        let bundles = hosts.iter().map(|host| manifest::built(host, &cx.paths.bundle(host)));
        let bundles = bundles.collect::<Result<Vec<_>>>()?;
        let release =
            version::release(cx, &version::of_bundles(cx, bundles.iter(), qemu)?)?.release_version();
        let mut this = Self { release, bundles, files: Vec::new() };
        let tarballs = this.of_bundles(cx, plan)?;
        this.files = tarballs.into_iter().map(PlannedFile::Tarball).collect();
        Ok(this)
    }

    /// What is made from all bundles.
    fn of_bundles<T>(
        &self,
        cx: &Context,
        plan: impl Fn(&Bundle, &Path, u64) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let epoch = Checkout::read(cx.paths.root()).epoch(cx);
        let mut all = Vec::new();
        for bundle in &self.bundles {
            let dir = cx.paths.bundle(bundle.recipe.host);
            all.extend(plan(&bundle.clone().released(self.release.clone()), &dir, epoch)?);
        }
        Ok(all)
    }

    /// Adds packages for distributions.
    pub(crate) fn add_packages(&mut self, cx: &Context) -> Result<()> {
        let packages = self.of_bundles(cx, packages::plan)?;
        self.files.extend(packages.into_iter().map(PlannedFile::Package));
        Ok(())
    }

    /// Adds the sources.
    pub(crate) fn add_sources(&mut self, cx: &Context) -> Result<()> {
        let sources = sources::collect(cx, &self.bundles, &self.release, &cx.paths.out().join("sources"))?;
        self.files.push(PlannedFile::Tarball(sources));
        Ok(())
    }
}

impl PlannedFile {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Tarball(tarball) => &tarball.file,
            Self::Package(package) => &package.file,
        }
    }

    pub(super) fn entries(&self) -> &[TarballEntry] {
        match self {
            Self::Tarball(tarball) => &tarball.entries,
            Self::Package(package) => &package.entries,
        }
    }

    /// Writes it into a directory that is not yet published, and returns its path.
    fn write(&self, dir: &Path) -> Result<PathBuf> {
        match self {
            Self::Tarball(tarball) => tarball.write(dir),
            Self::Package(package) => packages::write(package, dir),
        }
    }
}

/// The tarballs of a bundle, with the time of the commit.
///
/// # Errors
/// A file is missing in its directory, or an emulator does not match `bundle.json`.
pub(crate) fn plan(bundle: &Bundle, dir: &Path, epoch: u64) -> Result<Vec<Tarball>> {
    let host = bundle.recipe.host;
    for emulator in &bundle.emulators {
        manifest::verify(bundle, dir, emulator)?;
    }
    if !dir.join("qus").exists() || !dir.join("share").exists() {
        return Err(manifest::no_program(host, dir));
    }
    let papers = |of: Licensed| -> Result<Vec<TarballEntry>> {
        let documents = sbom::documents(bundle, dir, of, epoch)?;
        let sbom =
            documents.map(|(file, text)| TarballEntry::made(&format!("{}/{file}", sbom::INSTALLED), text));
        Ok([of.entries(dir)?, sbom.into()].concat())
    };
    let of_emulators = papers(Licensed::Emulators)?;
    let mut everything = of_emulators.clone();
    let mut tarballs = Vec::new();
    for emulator in &bundle.emulators {
        let entry = TarballEntry::new(dir, &emulator.file, 0o755)?;
        // No bundle.json: tarballs that are unpacked into the same directory would overwrite each other's, and it would
        // not describe emulators of different versions.
        let name = format!("{}-static", emulator.file);
        let entries = [&[entry.with_path(&name)], &of_emulators[..]].concat();
        tarballs.push(Tarball::new(file_name(&name, bundle), entries));
        everything.push(entry);
    }
    let mut program = manifest::share(dir)?;
    program.push(TarballEntry::new(dir, "qus", 0o755)?);
    program.extend(papers(Licensed::Program)?);
    // Both contain the C library.
    let is_new = |entry: &&TarballEntry| of_emulators.iter().all(|other| other.path != entry.path);
    everything.extend(program.iter().filter(is_new).cloned());
    everything.push(TarballEntry::made(manifest::SUMS, bundle.sums()));
    everything.push(TarballEntry::made(FILE, bundle.json()));
    // Only this tarball has a top-level directory; the files of the others can be unpacked into the same directory.
    let top = format!("qus-bundle_{}_{host}", bundle.version());
    let everything =
        everything.iter().map(|entry| entry.with_path(&format!("{top}/{}", entry.path))).collect();
    tarballs.push(Tarball::new(file_name("qus", bundle), program));
    tarballs.push(Tarball::new(file_name("qus-bundle", bundle), everything));
    Ok(tarballs)
}

/// As in `qus_10.2.2-1_amd64.tar.zst`.
pub(crate) fn file_name(name: &str, bundle: &Bundle) -> String {
    format!("{name}_{}_{}.tar.zst", bundle.version(), bundle.recipe.host)
}

/// The hash of all inputs that determine the content of the files.
fn hash_inputs(planned: &[PlannedFile]) -> Result<Sha256> {
    // The compressors among the crates.
    let crates = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    Ok(Sha256::of(serde_json::to_vec(&(crates, planned))?))
}

fn pack(cx: &Context, planned: &[PlannedFile]) -> Result<Vec<PackedFile>> {
    let mut packed = Vec::new();
    cache::publish(&cx.paths.tarballs(), |partial| {
        packed = pack_into(partial, planned)?;
        files::write(&partial.join(manifest::SUMS), sums(&packed).as_bytes())
    })?;
    Ok(packed)
}

/// Packs files into a directory that is not yet published, and returns them sorted.
pub(crate) fn pack_into(dir: &Path, planned: &[PlannedFile]) -> Result<Vec<PackedFile>> {
    // A host's last tarball has all its emulators, and takes as long as its others together.
    let largest_first: Vec<_> = planned.iter().rev().collect();
    let progress = Mutex::new((0, Bar::new(format!("packing {} files", planned.len()))));
    let mut packed = parallel::map(&largest_first, |file| {
        let path = file.write(dir)?;
        let size = fs::metadata(&path)?.len();
        let sha256 = files::sha256(&path)?;
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.0 += 1;
        let done = progress.0;
        progress.1.set(done, planned.len() as u64);
        Ok(PackedFile { file: file.name().to_owned(), size, sha256 })
    })?;
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).1.finish();
    packed.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(packed)
}

/// The text of [`manifest::SUMS`].
pub(crate) fn sums(files: &[PackedFile]) -> String {
    files.iter().map(|packed| format!("{}  {}\n", packed.sha256, packed.file)).collect()
}

impl PackRecord {
    /// Reads the record; `None` if it does not exist or cannot be parsed.
    fn read(cx: &Context) -> Option<Self> {
        serde_json::from_slice(&fs::read(cx.paths.tarballs_record()).ok()?).ok()
    }

    /// Whether all tarballs exist and are unchanged.
    fn is_intact(&self, dir: &Path) -> bool {
        let same = |packed: &PackedFile| {
            files::sha256(&dir.join(&packed.file)).is_ok_and(|sha256| sha256 == packed.sha256)
        };
        fs::read_to_string(dir.join(manifest::SUMS)).is_ok_and(|text| text == sums(&self.files))
            && self.files.iter().all(same)
    }
}

fn print_plan(cx: &Context, planned: &[PlannedFile], json: bool) -> Result<()> {
    let dir = cx.paths.tarballs();
    if json {
        let files: BTreeMap<_, Vec<_>> = planned
            .iter()
            .map(|file| (file.name(), file.entries().iter().map(|entry| &entry.path).collect()))
            .collect();
        return out_json(&json!({ "tarballs": dir, "files": files }));
    }
    let mut table = Table::new(["file", "content"]);
    for file in planned {
        let content = match file.entries() {
            [one] => one.path.clone(),
            many => format!("{} files", many.len()),
        };
        table.row([file.name().to_owned(), content]);
    }
    out(&format!("{table}tarballs  {}\n", dir.display()))
}

impl TarballReport<'_> {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return out_json(self);
        }
        let mut table = Table::new(["file", "size", "sha256"]);
        for packed in self.files {
            let size = format!("{:.2} MB", packed.size as f64 / 1e6);
            table.row([packed.file.clone(), size, packed.sha256.to_string()[..12].to_owned()]);
        }
        out(&table.to_string())?;
        let state = if self.up_to_date { "up to date: " } else { "" };
        say(format_args!("{state}{} files in {}", self.files.len(), self.tarballs.display()));
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
