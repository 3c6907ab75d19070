//! Downloads and unpacks packages of a Debian-like distribution without installing them.
//!
//! apt runs with a private state below the cache; the system's package manager is not changed. apt verifies the
//! signature of each index and the hash of each package.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::hint::WithHint;
use xshell::cmd;

use crate::base::exec::{self, InDir, Invocation, sh};
use crate::base::files;
use crate::base::progress::{Bar, say};
use crate::debian::distribution::Distribution;
use crate::debian::versions::Versions;

/// Settings that make apt verify downloads, whatever the machine's configuration is. Its other settings apply: proxies,
/// mirrors, and whether an index may be outdated, as those of a distribution's snapshots are.
const VERIFIED: &str = "APT::Get::AllowUnauthenticated \"false\";\nAPT::Get::Force-Yes \"false\";\n\
    Acquire::AllowInsecureRepositories \"false\";\nAcquire::AllowWeakRepositories \"false\";\n\
    Acquire::AllowDowngradeToInsecureRepositories \"false\";\nAcquire::ForceHash \"\";\n\
    #clear Acquire::gpgv::Options;\n#clear APT::Hashes;\n";

/// A private state of apt. It is removed when dropped, because the indexes are much larger than the downloaded packages
/// and outdated at the next use.
pub(crate) struct Apt {
    dir: PathBuf,
    conf: PathBuf,
    log: PathBuf,
    /// Packages that are not unpacked.
    excluded: &'static [&'static str],
    /// Where unpacked packages are kept.
    kept: Option<PathBuf>,
    lacks_updates: bool,
}

impl Drop for Apt {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Apt {
    /// For programs of this distribution that run on this machine. The C library and the compiler's runtime libraries
    /// are not unpacked, because all programs of a build would use them.
    pub(crate) fn programs(
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        versions: Versions<'_>,
    ) -> Result<Self> {
        Ok(Self::updated(dir, log, distribution, versions, None)?.without_libc())
    }

    /// For these versions of this distribution's packages, for another architecture if one is given. During an update, a
    /// mirror serves inconsistent indexes, which apt refuses; packages may then be fetched without updates.
    pub(crate) fn updated(
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        versions: Versions<'_>,
        architecture: Option<&str>,
    ) -> Result<Self> {
        let architectures = architecture.as_slice();
        if let Versions::Kept(packages) = versions {
            // Whoever gives the directory vouches for it; the recipe of what is built has the hash of each package.
            let line = format!("deb [trusted=yes] copy:{} ./", packages.display());
            return Self::with(dir, log, &[line], architectures);
        }
        let suites = distribution.own_suites(architectures)?;
        let error = match Self::with(dir, log, &suites.all, architectures) {
            Ok(apt) => return Ok(apt),
            Err(error) => error,
        };
        let mut release = match Self::with(dir, log, &suites.release, architectures) {
            Ok(release) => release,
            Err(_) => return Err(error),
        };
        let of = architecture.map(|name| format!(" for {name}")).unwrap_or_default();
        let broken = format!("the mirror's indexes of updates{of} are broken");
        if versions == Versions::Updated {
            let refused =
                error.context(format!("{broken}, and a release is not built without security updates"));
            return Err(refused).hint("try again later, or configure another mirror in /etc/apt");
        }
        say(format_args!("warning: {broken}; using {} without updates", distribution.codename));
        release.lacks_updates = true;
        Ok(release)
    }

    /// Whether packages are fetched without updates.
    pub(crate) fn lacks_updates(&self) -> bool {
        self.lacks_updates
    }

    /// Keeps packages in a directory of the cache when they have been unpacked.
    pub(crate) fn keeping(mut self, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        self.kept = Some(dir.to_owned());
        Ok(self)
    }

    /// For programs that run on this machine and matching packages of other architectures. Updates are not used, so
    /// that the versions are equal.
    pub(crate) fn released(
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        architectures: &[&str],
    ) -> Result<Self> {
        let suites = distribution.own_suites(architectures)?;
        Ok(Self::with(dir, log, &suites.release, architectures)?.without_libc())
    }

    pub(super) fn without_libc(mut self) -> Self {
        self.excluded = &["libc6", "libgcc-s1", "libstdc++6"];
        self
    }

