//! The one table of architectures: a row for each of QEMU 10.2's 33 linux-user targets, and a
//! second, short one of the machines that qus builds emulators for.
//!
//! Everything that depends on an architecture (magic and mask, the smoke matrix, the tables of the
//! README, the spelling of arguments) is derived from here, so that a new target is one new row.
//! It does not say what a given machine can run: families mislead (an AArch64-only CPU does not run
//! `arm`), so that is found out by running a probe.
//!
//! Sources: names from QEMU's `configs/targets/*-linux-user.mak`; machine numbers and flags from the
//! ELF registry and QEMU's `include/elf.h`; platforms from the OCI image specification and Go's
//! `GOARCH`; Debian's names from its port list.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::text::Show;
use Class::{Elf32, Elf64};
use Endian::{Big, Little};

/// Word size of an ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `ELFCLASS32`
    Elf32,
    /// `ELFCLASS64`
    Elf64,
}

/// Byte order of an ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// `ELFDATA2LSB`
    Little,
    /// `ELFDATA2MSB`
    Big,
}

impl Class {
    /// Its value of `e_ident[EI_CLASS]`.
    pub fn ident(self) -> u8 {
        match self {
            Self::Elf32 => 1,
            Self::Elf64 => 2,
        }
    }
}

impl Endian {
    /// Its value of `e_ident[EI_DATA]`.
    pub fn ident(self) -> u8 {
        match self {
            Self::Little => 1,
            Self::Big => 2,
        }
    }

    /// Two bytes in this order.
    pub fn half(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    /// Four bytes in this order.
    pub fn word(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Elf32 => "32-bit",
            Self::Elf64 => "64-bit",
        })
    }
}

impl fmt::Display for Endian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Little => "little-endian",
            Self::Big => "big-endian",
        })
    }
}

/// One of QEMU's linux-user targets: an architecture whose programs can be emulated.
#[derive(Debug, PartialEq, Eq)]
pub struct Arch {
    /// QEMU's name, as in `qemu-aarch64`.
    pub name: &'static str,
    /// Word size of its ELF files.
    pub class: Class,
    /// Whether the processor that runs them has registers of 64 bits: QEMU's `TARGET_LONG_BITS`.
    pub wide: bool,
    /// Byte order of its ELF files.
    pub endian: Endian,
    /// Values of `e_machine` that the emulator accepts, the one current tools write first.
    pub machines: &'static [u16],
    /// Bits of `e_flags` that tell it from another row with the same class, order and machine.
    pub flags: Option<FlagBits>,
    /// GNU triples, the preferred one first.
    pub triples: &'static [&'static str],
    /// OCI platforms without their `linux/`, the most general first; empty where there is none.
    pub platforms: &'static [&'static str],
    /// Whether Docker's official images are published for it.
    pub official_images: bool,
    /// Debian's names, the preferred one first; empty where Debian has no port.
    pub debian: &'static [&'static str],
    /// Every other spelling in use: Fedora, `uname -m`, dbhi/qus, the kernel.
    pub aliases: &'static [&'static str],
}

/// Bits of the ELF header's `e_flags` that identify an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagBits {
    /// The bits that count.
    pub mask: u32,
    /// Their value.
    pub value: u32,
}

impl FlagBits {
    /// `EF_MIPS_ABI2`: set in n32 programs, clear in o32 ones, which are otherwise alike.
    const MIPS_ABI2: u32 = 0x20;
    const O32: Self = Self { mask: Self::MIPS_ABI2, value: 0 };
    const N32: Self = Self { mask: Self::MIPS_ABI2, value: Self::MIPS_ABI2 };
}

