//! `debian.toml`: suites, guests and packages of Debian, besides build dependencies.
//!
//! Only names; xtask downloads and unpacks the packages.

use std::fmt;

use qus_core::arch::Arch;
use serde::Deserialize;

/// `debian.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// Suites that guests' packages come from, in order of preference.
    pub guest_suites: Vec<String>,
    /// Suites, oldest first.
    #[serde(rename = "suite")]
    pub suites: Vec<Suite>,
    /// Guests, sorted by Debian's name.
    #[serde(rename = "guest")]
    pub guests: Vec<Guest>,
    /// Guests of which Debian has compilers only, sorted by Debian's name.
    #[serde(rename = "port")]
    pub ports: Vec<Port>,
    /// Static programs of guests.
    #[serde(rename = "program")]
    pub programs: Vec<GuestProgram>,
    /// Sets of packages.
    pub packages: PackageSets,
}

/// A suite of Debian.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// As in `trixie`.
    pub name: String,
    /// Its package that has static emulators.
    pub emulators: String,
}

/// An architecture of Debian whose programs are emulated.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Debian's name of it.
    pub debian: String,
    /// The target that emulates it.
    pub target: &'static Arch,
    /// Output of its `uname -m` under the emulator.
    pub machine: String,
    /// Its OCI platform without `linux/`, if it is not the target's first.
    platform: Option<String>,
    /// Whether a root filesystem can be unpacked from the packages of Debian's current release.
    #[serde(default)]
    pub rootfs: bool,
    /// The suite of root filesystems that debootstrap makes, if it is not the first of [`Debian::guest_suites`].
    suite: Option<String>,
    /// Whether smoke tests run it in containers and build images for it.
    #[serde(default)]
    pub container: bool,
}

/// An architecture that Debian has a compiler for, but no packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Debian's name of it.
    pub debian: String,
    /// The target that emulates it.
    pub target: &'static Arch,
    /// The suite that has the compiler.
    pub suite: String,
    /// The packages of the compiler, whose name begins with the target's first triple, and of the C library.
    pub packages: Vec<String>,
}

/// A static program that is run under emulators.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestProgram {
    /// File name of the program, perhaps with `-static` after it.
    pub name: String,
    /// The package that has it.
    pub package: String,
    /// What it is needed for.
    pub reason: String,
}

/// Where a set of packages comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The machine's own release.
    Own,
    /// The first suite of [`Debian::guest_suites`] that has them.
    Guests,
    /// This suite.
    Suite(String),
}

/// Packages that are downloaded together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSet {
    /// Where they come from.
    pub from: Origin,
    /// Their names.
    pub packages: Vec<String>,
    /// What they are needed for.
    pub reason: String,
}

/// Sets of packages, by what they are for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageSets {
    /// The root filesystem in which benchmarks run.
    pub bench_rootfs: PackageSet,
    /// The root filesystem of a guest in a container.
    pub container_rootfs: PackageSet,
    /// Debian's own emulators and handlers.
    pub emulators: PackageSet,
    /// A root filesystem with init systems, which read what qus writes.
    pub init_rootfs: PackageSet,
    /// A root filesystem with programs that check and install packages.
    pub packaging: PackageSet,
    /// The root filesystem of a builder's node.
    pub builder_rootfs: PackageSet,
    /// The throwaway engine.
    pub engine: PackageSet,
    /// Parts of the throwaway engine that must match the machine.
    pub engine_own: PackageSet,
    /// The compose plugin.
    pub compose: PackageSet,
    /// The debugger of all architectures.
    pub gdb: PackageSet,
    /// Programs with which an ordinary user creates root filesystems.
    pub rootless: PackageSet,
    /// The program that counts instructions.
    pub valgrind: PackageSet,
    /// minisign, which signs releases.
    pub minisign: PackageSet,
    /// cosign, which signs releases and images.
    pub cosign: PackageSet,
    /// The program that unpacks tarballs in tests.
    pub zstd: PackageSet,
}

impl Guest {
    /// Its OCI platform without `linux/`; `None` where there is none.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref().or(self.target.platforms.first().copied())
    }
}

/// As Debian's name.
impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.debian)
    }
}

