//! The distribution of this machine, and its package sources.
//!
//! Mirrors are taken from the machine's configuration, as apt reports it. Only the distribution's own suites are used,
//! because third-party sources are often broken and never needed.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};

/// The distribution this machine runs.
pub(crate) struct Distribution {
    /// `ID`: `debian`, `ubuntu`.
    pub(crate) id: String,
    /// `VERSION_CODENAME`: `bookworm`.
    pub(crate) codename: String,
}

/// Source lines of a distribution's suites.
pub(super) struct OwnSuites {
    /// The release and its updates.
    pub(super) all: Vec<String>,
    /// The release without its updates.
    pub(super) release: Vec<String>,
}

impl Distribution {
    /// Reads `/etc/os-release`; `None` if apt is not installed.
    pub(crate) fn detect() -> Result<Option<Self>> {
        if !is_installed("apt-get") || !is_installed("dpkg-deb") {
            return Ok(None);
        }
        let release = os_release()?;
        let field = |name| os_release_field(&release, name);
        // A derivative names the distribution that it is based on, and takes most of its packages from there.
        let codename = ["DEBIAN_CODENAME", "UBUNTU_CODENAME", "VERSION_CODENAME"].into_iter().find_map(field);
        Ok(Some(Self { id: field("ID").unwrap_or_default(), codename: codename.unwrap_or_default() }))
    }

    /// Address, suite and component of the distribution's binary indexes in apt's configuration. apt needs about a
    /// second for this.
    fn indexes(&self) -> Result<Vec<[String; 3]>> {
        let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
        let created_by = "Created-By: Packages";
        let listed = exec::read(cmd!(sh(), "apt-get indextargets --format {format} {created_by}"))?;
        let own = own_indexes(&listed, &self.codename);
        ensure!(!own.is_empty(), "apt has no source of {} {} configured", self.id, self.codename);
        Ok(own)
    }

    /// A source line; `option` is empty or ends in a space.
    fn line(&self, kind: &str, option: &str, [uri, suite, component]: [&str; 3]) -> String {
        let keyring = ["gpg", "pgp"]
            .map(|suffix| format!("/usr/share/keyrings/{}-archive-keyring.{suffix}", self.id))
            .into_iter()
            .find(|path| Path::new(path).exists());
        let signed = keyring.map(|path| format!("signed-by={path} ")).unwrap_or_default();
        format!("{kind} [{option}{signed}] {uri} {suite} {component}")
    }

    /// Source lines for binary packages of the configured suites.
    pub(super) fn own_suites(&self, architectures: &[&str]) -> Result<OwnSuites> {
        let option = arch_option(architectures);
        let line = |[uri, suite, component]: &[String; 3]| self.line("deb", &option, [uri, suite, component]);
        let indexes = self.indexes()?;
        let of_release = release_indexes(&indexes, &self.codename);
        Ok(OwnSuites {
            all: indexes.iter().map(line).collect(),
            release: of_release.into_iter().map(line).collect(),
        })
    }

    /// This distribution's own suites as sources of source packages.
    pub(super) fn own_sources(&self) -> Result<Vec<String>> {
        let line = |[uri, suite, component]: &[String; 3]| self.line("deb-src", "", [uri, suite, component]);
        Ok(self.indexes()?.iter().map(line).collect())
    }

    /// The address of this machine's mirror of Debian.
    ///
    /// # Errors
    /// The distribution is not Debian.
    pub(crate) fn mirror(&self) -> Result<String> {
        let [uri, ..] = self.main_index("packages")?;
        Ok(uri)
    }

    /// The index of the release's main component.
    fn main_index(&self, what: &str) -> Result<[String; 3]> {
        ensure!(self.id == "debian", "this machine runs {}, whose mirror has no Debian {what}", self.id);
        let main = self.indexes()?.into_iter().find(|[_, own, _]| *own == self.codename);
        main.with_context(|| format!("apt has no source of {} configured", self.codename))
    }

