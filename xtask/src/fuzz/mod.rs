//! `cargo xtask fuzz`: arbitrary input for the parsers of what others have written, with libFuzzer.
//!
//! It works with the stable compiler: `rustc.sh` adds the coverage that libFuzzer needs. A failing input is added to the
//! seeds in `fuzz/TARGET`, which `cargo test` runs.

pub(crate) mod targets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use fs_err as fs;
use qus_core::hint::hinted;
use qus_core::table::Table;
use qus_core::terminal;
use serde::Serialize;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, InDir, is_installed, sh};
use crate::base::output::{out, out_json};
use crate::base::progress::Bar;
use crate::base::{files, parallel};
use crate::fuzz::targets::TARGETS;

/// Fuzz the parsers of untrusted input
///
/// Builds a fuzzer, and runs the targets with one process for each CPU. Inputs that reach new code remain in the cache,
/// where the next run continues. An input that makes a parser panic, hang or fill the memory is written to
/// fuzz/TARGET in the repository: `cargo test` then fails until the parser is fixed.
///
/// Requires a C++ compiler, for libFuzzer. The exit status is 1 if a target fails.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                     an hour
  cargo xtask fuzz --time 60s          a minute for each target
  cargo xtask fuzz elf --time 8h")]
pub(crate) struct Args {
    /// What to fuzz [default: all targets]
    #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(TARGETS.map(|target| target.name)))]
    targets: Vec<String>,
    /// Time for each target, such as 60s, 10m or 8h [default: the whole run takes an hour]
    #[arg(long, value_parser = parse_time)]
    time: Option<Duration>,
    /// Print results as JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The time of a run without `--time`.
const HOUR: Duration = Duration::from_secs(3600);

/// The limits of one input: seconds, and MB of memory.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];

/// The seconds for making a failing input smaller.
const SECONDS_TO_MINIMISE: u64 = 20;

/// The result of a target.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    target: &'static str,
    seconds: u64,
    /// How many inputs were run.
    executions: u64,
    /// How many parts of the code were reached.
    coverage: u64,
    /// How many inputs the corpus has.
    corpus: u64,
    /// The seed that makes the target fail, in the repository.
    failure: Option<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let named = |name: &&str| args.targets.is_empty() || args.targets.iter().any(|given| given == name);
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).filter(named).collect();
    let outcomes = fuzz(cx, &names, args.time)?;
    if args.json {
        out_json(&outcomes)?;
    } else {
        let mut table = Table::new(["target", "seconds", "executions", "coverage", "corpus"]);
        for Outcome { target, seconds, executions, coverage, corpus, .. } in &outcomes {
            let numbers = [seconds, executions, coverage, corpus].map(u64::to_string);
            table.row([&[(*target).to_owned()][..], &numbers].concat());
        }
        out(&table.numbers_from(1).fit(terminal::width(std::io::stdout())))?;
    }
    require_passed(&outcomes)
}

/// Fuzzes all targets for a short time, as a step of `cargo xtask test`.
pub(crate) fn check(cx: &Context, time: Duration) -> Result<()> {
    require_passed(&fuzz(cx, &TARGETS.map(|target| target.name), Some(time))?)
}

fn require_passed(outcomes: &[Outcome]) -> Result<()> {
    let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.failure.as_deref()).collect();
    if failures.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!("fuzzing found inputs that make a target fail: {}", failures.join(", ")),
        "fix what `cargo test --package xtask seeds_pass` shows, and commit the inputs with the fix",
    ))
}

fn fuzz(cx: &Context, targets: &[&'static str], time: Option<Duration>) -> Result<Vec<Outcome>> {
    let fuzzer = build(cx)?;
    let time = match time {
        Some(time) => time,
        None => HOUR / targets.len().div_ceil(std::thread::available_parallelism()?.get()).try_into()?,
    };
    parallel::map_on_cpus(targets, |target| fuzz_target(cx, &fuzzer, target, time))
}

/// Builds the fuzzer.
///
/// # Errors
/// A [`Skip`] without a C++ compiler.
fn build(cx: &Context) -> Result<PathBuf> {
    if !is_installed("c++") {
        let why = "libFuzzer needs a C++ compiler; on Debian and Ubuntu, the package g++ has it";
        return Err(Skip(why.to_owned()).into());
    }
    let wrapper = cx.paths.root().join("xtask/src/fuzz/rustc.sh");
    let cargo = cmd!(sh(), "cargo build --package xtask --bin fuzzer --features fuzz --locked")
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper)
        .env("CARGO_TARGET_DIR", cx.paths.cargo_target());
    let bar = Bar::new("building the fuzzer");
    exec::run(cargo.in_dir(cx.paths.root()), &cx.start_log("fuzzer")?, |line| bar.detail(line))?;
    bar.finish();
    Ok(cx.paths.cargo_target().join("debug/fuzzer"))
}

