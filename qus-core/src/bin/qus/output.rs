//! Data to standard output, talk to standard error.

#![expect(clippy::print_stderr, reason = "the one place that may")]

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes data to standard output. Who has read enough of it, as `head` has, is not an error.
pub(crate) fn out(text: impl AsRef<[u8]>) -> Result<()> {
    match io::stdout().write_all(text.as_ref()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes data as JSON.
pub(crate) fn json(data: &impl Serialize) -> Result<()> {
    out(serde_json::to_string_pretty(data)? + "\n")
}

/// Says a line.
pub(crate) fn say(line: impl Display) {
    eprintln!("{line}");
}

/// Says why a command has failed, from the outermost step to the cause.
pub(crate) fn fail(error: &anyhow::Error) {
    say(format_args!("error: {error}"));
    for cause in error.chain().skip(1) {
        say(format_args!("  because: {cause}"));
    }
}
