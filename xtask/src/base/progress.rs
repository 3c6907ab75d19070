//! Prints progress, messages and errors; the only module that uses indicatif.
//!
//! Progress and messages go to stderr, data to stdout. On a terminal, long steps show a progress bar with the remaining
//! time; otherwise they print a few plain lines, which suit a CI log.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, HumanDuration, ProgressBar, ProgressStyle};
use qus_core::hint;
use qus_core::text::{Show, lines};

/// Prints a line to stderr.
pub(crate) fn say(line: impl Display) {
    write(&format!("{line}\n"));
}

/// Prints an error, its causes and its hint to stderr.
pub(crate) fn fail(error: &anyhow::Error) {
    write(&hint::render(error));
}

/// Writes text to stderr. A write error is ignored, because it must not abort the work.
pub(crate) fn write(text: &str) {
    let _ = io::stderr().write_all(lines(text).as_bytes());
}

/// Escapes control characters and newlines, for paths and names in a message.
pub(crate) fn one_line(text: impl Display) -> String {
    text.to_string().shown().to_string()
}

/// The progress of a long step with a known number of parts.
pub(crate) struct Bar {
    what: String,
    start: Instant,
    /// The progress bar; `None` if stderr is not a terminal.
    drawn: Option<ProgressBar>,
    /// The percentage at which the next plain line is printed.
    next_line: u64,
}

impl Bar {
    /// Starts a step.
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

    /// Updates the progress.
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

    /// Marks the step as complete.
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
    /// Clears the bar when the step fails, so that only the error remains on the screen.
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
    fn control_characters_are_escaped() {
        let hostile = "a\u{1b}]0;title\u{7}b\rc\u{9b}2Jd\u{7f}\n\te ä …";
        assert_eq!(lines(hostile), "a\\u{1b}]0;title\\u{7}b\\rc\\u{9b}2Jd\\u{7f}\n\te ä …");
        assert_eq!(one_line("a\nerror: b"), "a\\nerror: b");
    }

    #[test]
    fn inconsistent_numbers_do_not_panic() {
        let mut bar = Bar::new("test");
        bar.set(3, 2);
        bar.set(u64::MAX, u64::MAX);
        bar.set(1, u64::MAX);
        bar.set(0, 0);
        bar.finish();
    }
}