fn fuzz_target(cx: &Context, fuzzer: &Path, target: &'static str, time: Duration) -> Result<Outcome> {
    let (corpus, seeds) = (cx.paths.fuzz_corpus(target), cx.paths.fuzz_seeds(target));
    fs::create_dir_all(&corpus)?;
    let failures = tempfile::tempdir()?;
    let option = format!("--target={target}");
    let artifacts = format!("-artifact_prefix={}/", failures.path().display());
    let log = cx.start_log(&format!("fuzz-{target}"))?;
    let seconds = time.as_secs();
    let total = format!("-max_total_time={seconds}");
    let mut outcome = Outcome { target, seconds, ..Outcome::default() };
    let bar = Bar::short(format!("fuzzing {target} for {seconds} s"));
    let fuzzing =
        cmd!(sh(), "{fuzzer} {option} {total} {LIMITS...} {artifacts} -print_final_stats=1 {corpus} {seeds}");
    let ended = exec::run(in_memory(fuzzing), &log, |line| {
        outcome.read(line);
        bar.detail(line);
    });
    let Err(error) = ended else {
        bar.finish();
        return Ok(outcome);
    };
    let Some(failing) = fs::read_dir(failures.path())?.next() else { return Err(error) };
    let failing = failing?.path();
    let small = failures.path().join("small");
    // An input that hangs or fills the memory is kept as it is.
    if failing.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"crash-")) {
        let exact = format!("-exact_artifact_path={}", small.display());
        let total = format!("-max_total_time={SECONDS_TO_MINIMISE}");
        let minimising =
            cmd!(sh(), "{fuzzer} {option} -minimize_crash=1 {total} {LIMITS...} {exact} {failing}");
        // It may already be as small as possible, which is an error for libFuzzer.
        let _ = exec::run(in_memory(minimising), &log, |line| bar.detail(line));
    }
    let input = fs::read(if small.exists() { &small } else { &failing })?;
    let name = format!("found-{}", files::short_id(&input));
    files::write(&seeds.join(&name), &input)?;
    outcome.failure = Some(format!("fuzz/{target}/{name}"));
    Ok(outcome)
}

/// Has temporary files in memory, because some targets unpack archives.
fn in_memory(cmd: xshell::Cmd<'_>) -> xshell::Cmd<'_> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { cmd.env("TMPDIR", memory) } else { cmd }
}

impl Outcome {
    /// Reads a line of libFuzzer: `#8192 pulse cov: 229 ft: 630 corp: 93/19Kb …`, or a final statistic.
    fn read(&mut self, line: &str) {
        let number = |after: &str| -> Option<u64> {
            let rest = line.split_once(after)?.1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        for (value, name) in [
            (&mut self.executions, "stat::number_of_executed_units:"),
            (&mut self.coverage, " cov: "),
            (&mut self.corpus, " corp: "),
        ] {
            *value = number(name).unwrap_or(*value);
        }
    }
}

/// Parses a number with a unit.
fn parse_time(given: &str) -> Result<Duration> {
    let seconds = [('s', 1), ('m', 60), ('h', 3600)].into_iter().find_map(|(unit, seconds)| {
        let number: u16 = given.strip_suffix(unit)?.parse().ok()?;
        Some(u64::from(number) * seconds).filter(|seconds| *seconds > 0)
    });
    match seconds {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => bail!("expected a number with a unit, such as 60s, 10m or 8h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let seconds = |given| parse_time(given).ok().map(|time| time.as_secs());
        assert_eq!(["60s", "10m", "8h"].map(seconds), [Some(60), Some(600), Some(28_800)]);
        assert_eq!(["60", "0s", "1d", "-1s", "s", "1.5h", "65536h"].map(seconds), [None; 7]);
    }

    #[test]
    fn the_last_line_of_the_fuzzer_counts() {
        let mut outcome = Outcome::default();
        for line in [
            "#2\tINITED cov: 4 ft: 5 corp: 1/1b exec/s: 0 rss: 28Mb",
            "#8192\tpulse  cov: 229 ft: 630 corp: 93/19Kb lim: 80 exec/s: 4096 rss: 29Mb",
            "stat::number_of_executed_units: 1467612",
            "stat::new_units_added:          1187",
        ] {
            outcome.read(line);
        }
        assert_eq!((outcome.executions, outcome.coverage, outcome.corpus), (1_467_612, 229, 93));
    }
}
