//! A handler's rule: which files it is for, and how their interpreter is called. Written as, and read from, the line that
//! the kernel's `register` and the files of `binfmt.d` have.
//!
//! The form is the kernel's, `Documentation/admin-guide/binfmt-misc.rst` and `fs/binfmt_misc.c`. A rule
//! that the kernel would misread is refused before it is written: names that are files of the
//! file system itself or hold a separator, paths with a newline, lines that are too long.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::flags::{Flags, UnknownFlag};
use super::magic::Magic;
use crate::text::hex;

/// Longest line that the kernel accepts, in bytes (`MAX_REGISTER_LENGTH`).
pub const MAX_LINE: usize = 1920;

/// Longest name of a file, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// How many of a file's first bytes the kernel compares (`BINPRM_BUF_SIZE`).
const MAX_HEADER: usize = 256;

/// Separators in the order in which they are tried: the usual ones, then those that no path has.
const SEPARATORS: &[u8] = b":|,;!#%&@^~=+*?<>\x01\x02\x03\x04\x05\x06\x07";

/// What a handler is registered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The handler's name: a file below the mount point.
    pub name: OsString,
    /// Which files it is for.
    pub files: Files,
    /// The program that is called with the file.
    pub interpreter: PathBuf,
    /// How it is called.
    pub flags: Flags,
}

/// Which files a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Those with these bytes at an offset.
    Magic(usize, Magic),
    /// Those whose name ends in a dot and this.
    Extension(OsString),
}

/// Why the kernel would refuse or misread a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadRule {
    /// A handler cannot have this name.
    Name(OsString, &'static str),
    /// The interpreter's path cannot be written in a rule, or would not be found.
    Interpreter(PathBuf, &'static str),
    /// The extension is empty or has a slash or a newline.
    Extension(OsString),
    /// Magic is empty, differs in length from its mask, or is outside the bytes that are compared.
    Magic,
    /// The line has this many bytes, more than [`MAX_LINE`].
    TooLong(usize),
    /// Every separator occurs in the rule.
    NoSeparator,
    /// A letter that is no flag.
    Flag(UnknownFlag),
    /// A line that is not a rule: what is wrong with it.
    Line(&'static str),
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, why) => write!(f, "a handler cannot be called {name:?}: {why}"),
            Self::Interpreter(path, why) => write!(f, "the interpreter cannot be {path:?}: {why}"),
            Self::Extension(extension) => write!(f, "{extension:?} is not a file's extension"),
            Self::Magic => write!(
                f,
                "magic must be within the first {MAX_HEADER} bytes, as long as its mask, and not empty"
            ),
            Self::TooLong(len) => {
                write!(f, "the rule has {len} bytes, and the kernel reads {MAX_LINE}: use a shorter path")
            }
            Self::NoSeparator => f.write_str("every separator occurs in the name or the path"),
            Self::Flag(unknown) => unknown.fmt(f),
            Self::Line(why) => write!(f, "not a rule: {why}"),
        }
    }
}

impl std::error::Error for BadRule {}

impl Rule {
    /// The line to be written to `register`, without a newline.
    ///
    /// # Errors
    /// See [`BadRule`].
    pub fn line(&self) -> Result<Vec<u8>, BadRule> {
        check_name(&self.name)?;
        self.check_interpreter()?;
        let flags = self.flags.to_string();
        let (kind, offset, magic, mask) = match &self.files {
            Files::Magic(offset, magic) => {
                let len = magic.magic.len();
                if len == 0 || magic.mask.len() != len || offset.saturating_add(len) > MAX_HEADER {
                    return Err(BadRule::Magic);
                }
                (&b"M"[..], offset.to_string(), escape(&magic.magic), escape(&magic.mask))
            }
            Files::Extension(extension) => {
                let bytes = extension.as_bytes();
                if bytes.is_empty() || bytes.iter().any(|byte| b"/\n\0".contains(byte)) {
                    return Err(BadRule::Extension(extension.clone()));
                }
                (&b"E"[..], String::new(), bytes.to_vec(), Vec::new())
            }
        };
        let fields: [&[u8]; 7] = [
            self.name.as_bytes(),
            kind,
            offset.as_bytes(),
            &magic,
            &mask,
            self.interpreter.as_os_str().as_bytes(),
            flags.as_bytes(),
        ];
        let free = |separator: &&u8| !fields.iter().any(|field| field.contains(separator));
        let separator = *SEPARATORS.iter().find(free).ok_or(BadRule::NoSeparator)?;
        let mut line = Vec::new();
        for field in fields {
            line.push(separator);
            line.extend(field);
        }
        if line.len() > MAX_LINE { Err(BadRule::TooLong(line.len())) } else { Ok(line) }
    }

    fn check_interpreter(&self) -> Result<(), BadRule> {
        let bad = |why| Err(BadRule::Interpreter(self.interpreter.clone(), why));
        let bytes = self.interpreter.as_os_str().as_bytes();
        if !self.interpreter.is_absolute() {
            return bad("the path is not absolute");
        }
        if bytes.iter().any(|byte| b"\n\0".contains(byte)) {
            return bad("it has a newline or a zero");
        }
        Ok(())
    }

