//! Packages of a Debian-like distribution without installing anything and without touching the
//! system's package manager: apt runs with a state of its own below the cache.
//!
//! Mirrors come from the machine's own configuration, as apt itself reports it; only the
//! distribution's own suites are used, since other sources are often broken and never needed. apt checks
//! every index's signature and every package's hash.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::cache;
use crate::exec;
use crate::paths::Paths;
use crate::preflight::which;
use crate::progress::say;

/// The distribution this machine runs.
pub(crate) struct Distribution {
    /// `ID`: `debian`, `ubuntu`.
    pub(crate) id: String,
    /// `VERSION_CODENAME`: `bookworm`.
    pub(crate) codename: String,
}

impl Distribution {
    /// Reads `/etc/os-release`; `None` where there is no apt.
    pub(crate) fn detect() -> Result<Option<Self>> {
        if !which("apt-get") || !which("dpkg-deb") {
            return Ok(None);
        }
        let release = os_release()?;
        let field = |name| os_release_field(&release, name);
        // A derivative names what it is made from, and takes most of its packages from there.
        let codename = ["DEBIAN_CODENAME", "UBUNTU_CODENAME", "VERSION_CODENAME"].into_iter().find_map(field);
        Ok(Some(Self { id: field("ID").unwrap_or_default(), codename: codename.unwrap_or_default() }))
    }

    /// Address, suite and component of the distribution's own binary indexes, as apt has them
    /// configured. Takes apt about a second.
    fn indexes(&self, sh: &Shell) -> Result<Vec<[String; 3]>> {
        let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
        let created_by = "Created-By: Packages";
        let listed = exec::read(cmd!(sh, "apt-get indextargets --format {format} {created_by}"))?;
        let own = own_indexes(&listed, &self.codename);
        ensure!(!own.is_empty(), "apt has no source of {} {} configured", self.id, self.codename);
        Ok(own)
    }

    /// Where the package of a program lies when it is unpacked.
    pub(crate) fn folder(&self, paths: &Paths, package: &str) -> PathBuf {
        paths.root_folder(&format!("{}-{package}", self.codename))
    }

    /// The package of a program that is to run here, unpacked into the cache if it is not there.
    pub(crate) fn unpacked(&self, sh: &Shell, paths: &Paths, package: &str) -> Result<PathBuf> {
        let dir = self.folder(paths, package);
        cache::ensure(&dir, |partial| {
            let log = paths.log(package);
            exec::start_log(&log)?;
            let apt = Apt::programs(sh, &paths.apt(package), &log, self, Updates::Wanted)?;
            apt.unpack(&[package], partial).map(drop)
        })?;
        Ok(dir)
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

    /// Source lines for the binary packages of the suites that are configured here, the release's own first.
    fn own_suites(&self, sh: &Shell, architectures: &[&str]) -> Result<Vec<String>> {
        let option = arch_option(architectures);
        let mut indexes = self.indexes(sh)?;
        indexes.sort_by_key(|[_, suite, _]| *suite != self.codename);
        let line = |[uri, suite, component]: &[String; 3]| self.line("deb", &option, [uri, suite, component]);
        Ok(indexes.iter().map(line).collect())
    }

    /// A source line for another suite on the machine's own mirror.
    ///
    /// # Errors
    /// On a distribution that is not Debian, whose mirror has no such suite.
    fn other_suite(&self, sh: &Shell, kind: &str, suite: &str, architectures: &[&str]) -> Result<String> {
        ensure!(self.id == "debian", "this machine runs {}, whose mirror has no Debian {suite}", self.id);
        let indexes = self.indexes(sh)?;
        let main = indexes.iter().find(|[_, own, _]| *own == self.codename);
        let [uri, _, component] =
            main.with_context(|| format!("apt has no source of {} configured", self.codename))?;
        Ok(self.line(kind, &arch_option(architectures), [uri, suite, component]))
    }
}

/// Settings that make apt verify what it fetches, whatever the machine's own configuration says. All others of it count:
/// proxies, mirrors, and whether an index may be old, which snapshots of a distribution are.
const VERIFIED: &str = "APT::Get::AllowUnauthenticated \"false\";\nAPT::Get::Force-Yes \"false\";\n\
    Acquire::AllowInsecureRepositories \"false\";\nAcquire::AllowWeakRepositories \"false\";\n\
    Acquire::AllowDowngradeToInsecureRepositories \"false\";\nAcquire::ForceHash \"\";\n\
    #clear Acquire::gpgv::Options;\n#clear APT::Hashes;\n";

/// What limits a source line to architectures.
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

/// The distribution's own indexes among all that are configured: `bookworm`, `bookworm-updates`, …; all
/// of them where none has the release's name, as on a machine that follows `unstable`.
fn own_indexes(listed: &str, codename: &str) -> Vec<[String; 3]> {
    let mut indexes: Vec<[String; 3]> = listed
        .lines()
        .filter_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().ok())
        // Where Ubuntu keeps what Debian has in main.
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

/// What is done where a mirror's indexes of a release's updates, security updates among them, are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Updates {
    /// Nothing is fetched: what is made is for shipping.
    Required,
    /// The release is taken as it came out, with a warning.
    Wanted,
}

