//! `hosts.toml`: how emulators and the program are built for a host on a machine of another kind.
//!
//! Only names of packages, programs and options; where they are unpacked and how they are called is xtask's
//! business, and what a host is stands in qus-core's table.

use serde::Deserialize;

/// `hosts.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossHosts {
    /// Packages of the host that are linked, with all that they depend on; a host may have its own.
    pub base: Vec<String>,
    /// Packages with Rust, in order of preference.
    pub rust: Vec<RustPackages>,
    /// The hosts.
    #[serde(rename = "host")]
    pub hosts: Vec<CrossHost>,
}

/// Packages with a Rust compiler and its standard library.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RustPackages {
    /// Of the build machine, with all that it depends on.
    pub compiler: String,
    /// Of the host.
    pub library: String,
}

/// A host, and what builds for it elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossHost {
    /// As in qus-core's table.
    pub name: String,
    /// Suite of Debian that has the host's packages; the distribution's own if not given.
    pub suite: Option<String>,
    /// Instead of [`CrossHosts::base`].
    pub base: Option<Vec<String>>,
    /// Instead of the libraries in `tools.toml`.
    pub libraries: Option<Vec<String>>,
    /// Packages of the build machine, with all that they depend on.
    pub compiler: Vec<String>,
    /// Where the compiler's programs are below `/usr`.
    #[serde(default = "bin")]
    pub bin: String,
    /// The C compiler and options that it always gets, separated by spaces.
    pub cc: String,
    /// The linker that it calls.
    pub ld: String,
    /// How `ar`, `strip` and the like are called: the star stands for the usual name.
    pub tools: String,
    /// Options for linking.
    #[serde(default)]
    pub link: Vec<String>,
    /// Arguments of QEMU's configure, after those of `configure.toml`.
    #[serde(default)]
    pub configure: Vec<String>,
    /// Rust's name of the host.
    pub rust: String,
}

fn bin() -> String {
    "bin".to_owned()
}

impl CrossHosts {
    /// What builds for the host of this name elsewhere.
    pub fn get(&self, name: &str) -> Option<&CrossHost> {
        self.hosts.iter().find(|host| host.name == name)
    }

    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let name = &host.name;
            if self.hosts[..index].iter().any(|other| other.name == *name) {
                findings.push(format!("host {name}: stands twice"));
            }
            if host.tools.matches('*').count() != 1 {
                findings.push(format!("host {name}: `tools` wants one star"));
            }
            if host.compiler.is_empty() {
                findings.push(format!("host {name}: no compiler"));
            }
        }
        findings
    }
}

impl CrossHost {
    /// How a tool is called whose usual name is given.
    pub fn tool(&self, name: &str) -> String {
        self.tools.replace('*', name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_found() {
        let host = |name: &str, tools: &str| {
            format!(
                "[[host]]\nname = '{name}'\ncompiler = []\ncc = 'c'\nld = 'l'\ntools = '{tools}'\nrust = 'r'\n"
            )
        };
        let text = format!("base = []\nrust = []\n{}{}", host("a", "a-*"), host("a", "a-"));
        let hosts: CrossHosts = toml::from_str(&text).unwrap();
        assert_eq!(
            hosts.lint(),
            [
                "host a: no compiler",
                "host a: stands twice",
                "host a: `tools` wants one star",
                "host a: no compiler"
            ]
        );
        assert_eq!(hosts.get("a").unwrap().tool("strip"), "a-strip");
        assert!(toml::from_str::<CrossHosts>("base = []\nrust = []\nhost = []\nhots = []").is_err());
    }
}
