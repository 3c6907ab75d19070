//! Text for people on a terminal: colours, and no line longer than the terminal is wide.
//!
//! Pipes and files get the text as it is, unless `CLICOLOR_FORCE` asks for colours.
//!
//! ```
//! use qus_core::terminal::decorate;
//!
//! let file = std::fs::File::create("/dev/null")?;
//! assert_eq!(decorate("error: not found\n", &file), "error: not found\n");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use terminal_size::{Height, Width, terminal_size_of};

/// What a line begins with, and the parameters of its colour (ECMA-48, SGR).
const LABELS: [(&str, &str); 7] = [
    ("error:", "1;31"),
    ("warning:", "1;33"),
    ("note:", "1;36"),
    ("hint:", "1;32"),
    ("tip:", "1;32"),
    ("passed  ", "32"),
    ("skipped  ", "33"),
];

/// Results that are coloured wherever they are.
const RESULTS: [(&str, &str); 2] = [("FAILED", "1;31"), ("OK", "1;32")];

/// Text, in which nothing is left that a terminal executes, as it is written to a stream.
pub fn decorate(text: &str, stream: impl AsFd) -> String {
    let is_terminal = stream.as_fd().is_terminal();
    let wrapped = width(stream).map_or_else(|| text.to_owned(), |width| wrap(text, width));
    if has_colours(is_terminal, |name| std::env::var_os(name)) { colour(&wrapped) } else { wrapped }
}

/// The width of a terminal in columns; `None` if the stream is none, or its terminal does not know.
pub fn width(stream: impl AsFd) -> Option<usize> {
    let (columns, _) = size(stream)?;
    (columns > 0).then(|| columns.into())
}

/// The columns and rows of a terminal; `None` if the stream is none.
pub fn size(stream: impl AsFd) -> Option<(u16, u16)> {
    terminal_size_of(stream).map(|(Width(columns), Height(rows))| (columns, rows))
}

/// <https://no-color.org> and <https://bixense.com/clicolors>.
fn has_colours(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let value = |name| variable(name).filter(|value| !value.is_empty());
    if value("NO_COLOR").is_some() {
        return false;
    }
    let is_on = |value: OsString| value != "0";
    value("CLICOLOR_FORCE").is_some_and(is_on)
        || is_terminal
            && value("CLICOLOR").is_none_or(is_on)
            && value("TERM").is_some_and(|terminal| terminal != "dumb")
}

fn label_of(line: &str) -> Option<&'static (&'static str, &'static str)> {
    LABELS.iter().find(|(label, _)| line.starts_with(label))
}

fn colour(text: &str) -> String {
    let mut coloured = String::new();
    for line in text.split_inclusive('\n') {
        let body = line.trim_start();
        if let Some((label, colour)) = label_of(body) {
            let (indent, rest) = (&line[..line.len() - body.len()], &body[label.len()..]);
            coloured += &format!("{indent}\x1b[{colour}m{label}\x1b[0m{rest}");
        } else {
            for word in line.split_inclusive([' ', '\n']) {
                match RESULTS.iter().find(|(result, _)| word.trim_end() == *result) {
                    Some((result, colour)) => {
                        coloured += &format!("\x1b[{colour}m{result}\x1b[0m{}", &word[result.len()..]);
                    }
                    None => coloured += word,
                }
            }
        }
    }
    coloured
}

/// Breaks lines at spaces, but not in commands, which are in backticks and copied in one piece.
fn wrap(text: &str, width: usize) -> String {
    text.split_inclusive('\n').map(|line| wrap_line(line, width)).collect()
}

fn wrap_line(line: &str, width: usize) -> String {
    if line.trim_end().chars().count() <= width {
        return line.to_owned();
    }
    let indent = continuation(line).min(width / 2);
    let mut wrapped = String::new();
    let mut column = 0;
    for word in words(line) {
        let text = word.trim_start_matches(' ');
        if column > indent && column + word.trim_end().chars().count() > width {
            wrapped += &format!("\n{:indent$}{text}", "");
            column = indent + text.chars().count();
        } else {
            wrapped += word;
            column += word.chars().count();
        }
    }
    wrapped
}

/// Where the lines after the first begin: at the second column, if there are columns; after a label a little further than
/// the line; else where the line begins.
fn continuation(line: &str) -> usize {
    let body = line.trim_start();
    let start = line.len() - body.len();
    match body.find("  ") {
        Some(gap) => start + body.len() - body[gap..].trim_start().len(),
        None if label_of(body).is_some() => start + 2,
        None => start,
    }
}

/// Words with the spaces before them; together, they are the line.
fn words(line: &str) -> Vec<&str> {
    let has_commands = line.matches('`').count() % 2 == 0;
    let (mut words, mut start, mut in_command, mut last) = (Vec::new(), 0, false, ' ');
    for (at, c) in line.char_indices() {
        in_command ^= c == '`' && has_commands;
        if c == ' ' && last != ' ' && !in_command {
            words.push(&line[start..at]);
            start = at;
        }
        last = c;
    }
    words.push(&line[start..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_decide_about_colours() {
        let with = |is_terminal, set: &[(&str, &str)]| {
            let value =
                |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
            has_colours(is_terminal, value)
        };
        assert!(with(true, &[("TERM", "xterm"), ("NO_COLOR", "")]));
        assert!(with(false, &[("CLICOLOR_FORCE", "1")]));
        for (is_terminal, set) in [
            (false, &[("TERM", "xterm")][..]),
            (false, &[("CLICOLOR_FORCE", "0")]),
            (true, &[]),
            (true, &[("TERM", "dumb")]),
            (true, &[("TERM", "xterm"), ("CLICOLOR", "0")]),
            (true, &[("TERM", "xterm"), ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]),
        ] {
            assert!(!with(is_terminal, set), "{is_terminal} {set:?}");
        }
    }

    #[test]
    fn labels_and_results_are_coloured() {
        assert_eq!(
            colour("  hint: do it\narm  FAILED  why\nFAILED-to\npassed  a\npassed on\n"),
            "  \x1b[1;32mhint:\x1b[0m do it\narm  \x1b[1;31mFAILED\x1b[0m  why\nFAILED-to\n\
             \x1b[32mpassed  \x1b[0ma\npassed on\n"
        );
    }

    #[test]
    fn lines_are_broken_at_spaces_outside_of_commands() {
        assert_eq!(wrap("short\n", 20), "short\n");
        assert_eq!(wrap("error: one two three four\n", 14), "error: one two\n  three four\n");
        assert_eq!(wrap("arm     FAILED  one two\n", 20), "arm     FAILED  one\n        two\n");
        assert_eq!(wrap("hint: run `a b c d e f` now\n", 14), "hint: run\n  `a b c d e f`\n  now\n");
        assert_eq!(wrap("a ` b c\n", 4), "a `\nb c\n");
        assert_eq!(wrap("  --long <PATH>  one two\n", 20), "  --long <PATH>  one\n          two\n");
        assert_eq!(wrap("/a/long/path/alone\n", 10), "/a/long/path/alone\n");
    }

    #[test]
    fn nothing_is_lost_at_any_width() {
        let line = "note: aß of `this  user` namespace   é\n";
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for width in 1..50 {
            assert_eq!(plain(&wrap(line, width)), plain(line), "{width}");
        }
    }
}
