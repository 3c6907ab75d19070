//! The version of a release of qus: QEMU's version, and the number of the release with it.

use std::fmt;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Serialize};

/// The version of a release, as in `10.2.2-1`.
///
/// ```
/// use qus_core::release::ReleaseVersion;
///
/// let [first, second] = ["10.2.2-9", "10.2.2-10"].map(|text| text.parse::<ReleaseVersion>().unwrap());
/// assert!(first < second);
/// assert_eq!(second.to_string(), "10.2.2-10");
/// assert!("10.2.2".parse::<ReleaseVersion>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseVersion {
    /// QEMU's version; 32-bit hosts of the release may have an older one.
    pub qemu: Version,
    /// The number of the release with this version of QEMU, from 1.
    pub revision: u32,
}

/// The error that a text is not a [`ReleaseVersion`].
#[derive(Debug)]
pub struct NoReleaseVersion(String);

impl fmt::Display for NoReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not the version of a release, such as 10.2.2-1", self.0)
    }
}

impl std::error::Error for NoReleaseVersion {}

impl fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.qemu, self.revision)
    }
}

impl FromStr for ReleaseVersion {
    type Err = NoReleaseVersion;

    fn from_str(text: &str) -> Result<Self, NoReleaseVersion> {
        let parse = || {
            let (qemu, revision) = text.rsplit_once('-')?;
            let version = Self { qemu: qemu.parse().ok()?, revision: revision.parse().ok()? };
            // Only one way to write it: neither `010` nor `+1`.
            (version.revision > 0 && version.to_string() == text).then_some(version)
        };
        parse().ok_or_else(|| NoReleaseVersion(text.to_owned()))
    }
}

impl TryFrom<String> for ReleaseVersion {
    type Error = NoReleaseVersion;

    fn try_from(text: String) -> Result<Self, NoReleaseVersion> {
        text.parse()
    }
}

impl From<ReleaseVersion> for String {
    fn from(version: ReleaseVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_are_written_in_one_way() {
        for text in
            ["10.2.2-0", "10.2.2-01", "10.2.2-+1", "10.2.2", "10.2-1", "-1", "10.2.2-", "v10.2.2-1", ""]
        {
            assert!(text.parse::<ReleaseVersion>().is_err(), "{text}");
        }
        let mut sorted = ["10.2.10-1", "10.2.2-2", "10.2.2-10", "9.0.0-1"]
            .map(|text| text.parse::<ReleaseVersion>().unwrap());
        sorted.sort();
        assert_eq!(
            sorted.map(|version| version.to_string()),
            ["9.0.0-1", "10.2.2-2", "10.2.2-10", "10.2.10-1"]
        );
    }
}
