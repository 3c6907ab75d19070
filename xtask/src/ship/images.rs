//! `cargo xtask images`: container images from finished bundles, pushed, merged into indexes, and checked.
//!
//! Every image carries the hash of all that it is made from. A tag that names a version and already has that
//! content is left alone, so that a second run changes nothing and an interrupted one continues; one with
//! another content is never moved, unless by force. The rest is Docker's work: bake builds and pushes,
//! imagetools merges.

mod builder;
mod check;
mod fault;
mod index;
mod plan;
mod registry;
mod release;
pub(crate) mod sizes;
mod stage;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use qus_core::table::Table;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::exec::{self, InDir};
use crate::base::output::out;
use crate::base::progress::{Bar, say};
use crate::base::{cache, parallel};
use crate::bundle::hosts;
use crate::engine::client::Client;
use crate::engine::find::Engine;
use crate::ship::images::builder::Builder;
use crate::ship::images::check::Pushed;
use crate::ship::images::plan::{Image, Kind};
use crate::ship::images::registry::{Found, Registry};
use crate::ship::images::release::Release;
use crate::ship::images::stage::Staged;

/// Build container images, push them and merge them into indexes
///
/// From the bundles in target/qus/bundle. For each host: emulators (-pkg), the program (-register), both, and
/// one small image for each guest; over all hosts one index for each of these, also over those that were pushed
/// before, by other machines. What was pushed is asked for again and run. Tags that name a version are never moved:
/// one that has the same content stays, for another --force is needed. Docker with buildx is used if it answers, else a
/// throwaway engine (see `engine`).
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["push", "load", "dry_run"]))]
pub(crate) struct Args {
    /// Machines that the images are for: amd64, arm64v8, …, or `all` that have a bundle [default: this one]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<String>,
    /// Repository, as in ghcr.io/somebody/qus
    #[arg(long, default_value = "qus")]
    repo: String,
    /// Channel or version of QEMU that tags name, where 32-bit hosts have an older one [default: the newest]
    #[arg(long, value_name = "CHANNEL|VERSION", conflicts_with = "tag")]
    qemu: Option<String>,
    /// Used in tags instead of QEMU's version; latest and the like are left alone then
    #[arg(long)]
    tag: Option<String>,
    /// Push to the repository
    #[arg(long, requires = "repo")]
    push: bool,
    /// Load this machine's images into the engine, under the tags of the indexes
    #[arg(long, conflicts_with = "push")]
    load: bool,
    /// Builder of buildx [default: the current one]
    #[arg(long)]
    builder: Option<String>,
    /// Image that writes the SBOM; `none` for no SBOM
    #[arg(long, value_name = "IMAGE", default_value = SCANNER)]
    sbom: String,
    /// Layers as gzip, for Docker before 23: several times the size, and only under a tag of its own
    #[arg(long, requires = "tag")]
    gzip: bool,
    /// Keep the sizes for the README, which `codegen` writes them to
    #[arg(long, requires = "push")]
    record: bool,
    /// Move tags that exist with another content
    #[arg(long)]
    force: bool,
    /// Print what would be done, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What BuildKit itself takes.
const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// How many images are built at once.
const BATCH: usize = 12;

/// The label with the hash of all that an image is made from.
const INPUTS: &str = "qus.inputs";

/// The label with the commit.
const REVISION: &str = "org.opencontainers.image.revision";

/// What became of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Pushed,
    Unchanged,
    Loaded,
}

/// A tag in the report.
#[derive(Debug, Serialize)]
struct Row {
    tag: String,
    digest: Option<String>,
    platforms: Vec<String>,
    /// What there is to pull, in bytes; of an index, for each platform.
    sizes: Vec<u64>,
    state: State,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    plan::check_repo(&args.repo)?;
    args.tag.as_deref().map_or(Ok(()), plan::check_tag)?;
    ensure!(
        !args.push || args.repo.contains('/'),
        Usage(format!("`{}` names no registry: --push wants --repo, as in ghcr.io/somebody/qus", args.repo))
    );
    let hosts = hosts::named(&args.host, || {
        let built: Vec<_> = hosts::built(cx).collect();
        ensure!(!built.is_empty(), "no host has a bundle\nremedy: cargo xtask build-qemu --all");
        Ok(built)
    })?;
    let staged = hosts.iter().map(|&host| Staged::look(cx, host)).collect::<Result<Vec<_>>>()?;
    let release = Release::of(cx, &staged, args.qemu.as_deref(), args.tag.as_deref())?;
    let images = release.images(cx, &hosts, &staged)?;
    let kinds: Vec<Kind> = kinds(&images);
    if args.dry_run {
        return plan_only(&release, &images, &kinds, args);
    }
    let _lock = cache::lock(cx.paths.out())?;
    staged.iter().try_for_each(|staged| staged.fill(cx))?;
    let engine = Engine::find(cx, args.builder.as_deref())?;
    let client = engine.client.clone().env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    let builder = Builder::of(&client, args.builder.as_deref())?;
    let work = Work { cx, args, release: &release, client: &client, builder: &builder };
    let rows = if args.push { work.push(&images, &kinds)? } else { work.load(&images)? };
    if args.record {
        sizes::record(cx, &release.qemu, &rows)?;
    }
    report(&args.repo, &rows, args.json)
}

