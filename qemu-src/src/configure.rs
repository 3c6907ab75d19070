//! `configure.toml`: arguments of QEMU's configure.

use qus_core::arch::Host;
use qus_core::bundle::Profile;
use semver::{Version, VersionReq};
use serde::Deserialize;

/// `configure.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// The flags, in order.
    #[serde(rename = "flag")]
    pub flags: Vec<Flag>,
}

/// An argument of QEMU's configure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    /// The argument.
    pub arg: String,
    /// Why it is there.
    pub reason: String,
    /// Versions that it applies to; all if not given.
    #[serde(default)]
    pub versions: VersionReq,
    /// Hosts that it applies to; all if not given.
    pub hosts: Option<Vec<&'static Host>>,
    /// Profiles that it applies to; all if not given.
    pub profiles: Option<Vec<Profile>>,
}

impl Configure {
    /// The arguments for one build, in order.
    pub fn args(&self, version: &Version, host: &Host, profile: Profile) -> Vec<&str> {
        self.flags
            .iter()
            .filter(|flag| flag.versions.matches(version))
            .filter(|flag| flag.hosts.as_ref().is_none_or(|hosts| hosts.contains(&host)))
            .filter(|flag| flag.profiles.as_ref().is_none_or(|profiles| profiles.contains(&profile)))
            .map(|flag| flag.arg.as_str())
            .collect()
    }

    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for flag in &self.flags {
            if !flag.arg.starts_with("--") {
                findings.push(format!("{}: not a flag", flag.arg));
            }
            if flag.reason.is_empty() {
                findings.push(format!("{}: no reason", flag.arg));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_their_conditions() {
        let configure: Configure = toml::from_str(
            r#"
            flag = [
                { arg = "--all", reason = "r" },
                { arg = "--new", reason = "r", versions = ">=10.2" },
                { arg = "--here", reason = "r", hosts = ["amd64"] },
                { arg = "--fast", reason = "r", profiles = ["release"] },
            ]"#,
        )
        .unwrap();
        let args = |version: &str, host: &str, profile| {
            let host: &Host = host.parse().unwrap();
            configure.args(&version.parse().unwrap(), host, profile)
        };
        assert_eq!(args("10.2.2", "amd64", Profile::Release), ["--all", "--new", "--here", "--fast"]);
        assert_eq!(args("10.0.13", "s390x", Profile::Dev), ["--all"]);
    }

    #[test]
    fn a_misspelt_key_or_host_is_an_error() {
        for (text, expected) in [
            (r#"flag = [{ arg = "--x", reasn = "r" }]"#, "reasn"),
            (r#"flag = [{ arg = "--x", reason = "r", hosts = ["amd46"] }]"#, "unknown host `amd46`"),
            (r#"flag = [{ arg = "--x", reason = "r", profiles = ["fast"] }]"#, "unknown variant `fast`"),
        ] {
            let error = toml::from_str::<Configure>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
