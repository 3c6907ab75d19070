//! Generates the tables of documents.
//!
//! Each table is between two comments with its name. Only the text between them is replaced.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::{CallState, GuestRun, LimitedCalls, SystemCalls};
use qus_core::arch::{ARCHES, HOSTS};
use qus_core::compat::FORMS;

use crate::base::context::Context;
use crate::bench::recorded;
use crate::derive::commands::commands;
use crate::ship::images::sizes;

/// Generates all files with such tables.
pub(crate) fn generate(cx: &Context) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let files: [(&str, &[(&str, String)]); 7] = [
        ("README.md", &[("bench", recorded::markdown(cx)?)]),
        ("docs/architectures.md", &[("targets", targets())]),
        ("docs/commands.md", &[("commands", commands(cx)?)]),
        ("docs/compatibility.md", &[("calls", calls(&cx.data.syscalls)), ("guests", guests(cx)?)]),
        ("docs/migrating.md", &[("forms", forms())]),
        ("docs/performance.md", &[("guests", recorded::guests(cx)?)]),
        ("images/README.md", &[("hosts", hosts()), ("sizes", sizes::table(cx)?)]),
    ];
    let filled = |(file, tables): (&str, &[(&str, String)])| {
        let path = cx.paths.root().join(file);
        let mut text = fs::read_to_string(&path)?;
        for (name, table) in tables {
            text = replace(&text, name, table)
                .with_context(|| format!("{file} has no comments for the table {name}"))?;
        }
        Ok((path, text.into_bytes()))
    };
    files.into_iter().map(filled).collect()
}

/// Replaces the table between its two comments; returns `None` without them.
fn replace(text: &str, name: &str, table: &str) -> Option<String> {
    let begin = format!("<!-- {name}: written by `cargo xtask codegen` -->\n");
    let end = format!("<!-- end of {name} -->");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{table}{end}{after}"))
}

/// A list, because a table of so long words is too wide for phones.
fn calls(calls: &SystemCalls) -> String {
    let item = |limited: &LimitedCalls| {
        let names: Vec<_> = limited.names.iter().map(|name| format!("`{name}`")).collect();
        format!("- {}: {}\n", names.join(", "), limited.reason)
    };
    let states =
        [(CallState::Absent, "Absent"), (CallState::Refused, "Refused"), (CallState::Partial, "Partial")];
    let list = |(state, title)| {
        let items = calls.limited.iter().filter(|limited| limited.state == state).map(item);
        format!("{title}:\n\n{}", items.collect::<String>())
    };
    states.map(list).join("\n")
}

/// The recorded results of `cargo xtask guests`: a row for each cell, because there are more cells than guests. Ports have
/// a table of their own.
fn guests(cx: &Context) -> Result<String> {
    let path = cx.paths.recorded_guests();
    let runs: Vec<GuestRun> =
        serde_json::from_slice(&fs::read(&path)?).with_context(|| path.display().to_string())?;
    let (ports, guests): (Vec<_>, Vec<_>) =
        runs.iter().partition(|run| cx.data.debian.guest(&run.guest).is_none());
    let cells = &cx.data.cells.cells;
    let of_ports = cells.iter().filter(|cell| cell.ports).map(|cell| &*cell.name);
    let of_guests = std::iter::once("debootstrap").chain(cells.iter().map(|cell| &*cell.name));
    let mut table = format!("{}\n{}", outcomes(&guests, of_guests), outcomes(&ports, of_ports));
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for run in &runs {
        for cell in &run.cells {
            let Some(why) = cell.outcome.why() else { continue };
            let reason = format!("{}, {}: {why}", cell.name, cell.outcome.word());
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, guests)) => guests.push(&run.guest),
                None => reasons.push((reason, vec![&run.guest])),
            }
        }
    }
    for (reason, guests) in reasons {
        table += &format!("\n- {reason} ({})", guests.join(", "));
    }
    Ok(table.trim_end().to_owned() + "\n")
}

fn outcomes<'a>(runs: &[&GuestRun], cells: impl Iterator<Item = &'a str>) -> String {
    let heads: String = runs.iter().map(|run| format!(" {} |", run.guest)).collect();
    let suites: String = runs.iter().map(|run| format!(" {} |", run.suite)).collect();
    let mut table = format!("| |{heads}\n|---|{}\n| suite |{suites}\n", "---|".repeat(runs.len()));
    for name in cells {
        let word = |run: &&GuestRun| run.outcome(name).map_or("-", |outcome| outcome.word());
        let cells: String = runs.iter().map(|run| format!(" {} |", word(run))).collect();
        table += &format!("| {name} |{cells}\n");
    }
    table
}

fn forms() -> String {
    let mut table = String::from("| tool | arguments | equivalent |\n|---|---|---|\n");
    for (tool, arguments, ours) in FORMS {
        let arguments = if arguments.is_empty() { "none".to_owned() } else { format!("`{arguments}`") };
        let ours: Vec<_> = ours.split("; ").map(|command| format!("`qus {command}`")).collect();
        table += &format!("| {tool} | {arguments} | {} |\n", ours.join(", then "));
    }
    table
}

fn targets() -> String {
    let mut table = String::from(
        "| target | platforms | Debian | aliases | ELF: class, byte order, machine |\n|---|---|---|---|---|\n",
    );
    for arch in &ARCHES {
        let platforms: Vec<_> = arch.platforms.iter().map(|platform| format!("linux/{platform}")).collect();
        let others: Vec<_> = arch.triples.iter().chain(arch.aliases).copied().collect();
        let mark = if arch.official_images { " *" } else { "" };
        table += &format!(
            "| {}{mark} | {} | {} | {} | {}, {}, {} |\n",
            arch.name,
            platforms.join(", "),
            arch.debian.join(", "),
            others.join(", "),
            arch.class,
            arch.endian,
            arch.machines[0],
        );
    }
    table
}

fn hosts() -> String {
    let mut table = String::from("| host | platform | Debian | triple |\n|---|---|---|---|\n");
    for host in &HOSTS {
        table += &format!("| {host} | linux/{} | {} | {} |\n", host.platform, host.debian, host.triple);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_between_the_comments_changes() {
        let text = "a\n<!-- x: written by `cargo xtask codegen` -->\nold\n<!-- end of x -->\nb\n";
        let expected = text.replace("old", "new");
        assert_eq!(replace(text, "x", "new\n"), Some(expected));
        assert_eq!(replace("a\n", "x", "new\n"), None);
    }
}
