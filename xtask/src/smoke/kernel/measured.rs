//! `cargo xtask bench` in seconds: emulators of which one cannot do the work. No root folder is fetched.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xshell::cmd;

use super::{Bench, Checks, FOREIGN};

/// An emulator that does not know [`FOREIGN`]'s programs.
const WRONG: &str = "alpha";

pub(super) fn run(checks: &mut Checks<'_>) -> Result<()> {
    checks.check("bench: measured in turn, a failure told, nothing left registered", in_turn)
}

fn in_turn(bench: &Bench<'_>) -> Result<()> {
    bench.needs_instances()?;
    let before = bench.texts()?;
    let (sh, xtask) = (bench.sh, std::env::current_exe()?);
    let [bundle, wrong] = [&bench.bundle, &bench.path("wrong")];
    let cache = bench.paths.cache().parent().context("the cache lies in a folder")?;
    // A target folder of its own: what runs these checks may hold the other.
    let target = bench.path("target");
    let measure = |against: &std::path::Path| {
        let guest = FOREIGN[0];
        let options = ["--only", "probe", "--rounds", "2", "--json"];
        let cmd = cmd!(sh, "{xtask} bench {guest} {options...} --bundle {bundle} --against again={against}");
        bench.ends(cmd.env("CARGO_TARGET_DIR", &target).env("XDG_CACHE_HOME", cache))
    };
    let same: Value = serde_json::from_str(&measure(bundle)?.succeeds()?)?;
    for at in 0..2 {
        let samples = &outcome(&same, at)["measured"]["wall"];
        let samples: Vec<u64> = serde_json::from_value(samples.clone()).context("no samples")?;
        ensure!(samples.len() == 2 && samples.iter().all(|&sample| sample > 0), "measured: {samples:?}");
    }
    fs::create_dir_all(wrong)?;
    fs::copy(bundle.join(format!("qemu-{WRONG}")), wrong.join(format!("qemu-{}", FOREIGN[0])))?;
    let ended = measure(wrong)?;
    let told: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(outcome(&told, 0)["measured"].is_object(), "ours has failed: {told}");
    ensure!(outcome(&told, 1)["failed"].is_string(), "the wrong emulator has not failed: {told}");
    ended.fails(1, &["under again: exit status", "1 workloads failed"])?;
    ensure!(bench.texts()? == before, "the machine's own handlers have changed");
    Ok(())
}

/// What came of the probe under one of the emulators.
fn outcome(results: &Value, emulator: usize) -> &Value {
    &results["guests"][0]["workloads"][0]["outcomes"][emulator]
}