/// A private state of apt, gone when dropped: indexes are many times the size of what is wanted, and
/// old when they are wanted again.
pub(crate) struct Apt<'a> {
    sh: &'a Shell,
    dir: PathBuf,
    conf: PathBuf,
    log: PathBuf,
    /// Packages that are not unpacked.
    leaves_out: &'static [&'static str],
    lacks_updates: bool,
}

impl Drop for Apt<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl<'a> Apt<'a> {
    /// For this distribution's own packages.
    pub(crate) fn own(sh: &'a Shell, dir: &Path, log: &Path, distribution: &Distribution) -> Result<Self> {
        Self::updated(sh, dir, log, distribution, Updates::Wanted, None)
    }

    /// For this distribution's own programs that are to run here. What apt itself needs is not unpacked: a second C
    /// library, found first, would run every program of a build.
    pub(crate) fn programs(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        updates: Updates,
    ) -> Result<Self> {
        Ok(Self::updated(sh, dir, log, distribution, updates, None)?.beside_apt())
    }

    /// For this distribution's packages of another architecture.
    pub(crate) fn own_of(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        architecture: &str,
    ) -> Result<Self> {
        Self::updated(sh, dir, log, distribution, Updates::Wanted, Some(architecture))
    }

    /// For this distribution's own packages, of another architecture if one is named. A mirror in the middle of an
    /// update serves indexes that apt rightly refuses; the release may then be taken without its updates.
    pub(crate) fn updated(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        updates: Updates,
        architecture: Option<&str>,
    ) -> Result<Self> {
        let architectures = architecture.as_slice();
        let lines = distribution.own_suites(sh, architectures)?;
        let error = match Self::with(sh, dir, log, &lines, architectures) {
            Ok(apt) => return Ok(apt),
            Err(error) => error,
        };
        let mut release = match Self::with(sh, dir, log, &lines[..1], architectures) {
            Ok(release) => release,
            Err(_) => return Err(error),
        };
        let of = architecture.map(|name| format!(" for {name}")).unwrap_or_default();
        let broken = format!("the mirror's indexes of updates{of} are broken");
        if updates == Updates::Required {
            return Err(error.context(format!(
                "{broken}, and a release is not built without security updates\nremedy: try again later, or with another \
                 mirror in apt's configuration"
            )));
        }
        say(format_args!("WARNING: {broken}; {} is taken without them", distribution.codename));
        release.lacks_updates = true;
        Ok(release)
    }

    /// Whether packages are taken without their updates.
    pub(crate) fn lacks_updates(&self) -> bool {
        self.lacks_updates
    }

