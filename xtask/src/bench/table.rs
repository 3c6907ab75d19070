//! Renders results as tables: for each guest, one of times and ratios, and one of sizes, memory and instructions.

use std::fmt::Write as _;

use qus_core::table::Table;

use crate::bench::results::{Count, GuestResults, Outcome, Results, Size, WorkloadResult};
use crate::bench::statistics::Spread;
use crate::bench::workloads::EXIT;

/// Renders all tables as text, and those that are wider than `width` as lists.
pub(super) fn text(results: &Results, width: Option<usize>) -> String {
    let mut text = results.guests.iter().fold(String::new(), |mut text, guest| {
        for rows in [times(results, guest), resources(results, guest)] {
            // Leaves out tables that consist of the header only.
            if rows.len() > 1 {
                let table = table(&rows);
                // A list does not have the head of the first column, which is the guest.
                let guest = if table.fits(width) { String::new() } else { format!("{}:\n", guest.guest) };
                let _ = writeln!(text, "{guest}{}", table.fit(width));
            }
        }
        text
    });
    if let Some(size) = results.everything {
        let _ = writeln!(text, "{}", everything(size));
    }
    text
}

pub(super) fn everything(size: Size) -> String {
    format!("all emulators of the bundle: {}, zstd -19: {}", megabytes(size.file), megabytes(size.zstd))
}

/// The time of each workload, and the factors of the other emulators; the first row is the header.
pub(super) fn times(results: &Results, guest: &GuestResults) -> Vec<Vec<String>> {
    let clock = results.clock;
    let labels = results.emulators.iter().map(|emulator| emulator.label.clone());
    let mut rows = vec![[guest.guest.clone()].into_iter().chain(labels).collect::<Vec<_>>()];
    let others = 1..results.emulators.len();
    if !others.is_empty() {
        rows[0].push("fastest other".to_owned());
    }
    for row in &guest.workloads {
        let mut cells = vec![row.name.clone(), cell(row, 0, || time(row.milliseconds(clock, 0)))];
        cells.extend(others.clone().map(|other| cell(row, other, || spread(row.ratio(clock, other)))));
        if !others.is_empty() {
            cells.push(row.best(clock).map_or("-".to_owned(), |(_, best)| factor(best.median)));
        }
        rows.push(cells);
    }
    if !others.is_empty() {
        let mean = |mean: Option<f64>| mean.map_or("-".to_owned(), factor);
        let mut cells = vec!["geometric mean".to_owned(), String::new()];
        cells.extend(others.map(|other| mean(guest.mean(clock, other))));
        cells.push(mean(guest.mean_of_best(clock)));
        rows.push(cells);
    }
    rows
}

/// Sizes, memory, page faults and instructions; the first row is the header.
pub(super) fn resources(results: &Results, guest: &GuestResults) -> Vec<Vec<String>> {
    let row = |name: &str, cell: &dyn Fn(usize) -> Option<String>| -> Vec<String> {
        let cells = (0..results.emulators.len()).map(|at| cell(at).unwrap_or_else(|| "-".to_owned()));
        [name.to_owned()].into_iter().chain(cells).collect()
    };
    let label = |at: usize| Some(results.emulators[at].label.clone());
    let size = |at: usize| guest.sizes.get(at).copied().flatten();
    let mut rows = vec![row("", &label)];
    if !guest.sizes.is_empty() {
        rows.push(row("size", &|at| Some(megabytes(size(at)?.file))));
        rows.push(row("gzip -9", &|at| Some(megabytes(size(at)?.gzip?))));
        rows.push(row("zstd -19", &|at| Some(megabytes(size(at)?.zstd))));
    }
    if let Some(exit) = guest.workload(EXIT) {
        rows.push(row("exit: memory", &|at| {
            Some(format!("{:.1} MiB", exit.samples(at)?.memory as f64 / 1024.0))
        }));
        rows.push(row("exit: page faults", &|at| Some(format!("{:.0}", exit.faults(at)?))));
    }
    for counted in &guest.instructions {
        let name = format!("{}: instructions", counted.name);
        rows.push(row(&name, &|at| match counted.counts.get(at)? {
            Count::Counted(count) => Some(format!("{:.2} M", *count as f64 / 1e6)),
            Count::Failed(_) => Some("FAILED".to_owned()),
            Count::Absent => None,
        }));
    }
    rows
}

/// The cell of a workload: a number, or a mark that there is none.
fn cell(row: &WorkloadResult, emulator: usize, number: impl FnOnce() -> String) -> String {
    match &row.outcomes[emulator] {
        Outcome::Measured(_) => number(),
        Outcome::Failed(_) => "FAILED".to_owned(),
        Outcome::Absent => "-".to_owned(),
    }
}

pub(super) fn time(milliseconds: Option<f64>) -> String {
    match milliseconds {
        None => "-".to_owned(),
        Some(time) if time < 10.0 => format!("{time:.2} ms"),
        Some(time) if time < 100.0 => format!("{time:.1} ms"),
        Some(time) => format!("{time:.0} ms"),
    }
}

pub(super) fn factor(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

/// Formats a median ratio with its quartiles.
pub(super) fn spread(spread: Option<Spread>) -> String {
    spread.map_or("-".to_owned(), |Spread { lower, median, upper }| {
        format!("{} ({lower:.2}-{upper:.2})", factor(median))
    })
}

pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// Aligns columns, of which all but the first are numbers.
fn table(rows: &[Vec<String>]) -> Table {
    let mut rows = rows.iter();
    let mut table = Table::new(rows.next().into_iter().flatten()).numbers_from(1);
    rows.for_each(|row| table.row(row));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn the_tables_contain_times_factors_and_counts() {
        let text = text(&results(), None);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(&line("exit ")),
            ["exit", "0.01", "ms", "4.00x", "(4.00-4.00)", "2.00x", "(2.00-2.00)", "2.00x"]
        );
        assert_eq!(words(&line("gcc"))[3..], ["1.50x", "(1.25-1.75)", "FAILED", "1.50x"]);
        assert_eq!(words(&line("geometric")), ["geometric", "mean", "2.45x", "2.00x", "1.73x"]);
        assert_eq!(words(&line("exit: instructions"))[2..], ["0.00", "M", "FAILED", "-"]);
        let ends: Vec<_> = text.lines().take(3).map(|line| line.chars().count()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_lists() {
        let results = results();
        let text = text(&results, Some(40));
        assert!(text.starts_with(&format!("{}:\nexit\n", results.guests[0].guest)), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }
}
