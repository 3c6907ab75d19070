//! `cargo xtask images --push`, into the registry of a throwaway engine.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use qus_core::arch::Host;
use serde_json::Value;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec;
use crate::check::chaos::builds::Xtask;
use crate::check::chaos::sandbox::{Sandbox, Words};
use crate::check::chaos::snapshot::Snapshot;
use crate::check::chaos::subject::{Fault, Subject};
use crate::engine::throwaway::{Options, Throwaway};

/// A push of all images of a bundle, each time into another repository.
pub(super) struct Images {
    xtask: Xtask,
    engine: Throwaway,
    pushes: Cell<u32>,
}

impl Images {
    /// Starts the engine in a directory.
    pub(super) fn new(cx: &Context, host: &Host, base: PathBuf, dir: &Path) -> Result<Self> {
        let engine = Throwaway::start(cx, &dir.join("run"), &Options::default())
            .map_err(|error| Skip(format!("cannot start a throwaway engine: {error:#}")))?;
        let args =
            ["images", "--push", "--allow-dev", "--sbom", "none", "--json", "--host", host.name, "--repo"];
        // buildx's input and output have the name of the repository, and the time of the build.
        let ignored = ["target/qus/images/bake.json", "target/qus/images/metadata.json"];
        let variables = engine.client().variables(&cx.settings)?;
        let xtask = Xtask::new(&args, base).with(variables, &ignored);
        Ok(Self { xtask, engine, pushes: Cell::new(0) })
    }

    fn repo(&self) -> String {
        format!("{}/chaos-{}", self.engine.registry(), self.pushes.get())
    }

    fn docker(&self, args: &[&str]) -> Result<String> {
        exec::read(self.engine.client().cmd(args))
    }
}

impl Subject for Images {
    /// The engine and the registry are not disturbed: the level `engine` of the smoke tests does that.
    fn faults(&self) -> &'static [Fault] {
        self.xtask.faults()
    }

    fn prepare(&self, sandbox: &Sandbox) -> Result<()> {
        self.pushes.set(self.pushes.get() + 1);
        self.xtask.prepare(sandbox)
    }

    fn words(&self, sandbox: &Sandbox) -> Result<Words> {
        self.xtask.words_with(sandbox, &[&self.repo()])
    }

    fn finish(&self, sandbox: &Sandbox) -> Result<Snapshot> {
        let rows: Vec<Value> = serde_json::from_str(&sandbox.run(&self.words(sandbox)?)?.succeeds()?)?;
        let mut snapshot = self.xtask.snapshot(sandbox)?;
        for row in rows {
            let tag = row["tag"].as_str().context("a row has no tag")?;
            let name = format!("{}:{tag}", self.repo());
            // Digests differ, because provenance has the time of the build.
            let image =
                self.docker(&["buildx", "imagetools", "inspect", "--format", "{{json .Image}}", &name])?;
            snapshot.insert(format!("image {tag}"), image);
        }
        for container in self.docker(&["ps", "--all", "--quiet"])?.lines() {
            snapshot.insert(format!("container {container}"), String::new());
        }
        Ok(snapshot)
    }
}