    /// A source line for another suite on the machine's mirror.
    ///
    /// # Errors
    /// The distribution is not Debian, so that its mirror does not have the suite.
    pub(crate) fn other_suite(&self, kind: &str, suite: &str, architectures: &[&str]) -> Result<String> {
        let [uri, _, component] = self.main_index(suite)?;
        Ok(self.line(kind, &arch_option(architectures), [&uri, suite, &component]))
    }
}

/// The option that limits a source line to architectures.
fn arch_option(architectures: &[&str]) -> String {
    match architectures {
        [] => String::new(),
        some => format!("arch={} ", some.join(",")),
    }
}

/// The text of `/etc/os-release`.
pub(crate) fn os_release() -> Result<String> {
    let path = "/etc/os-release";
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// A value of `/etc/os-release`, without its quotes.
pub(crate) fn os_release_field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// The distribution's own indexes among the configured ones: `bookworm`, `bookworm-updates`, …. If none has the
/// release's name, as on a machine that uses `unstable`, all of them.
fn own_indexes(listed: &str, codename: &str) -> Vec<[String; 3]> {
    let mut indexes: Vec<[String; 3]> = listed
        .lines()
        .filter_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().ok())
        // Ubuntu's universe contains packages that Debian has in main.
        .filter(|[_, _, component]: &[String; 3]| component == "main" || component == "universe")
        .collect();
    indexes.dedup();
    let is_own = |[_, suite, _]: &[String; 3]| {
        let rest = suite.strip_prefix(codename);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if indexes.iter().any(is_own) {
        indexes.retain(is_own);
    }
    indexes
}

/// The indexes of the release without its updates, in all of its components. If none has the release's name, all of
/// them.
fn release_indexes<'a>(own: &'a [[String; 3]], codename: &str) -> Vec<&'a [String; 3]> {
    let release: Vec<_> = own.iter().filter(|[_, suite, _]| suite == codename).collect();
    if release.is_empty() { own.iter().collect() } else { release }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_all_of_its_components() {
        let listed =
            "http://mirror/ jammy-updates main\nhttp://mirror/ jammy main\nhttp://mirror/ jammy universe\n";
        let release = |listed: &str, codename| {
            let own = own_indexes(listed, codename);
            let of_release = release_indexes(&own, codename);
            of_release.iter().map(|[_, suite, component]| format!("{suite} {component}")).collect::<Vec<_>>()
        };
        assert_eq!(release(listed, "jammy"), ["jammy main", "jammy universe"]);
        assert_eq!(release("http://mirror/ unstable main\n", "forky"), ["unstable main"]);
    }

    #[test]
    fn only_the_distributions_own_suites_are_used() {
        let listed = "http://mirror/debian/ bookworm main\nhttp://mirror/debian/ bookworm main\n\
            http://mirror/debian/ bookworm-updates main\nhttp://other/ nodistro main\n\
            http://other/ cloud-sdk-bookworm main\nhttp://mirror/debian/ bookworm non-free\n\
            http://mirror/debian/ bookwormish main\n";
        let suites: Vec<_> = own_indexes(listed, "bookworm").into_iter().map(|[_, suite, _]| suite).collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(own_indexes("http://mirror/debian/ unstable main\n", "forky").len(), 1);
    }

    #[test]
    fn quotes_of_os_release() {
        let text = "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID='12'\n";
        assert_eq!(os_release_field(text, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(os_release_field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(os_release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_release_field(text, "VERSION"), None);
    }

    #[test]
    fn other_suites_require_debian() {
        let ubuntu = Distribution { id: "ubuntu".into(), codename: "jammy".into() };
        let error = ubuntu.other_suite("deb", "sid", &[]).unwrap_err();
        assert_eq!(error.to_string(), "this machine runs ubuntu, whose mirror has no Debian sid");
        let line = ubuntu.line("deb", "arch=arm64 ", ["http://mirror/", "sid", "main"]);
        assert!(
            line.starts_with("deb [arch=arm64 ") && line.ends_with("] http://mirror/ sid main"),
            "{line}"
        );
    }
}
