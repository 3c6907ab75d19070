//! What is built: releases and where they come from, configure flags, tools and patches. All of it is data in files of this
//! crate's directory, and unknown keys in them are errors, because a misspelt key would silently have no effect.
//!
//! | file | content |
//! |---|---|
//! | `sources.toml` | releases, their archives and hashes |
//! | `configure.toml` | arguments of QEMU's configure, each with its reason |
//! | `tools.toml` | packages and wheels that a build needs |
//! | `hosts.toml` | cross compilers |
//! | `debian.toml` | suites, guests and packages of tests and benchmarks |
//! | `machines.toml` | whole machines, their emulators and kernels |
//! | `costs.toml` | build times |
//! | `syscalls.toml` | system calls that emulated programs lack |
//! | `pgo.toml` | the training workload of profile-guided optimisation |
//! | `patches/` | patches, each with the versions that it applies to |
//!
//! Hosts, targets, versions and checksums are typed. What types cannot express is checked by [`QemuSrc::lint`], which a unit
//! test runs on the files of the repository. This crate downloads, builds and patches nothing.

mod by_arch;
mod cells;
mod configure;
mod cost;
mod debian;
mod error;
mod host;
mod machines;
mod patch;
mod pgo;
mod source;
mod syscalls;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use semver::Version;

use serde::de::DeserializeOwned;

pub use by_arch::ByArch;
pub use cells::{Cell, CellOutcome, CellRun, Cells, GuestRun};
pub use configure::{Configure, Flag};
pub use cost::Costs;
pub use debian::{Debian, Guest, GuestProgram, Origin, PackageSet, PackageSets, Port, Suite};
pub use error::DataError;
pub use host::{CrossHost, CrossHosts, RustPackages};
pub use machines::{Board, Bus, Devices, KernelBuild, Machine, Machines};
pub use patch::Patch;
pub use pgo::{Pgo, WorkloadRun};
pub use source::{DebianArchive, NarrowHosts, Pin, Release, Sources, Upstream};
pub use syscalls::{CallState, LimitedCalls, SystemCalls};
pub use tools::{Install, Packages, Requirement, Tools, Wheel};

/// All of the data.
#[derive(Debug)]
pub struct QemuSrc {
    /// Releases and their archives.
    pub sources: Sources,
    /// Arguments of QEMU's configure.
    pub configure: Configure,
    /// What a build needs.
    pub tools: Tools,
    /// Cross compilers.
    pub hosts: CrossHosts,
    /// Suites, guests and packages of tests and benchmarks.
    pub debian: Debian,
    /// Whole machines.
    pub machines: Machines,
    /// Build times.
    pub costs: Costs,
    /// The training workload of profile-guided optimisation.
    pub pgo: Pgo,
    /// System calls that emulated programs lack.
    pub syscalls: SystemCalls,
    /// What runs in every guest.
    pub cells: Cells,
    /// The patches, in the order in which they are applied.
    pub patches: Vec<Patch>,
}

