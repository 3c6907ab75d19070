//! The machines that qus builds emulators for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::row::Arch;
use super::table::ARCHES;
use crate::text::Show;

/// A machine that emulators are built for, named as dbhi/qus and Docker's official images name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    /// Name in tags and bundle directories, as in `amd64` or `arm32v7`.
    pub name: &'static str,
    /// OCI platform without its `linux/`.
    pub platform: &'static str,
    /// The architecture of the machine.
    pub arch: &'static Arch,
    /// Debian's name.
    pub debian: &'static str,
    /// GNU triple of its compiler and library directories.
    pub triple: &'static str,
}

/// All hosts.
pub static HOSTS: [Host; 9] = [
    Host::new("amd64", "amd64", "x86_64", "amd64", "x86_64-linux-gnu"),
    Host::new("arm64v8", "arm64/v8", "aarch64", "arm64", "aarch64-linux-gnu"),
    Host::new("arm32v7", "arm/v7", "arm", "armhf", "arm-linux-gnueabihf"),
    Host::new("arm32v6", "arm/v6", "arm", "armel", "arm-linux-gnueabi"),
    Host::new("i386", "386", "i386", "i386", "i386-linux-gnu"),
    Host::new("ppc64le", "ppc64le", "ppc64le", "ppc64el", "powerpc64le-linux-gnu"),
    Host::new("s390x", "s390x", "s390x", "s390x", "s390x-linux-gnu"),
    Host::new("riscv64", "riscv64", "riscv64", "riscv64", "riscv64-linux-gnu"),
    Host::new("loong64", "loong64", "loongarch64", "loong64", "loongarch64-linux-gnu"),
];

/// The row of a name, looked up at compile time; a name without a row does not compile.
const fn row(name: &str) -> &'static Arch {
    let mut index = 0;
    while index < ARCHES.len() {
        if is_same(ARCHES[index].name, name) {
            return &ARCHES[index];
        }
        index += 1;
    }
    panic!("a host's architecture has a row")
}

/// `==`, which constant functions cannot use on text.
const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

impl Host {
    const fn new(
        name: &'static str,
        platform: &'static str,
        arch: &str,
        debian: &'static str,
        triple: &'static str,
    ) -> Self {
        Self { name, platform, arch: row(arch), debian, triple }
    }

    /// The host this program was compiled for; `None` where qus builds no emulators.
    pub fn current() -> Option<&'static Host> {
        let name = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            name => name,
        };
        Self::of(name.parse().ok()?)
    }

    /// The first host of an architecture; `None` if qus builds no emulators for it.
    pub fn of(arch: &Arch) -> Option<&'static Host> {
        HOSTS.iter().find(|host| host.arch == arch)
    }

    /// Whether QEMU emulates an architecture there: since 10.0 a 32-bit host emulates no processor with 64-bit registers.
    pub fn can_emulate(&self, arch: &Arch) -> bool {
        self.arch.registers_64_bit || !arch.registers_64_bit
    }

    /// Whether its kernel may run an architecture's programs without an emulator: its own, and the 32-bit ones of its
    /// family, which some of its processors run.
    pub fn may_run(&self, arch: &Arch) -> bool {
        arch == self.arch || matches!((self.arch.name, arch.name), ("x86_64", "i386") | ("aarch64", "arm"))
    }

    /// Checks that QEMU emulates architectures there.
    ///
    /// # Errors
    /// Those that it does not.
    ///
    /// ```
    /// use qus_core::arch::Host;
    ///
    /// let host: &Host = "arm32v7".parse()?;
    /// assert!(host.check_emulates(&["arm".parse()?]).is_ok());
    /// let error = host.check_emulates(&["aarch64".parse()?, "arm".parse()?]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "since version 10.0, QEMU emulates no 64-bit processors on 32-bit hosts: no aarch64 on arm32v7"
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_emulates(&'static self, archs: &[&'static Arch]) -> Result<(), CannotEmulate> {
        let archs: Vec<_> = archs.iter().copied().filter(|arch| !self.can_emulate(arch)).collect();
        if archs.is_empty() { Ok(()) } else { Err(CannotEmulate { host: self, archs }) }
    }

    /// Every architecture that can be emulated there.
    pub fn guests(&'static self) -> impl Iterator<Item = &'static Arch> {
        ARCHES.iter().filter(|arch| self.can_emulate(arch))
    }

    /// The architectures that containers need there: those of Docker's official images, except its own.
    pub fn container_set(&'static self) -> impl Iterator<Item = &'static Arch> {
        self.guests().filter(|arch| arch.official_images && *arch != self.arch)
    }
}

/// Architectures that QEMU does not emulate on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotEmulate {
    /// The host.
    pub host: &'static Host,
    /// The architectures, at least one.
    pub archs: Vec<&'static Arch>,
}

