//! How text looks on a terminal: long lines are wrapped at its width, and the words that begin a message are coloured.
//!
//! `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM` are honoured as clap does. Text that goes to a file or a pipe is not
//! wrapped, and has colours only if `CLICOLOR_FORCE` requests them.

use std::os::fd::AsFd;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use terminal_size::terminal_size_of;

/// Narrower terminals are treated as if they had this width.
const MIN_WIDTH: usize = 20;

/// The words that are coloured at the beginning of a line.
const WORDS: [(&str, Style); 8] = [
    ("error:", AnsiColor::Red.on_default().bold()),
    ("FAILED", AnsiColor::Red.on_default().bold()),
    ("warning:", AnsiColor::Yellow.on_default().bold()),
    ("skipped", AnsiColor::Yellow.on_default()),
    ("passed", AnsiColor::Green.on_default()),
    ("hint:", AnsiColor::Cyan.on_default().bold()),
    ("note:", AnsiColor::Cyan.on_default().bold()),
    ("tip:", AnsiColor::Cyan.on_default().bold()),
];

/// The properties of an output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) has_colours: bool,
    /// In columns; `None` if it is not a terminal.
    width: Option<usize>,
}

impl Terminal {
    /// A file or a pipe.
    pub(crate) const NONE: Self = Self { has_colours: false, width: None };

    /// The properties of a stream.
    pub(crate) fn of(stream: &(impl RawStream + AsFd)) -> Self {
        let width = terminal_size_of(stream).map(|(width, _)| usize::from(width.0));
        Self { has_colours: AutoStream::choice(stream) != ColorChoice::Never, width }
    }

    /// Whether the terminal has at least this number of columns.
    pub(crate) fn is_wide(self, columns: usize) -> bool {
        self.width.is_some_and(|width| width >= columns)
    }

    /// Wraps and colours a text. Control characters must have been escaped.
    pub(crate) fn format(self, text: &str) -> String {
        text.split_inclusive('\n').map(|line| self.format_line(line)).collect()
    }

    fn format_line(self, line: &str) -> String {
        let line = match self.width {
            // A width of 0 means that the terminal does not know it.
            Some(width) if width > 0 => wrap(line, width.max(MIN_WIDTH)),
            _ => line.to_owned(),
        };
        if self.has_colours { colour(line) } else { line }
    }
}

/// Breaks a line between words, and indents what follows. A command in backticks is not broken, so that it can be copied;
/// neither is a word that is longer than a line.
fn wrap(line: &str, width: usize) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let (mut wrapped, mut column, mut quoted) = (String::new(), 0, false);
    let mut words = line[indent..].split(' ').peekable();
    let mut piece = " ".repeat(indent);
    while let Some(word) = words.next() {
        piece += word;
        quoted ^= word.matches('`').count() % 2 == 1;
        if quoted && words.peek().is_some() {
            piece.push(' ');
            continue;
        }
        let length = piece.trim_end().chars().count();
        if column > 0 && column + length > width {
            let margin = (indent + 2).min(width / 2);
            wrapped.truncate(wrapped.trim_end_matches(' ').len());
            wrapped = wrapped + "\n" + &" ".repeat(margin);
            column = margin;
            piece = piece.trim_start().to_owned();
        }
        column += piece.chars().count() + 1;
        wrapped += &std::mem::take(&mut piece);
        if words.peek().is_some() {
            wrapped.push(' ');
        }
    }
    wrapped
}

/// Colours the word that begins a line.
fn colour(line: String) -> String {
    let text = line.trim_start();
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
    let first = |(word, style): &(&str, Style)| {
        let rest = text.strip_prefix(word).filter(|rest| ends(rest))?;
        let indent = &line[..line.len() - text.len()];
        Some(format!("{indent}{style}{word}{style:#}{rest}"))
    };
    WORDS.iter().find_map(first).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Terminal = Terminal { has_colours: false, width: Some(40) };

    #[test]
    fn lines_are_wrapped_between_words() {
        let text = "error: no emulators for s390x in target/qus/bundle/s390x\n  caused by: the file does not exist at all\nend";
        let expected = "error: no emulators for s390x in\n  target/qus/bundle/s390x\n  caused by: the file does not exist at\n    all\nend";
        assert_eq!(PLAIN.format(text), expected);
        assert_eq!(Terminal { width: Some(200), ..PLAIN }.format(text), text);
        assert_eq!(Terminal { width: Some(0), ..PLAIN }.format(text), text);
        assert_eq!(Terminal::NONE.format(text), text);
    }

    #[test]
    fn commands_and_long_words_are_not_broken() {
        let hint = "hint: to build them, run `cargo xtask build-qemu --all --host s390x`, and again\n";
        let expected =
            "hint: to build them, run\n  `cargo xtask build-qemu --all --host s390x`,\n  and again\n";
        assert_eq!(PLAIN.format(hint), expected);
        let word = "x".repeat(60);
        assert_eq!(PLAIN.format(&format!("a {word} b")), format!("a\n  {word}\n  b"));
        let unclosed = "a stray ` and many words that would be wrapped otherwise";
        assert!(PLAIN.format(unclosed).ends_with("` and many words that would be wrapped otherwise"));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        arbtest(|text, width| {
            let wrapped = Terminal { has_colours: false, width: Some(width) }.format(text);
            assert!(wrapped.lines().all(|line| line.chars().count() <= width), "{width}: {wrapped}");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&wrapped), words(text));
        });
    }

    /// Texts of short words, and widths.
    fn arbtest(check: impl Fn(&str, usize)) {
        for seed in 1..200_usize {
            let words: Vec<_> = (0..seed).map(|n| "word".repeat(1 + n * seed % 3)).collect();
            check(&(" ".repeat(seed % 7) + &words.join(" ")), 20 + seed % 50);
        }
    }

    #[test]
    fn the_first_word_is_coloured() {
        let colours = Terminal { has_colours: true, width: None };
        assert_eq!(colours.format("error: a\nb"), "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m a\nb");
        assert_eq!(colours.format("  tip: a"), "  \u{1b}[1m\u{1b}[36mtip:\u{1b}[0m a");
        for text in ["passed   level  name", "FAILED: a", "hint: a", "skipped  a", "warning: a", "note: a"] {
            assert!(colours.format(text).starts_with('\u{1b}'), "{text}");
            assert_eq!(PLAIN.format(text), text);
        }
        for text in ["passedness", "an error: a", "", "\n"] {
            assert_eq!(colours.format(text), text);
        }
    }
}
