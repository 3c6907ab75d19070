//! `cargo xtask bench` in seconds: with the emulators of the bundle twice, and with one that cannot do the work. No root
//! folder is fetched, and nothing is registered where others see it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qus_core::arch::Arch;
use qus_core::namespace::kernel;
use serde_json::Value;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::bundle::hosts;
use crate::check::report::Report;
use crate::check::smoke::emulator::emulator;
use crate::check::smoke::fixture::kernel::FOREIGN;

const LEVEL: &str = "emulator";

/// An emulator that does not know [`FOREIGN`]'s programs.
const WRONG: &str = "s390x";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let bench = || BenchFixture::new(cx);
    report.check(LEVEL, "bench: the bundle against itself", || bench()?.against_itself())?;
    report.check(LEVEL, "bench: an emulator that fails", || bench()?.against_a_wrong_one())
}

struct BenchFixture<'a> {
    cx: &'a Context,
    bundle: PathBuf,
    guest: &'static Arch,
    dir: tempfile::TempDir,
}

impl<'a> BenchFixture<'a> {
    fn new(cx: &'a Context) -> Result<Self> {
        if kernel().is_some_and(|version| version < (6, 7)) {
            bail!(Skip("before Linux 6.7 there is one binfmt_misc for all".to_owned()));
        }
        let bundle = cx.paths.bundle(hosts::own()?);
        let guest = FOREIGN[0].parse()?;
        emulator(&bundle, guest)?;
        Ok(Self { cx, bundle, guest, dir: tempfile::tempdir()? })
    }

    /// Runs it on the probe. What it prints as JSON, its exit status, and what it says.
    fn measure(&self, against: &Path) -> Result<(Value, Option<i32>, String)> {
        let Self { bundle, guest, .. } = self;
        let (xtask, guest) = (std::env::current_exe()?, guest.name);
        let cache = self.cx.paths.cache().parent().context("the cache has a parent directory")?;
        let options = ["--only", "probe", "--rounds", "2", "--json"];
        let cmd =
            cmd!(sh(), "{xtask} bench {guest} {options...} --bundle {bundle} --against again={against}");
        // Whoever runs these checks may hold the usual target folder.
        let target = self.dir.path().join("target");
        let output = exec::output(cmd.env("CARGO_TARGET_DIR", target).env("XDG_CACHE_HOME", cache))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("user namespace") || said.contains("in a namespace of your own") {
            bail!(Skip(said));
        }
        let results = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
        Ok((results, output.status.code(), said))
    }

    fn against_itself(&self) -> Result<()> {
        let (results, status, said) = self.measure(&self.bundle)?;
        ensure!(status == Some(0), "it ended with {status:?}: {said}");
        for at in 0..2 {
            let samples = outcome(&results, at)["measured"]["wall"].clone();
            let samples: Vec<u64> = serde_json::from_value(samples).context("there are no samples")?;
            ensure!(samples.len() == 2 && samples.iter().all(|&sample| sample > 0), "measured: {samples:?}");
        }
        Ok(())
    }

    fn against_a_wrong_one(&self) -> Result<()> {
        let other = emulator(&self.bundle, WRONG.parse()?)?;
        let dir = self.dir.path().join("wrong");
        fs::create_dir_all(&dir)?;
        fs::copy(other, dir.join(self.guest.emulator()))?;
        let (results, status, said) = self.measure(&dir)?;
        ensure!(status == Some(1), "it ended with {status:?}: {said}");
        ensure!(said.contains("probe under again: exit status"), "it does not say what has failed: {said}");
        ensure!(outcome(&results, 0)["measured"].is_object(), "the bundle's has failed: {results}");
        ensure!(outcome(&results, 1)["failed"].is_string(), "the wrong one has not failed: {results}");
        Ok(())
    }
}

/// What came of the probe under one of both.
fn outcome(results: &Value, emulator: usize) -> &Value {
    &results["guests"][0]["workloads"][0]["outcomes"][emulator]
}
