//! The results that the README shows: `bench --record` saves them as data, and `cargo xtask codegen` generates a plot and
//! a table from them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::base::context::Context;
use crate::bench::overview;
use crate::bench::results::{GuestResults, Results};
use crate::bench::table::factor;

/// Stands where results would be.
const NONE: &str = "No results are recorded yet.\n";

pub(super) fn path(cx: &Context) -> PathBuf {
    cx.paths.qemu_src().join("bench.json")
}

/// Reads the recorded results; `None` if there are none.
fn read(cx: &Context) -> Result<Option<Results>> {
    let path = path(cx);
    if !path.exists() {
        return Ok(None);
    }
    let json = fs::read(&path)?;
    Results::read(&json).with_context(|| path.display().to_string()).map(Some)
}

/// Generates the plot, and returns it with its path.
pub(crate) fn plot(cx: &Context) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let path = cx.paths.qemu_src().join("bench.svg");
    Ok(read(cx)?.map(|results| (path, overview::svg(&results).into_bytes())))
}

/// Generates the section of the README.
pub(crate) fn markdown(cx: &Context) -> Result<String> {
    Ok(read(cx)?.map_or_else(|| NONE.to_owned(), |results| summary(&results)))
}

/// Generates the table of `docs/performance.md`.
pub(crate) fn guests(cx: &Context) -> Result<String> {
    Ok(read(cx)?.map_or_else(|| NONE.to_owned(), |results| table(&results)))
}

fn summary(results: &Results) -> String {
    let machine = &results.machine;
    let workloads = results.guests.iter().map(|guest| guest.workloads.len()).max().unwrap_or_default();
    let occasion: String = [("", &results.date), ("commit ", &results.commit)]
        .iter()
        .filter_map(|(word, value)| Some(format!(", {word}{}", value.as_ref()?)))
        .collect();
    format!(
        "![Run time of other emulators relative to {ours}](qemu-src/bench.svg)\n\nA bar is the geometric mean of \
         {workloads} workloads of a guest, such as gcc, python and xz: at 1.5x, they\ntake one and a half times as long as \
         with {ours}. {} rounds on {} processors of\n{}, Linux {}{occasion}.\n",
        results.rounds,
        machine.processors,
        machine.processor,
        machine.kernel,
        ours = results.emulators[0].label,
    )
}

fn table(results: &Results) -> String {
    let others: Vec<_> = results.emulators.iter().skip(1).map(|other| other.label.as_str()).collect();
    let mut text = format!(
        "| guest | {} | fastest of these |\n|---|{}---|\n",
        others.join(" | "),
        "---|".repeat(others.len()),
    );
    for guest in &results.guests {
        text += &row(results, guest, others.len());
    }
    text
}

fn row(results: &Results, guest: &GuestResults, others: usize) -> String {
    let cell = |mean: Option<f64>| mean.map_or("-".to_owned(), factor);
    let means = (1..=others).map(|other| guest.mean(results.clock, other));
    let cells: Vec<_> = means.chain([guest.mean_of_best(results.clock)]).map(cell).collect();
    format!("| {} | {} |\n", guest.guest, cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn the_summary_has_what_is_recorded() {
        let mut results = results();
        assert!(summary(&results).ends_with("2 rounds on 2 processors of\nA <fast> one, Linux 6.18.\n"));
        results.date = Some("2026-12-01".to_owned());
        results.commit = Some("abc".to_owned());
        assert!(summary(&results).ends_with("Linux 6.18, 2026-12-01, commit abc.\n"));
    }

    #[test]
    fn a_row_for_each_guest() {
        let text = table(&results());
        assert!(
            text.contains("| guest | old & good | new | fastest of these |\n|---|---|---|---|\n"),
            "{text}"
        );
        assert!(text.ends_with("| aarch64 | 2.45x | 2.00x | 1.73x |\n"), "{text}");
    }
}
