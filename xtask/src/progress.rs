//! What xtask says while it works, and the only user of indicatif.
//!
//! All of it goes to stderr: stdout is for data. On a terminal long steps have a bar with the time
//! left; elsewhere they are plain lines, few enough for a CI log.

#![expect(clippy::print_stderr, reason = "the one place that may")]

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, HumanDuration, ProgressBar, ProgressStyle};

/// Says a line.
pub(crate) fn say(line: impl Display) {
    eprintln!("{line}");
}

/// Says why the run has failed, from the outermost step to the cause.
pub(crate) fn fail(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// A long step whose parts are counted.
pub(crate) struct Bar {
    what: String,
    start: Instant,
    /// The bar of a terminal.
    drawn: Option<ProgressBar>,
    /// Per cent done at the next plain line.
    next_line: u64,
}

impl Bar {
    /// Begins a step.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        let drawn = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length().with_message(what.clone());
            bar.set_style(style("{spinner} {msg} {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        if drawn.is_none() {
            say(format_args!("{what} …"));
        }
        Self { what, start: Instant::now(), drawn, next_line: 10 }
    }

    /// Shows how far it is.
    pub(crate) fn set(&mut self, done: u64, all: u64) {
        if let Some(bar) = &self.drawn {
            if bar.length().is_none() {
                bar.set_style(style("{msg} [{bar:30}] {pos}/{len} {elapsed}, {eta} left"));
            }
            bar.set_length(all);
            bar.set_position(done);
            return;
        }
        let percent = done * 100 / all.max(1);
        if percent >= self.next_line {
            let elapsed = self.start.elapsed();
            let left = elapsed.mul_f64((all - done) as f64 / done.max(1) as f64);
            say(format_args!("  {percent:3} % ({done}/{all}), about {} left", HumanDuration(left)));
            self.next_line = percent / 10 * 10 + 10;
        }
    }

    /// Ends the step.
    pub(crate) fn finish(self) {
        let took = FormattedDuration(self.start.elapsed());
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
        say(format_args!("{}: done in {took}", self.what));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Bar {
    /// Takes the bar off the screen when the step fails, so that the message stands alone.
    fn drop(&mut self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}
