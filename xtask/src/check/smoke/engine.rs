//! Images on a real engine and a real registry: made, pushed, pulled, and run, and every failure provoked.
//!
//! All of it happens on throwaway engines, whatever Docker the machine has. As at the level `kernel`, handlers
//! are registered in the machine's kernel, and removed again.

mod around;
mod builders;
mod faults;
mod faulty;
mod hosts;
mod lifecycle;
mod nodes;
mod push;
mod uses;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use qus_core::arch::Host;
use serde_json::Value;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::sh;
use crate::bundle::manifest::Bundle;
use crate::check::report::{self, Report};
use crate::check::smoke::kernel::{Bench, Ended, FOREIGN};
use crate::engine::throwaway::{Options, Throwaway};

const LEVEL: &str = "engine";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    // Only this thread enters the mount namespace, and whatever it starts.
    thread::scope(|scope| {
        let checks = scope.spawn(|| {
            let dock = Bench::new(cx).and_then(Dock::new);
            let mut checks = Checks { dock, report };
            lifecycle::run(&mut checks)?;
            push::run(&mut checks)?;
            uses::run(&mut checks)?;
            around::run(&mut checks)?;
            builders::run(&mut checks)?;
            hosts::run(&mut checks)?;
            // Minutes of compiling: where more than one host was asked for.
            if crate::bundle::hosts::built(cx).count() > 2 {
                nodes::run(&mut checks)?;
            }
            faults::run(&mut checks)
        });
        checks.join().map_err(|_| anyhow!("a check of the engine level panicked"))?
    })
}

/// The checks of this level: each begins and ends without handlers of ours.
struct Checks<'a> {
    dock: Result<Dock<'a>>,
    report: &'a mut Report,
}

impl Checks<'_> {
    fn check(&mut self, name: impl Into<String>, check: impl FnOnce(&Dock<'_>) -> Result<()>) -> Result<()> {
        let dock = &self.dock;
        self.report.check(LEVEL, name, || {
            let dock = dock.as_ref().map_err(report::again)?;
            let checked = check(dock);
            dock.bench.qus(&["remove", "all"])?.succeeds()?;
            checked
        })
    }
}

/// An engine, a registry, and folders in which this very program works.
struct Dock<'a> {
    bench: Bench<'a>,
    engine: Throwaway,
    /// Instead of `target`, with the bundle that was built.
    target: PathBuf,
    /// The same with an emulator or two, for what need not be whole.
    small: PathBuf,
    host: &'static Host,
    /// Name of the full image, once it was pushed.
    full: OnceCell<String>,
    dir: tempfile::TempDir,
}

impl<'a> Dock<'a> {
    fn new(bench: Bench<'a>) -> Result<Self> {
        let host = Host::current().context("qus has no images for this kind of machine")?;
        if !bench.bundle.join("bundle.json").exists() {
            bail!(Skip("there are no emulators; build them: cargo xtask build-qemu --all".to_owned()));
        }
        // Not on a tmpfs: images of every kind need room.
        let out = bench.cx.paths.out();
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        let dir = tempfile::Builder::new().prefix("e").tempdir_in(out)?;
        // Short names, since sockets lie below.
        let (target, small) = (dir.path().join("t"), dir.path().join("s"));
        // Where `cargo xtask images` finds it without a Docker.
        let place = target.join("qus/engine/run");
        let engine = Throwaway::start(bench.cx, &place, &Options::default())
            .map_err(|error| Skip(format!("no engine can be started here: {error:#}")))?;
        fs::create_dir_all(target.join("qus/bundle"))?;
        std::os::unix::fs::symlink(&bench.bundle, target.join("qus/bundle").join(host.name))?;
        let dock = Self { bench, engine, target, small, host, full: OnceCell::new(), dir };
        dock.small_bundle(&dock.small, &[FOREIGN[0]], None)?;
        Ok(dock)
    }

