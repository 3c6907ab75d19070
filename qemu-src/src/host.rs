//! `hosts.toml`: how emulators and the program are built for a host on a machine of another architecture.
//!
//! Only names of packages, programs and options; xtask unpacks the packages and calls the programs. Hosts themselves are
//! rows of qus-core's table.

use qus_core::arch::Host;
use serde::Deserialize;

/// `hosts.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossHosts {
    /// Packages of the host that are linked, with their dependencies; a host may have its own.
    pub base: Vec<String>,
    /// Packages with Rust, in order of preference.
    pub rust: Vec<RustPackages>,
    /// The hosts.
    #[serde(rename = "cross")]
    pub hosts: Vec<CrossHost>,
}

/// Packages with a Rust compiler and its standard library.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RustPackages {
    /// The compiler, for the build machine, with its dependencies.
    pub compiler: String,
    /// Cargo, for the build machine, where rustup does not provide it.
    pub cargo: String,
    /// The standard library, for the host.
    pub library: String,
}

/// A host, and its cross compiler.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossHost {
    /// The host.
    pub host: &'static Host,
    /// Suite of Debian that has the host's packages; the machine's own release if not given.
    pub suite: Option<String>,
    /// Instead of [`CrossHosts::base`].
    pub base: Option<Vec<String>>,
    /// Instead of the libraries in `tools.toml`.
    pub libraries: Option<Vec<String>>,
    /// Packages for the build machine, with their dependencies.
    pub compiler: Vec<String>,
    /// Directory of the compiler's programs below `/usr`.
    #[serde(default = "bin")]
    pub bin: String,
    /// The C compiler and options that it always gets, separated by spaces.
    pub cc: String,
    /// The linker that it calls.
    pub ld: String,
    /// Names of `ar`, `strip` and the like; `*` is replaced by the usual name.
    pub tools: String,
    /// Options for linking.
    #[serde(default)]
    pub link: Vec<String>,
    /// Arguments of QEMU's configure, after those of `configure.toml`.
    #[serde(default)]
    pub configure: Vec<String>,
    /// Rust's target triple.
    pub rust: String,
}

fn bin() -> String {
    "bin".to_owned()
}

impl CrossHosts {
    /// The cross compiler for a host.
    pub fn get(&self, host: &Host) -> Option<&CrossHost> {
        self.hosts.iter().find(|cross| cross.host == host)
    }

    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (index, CrossHost { host, tools, compiler, .. }) in self.hosts.iter().enumerate() {
            if self.hosts[..index].iter().any(|other| other.host == *host) {
                findings.push(format!("host {host}: duplicate"));
            }
            if tools.matches('*').count() != 1 {
                findings.push(format!("host {host}: `tools` needs exactly one `*`"));
            }
            if compiler.is_empty() {
                findings.push(format!("host {host}: no compiler"));
            }
        }
        findings
    }
}

impl CrossHost {
    /// The name of a tool, given its usual name.
    pub fn tool(&self, name: &str) -> String {
        self.tools.replace('*', name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_entries_are_found() {
        let host = |name: &str, tools: &str| {
            format!(
                "[[cross]]\nhost = '{name}'\ncompiler = []\ncc = 'c'\nld = 'l'\ntools = '{tools}'\nrust = 'r'\n"
            )
        };
        let text = format!("base = []\nrust = []\n{}{}", host("s390x", "a-*"), host("s390x", "a-"));
        let hosts: CrossHosts = toml::from_str(&text).unwrap();
        assert_eq!(
            hosts.lint(),
            [
                "host s390x: no compiler",
                "host s390x: duplicate",
                "host s390x: `tools` needs exactly one `*`",
                "host s390x: no compiler"
            ]
        );
        assert_eq!(hosts.get("s390x".parse().unwrap()).unwrap().tool("strip"), "a-strip");
        let error = |text: &str| toml::from_str::<CrossHosts>(text).unwrap_err().to_string();
        assert!(error("base = []\nrust = []\ncross = []\nhots = []").contains("unknown field `hots`"));
        let unknown = format!("base = []\nrust = []\n{}", host("vax", "*"));
        assert!(error(&unknown).contains("unknown host `vax`"));
    }
}