impl PackageSets {
    fn all(&self) -> [(&'static str, &PackageSet); 15] {
        [
            ("bench-rootfs", &self.bench_rootfs),
            ("container-rootfs", &self.container_rootfs),
            ("emulators", &self.emulators),
            ("init-rootfs", &self.init_rootfs),
            ("packaging", &self.packaging),
            ("builder-rootfs", &self.builder_rootfs),
            ("engine", &self.engine),
            ("engine-own", &self.engine_own),
            ("compose", &self.compose),
            ("gdb", &self.gdb),
            ("rootless", &self.rootless),
            ("valgrind", &self.valgrind),
            ("minisign", &self.minisign),
            ("cosign", &self.cosign),
            ("zstd", &self.zstd),
        ]
    }
}

impl Debian {
    /// The suite of this name.
    ///
    /// # Errors
    /// A message that lists all suites.
    pub fn suite(&self, name: &str) -> Result<&Suite, String> {
        self.suites.iter().find(|suite| suite.name == name).ok_or_else(|| {
            let names: Vec<_> = self.suites.iter().map(|suite| &*suite.name).collect();
            format!("unknown suite `{name}`; suites are {}", names.join(", "))
        })
    }

    /// Debian's names of all guests and ports.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.guests.iter().map(|guest| &*guest.debian).chain(self.ports.iter().map(|port| &*port.debian))
    }

    /// The guest with this name of Debian.
    pub fn guest(&self, debian: &str) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.debian == debian)
    }

    /// The suite of root filesystems that debootstrap makes for this guest.
    pub fn suite_of<'a>(&'a self, guest: &'a Guest) -> &'a str {
        guest.suite.as_ref().unwrap_or(&self.guest_suites[0])
    }

    /// The guest of a target for which a root filesystem can be unpacked.
    pub fn rootfs_guest(&self, target: &Arch) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.rootfs && guest.target == target)
    }

    /// The static program of this name.
    pub fn program(&self, name: &str) -> Option<&GuestProgram> {
        self.programs.iter().find(|program| program.name == name)
    }

    /// The targets that emulate guests, each once, sorted by name.
    pub fn targets(&self) -> Vec<&'static Arch> {
        let mut targets: Vec<_> = self.guests.iter().map(|guest| guest.target).collect();
        targets.sort_by_key(|target| target.name);
        targets.dedup();
        targets
    }

    /// `suites` are the names of suites in other files, each with its place.
    pub(crate) fn lint<'a>(&'a self, suites: impl Iterator<Item = (String, &'a str)>) -> Vec<String> {
        let mut findings = Vec::new();
        let mut check = |ok: bool, finding: &dyn Fn() -> String| {
            if !ok {
                findings.push(finding());
            }
        };
        for (index, suite) in self.suites.iter().enumerate() {
            let new = !self.suites[..index].iter().any(|other| other.name == suite.name);
            check(new, &|| format!("suite {}: duplicate", suite.name));
        }
        let sets = self.packages.all();
        let of_guests = self.guest_suites.iter().map(|name| ("guest-suites".to_owned(), &**name));
        let of_sets = sets.iter().filter_map(|(set, packages)| match &packages.from {
            Origin::Suite(name) => Some((format!("packages.{set}"), &**name)),
            Origin::Own | Origin::Guests => None,
        });
        for (place, name) in of_guests.chain(of_sets).chain(suites) {
            check(self.suite(name).is_ok(), &|| format!("{place}: suite {name} is not in debian.toml"));
        }
        check(!self.guest_suites.is_empty(), &|| "guest-suites: empty".to_owned());

        check(self.guests.is_sorted_by_key(|guest| &guest.debian), &|| "guests: not sorted".to_owned());
        for (index, guest) in self.guests.iter().enumerate() {
            let Guest { target, platform, .. } = guest;
            let others = &self.guests[..index];
            check(!others.iter().any(|other| other.debian == guest.debian), &|| {
                format!("guest {guest}: duplicate")
            });
            check(target.debian.contains(&&*guest.debian), &|| {
                format!("guest {guest}: not emulated by {target}")
            });
            let suite = guest.suite.as_ref();
            check(suite.is_none_or(|suite| self.guest_suites.contains(suite)), &|| {
                format!("guest {guest}: its suite is not in guest-suites")
            });
            check(!guest.machine.is_empty(), &|| format!("guest {guest}: no machine"));
            let known = platform.as_ref().is_none_or(|platform| target.platforms.contains(&&**platform));
            check(known, &|| format!("guest {guest}: not a platform of {target}"));
            let second = guest.rootfs && others.iter().any(|other| other.rootfs && other.target == *target);
            check(!second, &|| format!("guest {guest}: second rootfs of {target}"));
            check(!guest.container || guest.rootfs && guest.platform().is_some(), &|| {
                format!("guest {guest}: container without rootfs or platform")
            });
        }

        check(self.ports.is_sorted_by_key(|port| &port.debian), &|| "ports: not sorted".to_owned());
        for Port { debian, target, suite, packages, .. } in &self.ports {
            check(target.debian.contains(&&**debian), &|| format!("port {debian}: not emulated by {target}"));
            check(self.guest(debian).is_none(), &|| format!("port {debian}: also a guest"));
            check(self.guest_suites.contains(suite), &|| {
                format!("port {debian}: its suite is not in guest-suites")
            });
            check(packages.iter().all(|package| is_package(package)), &|| {
                format!("port {debian}: a package's name is wrong")
            });
        }

        let programs = self.programs.iter().map(|program| {
            (format!("program {}", program.name), std::slice::from_ref(&program.package), &*program.reason)
        });
        let sets = sets.iter().map(|(set, it)| (format!("packages.{set}"), &*it.packages, &*it.reason));
        for (place, packages, reason) in programs.chain(sets) {
            check(!reason.is_empty(), &|| format!("{place}: no reason"));
            check(!packages.is_empty(), &|| format!("{place}: no package"));
            for package in packages {
                check(is_package(package), &|| format!("{place}: `{package}` is not a package's name"));
            }
        }
        findings
    }
}