    /// For binary packages of another Debian suite, for these architectures.
    ///
    /// # Errors
    /// As other constructors, and on a distribution other than Debian.
    pub(crate) fn foreign(
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        suite: &str,
        architectures: &[&str],
    ) -> Result<Self> {
        let line = distribution.other_suite("deb", suite, architectures)?;
        Self::with(dir, log, &[line], architectures)
    }

    /// For source packages of another Debian suite.
    ///
    /// # Errors
    /// As other constructors, and on a distribution other than Debian.
    pub(crate) fn source(dir: &Path, log: &Path, distribution: &Distribution, suite: &str) -> Result<Self> {
        let line = distribution.other_suite("deb-src", suite, &[])?;
        Self::with(dir, log, &[line], &[])
    }

    /// For sources of this distribution's packages, and of others of its suites.
    pub(crate) fn sources(
        dir: &Path,
        log: &Path,
        distribution: &Distribution,
        suites: &[String],
    ) -> Result<Self> {
        let mut lines = distribution.own_sources()?;
        for suite in suites {
            lines.push(distribution.other_suite("deb-src", suite, &[])?);
        }
        lines.sort();
        lines.dedup();
        Self::with(dir, log, &lines, &[])
    }

    /// For these source lines, and these architectures in addition to this machine's.
    pub(crate) fn with(dir: &Path, log: &Path, lines: &[String], foreign: &[&str]) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map(|()| path)
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
            // apt's unprivileged user cannot write below the cache.
            conf += "APT::Sandbox::User \"root\";\n";
        }
        // With a single foreign architecture, it becomes the native one, so that dependencies on programs are
        // satisfied.
        if let [only] = foreign {
            conf += &format!("#clear APT::Architectures;\nAPT::Architecture \"{only}\";\n");
        }
        for architecture in foreign {
            conf += &format!("APT::Architectures:: \"{architecture}\";\n");
        }
        let conf = write("apt.conf", conf)?;
        let this = Self {
            dir: dir.to_owned(),
            conf,
            log: log.to_owned(),
            excluded: &[],
            kept: None,
            lacks_updates: false,
        };
        this.update()?;
        Ok(this)
    }

    fn update(&self) -> Result<()> {
        let conf = &self.conf;
        let bar = Bar::new("fetching package indexes");
        exec::run(cmd!(sh(), "apt-get -c {conf} update"), &self.log, |line| bar.detail(line))
            .context("cannot fetch the package indexes from this machine's mirror")
    }

    /// Downloads binary packages and unpacks them into a directory, without running maintainer scripts. A name may end
    /// in `:ARCHITECTURE`. Returns the name, version, architecture and hash of each.
    pub(crate) fn unpack(&self, packages: &[impl AsRef<OsStr>], into: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(into)?;
        let debs = tempfile::tempdir_in(into)?;
        let conf = &self.conf;
        let download = cmd!(sh(), "apt-get -c {conf} download {packages...}").env("LC_ALL", "C");
        self.fetch(download.in_dir(debs.path()), Some(packages.len() as u64))?;
        self.extract(debs.path(), into)
    }

    /// Like [`Apt::unpack`], including dependencies.
    pub(crate) fn unpack_all(&self, packages: &[impl AsRef<OsStr>], into: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(into)?;
        let conf = &self.conf;
        let install = cmd!(
            sh(),
            "apt-get -c {conf} --yes --no-install-recommends --download-only install {packages...}"
        )
        .env("LC_ALL", "C");
        self.fetch(install, None)?;
        self.extract(&self.dir.join("cache/archives"), into)
    }

    /// Runs a download of packages, whose number apt reports if it is not given.
    fn fetch<'a>(&self, apt: impl Into<Invocation<'a>>, mut all: Option<u64>) -> Result<()> {
        let mut bar = Bar::new("fetching packages");
        exec::run(apt, &self.log, |line| {
            all = all.or_else(|| newly_installed(line));
            if let (Some(all), Some(number)) = (all, number_of_download(line)) {
                // It has been started, and those before it are complete.
                bar.set(number.saturating_sub(1).min(all), all);
            }
        })
    }

    fn extract(&self, debs: &Path, into: &Path) -> Result<Vec<String>> {
        let files = fs::read_dir(debs)?.map(|entry| Ok(entry?.path()));
        let mut files: Vec<PathBuf> = files.collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
        files.sort();
        let mut manifest = Vec::new();
        let (mut bar, all) = (Bar::new("unpacking packages"), files.len() as u64);
        for (deb, count) in files.into_iter().zip(1..) {
            let name = deb.file_stem().unwrap_or_default().to_string_lossy().replace('_', " ");
            if !self.excluded.iter().any(|package| name.split(' ').next() == Some(package)) {
                exec::read(cmd!(sh(), "dpkg-deb --extract {deb} {into}"))?;
                manifest.push(format!("{name} {}", files::sha256(&deb)?));
            }
            if let (Some(kept), Some(name)) = (&self.kept, deb.file_name()) {
                // Others may depend on those that are excluded.
                fs::rename(&deb, kept.join(name))?;
            }
            bar.set(count, all);
        }
        Ok(manifest)
    }

    /// The package that another one depends on and whose name begins with `prefix`, as the newest kernel of
    /// `linux-image-arm64`.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let conf = &self.conf;
        let listed = exec::read(cmd!(sh(), "apt-cache -c {conf} depends --important {package}"))?;
        let name = listed.lines().find_map(|line| {
            let name = line.trim_start().strip_prefix("Depends: ")?.split(':').next()?;
            name.starts_with(prefix).then(|| name.to_owned())
        });
        name.with_context(|| format!("{package} depends on no package whose name begins with {prefix}"))
    }

    /// Downloads the original archive of a source package into a directory.
    pub(crate) fn download_source(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let conf = &self.conf;
        let what = format!("{package}={version}");
        let download =
            cmd!(sh(), "apt-get -c {conf} source --download-only --tar-only {what}").env("LC_ALL", "C");
        self.fetch(download.in_dir(into), Some(1))
    }

    /// Downloads all files of a source package, given as `PACKAGE=VERSION` of one of its binary packages.
    pub(crate) fn download_sources(&self, package: &str, into: &Path) -> Result<()> {
        let conf = &self.conf;
        let download = cmd!(sh(), "apt-get -c {conf} source --download-only {package}").env("LC_ALL", "C");
        self.fetch(download.in_dir(into), None)
    }

    /// The records of all versions of a source package in the signed index.
    pub(crate) fn source_records(&self, package: &str) -> Result<String> {
        let conf = &self.conf;
        exec::read(cmd!(sh(), "apt-cache -c {conf} showsrc --only-source {package}"))
    }
}