impl fmt::Display for CannotEmulate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let archs: Vec<_> = self.archs.iter().map(|arch| arch.name).collect();
        write!(
            f,
            "since version 10.0, QEMU emulates no 64-bit processors on 32-bit hosts: no {} on {}",
            archs.join(", "),
            self.host
        )
    }
}

impl std::error::Error for CannotEmulate {}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// No host has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownHost(pub String);

impl fmt::Display for UnknownHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = HOSTS.iter().map(|host| host.name).collect();
        write!(f, "unknown host `{}`; hosts are {}", self.0.shown(), names.join(", "))
    }
}

impl std::error::Error for UnknownHost {}

impl FromStr for &'static Host {
    type Err = UnknownHost;

    fn from_str(given: &str) -> Result<Self, UnknownHost> {
        let name = given.strip_prefix("linux/").unwrap_or(given);
        let spelt = |host: &&Host| [host.name, host.platform, host.debian].contains(&name);
        HOSTS.iter().find(spelt).ok_or_else(|| UnknownHost(given.to_owned()))
    }
}

/// As its name.
impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// From any of its spellings.
impl<'de> Deserialize<'de> for &'static Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spelt_as_their_architectures() {
        for host in &HOSTS {
            assert!(host.arch.platforms.contains(&host.platform), "{host}");
            assert!(host.arch.debian.contains(&host.debian), "{host}");
            assert!(host.arch.triples.contains(&host.triple), "{host}");
            assert_eq!(host.name.parse(), Ok(host));
        }
        assert!("vax".parse::<&Host>().unwrap_err().to_string().contains("arm64v8"));
    }

    #[test]
    fn containers_on_amd64() {
        let host: &Host = "amd64".parse().unwrap();
        let names: Vec<_> = host.container_set().map(|arch| arch.name).collect();
        let expected = ["aarch64", "arm", "i386", "loongarch64", "mips64el", "ppc64le", "riscv64", "s390x"];
        assert_eq!(names, expected);
    }

    #[test]
    fn hosts_run_programs_of_their_family() {
        let run = |host: &Host| {
            ARCHES.iter().filter(|arch| host.may_run(arch)).map(|arch| arch.name).collect::<Vec<_>>()
        };
        assert_eq!(run("amd64".parse().unwrap()), ["i386", "x86_64"]);
        assert_eq!(run("arm64v8".parse().unwrap()), ["aarch64", "arm"]);
        assert_eq!(run("s390x".parse().unwrap()), ["s390x"]);
    }

    #[test]
    fn narrow_hosts_emulate_narrow_guests() {
        let host: &Host = "armhf".parse().unwrap();
        let names: Vec<_> = host.container_set().map(|arch| arch.name).collect();
        assert_eq!(names, ["i386"]);
        assert_eq!(host.guests().count(), 17);
        for wide in ["aarch64", "hppa", "mipsn32"] {
            assert!(!host.can_emulate(wide.parse().unwrap()), "{wide}");
        }
    }
}
