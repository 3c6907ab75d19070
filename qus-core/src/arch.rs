//! The table of architectures, with a row for each of QEMU's 33 linux-user targets, and a short one of the hosts that qus
//! builds emulators for.
//!
//! Everything that depends on an architecture is derived from it: magic and mask, the matrix of smoke tests, tables in the
//! documents, names on the command line. So a new target is one new row. The table does not state what a machine can run,
//! because that does not follow from the family (some AArch64 processors do not run `arm`); a probe determines it.
//!
//! ```
//! use qus_core::arch::{Arch, Host};
//!
//! let arch: &Arch = "linux/arm64".parse()?;
//! assert_eq!((arch.name, arch.emulator()), ("aarch64", "qemu-aarch64".to_owned()));
//! let host: &Host = "arm32v7".parse().unwrap();
//! assert!(!host.can_emulate(arch), "no 64-bit guests on 32-bit hosts");
//! # Ok::<(), qus_core::arch::UnknownArch>(())
//! ```

mod host;
mod row;
mod table;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::text::Show;

pub use host::{CannotEmulate, HOSTS, Host, UnknownHost};
pub use row::{Arch, Class, Endian, FlagBits};
pub use table::ARCHES;

/// No architecture has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownArch {
    /// The name as given.
    pub given: String,
    /// QEMU's names that come closest, best first; may be empty.
    pub nearest: Vec<&'static str>,
}

impl fmt::Display for UnknownArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown architecture `{}`", self.given.shown())?;
        if !self.nearest.is_empty() {
            write!(f, "; did you mean {}?", self.nearest.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownArch {}

impl UnknownArch {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("`qus probe` lists all architectures".to_owned())
    }
}

impl FromStr for &'static Arch {
    type Err = UnknownArch;

    fn from_str(given: &str) -> Result<Self, UnknownArch> {
        let name = given.strip_prefix("linux/").unwrap_or(given);
        ARCHES
            .iter()
            .find(|arch| arch.spellings().any(|spelling| spelling == name))
            .ok_or_else(|| UnknownArch { given: given.to_owned(), nearest: nearest(name) })
    }
}

/// From any of its spellings.
impl<'de> Deserialize<'de> for &'static Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// At most three names with a spelling that resembles `name`.
fn nearest(name: &str) -> Vec<&'static str> {
    /// Jaro-Winkler similarity (0 to 1) from which a suggestion is more help than noise; the
    /// value clap uses for its own.
    const ALIKE: f64 = 0.7;
    let mut scored: Vec<(f64, &'static str)> = ARCHES
        .iter()
        .map(|arch| {
            let alike = arch.spellings().map(|spelling| strsim::jaro_winkler(name, spelling));
            (alike.fold(0.0, f64::max), arch.name)
        })
        .filter(|(alike, _)| *alike > ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_spelling_names_one_row() {
        let mut seen = BTreeMap::new();
        for arch in &ARCHES {
            for spelling in arch.spellings() {
                let other = seen.insert(spelling, arch.name);
                assert!(other.is_none_or(|other| other == arch.name), "{spelling}: {other:?} and {arch}");
                assert_eq!(spelling.parse(), Ok(arch), "{spelling}");
            }
        }
    }

    #[test]
    fn rows_are_sorted_and_distinct() {
        assert!(ARCHES.is_sorted_by_key(|arch| arch.name));
        for (i, a) in ARCHES.iter().enumerate() {
            for b in &ARCHES[i + 1..] {
                let same_header = a.class == b.class
                    && a.endian == b.endian
                    && a.machines.iter().any(|machine| b.machines.contains(machine));
                assert!(!same_header || a.flags != b.flags, "{a} and {b} read the same header");
            }
        }
    }

    #[test]
    fn spellings_of_the_peers() {
        for (spelling, name) in [
            ("linux/arm64", "aarch64"),
            ("linux/arm/v7", "arm"),
            ("arm32v6", "arm"),
            ("armhf", "arm"),
            ("linux/386", "i386"),
            ("i686", "i386"),
            ("ppc64el", "ppc64le"),
            ("powerpc64le-linux-gnu", "ppc64le"),
            ("mips64le", "mips64el"),
            ("loong64", "loongarch64"),
            ("powerpc", "ppc"),
        ] {
            assert_eq!(spelling.parse::<&Arch>().map(|arch| arch.name), Ok(name));
        }
    }

    #[test]
    fn a_slip_of_the_finger_gets_a_suggestion() {
        let error = "aarch46".parse::<&Arch>().unwrap_err();
        assert_eq!(error.nearest.first(), Some(&"aarch64"));
        assert!(error.to_string().starts_with("unknown architecture `aarch46`; did you mean aarch64"));
        assert_eq!("".parse::<&Arch>().unwrap_err().nearest, Vec::<&str>::new());
        assert!("linux/".parse::<&Arch>().is_err());
    }
}