    /// A target folder whose bundle has only these emulators, and another program than `qus` if one is given.
    fn small_bundle(&self, target: &Path, targets: &[&str], program: Option<&Path>) -> Result<()> {
        let from = &self.bench.bundle;
        let to = target.join("qus/bundle").join(self.host.name);
        fs::create_dir_all(&to)?;
        fs::copy(program.unwrap_or(&from.join("qus")), to.join("qus"))?;
        let bundle = Bundle::read(from)?.context("the bundle cannot be read")?;
        let emulators: Vec<_> =
            bundle.emulators.into_iter().filter(|emulator| targets.contains(&&*emulator.target)).collect();
        for emulator in &emulators {
            fs::copy(from.join(&emulator.file), to.join(&emulator.file))?;
        }
        Bundle::new(bundle.recipe, emulators).write(&to)
    }

    /// A place for files of a check.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A repository in the registry.
    fn repo(&self, name: &str) -> String {
        format!("{}/{name}", self.engine.registry())
    }

    /// This very program in another target folder, on a machine whose docker speaks with this engine.
    fn xtask(&self, target: &Path, args: &[&str]) -> Result<Cmd<'a>> {
        self.xtask_with(&self.engine, target, args)
    }

    fn xtask_with(&self, engine: &Throwaway, target: &Path, args: &[&str]) -> Result<Cmd<'a>> {
        let xtask = std::env::current_exe()?;
        let cache = self.bench.cx.paths.cache().parent().context("the cache lies in a folder")?;
        let cmd =
            cmd!(sh(), "{xtask} {args...}").env("CARGO_TARGET_DIR", target).env("XDG_CACHE_HOME", cache);
        Ok(engine
            .client()
            .variables(&self.bench.cx.settings)?
            .into_iter()
            .fold(cmd, |cmd, (name, value)| cmd.env(name, value)))
    }

    /// The same on a machine without a Docker.
    fn alone(&self, target: &Path, args: &[&str]) -> Result<Cmd<'a>> {
        let cmd = self.xtask(target, args)?.env_remove("DOCKER_CONFIG").env_remove("BUILDX_CONFIG");
        Ok(cmd
            .env("PATH", self.bench.cx.settings.path_with([])?)
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock"))
    }

    /// A folder from which an image with nothing but Debian's busybox of an architecture can be built.
    fn busybox_image(&self, dir: &Path, debian: &str) -> Result<()> {
        fs::create_dir_all(dir)?;
        fs::copy(self.bench.guest(debian, "busybox")?, dir.join("busybox"))?;
        Ok(fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/busybox\n")?)
    }

    /// `cargo xtask images --push` from a target folder to a repository, with further arguments.
    fn push(&self, target: &Path, repo: &str, args: &[&str]) -> Result<Ended> {
        let words = [&["images", "--push", "--repo", repo, "--sbom", "none", "--json"], args].concat();
        self.bench.ends(self.xtask(target, &words)?)
    }

    /// A docker command on this engine.
    fn docker(&self, args: &[&str]) -> Result<Ended> {
        self.bench.ends(self.engine.client().cmd(args))
    }

    /// What a tag stands for, as JSON.
    fn inspect(&self, name: &str) -> Result<Value> {
        let told = self.docker(&["buildx", "imagetools", "inspect", "--format", "{{json .}}", name])?;
        Ok(serde_json::from_str(&told.succeeds()?)?)
    }

    /// Pushes the full image with all emulators, once, and returns its name.
    fn full_image(&self) -> Result<String> {
        if let Some(name) = self.full.get() {
            return Ok(name.clone());
        }
        let repo = self.repo("qus");
        self.push(&self.target, &repo, &[])?.succeeds()?;
        Ok(self.full.get_or_init(|| format!("{repo}:latest")).clone())
    }
}

/// Digests by tag, from what `images --json` prints.
fn digests(json: &str) -> Result<std::collections::BTreeMap<String, String>> {
    let rows: Vec<Value> = serde_json::from_str(json)?;
    rows.iter()
        .map(|row| {
            let field = |name: &str| row[name].as_str().map(str::to_owned);
            Ok((field("tag").context("no tag")?, field("digest").context("no digest")?))
        })
        .collect()
}