/// All of them, in the order of their names.
pub static ARCHES: [Arch; 33] = [
    Arch::new("aarch64", Elf64, Little, &[183], &["aarch64-linux-gnu"])
        .official(&["arm64", "arm64/v8"])
        .debian(&["arm64"])
        .aliases(&["arm64v8", "armv8"]),
    Arch::new("aarch64_be", Elf64, Big, &[183], &["aarch64_be-linux-gnu"])
        .platforms(&["arm64be"])
        .aliases(&["arm64_be"]),
    Arch::new("alpha", Elf64, Little, &[0x9026], &["alpha-linux-gnu"]).debian(&["alpha"]),
    Arch::new("arm", Elf32, Little, &[40], &["arm-linux-gnueabihf", "arm-linux-gnueabi"])
        .official(&["arm", "arm/v7", "arm/v6", "arm/v5"])
        .debian(&["armhf", "armel"])
        .aliases(&[
            "arm32v7",
            "arm32v6",
            "arm32v5",
            "armv7",
            "armv6",
            "armv5",
            "armv8l",
            "armv7l",
            "armv6l",
            "armv5l",
            "armv5tel",
            "armv5tejl",
            "armv7hl",
            "armv7hnl",
            "armhfp",
        ]),
    Arch::new("armeb", Elf32, Big, &[40], &["armeb-linux-gnueabi"])
        .platforms(&["armbe"])
        .debian(&["armeb"])
        .aliases(&["armv7b", "armv6b", "armv5teb", "armv8b"]),
    Arch::new("hexagon", Elf32, Little, &[164], &["hexagon-unknown-linux-musl"]),
    Arch::new("hppa", Elf32, Big, &[15], &["hppa-linux-gnu"])
        .wide()
        .debian(&["hppa"])
        .aliases(&["parisc", "parisc64", "hppa1.1", "hppa2.0"]),
    // EM_486 (6) was never in wide use, but the kernel and QEMU take it.
    Arch::new("i386", Elf32, Little, &[3, 6], &["i386-linux-gnu", "i686-linux-gnu"])
        .official(&["386"])
        .debian(&["i386"])
        .aliases(&["i486", "i586", "i686", "x86", "ia32"]),
    Arch::new("loongarch64", Elf64, Little, &[258], &["loongarch64-linux-gnu"])
        .official(&["loong64"])
        .debian(&["loong64"])
        .aliases(&["loongarch"]),
    Arch::new("m68k", Elf32, Big, &[4], &["m68k-linux-gnu"]).debian(&["m68k"]),
    // 0xBAAB is what tools wrote before the registry assigned 189.
    Arch::new("microblaze", Elf32, Big, &[189, 0xBAAB], &["microblaze-linux-gnu"]),
    Arch::new("microblazeel", Elf32, Little, &[189, 0xBAAB], &["microblazeel-linux-gnu"]),
    Arch::new("mips", Elf32, Big, &[8], &["mips-linux-gnu"])
        .flags(FlagBits::O32)
        .platforms(&["mips"])
        .debian(&["mips"]),
    Arch::new("mips64", Elf64, Big, &[8], &["mips64-linux-gnuabi64"])
        .platforms(&["mips64"])
        .debian(&["mips64"]),
    Arch::new("mips64el", Elf64, Little, &[8], &["mips64el-linux-gnuabi64"])
        .official(&["mips64le"])
        .debian(&["mips64el"]),
    Arch::new("mipsel", Elf32, Little, &[8], &["mipsel-linux-gnu"])
        .flags(FlagBits::O32)
        .platforms(&["mipsle"])
        .debian(&["mipsel"]),
    Arch::new("mipsn32", Elf32, Big, &[8], &["mips64-linux-gnuabin32"])
        .flags(FlagBits::N32)
        .wide()
        .platforms(&["mips64p32"])
        .debian(&["mipsn32"]),
    Arch::new("mipsn32el", Elf32, Little, &[8], &["mips64el-linux-gnuabin32"])
        .flags(FlagBits::N32)
        .wide()
        .platforms(&["mips64p32le"])
        .debian(&["mipsn32el"]),
    Arch::new("or1k", Elf32, Big, &[92], &["or1k-linux-gnu"]).debian(&["or1k"]).aliases(&["openrisc"]),
    Arch::new("ppc", Elf32, Big, &[20], &["powerpc-linux-gnu"]).platforms(&["ppc"]).debian(&["powerpc"]),
    Arch::new("ppc64", Elf64, Big, &[21], &["powerpc64-linux-gnu"])
        .platforms(&["ppc64"])
        .debian(&["ppc64"])
        .aliases(&["powerpc64"]),
    Arch::new("ppc64le", Elf64, Little, &[21], &["powerpc64le-linux-gnu"])
        .official(&["ppc64le"])
        .debian(&["ppc64el"])
        .aliases(&["powerpc64le"]),
    Arch::new("riscv32", Elf32, Little, &[243], &["riscv32-linux-gnu"])
        .platforms(&["riscv"])
        .aliases(&["rv32"]),
    Arch::new("riscv64", Elf64, Little, &[243], &["riscv64-linux-gnu"])
        .official(&["riscv64"])
        .debian(&["riscv64"])
        .aliases(&["rv64"]),
    Arch::new("s390x", Elf64, Big, &[22], &["s390x-linux-gnu"]).official(&["s390x"]).debian(&["s390x"]),
    Arch::new("sh4", Elf32, Little, &[42], &["sh4-linux-gnu"]).debian(&["sh4"]).aliases(&["sh4a"]),
    Arch::new("sh4eb", Elf32, Big, &[42], &["sh4eb-linux-gnu"]).debian(&["sh4eb"]).aliases(&["sh4aeb"]),
    Arch::new("sparc", Elf32, Big, &[2], &["sparc-linux-gnu"]).platforms(&["sparc"]).debian(&["sparc"]),
    Arch::new("sparc32plus", Elf32, Big, &[18], &["sparc32plus-linux-gnu"]).wide().aliases(&["sparcv8plus"]),
    Arch::new("sparc64", Elf64, Big, &[43], &["sparc64-linux-gnu"])
        .platforms(&["sparc64"])
        .debian(&["sparc64"])
        .aliases(&["sparcv9"]),
    Arch::new("x86_64", Elf64, Little, &[62], &["x86_64-linux-gnu"])
        .official(&["amd64", "amd64/v1", "amd64/v2", "amd64/v3", "amd64/v4"])
        .debian(&["amd64"])
        .aliases(&["x86-64", "x64"]),
    Arch::new("xtensa", Elf32, Little, &[94], &["xtensa-linux-gnu"]),
    Arch::new("xtensaeb", Elf32, Big, &[94], &["xtensaeb-linux-gnu"]),
];

