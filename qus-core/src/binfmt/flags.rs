//! How the kernel calls an interpreter: the letters at the end of a rule.

use std::fmt;
use std::str::FromStr;

/// How the interpreter is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// `P`: it gets the original `argv[0]` too. QEMU detects this since Linux 5.12.
    pub preserve_argv0: bool,
    /// `O`: it gets the program as an open file, so that it can run programs that the user cannot read.
    pub open_binary: bool,
    /// `C`: it runs with the credentials of the file: setuid programs work. The kernel sets `O` with it.
    pub credentials: bool,
    /// `F`: the kernel opens it at registration, so that it works in every container (Linux 4.8).
    pub fix_binary: bool,
}

impl Flags {
    /// The flags of emulators.
    pub const DEFAULT: Self =
        Self { preserve_argv0: true, open_binary: true, credentials: true, fix_binary: true };

    /// The flags of emulators if setuid programs should run as the user who starts them.
    pub const NO_CREDENTIALS: Self = Self { open_binary: false, credentials: false, ..Self::DEFAULT };

    /// The flags in words, for people.
    pub fn in_words(self) -> String {
        let words = [
            (self.preserve_argv0, "keeps argv[0]"),
            (self.open_binary, "opens the program"),
            (self.credentials, "honours setuid"),
            (self.fix_binary, "works in containers"),
        ];
        let words: Vec<_> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }

    /// Sets the flag of a letter; false if the letter is unknown.
    pub(super) fn set(&mut self, letter: u8) -> bool {
        match letter {
            b'P' => self.preserve_argv0 = true,
            b'O' => self.open_binary = true,
            b'C' => (self.credentials, self.open_binary) = (true, true),
            b'F' => self.fix_binary = true,
            _ => return false,
        }
        true
    }
}

impl fmt::Display for Flags {
    /// In the kernel's order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (self.preserve_argv0, 'P'),
            (self.open_binary, 'O'),
            (self.credentials, 'C'),
            (self.fix_binary, 'F'),
        ];
        f.pad(&letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect::<String>())
    }
}

/// A letter that is no flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFlag(pub char);

impl fmt::Display for UnknownFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown flag `{}`; flags are P, O, C and F", self.0)
    }
}

impl std::error::Error for UnknownFlag {}

impl FromStr for Flags {
    type Err = UnknownFlag;

    fn from_str(letters: &str) -> Result<Self, UnknownFlag> {
        let mut flags = Self::default();
        for letter in letters.bytes() {
            if !flags.set(letter) {
                return Err(UnknownFlag(letter.into()));
            }
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_words() {
        assert_eq!("FCP".parse::<Flags>(), Ok(Flags::DEFAULT), "C brings O with it");
        assert_eq!(Flags::DEFAULT.to_string(), "POCF");
        assert_eq!(Flags::NO_CREDENTIALS.to_string(), "PF");
        assert_eq!("PX".parse::<Flags>(), Err(UnknownFlag('X')));
        assert_eq!(Flags::NO_CREDENTIALS.in_words(), "keeps argv[0], works in containers");
        assert_eq!(Flags::default().in_words(), "none");
    }
}
