//! What xtask says while it works, and the only user of indicatif.
//!
//! All of it goes to stderr: stdout is for data. On a terminal long steps have a bar with the time
//! left; elsewhere they are plain lines, few enough for a CI log.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, HumanDuration, ProgressBar, ProgressStyle};
use qus_core::hint;
use qus_core::text::{Show, lines};

/// Says a line.
pub(crate) fn say(line: impl Display) {
    write(&format!("{line}\n"));
}

/// Prints an error, its causes, and its hint.
pub(crate) fn fail(error: &anyhow::Error) {
    write(&hint::render(error));
}

/// Writes talk. That nobody can read it is no reason to end, or to leave work half-done.
pub(crate) fn write(text: &str) {
    let _ = io::stderr().write_all(lines(text).as_bytes());
}

/// What is to stay in its line, as a path or a name from an archive: newlines are escaped too.
pub(crate) fn one_line(text: impl Display) -> String {
    text.to_string().shown().to_string()
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
        let what = one_line(what.into());
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
        let percent = done.saturating_mul(100) / all.max(1);
        if percent >= self.next_line {
            let elapsed = self.start.elapsed();
            let left = elapsed.as_secs_f64() * all.saturating_sub(done) as f64 / done.max(1) as f64;
            let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let hostile = "a\u{1b}]0;title\u{7}b\rc\u{9b}2Jd\u{7f}\n\te ä …";
        assert_eq!(lines(hostile), "a\\u{1b}]0;title\\u{7}b\\rc\\u{9b}2Jd\\u{7f}\n\te ä …");
        assert_eq!(one_line("a\nerror: b"), "a\\nerror: b");
    }

    #[test]
    fn counts_that_make_no_sense_are_no_reason_to_end() {
        let mut bar = Bar::new("test");
        bar.set(3, 2);
        bar.set(u64::MAX, u64::MAX);
        bar.set(1, u64::MAX);
        bar.set(0, 0);
        bar.finish();
    }
}