impl Arch {
    const fn new(
        name: &'static str,
        class: Class,
        endian: Endian,
        machines: &'static [u16],
        triples: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            class,
            wide: matches!(class, Elf64),
            endian,
            machines,
            flags: None,
            triples,
            platforms: &[],
            official_images: false,
            debian: &[],
            aliases: &[],
        }
    }

    const fn flags(mut self, flags: FlagBits) -> Self {
        self.flags = Some(flags);
        self
    }

    /// For programs of 32 bits on a processor of 64.
    const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    const fn platforms(mut self, platforms: &'static [&'static str]) -> Self {
        self.platforms = platforms;
        self
    }

    const fn official(mut self, platforms: &'static [&'static str]) -> Self {
        self.official_images = true;
        self.platforms(platforms)
    }

    const fn debian(mut self, debian: &'static [&'static str]) -> Self {
        self.debian = debian;
        self
    }

    const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// File name of its emulator, as in `qemu-aarch64`.
    pub fn emulator(&self) -> String {
        format!("qemu-{}", self.name)
    }

    /// Every spelling that [`FromStr`] accepts for it, QEMU's name first; a platform is also
    /// accepted with `linux/` before it.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> {
        let lists = [self.platforms, self.debian, self.triples, self.aliases];
        std::iter::once(self.name).chain(lists.into_iter().flatten().copied())
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// Nothing in the table is spelt like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownArch {
    /// What was asked for.
    pub given: String,
    /// QEMU's names that come closest, best first; may be empty.
    pub nearest: Vec<&'static str>,
}