/// Every kind once, in the order of the images.
fn kinds(images: &[Image]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for image in images {
        if !kinds.contains(&image.kind) {
            kinds.push(image.kind);
        }
    }
    kinds
}

fn plan_only(release: &Release, images: &[Image], kinds: &[Kind], args: &Args) -> Result<()> {
    let all: Vec<&Image> = images.iter().collect();
    if args.json {
        let tags = |image: &Image| vec![format!("{}:{}", args.repo, image.tag)];
        return out(&format!("{:#}\n", plan::bake(&all, tags, &pushed_as(args.gzip), &[], true)));
    }
    let mut text = format!("images of QEMU {} for {}\n", release.qemu, args.repo);
    for image in images {
        text += &format!("image  {}  linux/{}\n", image.tag, image.host.platform);
    }
    for kind in kinds {
        let floating = release.channel.as_ref().and_then(|channel| kind.floating_tag(channel));
        text += &format!("index  {}  {}\n", kind.tag(&release.version), floating.unwrap_or_default());
    }
    out(&text)
}

/// How an image is pushed: all layers compressed the same way, as small as BuildKit can.
fn pushed_as(gzip: bool) -> String {
    let (compression, level) = if gzip { ("gzip", 9) } else { ("zstd", 19) };
    format!(
        "type=image,push=true,compression={compression},compression-level={level},force-compression=true,\
         oci-mediatypes=true"
    )
}

/// Images on their way.
struct Work<'a> {
    cx: &'a Context,
    args: &'a Args,
    release: &'a Release,
    client: &'a Client,
    builder: &'a Builder,
}

