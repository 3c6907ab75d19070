//! Checks `cargo xtask bench` within seconds: the bundle is compared with itself, and with an emulator that fails.
//!
//! No root filesystem is fetched, and handlers are registered only in a user namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qus_core::arch::Arch;
use serde_json::Value;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::bundle::hosts;
use crate::check::report::Report;
use crate::check::smoke::emulator::emulator;
use crate::check::smoke::fixture::kernel::{FOREIGN, require_instances};

const LEVEL: &str = "emulator";

/// An emulator that cannot run [`FOREIGN`]'s programs.
const WRONG: &str = "s390x";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let bench = || BenchFixture::new(cx);
    report.check(LEVEL, "bench: the bundle against itself", || bench()?.against_itself())?;
    report.check(LEVEL, "bench: an emulator that fails", || bench()?.against_wrong_emulator())
}

struct BenchFixture<'a> {
    cx: &'a Context,
    bundle: PathBuf,
    guest: &'static Arch,
    dir: tempfile::TempDir,
}

impl<'a> BenchFixture<'a> {
    fn new(cx: &'a Context) -> Result<Self> {
        require_instances()?;
        let bundle = cx.paths.bundle(hosts::own()?);
        let guest = FOREIGN[0].parse()?;
        emulator(&bundle, guest)?;
        Ok(Self { cx, bundle, guest, dir: tempfile::tempdir()? })
    }

    /// Measures the probe, and returns the JSON output, the exit status and stderr.
    fn measure(&self, against: &Path) -> Result<(Value, Option<i32>, String)> {
        let Self { bundle, guest, .. } = self;
        let (xtask, guest) = (std::env::current_exe()?, guest.name);
        let cache = self.cx.paths.cache().parent().context("the cache has no parent directory")?;
        let options = ["--only", "probe", "--rounds", "2", "--json"];
        let cmd =
            cmd!(sh(), "{xtask} bench {guest} {options...} --bundle {bundle} --against again={against}");
        // The process that runs these checks may have locked the usual target directory.
        let target = self.dir.path().join("target");
        let output = exec::output(cmd.env("CARGO_TARGET_DIR", target).env("XDG_CACHE_HOME", cache))?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if stderr.contains("user namespace") {
            bail!(Skip(stderr));
        }
        let results = serde_json::from_slice(&output.stdout).with_context(|| stderr.clone())?;
        Ok((results, output.status.code(), stderr))
    }

    fn against_itself(&self) -> Result<()> {
        let (results, status, stderr) = self.measure(&self.bundle)?;
        ensure!(status == Some(0), "exited with status {status:?}: {stderr}");
        for at in 0..2 {
            let samples = outcome(&results, at)["measured"]["wall"].clone();
            let samples: Vec<u64> = serde_json::from_value(samples).context("there are no samples")?;
            ensure!(
                samples.len() == 2 && samples.iter().all(|&sample| sample > 0),
                "unexpected samples: {samples:?}"
            );
        }
        Ok(())
    }

    fn against_wrong_emulator(&self) -> Result<()> {
        let other = emulator(&self.bundle, WRONG.parse()?)?;
        let dir = self.dir.path().join("wrong");
        fs::create_dir_all(&dir)?;
        fs::copy(other, dir.join(self.guest.emulator()))?;
        let (results, status, stderr) = self.measure(&dir)?;
        ensure!(status == Some(1), "exited with status {status:?}: {stderr}");
        ensure!(stderr.contains("probe under again: exit status"), "the failure is not reported: {stderr}");
        ensure!(outcome(&results, 0)["measured"].is_object(), "the emulator of the bundle failed: {results}");
        ensure!(outcome(&results, 1)["failed"].is_string(), "the wrong emulator did not fail: {results}");
        Ok(())
    }
}

/// The outcome of the probe with one of the two emulators.
fn outcome(results: &Value, emulator: usize) -> &Value {
    &results["guests"][0]["workloads"][0]["outcomes"][emulator]
}