impl fmt::Display for UnknownArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown architecture `{}`", self.given.shown())?;
        if !self.nearest.is_empty() {
            write!(f, "; did you mean {}?", self.nearest.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownArch {}

impl FromStr for &'static Arch {
    type Err = UnknownArch;

    fn from_str(given: &str) -> Result<Self, UnknownArch> {
        let name = given.strip_prefix("linux/").unwrap_or(given);
        ARCHES
            .iter()
            .find(|arch| arch.spellings().any(|spelling| spelling == name))
            .ok_or_else(|| UnknownArch { given: given.to_owned(), nearest: nearest(name) })
    }
}

/// As its name.
impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// From any of its spellings.
impl<'de> Deserialize<'de> for &'static Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// At most three names with a spelling that resembles `name`.
fn nearest(name: &str) -> Vec<&'static str> {
    /// Jaro-Winkler similarity (0 to 1) from which a suggestion is more help than noise; the
    /// value clap uses for its own.
    const ALIKE: f64 = 0.7;
    let mut scored: Vec<(f64, &'static str)> = ARCHES
        .iter()
        .map(|arch| {
            let alike = arch.spellings().map(|spelling| strsim::jaro_winkler(name, spelling));
            (alike.fold(0.0, f64::max), arch.name)
        })
        .filter(|(alike, _)| *alike > ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// A machine that emulators are built for, named as dbhi/qus and Docker's official images name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    /// Name in tags and bundle folders, as in `amd64` or `arm32v7`.
    pub name: &'static str,
    /// OCI platform without its `linux/`.
    pub platform: &'static str,
    /// QEMU's name for what the machine is.
    pub arch: &'static str,
    /// Debian's name.
    pub debian: &'static str,
    /// GNU triple of its compiler and library folders.
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

impl Host {
    const fn new(
        name: &'static str,
        platform: &'static str,
        arch: &'static str,
        debian: &'static str,
        triple: &'static str,
    ) -> Self {
        Self { name, platform, arch, debian, triple }
    }

    /// The host this program was compiled for; `None` where qus builds no emulators.
    pub fn current() -> Option<&'static Host> {
        let name = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            name => name,
        };
        Self::of(name.parse().ok()?)
    }

    /// The usual host of an architecture, where it is one.
    pub fn of(arch: &Arch) -> Option<&'static Host> {
        HOSTS.iter().find(|host| host.arch == arch.name)
    }

    /// Its own row of the table of architectures.
    pub fn arch(&self) -> &'static Arch {
        ARCHES.iter().find(|arch| arch.name == self.arch).expect("a unit test parses every host's arch")
    }

    /// Whether QEMU emulates an architecture there: since 10.0 no 64-bit processor on a 32-bit one.
    pub fn can_emulate(&self, arch: &Arch) -> bool {
        self.arch().wide || !arch.wide
    }

    /// Every architecture that can be emulated there.
    pub fn guests(&'static self) -> impl Iterator<Item = &'static Arch> {
        ARCHES.iter().filter(|arch| self.can_emulate(arch))
    }

    /// What containers need there: every architecture of Docker's official images but its own.
    pub fn container_set(&'static self) -> impl Iterator<Item = &'static Arch> {
        self.guests().filter(|arch| arch.official_images && arch.name != self.arch)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// No host is called this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownHost(pub String);

impl fmt::Display for UnknownHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = HOSTS.iter().map(|host| host.name).collect();
        write!(f, "unknown host `{}`; hosts are {}", self.0, names.join(", "))
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
    use std::collections::BTreeMap;

    #[test]
    fn every_spelling_names_one_row() {
        let mut seen = BTreeMap::new();
        for arch in &ARCHES {
            for spelling in arch.spellings() {
                let other = seen.insert(spelling, arch.name);
                assert!(other.is_none_or(|other| other == arch.name), "{spelling}: {other:?} and {arch}");
                assert_eq!(spelling.parse(), Ok(arch), "{spelling}");
            }
        }
    }

    #[test]
    fn rows_are_sorted_and_tell_each_other_apart() {
        assert!(ARCHES.is_sorted_by_key(|arch| arch.name));
        for (i, a) in ARCHES.iter().enumerate() {
            for b in &ARCHES[i + 1..] {
                let same_header = a.class == b.class
                    && a.endian == b.endian
                    && a.machines.iter().any(|machine| b.machines.contains(machine));
                assert!(!same_header || a.flags != b.flags, "{a} and {b} read the same header");
            }
        }
    }

    #[test]
    fn spellings_of_the_peers() {
        for (spelling, name) in [
            ("linux/arm64", "aarch64"),
            ("linux/arm/v7", "arm"),
            ("arm32v6", "arm"),
            ("armhf", "arm"),
            ("linux/386", "i386"),
            ("i686", "i386"),
            ("ppc64el", "ppc64le"),
            ("powerpc64le-linux-gnu", "ppc64le"),
            ("mips64le", "mips64el"),
            ("loong64", "loongarch64"),
            ("powerpc", "ppc"),
        ] {
            assert_eq!(spelling.parse::<&Arch>().map(|arch| arch.name), Ok(name));
        }
    }

    #[test]
    fn a_slip_of_the_finger_gets_a_suggestion() {
        let error = "aarch46".parse::<&Arch>().unwrap_err();
        assert_eq!(error.nearest.first(), Some(&"aarch64"));
        assert!(error.to_string().starts_with("unknown architecture `aarch46`; did you mean aarch64"));
        assert_eq!("".parse::<&Arch>().unwrap_err().nearest, Vec::<&str>::new());
        assert!("linux/".parse::<&Arch>().is_err());
    }

    #[test]
    fn hosts_have_rows() {
        for host in &HOSTS {
            assert_eq!(host.arch().name, host.arch);
            assert!(host.arch().platforms.contains(&host.platform), "{host}");
            assert!(host.arch().debian.contains(&host.debian), "{host}");
            assert!(host.arch().triples.contains(&host.triple), "{host}");
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
