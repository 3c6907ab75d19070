//! Generates `docs/commands.md`: the help of every command of `qus`, which clap makes from its arguments.

use anyhow::{Context as _, Result};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};

/// Generates the sections of all commands.
pub(crate) fn commands(cx: &Context) -> Result<String> {
    let overview = help(cx, &["help"])?;
    let mut text = section("qus", &overview);
    for name in names(&overview).context("the help of qus lists no commands")? {
        text += &section(&format!("qus {name}"), &help(cx, &["help", name])?);
    }
    Ok(text)
}

/// Runs a debug build of `qus`, with a terminal's width of 100 columns.
fn help(cx: &Context, args: &[&str]) -> Result<String> {
    let manifest = cx.paths.root().join("Cargo.toml");
    let run = cmd!(
        sh(),
        "cargo run --quiet --locked --manifest-path {manifest} --package qus-core --bin qus -- {args...}"
    );
    exec::read(run.env("COLUMNS", "100").env("NO_COLOR", "1"))
}

/// Finds the names in the list of commands.
fn names(overview: &str) -> Option<Vec<&str>> {
    let (_, list) = overview.split_once("\nCommands:\n")?;
    let lines = list.lines().take_while(|line| !line.is_empty());
    // Lines that continue a description are indented further.
    let names =
        lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    Some(names.filter(|name| *name != "help").collect())
}

fn section(title: &str, help: &str) -> String {
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    format!("## {title}\n\n```text\n{}\n```\n\n", lines.join("\n").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found() {
        let overview = "Usage\n\nCommands:\n  install  Register\n           them all\n  help     Print\n\nOptions:\n  -h\n";
        assert_eq!(names(overview), Some(vec!["install"]));
        assert_eq!(names("Usage\n"), None);
    }
}
