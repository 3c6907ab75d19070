//! The results that the README shows: measured once with `--record`, kept as data, and made into a plot and a table by
//! `cargo xtask codegen`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::base::context::Context;
use crate::bench::results::{Guest, Results};
use crate::bench::{plot, table};

pub(super) fn path(cx: &Context) -> PathBuf {
    cx.paths.qemu_src().join("bench.json")
}

/// What was recorded; `None` before anything was.
fn read(cx: &Context) -> Result<Option<Results>> {
    let path = path(cx);
    if !path.exists() {
        return Ok(None);
    }
    let json = fs::read(&path)?;
    Results::read(&json).with_context(|| path.display().to_string()).map(Some)
}

/// The plot of the first guest, which is as much as a page can show, with its place in the repository.
pub(crate) fn derived(cx: &Context) -> Result<Option<(PathBuf, Vec<u8>)>> {
    Ok(read(cx)?.map(|mut results| {
        results.guests.truncate(1);
        (cx.paths.qemu_src().join("bench.svg"), plot::svg(&results).into_bytes())
    }))
}

/// What the README says of it.
pub(crate) fn markdown(cx: &Context) -> Result<String> {
    Ok(read(cx)?.map_or_else(|| "No run is recorded yet.\n".to_owned(), |results| text(&results)))
}

fn text(results: &Results) -> String {
    let others: Vec<_> = results.emulators.iter().skip(1).map(|other| other.label.as_str()).collect();
    let machine = &results.machine;
    let mut text = format!(
        "![How many times longer others take for {}](qemu-src/bench.svg)\n\nGeometric means over the workloads of a guest: how \
         many times longer than {} others take, on {} processors of {}, Linux {}, {} rounds.\n\n| guest | {} | the best of \
         them |\n|---|{}---|\n",
        results.guests.first().map_or("", |first| first.guest.as_str()),
        results.emulators[0].label,
        machine.processors,
        machine.processor,
        machine.kernel,
        results.rounds,
        others.join(" | "),
        "---|".repeat(others.len()),
    );
    for guest in &results.guests {
        text += &row(results, guest, others.len());
    }
    text
}

fn row(results: &Results, guest: &Guest, others: usize) -> String {
    let cell = |mean: Option<f64>| mean.map_or("-".to_owned(), table::factor);
    let means = (1..=others).map(|other| guest.mean(results.clock, other));
    let cells: Vec<_> = means.chain([guest.mean_of_best(results.clock)]).map(cell).collect();
    format!("| {} | {} |\n", guest.guest, cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_row_for_each_guest() {
        let text = text(&results());
        assert!(
            text.contains("| guest | old & good | new | the best of them |\n|---|---|---|---|\n"),
            "{text}"
        );
        assert!(text.ends_with("| aarch64 | 2.45x | 2.00x | 1.73x |\n"), "{text}");
    }
}