    /// Reads a line of a `binfmt.d` file or one that could be written to `register`.
    ///
    /// # Errors
    /// See [`BadRule`].
    pub fn parse(line: &[u8]) -> Result<Self, BadRule> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (separator, rest) = line.split_first().ok_or(BadRule::Line("it is empty"))?;
        let fields: Vec<&[u8]> = rest.split(|byte| byte == separator).collect();
        // systemd and people end a line with a separator, or leave the flags out.
        let [name, kind, offset, magic, mask, interpreter, flags @ ..] = &*fields else {
            return Err(BadRule::Line("it has fewer than six fields"));
        };
        let flags = match flags {
            [] | [[]] => "",
            [flags] | [flags, []] => {
                std::str::from_utf8(flags).map_err(|_| BadRule::Line("its flags are not letters"))?
            }
            _ => return Err(BadRule::Line("it has more than seven fields")),
        };
        let files = match *kind {
            b"M" => {
                let offset = if offset.is_empty() { b"0" } else { *offset };
                let offset = std::str::from_utf8(offset).ok().and_then(|offset| offset.parse().ok());
                let magic = unescape(magic);
                let mask = if mask.is_empty() { vec![0xff; magic.len()] } else { unescape(mask) };
                Files::Magic(
                    offset.ok_or(BadRule::Line("its offset is not a number"))?,
                    Magic { magic, mask },
                )
            }
            b"E" => Files::Extension(OsString::from_vec(magic.to_vec())),
            _ => return Err(BadRule::Line("it is neither for a magic (M) nor for an extension (E)")),
        };
        let rule = Self {
            name: OsString::from_vec(name.to_vec()),
            files,
            interpreter: OsString::from_vec(interpreter.to_vec()).into(),
            flags: flags.parse().map_err(BadRule::Flag)?,
        };
        rule.line().map(|_| rule)
    }

    /// Whether it is for a file that begins with these bytes; by extension it never is.
    pub fn matches(&self, header: &[u8]) -> bool {
        match &self.files {
            Files::Magic(offset, magic) => header.get(*offset..).is_some_and(|rest| magic.matches(rest)),
            Files::Extension(_) => false,
        }
    }

    /// The fields in which another rule differs, with its value and ours.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut compare = |field, there: String, here: String| {
            if there != here {
                differences.push(Difference { field, registered: there, wanted: here });
            }
        };
        let path = |rule: &Self| rule.interpreter.display().to_string();
        compare("interpreter", path(other), path(self));
        compare("flags", other.flags.to_string(), self.flags.to_string());
        let (registered, wanted) = (other.files.split_build(), self.files.split_build());
        compare("emulator's hash", registered.0, wanted.0);
        compare("files", registered.1, wanted.1);
        differences
    }
}

/// A field in which a registered handler differs from what was requested.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// `interpreter`, `flags`, `emulator's hash`, `files`, or `enabled`.
    pub field: &'static str,
    /// What the kernel has.
    pub registered: String,
    /// What was requested.
    pub wanted: String,
}

impl Files {
    /// The emulator's build, or `unknown`, and everything else.
    fn split_build(&self) -> (String, String) {
        let mut rest = self.clone();
        let build = match &mut rest {
            Self::Magic(_, magic) => magic.take_build(),
            Self::Extension(_) => None,
        };
        (build.map_or("unknown".to_owned(), |build| hex(&build)), rest.to_string())
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(offset, magic) => {
                write!(f, "magic {} mask {} at {offset}", hex(&magic.magic), hex(&magic.mask))
            }
            Self::Extension(extension) => write!(f, "extension .{}", extension.to_string_lossy()),
        }
    }
}

/// Checks that a handler may be called this.
///
/// # Errors
/// [`BadRule::Name`].
pub fn check_name(name: &OsStr) -> Result<(), BadRule> {
    let bytes = name.as_bytes();
    let why = match bytes {
        b"" => "it is empty",
        b"." | b".." => "it means a directory",
        b"register" | b"status" => "the kernel's own file has that name",
        _ if bytes.len() > MAX_NAME => "it has more than 255 bytes",
        _ if bytes.contains(&b'/') => "it has a slash",
        _ if bytes.contains(&b':') => "it has a colon",
        _ if bytes.iter().any(|byte| b"\n\0".contains(byte)) => "it has a newline or a zero",
        _ => return Ok(()),
    };
    Err(BadRule::Name(name.to_owned(), why))
}

/// Every byte as `\xNN`, so that none can be mistaken for a separator.
pub fn escape(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).collect()
}

/// Undoes `\xNN`, as the kernel does; everything else is unchanged.
fn unescape(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&digit| char::from(digit).to_digit(16));
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, text.get(at + 1), digit(at + 2), digit(at + 3)) {
            (b'\\', Some(b'x'), Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 4;
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
