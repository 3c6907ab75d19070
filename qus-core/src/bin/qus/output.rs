//! Data to standard output, talk to standard error.
//!
//! Talk that nobody can read ends nothing: what was begun is finished, and the exit status tells. Data that cannot
//! be written is an error, unless its reader has closed the pipe. Descriptors 0 to 2 that are closed when the
//! program starts are opened on `/dev/null` by Rust's runtime, so that no other file gets their numbers.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::{Context, Result};
use qus_core::output::write_data;
use qus_core::{hint, text};
use serde::Serialize;

/// Writes data to standard output. A reader that has seen enough, as `head` has, is not an error.
pub(crate) fn out(text: impl AsRef<[u8]>) -> Result<()> {
    write_data(&mut io::stdout().lock(), text).context("cannot write to standard output")
}

/// Writes data for people to standard output.
pub(crate) fn show(text: &str) -> Result<()> {
    out(text::lines(text))
}

/// Writes data as JSON.
pub(crate) fn json(data: &impl Serialize) -> Result<()> {
    out(serde_json::to_string_pretty(data)? + "\n")
}

/// Says a line. That it cannot be written is nobody's concern.
pub(crate) fn say(line: impl Display) {
    // In one piece, so that the lines of two programs do not mix.
    let _ = io::stderr().write_all(text::lines(&format!("{line}\n")).as_bytes());
}

/// Says why a command has failed, and what to do about it.
pub(crate) fn fail(error: &anyhow::Error) {
    say(hint::render(error).trim_end());
}
