//! Makes names, paths and other text of unknown origin safe to print: a terminal executes nothing in it.
//!
//! What is printed as JSON, or is read by another program, is not changed.
//!
//! ```
//! use qus_core::text::Show;
//!
//! assert_eq!("qemu-arm\x1b[2J".shown().to_string(), r"qemu-arm\u{1b}[2J");
//! ```

use std::borrow::Cow;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::{self, Write};

/// Text on one line, with invisible characters as in a program's source: `\n`, `\u{1b}`.
pub struct Shown<'a>(Cow<'a, str>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_char(f, c))
    }
}

/// Text that can be made safe to print.
pub trait Show {
    /// The text, on one line.
    fn shown(&self) -> Shown<'_>;

    /// The text as a word of a shell, for commands in hints: in quotes if it needs them.
    fn quoted(&self) -> String;
}

impl<T: AsRef<OsStr> + ?Sized> Show for T {
    fn shown(&self) -> Shown<'_> {
        Shown(self.as_ref().to_string_lossy())
    }

    fn quoted(&self) -> String {
        let text = self.shown().to_string();
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
        if !text.is_empty() && text.chars().all(is_plain) { text } else { single_quoted(&text) }
    }
}

/// Text as a word of a shell, always in quotes.
pub fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// An error and its causes on one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line += &format!(": {error}");
        cause = error.source();
    }
    line
}

/// Bytes as hexadecimal, two lower-case digits for each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number of things: `1 handler`, `2 handlers`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A message of several lines, made safe to print; it may have tabs.
pub fn lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = if matches!(c, '\n' | '\t') { shown.write_char(c) } else { write_char(&mut shown, c) };
    }
    shown
}

fn write_char(to: &mut impl Write, c: char) -> fmt::Result {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns { write!(to, "{}", c.escape_default()) } else { to.write_char(c) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_remains_that_a_terminal_executes() {
        let hostile = "a\x1b[2J\x07\r\n\t\u{7f}\u{9b}31m\u{202e}b\u{2066}é";
        let shown = r"a\u{1b}[2J\u{7}\r\n\t\u{7f}\u{9b}31m\u{202e}b\u{2066}é";
        assert_eq!(hostile.shown().to_string(), shown);
        assert_eq!(lines(hostile), shown.replace(r"\n", "\n").replace(r"\t", "\t"));
        assert_eq!(OsStr::new("a b").shown().to_string(), "a b");
    }

    #[test]
    fn causes_follow_the_error() {
        assert_eq!(one_line(anyhow::anyhow!("cause").context("error").as_ref()), "error: cause");
        assert_eq!([count(0, "handler"), count(1, "handler")], ["0 handlers", "1 handler"]);
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_need_it() {
        for (text, word) in [
            ("/usr/bin/qemu-arm", "/usr/bin/qemu-arm"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(x)\x1b", r"'$(x)\u{1b}'"),
        ] {
            assert_eq!(text.quoted(), word);
        }
    }

    #[test]
    fn arbitrary_text_has_no_control_characters() {
        arbtest::arbtest(|u| {
            let text: String = u.arbitrary()?;
            assert!(!text.shown().to_string().contains(char::is_control));
            assert!(!lines(&text).contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            Ok(())
        });
    }
}
