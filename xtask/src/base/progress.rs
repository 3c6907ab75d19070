//! Prints progress, messages and errors; the only module that uses indicatif.
//!
//! Progress and messages go to stderr, data to stdout. On a terminal, each long step shows a line that moves: a spinner, the
//! time that it has taken, and how far it is if that is known. Otherwise it prints a few plain lines, which suit a CI log.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use qus_core::hint;
use qus_core::terminal::{self, decorate};
use qus_core::text::{Show, lines};

/// All progress bars; hidden if stderr is not a terminal that can draw them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The least time between two lines of a step in a log.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The number of parts from which only the percentage is shown.
const MANY: u64 = 100_000;

/// Prints a line to stderr.
pub(crate) fn say(line: impl Display) {
    write(&format!("{line}\n"));
}

/// Prints an error, its causes and its hint to stderr.
pub(crate) fn fail(error: &anyhow::Error) {
    write(&hint::render(error));
}

/// Writes text to stderr, above the progress bars. A write error is ignored, because it must not abort the work.
pub(crate) fn write(text: &str) {
    write_then(text, || {});
}

/// Prints the last line of a process to stderr, and calls `end`, which ends the process: no progress bar is drawn again.
pub(crate) fn say_last(line: impl Display, end: impl FnOnce()) {
    write_then(&format!("{line}\n"), end);
}

fn write_then(text: &str, then: impl FnOnce()) {
    let stderr = io::stderr();
    let text = decorate(&lines(text), &stderr);
    BARS.suspend(|| {
        let _ = (&stderr).write_all(text.as_bytes());
        then();
    });
}

/// Escapes control characters and newlines, for paths and names in a message.
pub(crate) fn one_line(text: impl Display) -> String {
    text.to_string().shown().to_string()
}

/// The progress of a long step. A step that is dropped is no longer shown; one that is finished prints a line.
pub(crate) struct Bar {
    what: String,
    start: Instant,
    /// The progress bar; `None` if bars are hidden.
    drawn: Option<ProgressBar>,
    /// The first known progress, from which the remaining time is estimated: a resumed download does not start at 0.
    first: Option<(Instant, u64)>,
    /// The percentage at which the next plain line is printed, and the time of the last one.
    next_line: u64,
    last_line: Instant,
}

impl Bar {
    /// Starts a step.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let bar = Self::short(what);
        if bar.drawn.is_none() {
            say(format_args!("{} …", bar.what));
        }
        bar
    }

    /// Starts a step that is short on most machines, and is not worth a line in a log.
    pub(crate) fn short(what: impl Into<String>) -> Self {
        let what = one_line(what.into());
        let drawn = (!BARS.is_hidden()).then(|| {
            let bar = BARS.add(ProgressBar::no_length().with_message(what.clone()));
            bar.set_style(style("{spinner} {wide_msg} {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let start = Instant::now();
        Self { what, start, drawn, first: None, next_line: 10, last_line: start }
    }

    /// Shows what the step is doing, on a terminal only.
    pub(crate) fn detail(&self, detail: &str) {
        if let (Some(bar), false) = (&self.drawn, detail.trim().is_empty()) {
            bar.set_message(format!("{}: {}", self.what, one_line(detail.trim())));
        }
    }

    /// Updates the progress of a step whose parts take about the same time.
    pub(crate) fn set(&mut self, done: u64, all: u64) {
        let (since, before) = *self.first.get_or_insert((self.start, if done == 1 { 0 } else { done }));
        let left = match done.saturating_sub(before) {
            new if new > 0 && since.elapsed() >= Duration::from_secs(2) => {
                let seconds = since.elapsed().as_secs_f64() * all.saturating_sub(done) as f64 / new as f64;
                Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
            }
            _ => None,
        };
        self.set_with(done, all, left);
    }

    /// Updates the progress of a step whose remaining time is estimated elsewhere.
    pub(crate) fn set_with(&mut self, done: u64, all: u64, left: Option<Duration>) {
        if let Some(bar) = &self.drawn {
            if bar.length().is_none() {
                let wide = terminal::width(io::stderr()).is_some_and(|width| width >= 70);
                let graph = if wide { " [{bar:20}]" } else { "" };
                // Bytes, which nobody wants to count.
                let count = if all >= MANY { "{percent} %" } else { "{pos}/{len}" };
                bar.set_style(style(&format!(
                    "{{spinner}} {{wide_msg}}{graph} {count} {{elapsed}}{{prefix}}"
                )));
            }
            bar.set_length(all);
            bar.set_position(done);
            bar.set_prefix(left.map(|left| format!(", {:#} left", HumanDuration(left))).unwrap_or_default());
            return;
        }
        let percent = done.saturating_mul(100) / all.max(1);
        if percent >= self.next_line && self.last_line.elapsed() >= LINE_INTERVAL {
            let left = left.map(|left| format!(", about {} left", HumanDuration(left))).unwrap_or_default();
            let count = if all >= MANY { String::new() } else { format!(" ({done}/{all})") };
            say(format_args!("  {percent:3} %{count}{left}"));
            self.next_line = percent / 10 * 10 + 10;
            self.last_line = Instant::now();
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
            BARS.remove(bar);
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
