//! A registered handler, read from the text that the kernel shows for it.
//!
//! `entry_status` in `fs/binfmt_misc.c` writes the text. Lines that a later kernel may add are kept and shown. A text
//! without an interpreter, or without a magic or an extension, is refused.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::flags::Flags;
use super::magic::Magic;
use super::rule::{Files, Rule};
use crate::text::hex;

/// A registered handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whether the kernel uses it.
    pub enabled: bool,
    /// What it was registered with.
    pub rule: Rule,
    /// Lines that this version does not know.
    pub unknown: Vec<OsString>,
}

/// Why a text does not describe a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEntry(&'static str);

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadEntry {}

impl Entry {
    /// Reads the text of a handler.
    ///
    /// # Errors
    /// The text lacks a field that every handler has, or has one that cannot be read.
    pub fn parse(name: &OsStr, text: &[u8]) -> Result<Self, BadEntry> {
        let mut lines = text.split(|&byte| byte == b'\n');
        let enabled = match lines.next() {
            Some(b"enabled") => true,
            Some(b"disabled") => false,
            _ => return Err(BadEntry("it is neither enabled nor disabled")),
        };
        let (mut interpreter, mut extension) = (None, None);
        let (mut magic, mut mask, mut offset) = (None, None, 0);
        let (mut flags, mut unknown) = (Flags::default(), Vec::new());
        for line in lines.filter(|line| !line.is_empty()) {
            let space = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
            let (key, value) = (&line[..space], line.get(space + 1..).unwrap_or_default());
            match key {
                b"interpreter" => interpreter = Some(PathBuf::from(OsString::from_vec(value.to_vec()))),
                b"extension" => {
                    extension = Some(OsString::from_vec(value.strip_prefix(b".").unwrap_or(value).to_vec()));
                }
                b"magic" => magic = Some(unhex(value)?),
                b"mask" => mask = Some(unhex(value)?),
                b"offset" => {
                    let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    offset = number.ok_or(BadEntry("its offset is not a number"))?;
                }
                b"flags:" => {
                    let known: Vec<bool> = value.iter().map(|&letter| flags.set(letter)).collect();
                    if known.contains(&false) {
                        unknown.push(OsString::from_vec(line.to_vec()));
                    }
                }
                _ => unknown.push(OsString::from_vec(line.to_vec())),
            }
        }
        let files = match (magic, extension) {
            (Some(magic), None) => {
                let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
                if magic.is_empty() || mask.len() != magic.len() {
                    return Err(BadEntry("its magic and mask differ in length"));
                }
                Files::Magic(offset, Magic { magic, mask })
            }
            (None, Some(extension)) => Files::Extension(extension),
            _ => return Err(BadEntry("it needs either a magic or an extension")),
        };
        let interpreter = interpreter.ok_or(BadEntry("it has no interpreter"))?;
        Ok(Self { enabled, rule: Rule { name: name.to_owned(), files, interpreter, flags }, unknown })
    }

    /// Whether qus has registered it, on this host or in any container: it has a name like ours, and our mark in the part
    /// of its magic that is not compared.
    pub fn is_ours(&self) -> bool {
        let marked = match &self.rule.files {
            Files::Magic(0, magic) => magic.is_marked(),
            _ => false,
        };
        marked && self.rule.name.as_bytes().starts_with(b"qemu-")
    }
}

/// The text that the kernel shows for an enabled handler. For tests.
#[doc(hidden)]
pub fn text(rule: &Rule) -> String {
    let files = match &rule.files {
        Files::Magic(offset, magic) => {
            format!("offset {offset}\nmagic {}\nmask {}\n", hex(&magic.magic), hex(&magic.mask))
        }
        Files::Extension(extension) => format!("extension .{}\n", extension.to_string_lossy()),
    };
    format!("enabled\ninterpreter {}\nflags: {}\n{files}", rule.interpreter.display(), rule.flags)
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, BadEntry> {
    const BAD: BadEntry = BadEntry("its magic or mask is not hexadecimal");
    let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(BAD);
    if text.len() % 2 == 1 {
        return Err(BAD);
    }
    text.chunks_exact(2).map(|pair| Ok((digit(&pair[0])? << 4 | digit(&pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbtest::arbtest;

    fn parse(text: &str) -> Result<Entry, BadEntry> {
        Entry::parse(OsStr::new("qemu-arm"), text.as_bytes())
    }

    #[test]
    fn a_rule_comes_back() {
        for magic in Magic::of("arm".parse().unwrap(), [0; 4]) {
            let rule = Rule {
                name: "qemu-arm".into(),
                files: Files::Magic(0, magic),
                interpreter: "/with space:colon".into(),
                flags: Flags::DEFAULT,
            };
            let entry = parse(&text(&rule)).unwrap();
            assert!(entry.enabled && entry.is_ours() && entry.unknown.is_empty());
            assert_eq!(entry.rule, rule);
        }
    }

    #[test]
    fn others_are_read_and_not_taken_for_ours() {
        let entry = parse("disabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n").unwrap();
        assert!(!entry.enabled && !entry.is_ours());
        assert_eq!(entry.rule.files.to_string(), "magic 4d5a mask ffff at 0");
        let entry = parse("enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n").unwrap();
        assert_eq!(entry.rule.files, Files::Extension("jar".into()));
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let entry = parse("enabled\ninterpreter /i\nflags: PZ\noffset 0\nmagic 4d\ncolour red\n").unwrap();
        assert!(entry.rule.flags.preserve_argv0);
        assert_eq!(entry.unknown, ["flags: PZ", "colour red"]);
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            "",
            "enabled\n",
            "maybe\ninterpreter /i\nmagic 4d\n",
            "enabled\ninterpreter /i\n",
            "enabled\nmagic 4d\n",
            "enabled\ninterpreter /i\nmagic 4\n",
            "enabled\ninterpreter /i\nmagic xx\n",
            "enabled\ninterpreter /i\nmagic 4d\nmask 4d4d\n",
            "enabled\ninterpreter /i\nmagic 4d\noffset x\n",
            "enabled\ninterpreter /i\nmagic 4d\nextension .x\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn arbitrary_texts_never_panic() {
        arbtest(|u| {
            let text: Vec<u8> = u.arbitrary()?;
            let _ = Entry::parse(OsStr::new("x"), &[b"enabled\n", &*text].concat());
            Ok(())
        });
    }
}