/// Debian's rule for names, without an architecture.
fn is_package(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() > 1
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Debian {
        toml::from_str(include_str!("../debian.toml")).unwrap()
    }

    fn lint(data: &Debian) -> Vec<String> {
        data.lint(std::iter::empty())
    }

    #[test]
    fn guests_are_found_by_name_and_target() {
        let data = shipped();
        let arm: &Arch = "arm".parse().unwrap();
        assert_eq!(data.rootfs_guest(arm).unwrap().debian, "armhf");
        assert_eq!(data.guest("armhf").unwrap().platform(), Some("arm/v7"));
        assert_eq!(data.guest("ppc64el").unwrap().platform(), Some("ppc64le"));
        assert!(data.guest("vax").is_none());
        let mips: &Arch = "mipsel".parse().unwrap();
        assert!(data.rootfs_guest(mips).is_none());
        assert_eq!(data.targets().len(), data.guests.len() - 1, "armel and armhf have the same target");
        assert_eq!(data.program("bash").unwrap().package, "bash-static");
    }

    #[test]
    fn an_unknown_suite_gets_the_list() {
        assert_eq!(shipped().suite("trixie").unwrap().emulators, "qemu-user");
        let message = shipped().suite("buster").unwrap_err();
        assert_eq!(message, "unknown suite `buster`; suites are bullseye, bookworm, trixie, forky, sid");
    }

    #[test]
    fn a_misspelt_name_is_an_error() {
        let text = include_str!("../debian.toml");
        for (from, to, expected) in [
            ("target = \"x86_64\"", "target = \"x86_46\"", "unknown architecture `x86_46`"),
            ("[packages.zstd]", "[packages.zst]", "unknown field `zst`"),
            ("from = \"own\"", "from = \"mine\"", "unknown variant `mine`"),
            ("rootfs = true", "rootf = true", "unknown field `rootf`"),
        ] {
            let error = toml::from_str::<Debian>(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn lint_finds_what_types_cannot() {
        type Change = fn(&mut Debian);
        let cases: [(Change, &str); 13] = [
            (|it| it.suites[1].name = "bullseye".into(), "suite bullseye: duplicate"),
            (|it| it.guest_suites.clear(), "guest-suites: empty"),
            (|it| it.guest_suites.push("buster".into()), "guest-suites: suite buster is not in debian.toml"),
            (|it| it.packages.engine.from = Origin::Suite("buster".into()), "packages.engine: suite buster"),
            (|it| it.guests.swap(0, 1), "guests: not sorted"),
            (|it| it.guests[1].debian = "amd64".into(), "guest amd64: duplicate"),
            (|it| it.guests[0].debian = "alpha".into(), "guest alpha: not emulated by x86_64"),
            (|it| it.guests[0].platform = Some("arm".into()), "guest amd64: not a platform of x86_64"),
            (|it| it.guests[2].rootfs = true, "guest armhf: second rootfs of arm"),
            (
                |it| it.guests[0].suite = Some("buster".into()),
                "guest amd64: its suite is not in guest-suites",
            ),
            (|it| it.guests[0].machine.clear(), "guest amd64: no machine"),
            (|it| it.guests[2].container = true, "guest armel: container without rootfs or platform"),
            (|it| it.programs[0].package = "busybox:arm64".into(), "`busybox:arm64` is not a package's name"),
        ];
        for (change, expected) in cases {
            let mut data = shipped();
            assert_eq!(lint(&data), Vec::<String>::new());
            change(&mut data);
            let findings = lint(&data);
            assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:?}");
        }
        let mut data = shipped();
        data.packages.zstd.reason.clear();
        data.packages.valgrind.packages.clear();
        assert_eq!(lint(&data), ["packages.valgrind: no package", "packages.zstd: no reason"]);
        let other = std::iter::once(("sources.toml".to_owned(), "buster"));
        assert_eq!(shipped().lint(other), ["sources.toml: suite buster is not in debian.toml"]);
    }
}
