//! Writes data to standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes data to standard output. A closed pipe is not an error.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
