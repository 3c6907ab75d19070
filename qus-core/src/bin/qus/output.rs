//! Data to standard output, messages to standard error.
//!
//! A message that cannot be written is no error: the command finishes, and its exit status reports the result. Data that
//! cannot be written is an error, unless its reader has closed the pipe. Descriptors 0 to 2 that are closed when the
//! program starts are opened on `/dev/null` by Rust's runtime, so that no other file gets their numbers.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::{Context, Result};
use qus_core::output::write_data;
use qus_core::terminal::decorate;
use qus_core::{hint, text};
use serde::Serialize;

/// Writes data to standard output. A reader that has seen enough, as `head` has, is not an error.
pub(crate) fn print_data(data: impl AsRef<[u8]>) -> Result<()> {
    write_data(&mut io::stdout().lock(), data).context("cannot write to standard output")
}

/// Writes text for people to standard output.
pub(crate) fn print_text(text: &str) -> Result<()> {
    print_data(decorate(&text::lines(text), io::stdout()))
}

/// Writes data as JSON.
pub(crate) fn print_json(data: &impl Serialize) -> Result<()> {
    print_data(serde_json::to_string_pretty(data)? + "\n")
}

/// Writes a message, which may be lost.
pub(crate) fn message(line: impl Display) {
    // In one piece, so that the lines of two programs do not mix.
    let text = decorate(&text::lines(&format!("{line}\n")), io::stderr());
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes an error, its causes and its hint.
pub(crate) fn print_error(error: &anyhow::Error) {
    message(hint::render(error).trim_end());
}