    /// For programs that are to run here, as above, and packages of other architectures that belong to them: as they
    /// were released, they have one version.
    pub(crate) fn released(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        architectures: &[&str],
    ) -> Result<Self> {
        let lines = distribution.own_suites(sh, architectures)?;
        Ok(Self::with(sh, dir, log, &lines[..1], architectures)?.beside_apt())
    }

    fn beside_apt(mut self) -> Self {
        self.leaves_out = &["libc6", "libgcc-s1", "libstdc++6"];
        self
    }

    /// For binary packages of another Debian suite, in the architectures that are wanted from it.
    ///
    /// # Errors
    /// Also on a distribution that is not Debian.
    pub(crate) fn foreign(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        suite: &str,
        architectures: &[&str],
    ) -> Result<Self> {
        let line = distribution.other_suite(sh, "deb", suite, architectures)?;
        Self::with(sh, dir, log, &[line], architectures)
    }

    /// For source packages of another Debian suite.
    ///
    /// # Errors
    /// Also on a distribution that is not Debian.
    pub(crate) fn source(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        suite: &str,
    ) -> Result<Self> {
        let line = distribution.other_suite(sh, "deb-src", suite, &[])?;
        Self::with(sh, dir, log, &[line], &[])
    }

    /// For what source lines name, in these architectures besides this machine's.
    pub(crate) fn with(
        sh: &'a Shell,
        dir: &Path,
        log: &Path,
        lines: &[String],
        foreign: &[&str],
    ) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display())).map(|()| path)
        };
        write("sources.list", lines.join("\n") + "\n")?;
        write("status", String::new())?;
        let root = dir.display();
        let mut conf = format!(
            "Dir::State \"{root}\";\nDir::State::lists \"{root}/lists\";\nDir::State::status \"{root}/status\";\n\
             Dir::Cache \"{root}/cache\";\nDir::Etc::sourcelist \"{root}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n\
             APT::Update::Error-Mode \"any\";\n{VERIFIED}\
             // Container images clean the system's own cache here.\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        );
        if nix::unistd::geteuid().is_root() {
            // Its unprivileged user could not write below the cache.
            conf += "APT::Sandbox::User \"root\";\n";
        }
        // A single one is all there is, so that what depends on programs finds them.
        if let [only] = foreign {
            conf += &format!("#clear APT::Architectures;\nAPT::Architecture \"{only}\";\n");
        }
        for architecture in foreign {
            conf += &format!("APT::Architectures:: \"{architecture}\";\n");
        }
        let conf = write("apt.conf", conf)?;
        let this = Self {
            sh,
            dir: dir.to_owned(),
            conf,
            log: log.to_owned(),
            leaves_out: &[],
            lacks_updates: false,
        };
        this.update()?;
        Ok(this)
    }

    fn update(&self) -> Result<()> {
        let (sh, conf) = (self.sh, &self.conf);
        exec::run(cmd!(sh, "apt-get -c {conf} update"), &self.log, |_| {})
            .context("the package indexes cannot be had from this machine's mirror")
    }

    /// Downloads binary packages and unpacks them into a folder, without what dpkg does besides; a name
    /// may end in `:ARCHITECTURE`. Returns name, version, architecture and hash of each.
    pub(crate) fn unpack(&self, packages: &[impl AsRef<OsStr>], into: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
        let debs = tempfile::tempdir_in(into)?;
        let (sh, conf) = (self.sh, &self.conf);
        let _dir = sh.push_dir(debs.path());
        exec::run(cmd!(sh, "apt-get -c {conf} download {packages...}"), &self.log, |_| {})?;
        self.extract(debs.path(), into)
    }

    /// As [`Apt::unpack`], with everything that the packages depend on.
    pub(crate) fn unpack_all(&self, packages: &[impl AsRef<OsStr>], into: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
        let (sh, conf) = (self.sh, &self.conf);
        let install =
            cmd!(sh, "apt-get -c {conf} --yes --no-install-recommends --download-only install {packages...}");
        exec::run(install, &self.log, |_| {})?;
        self.extract(&self.dir.join("cache/archives"), into)
    }

    fn extract(&self, debs: &Path, into: &Path) -> Result<Vec<String>> {
        let sh = self.sh;
        let files = fs::read_dir(debs)?.map(|entry| Ok(entry?.path()));
        let mut files: Vec<PathBuf> = files.collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
        files.sort();
        let mut manifest = Vec::new();
        for deb in files {
            let name = deb.file_stem().unwrap_or_default().to_string_lossy().replace('_', " ");
            if self.leaves_out.iter().any(|package| name.split(' ').next() == Some(package)) {
                continue;
            }
            exec::read(cmd!(sh, "dpkg-deb --extract {deb} {into}"))?;
            manifest.push(format!("{name} {}", cache::sha256_file(&deb)?));
        }
        Ok(manifest)
    }

    /// Downloads the original archive of a source package into a folder.
    pub(crate) fn download_source(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let (sh, conf) = (self.sh, &self.conf);
        let _dir = sh.push_dir(into);
        let what = format!("{package}={version}");
        exec::run(cmd!(sh, "apt-get -c {conf} source --download-only --tar-only {what}"), &self.log, |_| {})
    }

    /// The records of a source package in all its versions, as the signed index has them.
    pub(crate) fn source_records(&self, package: &str) -> Result<String> {
        let (sh, conf) = (self.sh, &self.conf);
        exec::read(cmd!(sh, "apt-cache -c {conf} showsrc --only-source {package}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_distributions_own_suites_count() {
        let listed = "http://mirror/debian/ bookworm main\nhttp://mirror/debian/ bookworm main\n\
            http://mirror/debian/ bookworm-updates main\nhttp://other/ nodistro main\n\
            http://other/ cloud-sdk-bookworm main\nhttp://mirror/debian/ bookworm non-free\n\
            http://mirror/debian/ bookwormish main\n";
        let suites: Vec<_> = own_indexes(listed, "bookworm").into_iter().map(|[_, suite, _]| suite).collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(own_indexes("http://mirror/debian/ unstable main\n", "forky").len(), 1);
    }

    /// With an apt-get that finds the indexes of updates broken.
    #[test]
    fn a_release_is_not_built_without_updates() {
        let dir = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\ncase $1 in\nindextargets) echo http://mirror/ bookworm main; \
            echo http://mirror/ bookworm-security main ;;\n*) ! grep bookworm-security \"$(dirname $2)/sources.list\" ;;\nesac\n";
        let program = dir.path().join("apt-get");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let sh = Shell::new().unwrap();
        let path = std::env::join_paths([dir.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        sh.set_var("PATH", path);
        let debian = Distribution { id: "debian".into(), codename: "bookworm".into() };
        let (state, log) = (dir.path().join("state"), dir.path().join("log"));
        let own =
            |updates| Apt::updated(&sh, &state, &log, &debian, updates, None).map(|apt| apt.lacks_updates());
        assert!(own(Updates::Wanted).unwrap());
        let error = own(Updates::Required).unwrap_err().to_string();
        assert!(error.contains("a release is not built without security updates"), "{error}");
        fs::write(&program, script.replace("! grep", "true")).unwrap();
        assert!(!own(Updates::Required).unwrap());
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
    fn other_suites_are_debians_alone() {
        let ubuntu = Distribution { id: "ubuntu".into(), codename: "jammy".into() };
        let error = ubuntu.other_suite(&Shell::new().unwrap(), "deb", "sid", &[]).unwrap_err();
        assert_eq!(error.to_string(), "this machine runs ubuntu, whose mirror has no Debian sid");
        let line = ubuntu.line("deb", "arch=arm64 ", ["http://mirror/", "sid", "main"]);
        assert!(
            line.starts_with("deb [arch=arm64 ") && line.ends_with("] http://mirror/ sid main"),
            "{line}"
        );
    }
}
