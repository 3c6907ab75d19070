//! Standard output: data as text or JSON, and the options that select what is printed.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// The context of errors of standard output.
pub(crate) const NO_STDOUT: &str = "cannot write to standard output";

/// `--dry-run` and `--json`, in the same form for all commands.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// Print the plan without changing anything
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Writes text to standard output. A closed pipe is not an error.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(NO_STDOUT),
    }
}

/// Writes indented JSON to standard output, as [`out`] writes text.
pub(crate) fn out_json(value: &impl Serialize) -> Result<()> {
    out(&(serde_json::to_string_pretty(value)? + "\n"))
}