impl Work<'_> {
    fn registry(&self) -> Registry<'_> {
        Registry { client: self.client, builder: self.args.builder.as_deref(), repo: &self.args.repo }
    }

    fn push(&self, images: &[Image], kinds: &[Kind]) -> Result<Vec<Row>> {
        let registry = self.registry();
        let version = &self.release.version;
        say(format_args!("asking {} what it has …", self.args.repo));
        let known = parallel::each(images, |image| registry.find(&image.tag))?;
        let indexes = parallel::each(kinds, |kind| registry.find(&kind.tag(version)))?;
        let is_new = |image: &Image, found: &Option<Found>| {
            let wanted = image.labels.get(INPUTS).map(String::as_str);
            found.as_ref().is_none_or(|found| found.label(INPUTS) != wanted)
        };
        let of_kind = |kind: Kind| images.iter().zip(&known).filter(move |(image, _)| image.kind == kind);
        let mut conflicts = Vec::new();
        for (image, found) in images.iter().zip(&known) {
            if let Some(found) = found.as_ref().filter(|_| is_new(image, found)) {
                let revision = found.label(REVISION).unwrap_or("an unknown commit");
                conflicts.push(format!("{} is {}, made from {revision}", image.tag, found.digest()));
            }
        }
        for (kind, found) in kinds.iter().zip(&indexes) {
            // An index may get another host, and nothing else.
            let replaced = |(image, of_image): (&Image, &Option<Found>)| {
                is_new(image, of_image) && found.as_ref().is_some_and(|found| index::has(found, image.host))
            };
            if let (Some(found), true) = (found, of_kind(*kind).any(replaced)) {
                conflicts.push(index::over_others(&kind.tag(version), found));
            }
        }
        self.may_move(&conflicts)?;
        let missing: Vec<&Image> = images
            .iter()
            .zip(&known)
            .filter(|(image, found)| is_new(image, found))
            .map(|(image, _)| image)
            .collect();
        let classic = "type=image,push=true".to_owned();
        let output = if self.builder.modern { pushed_as(self.args.gzip) } else { classic };
        let told = self.bake(&missing, |image| vec![registry.name(&image.tag)], &output)?;

        say("looking at what was pushed …");
        let pairs: Vec<_> = images.iter().zip(known).collect();
        let pushed = parallel::each(&pairs, |(image, found)| match found {
            Some(found) if !is_new(image, &Some(found.clone())) => check::unchanged(&registry, image, found),
            _ => check::pushed(&registry, image, &pushed_digest(&told, image)?),
        })?;
        let new: Vec<&Pushed> = pushed.iter().filter(|pushed| pushed.row.state == State::Pushed).collect();
        check::entry_points(self.client, &registry, &new)?;
        let kinds: Vec<_> = kinds.iter().zip(indexes).collect();
        let others = index::others(&registry, images, version)?;
        let rows = parallel::each(&kinds, |(kind, found)| {
            let of_kind: Vec<&Pushed> = pushed.iter().filter(|pushed| pushed.image.kind == **kind).collect();
            self.index(&registry, **kind, &of_kind, &others, found.as_ref())
        })?;
        Ok(pushed.into_iter().map(|pushed| pushed.row).chain(rows.into_iter().flatten()).collect())
    }

    fn may_move(&self, conflicts: &[String]) -> Result<()> {
        if conflicts.is_empty() {
            return Ok(());
        }
        let list = conflicts.join("\n  ");
        ensure!(
            self.args.force,
            "tags of {} exist with another content and are never moved:\n  {list}\nremedy: another --tag; or --force, if nobody \
             relies on them",
            self.args.repo
        );
        say(format_args!("MOVING tags of {}, by force:\n  {list}", self.args.repo));
        Ok(())
    }

    fn load(&self, images: &[Image]) -> Result<Vec<Row>> {
        let own: Vec<&Image> = images.iter().filter(|image| Some(image.host) == Host::current()).collect();
        ensure!(!own.is_empty(), Usage("--load is for images of this machine".to_owned()));
        let version = &self.release.version;
        let names = |image: &Image| {
            let floating = self.release.channel.as_ref().and_then(|channel| image.kind.floating_tag(channel));
            let tags = [Some(image.kind.tag(version)), floating].into_iter().flatten();
            tags.map(|tag| format!("{}:{tag}", self.args.repo)).collect()
        };
        self.bake(&own, names, "type=docker")?;
        let row = |image: &&Image| Row {
            tag: image.kind.tag(version),
            digest: None,
            platforms: vec![format!("linux/{}", image.host.platform)],
            sizes: Vec::new(),
            state: State::Loaded,
        };
        Ok(own.iter().map(row).collect())
    }

    /// Has buildx build images; returns what it tells of each.
    fn bake(
        &self,
        images: &[&Image],
        tags: impl Fn(&Image) -> Vec<String>,
        output: &str,
    ) -> Result<Map<String, Value>> {
        let mut told = Map::new();
        if images.is_empty() {
            return Ok(told);
        }
        let attest = match output.contains("push=true") {
            true => self.builder.attestations(self.client, &self.args.sbom)?,
            false => Vec::new(),
        };
        let log = self.cx.start_log("images")?;
        let doing = if output.contains("push=true") { "building and pushing" } else { "building" };
        let driver = &self.builder.driver;
        let mut bar = Bar::new(format!("{doing} {} images with the driver {driver}", images.len()));
        // All at once, they wait for each other until the engine loses its patience.
        for some in images.chunks(BATCH) {
            let bake = plan::bake(some, &tags, output, &attest, self.builder.modern);
            told.extend(self.registry().patiently("building images", || self.bake_some(&bake, &log))?);
            bar.set(told.len() as u64, images.len() as u64);
        }
        bar.finish();
        Ok(told)
    }

    fn bake_some(&self, bake: &Value, log: &Path) -> Result<Map<String, Value>> {
        let dir = self.cx.paths.out().join("images");
        let (targets, metadata) = (dir.join("bake.json"), dir.join("metadata.json"));
        cache::write(&targets, &serde_json::to_vec_pretty(bake)?)?;
        let [targets, metadata_file] = [&targets, &metadata].map(|path| path.display().to_string());
        let mut args = vec!["buildx", "bake", "--progress", "plain", "--metadata-file", &*metadata_file];
        args.extend(["--file", "docker-bake.hcl", "--file", &*targets]);
        if let Some(builder) = &self.args.builder {
            args.extend(["--builder", builder]);
        }
        exec::run(self.client.cmd(&args).in_dir(&self.cx.paths.images()), log, |_| {})?;
        let told =
            fs::read(&metadata).with_context(|| format!("buildx has not written {}", metadata.display()))?;
        serde_json::from_slice(&told).context("what buildx tells of the images")
    }
}

/// The digest under which an image was pushed.
fn pushed_digest(told: &Map<String, Value>, image: &Image) -> Result<String> {
    let digest = told.get(&image.target()).and_then(|told| told["containerimage.digest"].as_str());
    digest.map(str::to_owned).with_context(|| format!("buildx tells no digest of {}", image.tag))
}

fn report(repo: &str, rows: &[Row], json: bool) -> Result<()> {
    if json {
        return out(&(serde_json::to_string_pretty(rows)? + "\n"));
    }
    let mut table = Table::new(["tag", "platforms", "to pull", "state", "digest"]);
    for row in rows {
        let sizes: Vec<_> = row.sizes.iter().map(|size| format!("{:.2} MB", *size as f64 / 1e6)).collect();
        let state = format!("{:?}", row.state).to_lowercase();
        table.row([
            row.tag.clone(),
            row.platforms.join(" "),
            sizes.join(" "),
            state,
            row.digest.clone().unwrap_or_default(),
        ]);
    }
    out(&table.to_string())?;
    say(format_args!("{} tags of {repo}", rows.len()));
    Ok(())
}
