//! The results that the README shows: `bench --record` saves them as data, and `cargo xtask codegen` generates a plot and
//! a table from them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::base::context::Context;
use crate::bench::results::{GuestResults, Results};
use crate::bench::{plot, table};

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

/// Generates the plot, and returns it with its path. It shows only the first guest, because more would not fit on a page.
pub(crate) fn plot(cx: &Context) -> Result<Option<(PathBuf, Vec<u8>)>> {
    Ok(read(cx)?.map(|mut results| {
        results.guests.truncate(1);
        (cx.paths.qemu_src().join("bench.svg"), plot::svg(&results).into_bytes())
    }))
}

/// Generates the section of the README.
pub(crate) fn markdown(cx: &Context) -> Result<String> {
    Ok(read(cx)?.map_or_else(|| "No results are recorded yet.\n".to_owned(), |results| text(&results)))
}

fn text(results: &Results) -> String {
    let others: Vec<_> = results.emulators.iter().skip(1).map(|other| other.label.as_str()).collect();
    let machine = &results.machine;
    let mut text = format!(
        "![Run time of other emulators for {}](qemu-src/bench.svg)\n\nRun time relative to {}: geometric means over the \
         workloads of a guest, on {} processors of {}, Linux {}, {} rounds.\n\n| guest | {} | fastest of these \
         |\n|---|{}---|\n",
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

fn row(results: &Results, guest: &GuestResults, others: usize) -> String {
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
            text.contains("| guest | old & good | new | fastest of these |\n|---|---|---|---|\n"),
            "{text}"
        );
        assert!(text.ends_with("| aarch64 | 2.45x | 2.00x | 1.73x |\n"), "{text}");
    }
}