impl QemuSrc {
    /// Reads all files below `dir`, the directory of this crate or a copy of it.
    ///
    /// # Errors
    /// The first file that cannot be read or does not follow its schema.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        Ok(Self {
            sources: read(dir.join("sources.toml"))?,
            configure: read(dir.join("configure.toml"))?,
            tools: read(dir.join("tools.toml"))?,
            hosts: read(dir.join("hosts.toml"))?,
            debian: read(dir.join("debian.toml"))?,
            machines: read(dir.join("machines.toml"))?,
            costs: read(dir.join("costs.toml"))?,
            pgo: read(dir.join("pgo.toml"))?,
            syscalls: read(dir.join("syscalls.toml"))?,
            cells: read(dir.join("cells.toml"))?,
            patches: patch::load(&dir.join("patches"))?,
        })
    }

    /// The release with this channel or version.
    ///
    /// # Errors
    /// A message that lists what there is.
    pub fn release(&self, name: &str) -> Result<&Release, String> {
        let releases = &self.sources.releases;
        let is_named = |release: &&Release| release.channel == name || release.version.to_string() == name;
        releases.iter().find(is_named).ok_or_else(|| {
            let known: Vec<_> =
                releases.iter().map(|release| format!("{} ({})", release.version, release.channel)).collect();
            format!("QEMU `{name}` is not in sources.toml; there are {}", known.join(", "))
        })
    }

    /// The patches that apply to a version, in order.
    pub fn patches_for(&self, version: &Version) -> impl Iterator<Item = &Patch> {
        self.patches.iter().filter(|patch| patch.versions.matches(version))
    }

    /// How many patches of each purpose the default release has, and this version lacks, in no form.
    pub fn lacking(&self, version: &Version) -> BTreeMap<&str, usize> {
        let own: BTreeSet<&str> = self.patches_for(version).map(Patch::number).collect();
        let default =
            self.release("default").into_iter().flat_map(|release| self.patches_for(&release.version));
        let mut lacking = BTreeMap::new();
        for patch in default.filter(|patch| !own.contains(patch.number())) {
            *lacking.entry(patch.purpose()).or_default() += 1;
        }
        lacking
    }

    /// What is wrong with the data beyond its form; empty when all is well.
    pub fn lint(&self) -> Vec<String> {
        let archives = self.sources.releases.iter().filter_map(|release| {
            release
                .debian
                .as_ref()
                .map(|archive| (format!("sources.toml, {}", release.version), &*archive.suite))
        });
        let crosses = self.hosts.hosts.iter().filter_map(|cross| {
            cross.suite.as_ref().map(|suite| (format!("hosts.toml, {}", cross.host), &**suite))
        });
        let machines = [("machines.toml".to_owned(), &*self.machines.suite)];
        [
            self.sources.lint(),
            self.configure.lint(),
            self.tools.lint(),
            self.hosts.lint(),
            self.debian.lint(archives.chain(crosses).chain(machines)),
            self.machines.lint(),
            self.pgo.lint(&self.debian.targets()),
            self.syscalls.lint(),
            self.cells.lint(&self.debian.names().collect::<Vec<_>>()),
            patch::lint(&self.patches, &self.sources.releases),
        ]
        .concat()
    }
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<T, DataError> {
    let parsed = std::fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()));
    parsed.map_err(|what| DataError { path, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> QemuSrc {
        QemuSrc::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn what_ships_is_clean() {
        assert_eq!(shipped().lint(), Vec::<String>::new());
    }

    #[test]
    fn channels_and_versions() {
        let data = shipped();
        for channel in ["default", "lts", "edge"] {
            let release = data.release(channel).unwrap();
            assert_eq!(data.release(&release.version.to_string()).unwrap().channel, channel);
            let lacking = data.lacking(&release.version);
            assert_eq!(lacking.is_empty(), channel == "default", "{channel}: {lacking:?}");
        }
        let message = data.release("9.9.9").unwrap_err();
        assert!(message.contains("`9.9.9` is not in sources.toml; there are 10.2.2 (default)"), "{message}");
    }

    #[test]
    fn machines_run_programs_of_their_family() {
        let data = shipped();
        let machine = |host: &str| data.machines.of(host.parse().unwrap()).map(|machine| machine.host.name);
        assert_eq!(machine("arm64"), Some("arm64v8"));
        assert_eq!(machine("arm/v7"), Some("arm32v7"));
        assert_eq!(machine("arm/v6"), Some("arm32v7"));
        assert_eq!(machine("386"), Some("amd64"));
        assert_eq!(machine("loong64"), None);
    }

    #[test]
    fn a_checksum_that_is_none_is_an_error() {
        let upstream = |sha256: &str| {
            let text = format!("url = 'https://a/b'\nsha256 = '{sha256}'\nverified = 'v'");
            toml::from_str::<Upstream>(&text)
        };
        upstream(&"0f".repeat(32)).unwrap();
        for sha256 in ["ABC", &"0F".repeat(32), &"0f".repeat(31)] {
            let error = upstream(sha256).unwrap_err().to_string();
            assert!(error.contains("64 lower-case hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn lint_finds_what_types_cannot() {
        let mut data = shipped();
        data.sources.releases[1].channel = "default".to_owned();
        data.sources.narrow_hosts.channel = "old".to_owned();
        data.configure.flags[0].reason.clear();
        data.tools.static_libraries[0].name = "glib.so".to_owned();
        let riscv64 = data.hosts.hosts.iter_mut().find(|cross| cross.host.name == "riscv64").unwrap();
        riscv64.suite = Some("buster".to_owned());
        let findings = data.lint().join("\n");
        let edge = shipped().release("edge").unwrap().version.to_string();
        for expected in [
            "duplicate version or channel default",
            "narrow-hosts: no release has the channel old",
            "--static: no reason",
            "static-library glib.so: not called lib*.a",
            "hosts.toml, riscv64: suite buster is not in debian.toml",
        ] {
            assert!(findings.contains(expected), "{expected} in {findings}");
        }
        let mut data = shipped();
        data.sources.narrow_hosts.channel = "edge".to_owned();
        assert_eq!(data.lint(), [format!("narrow-hosts: {edge} is not in <11")]);
    }
}