/// Parses `0 upgraded, 42 newly installed, 0 to remove and 0 not upgraded.`
fn newly_installed(line: &str) -> Option<u64> {
    line.split_once(" newly installed,")?.0.split(' ').next_back()?.parse().ok()
}

/// Parses `Get:7 http://mirror.example/debian bookworm/main amd64 m4 amd64 1.4.19-3 [287 kB]`.
fn number_of_download(line: &str) -> Option<u64> {
    line.strip_prefix("Get:")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_apt_is_parsed() {
        let line = "Get:7 http://mirror.example/debian bookworm/main amd64 m4 amd64 1.4.19-3 [287 kB]";
        assert_eq!(number_of_download(line), Some(7));
        assert_eq!(number_of_download("Fetched 12.3 MB in 2s (6,100 kB/s)"), None);
        let line = "0 upgraded, 42 newly installed, 0 to remove and 0 not upgraded.";
        assert_eq!(newly_installed(line), Some(42));
        assert_eq!(newly_installed("Reading package lists..."), None);
    }

    /// Uses an apt-get that refuses the indexes of updates.
    #[test]
    fn a_release_is_not_built_without_updates() {
        let dir = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\ncase $1 in\nindextargets) echo http://mirror/ bookworm main; \
            echo http://mirror/ bookworm-security main ;;\n*) ! grep bookworm-security \"$(dirname $2)/sources.list\" ;;\nesac\n";
        let program = dir.path().join("apt-get");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([dir.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        let _path = sh().push_env("PATH", path);
        let debian = Distribution { id: "debian".into(), codename: "bookworm".into() };
        let (state, log) = (dir.path().join("state"), dir.path().join("log"));
        let own =
            |versions| Apt::updated(&state, &log, &debian, versions, None).map(|apt| apt.lacks_updates());
        assert!(own(Versions::UpdatedIfPossible).unwrap());
        let error = own(Versions::Updated).unwrap_err().to_string();
        assert!(error.contains("a release is not built without security updates"), "{error}");
        fs::write(&program, script.replace("! grep", "true")).unwrap();
        assert!(!own(Versions::Updated).unwrap());
    }
}
