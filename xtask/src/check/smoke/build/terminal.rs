//! Checks that long steps show a sign of life on a terminal.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::{self, is_installed, sh};
use crate::base::progress;
use crate::check::report::Report;
use crate::check::smoke::fixture::build::{BuildFixture, LEVEL};

/// The longest time that a terminal may show the same.
const LONGEST: Duration = Duration::from_secs(2);

/// The time in seconds after which a run is interrupted.
const RUN: f64 = 15.0;

pub(super) fn run(fixture: &BuildFixture<'_>, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "on a terminal: something moves every two seconds", || moves(fixture))
}

fn moves(fixture: &BuildFixture<'_>) -> Result<()> {
    if !is_installed("script") {
        bail!(Skip("`script` of util-linux is not installed".to_owned()));
    }
    for (args, expected) in [("build-qus", "building qus for"), ("build-qemu hexagon", "QEMU")] {
        let xtask = std::env::current_exe()?;
        let (shown, times) = (fixture.path("shown"), fixture.path("times"));
        let run = format!(
            "stty rows 24 cols 80; timeout --foreground --signal=INT {RUN} {} {args}",
            xtask.display()
        );
        let script = cmd!(sh(), "script --quiet --log-out {shown} --log-timing {times} --command {run}")
            .env("TERM", "xterm")
            .env("XDG_CACHE_HOME", fixture.path("cache"))
            .env("CARGO_TARGET_DIR", fixture.path("terminal"));
        exec::output(script)?;
        let text = String::from_utf8_lossy(&fs::read(&shown)?).into_owned();
        ensure!(text.contains(expected), "`{expected}` is not in: {}", progress::one_line(text));
        // A line for each output: the seconds since the one before, and its size.
        let times = fs::read_to_string(&times)?;
        let pauses: Option<Vec<f64>> =
            times.lines().map(|line| line.split(' ').next()?.parse().ok()).collect();
        let pauses = pauses.context("script has written no times")?;
        ensure!(pauses.iter().sum::<f64>() > RUN * 0.8, "{args} ended early: {}", progress::one_line(text));
        let longest = pauses.into_iter().fold(0.0, f64::max);
        ensure!(longest <= LONGEST.as_secs_f64(), "{args} showed nothing new for {longest:.1} s");
    }
    Ok(())
}
