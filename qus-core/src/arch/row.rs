//! A row of the table of architectures, and how it is written down.

use std::fmt;

use serde::{Serialize, Serializer};

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

    /// The class with this value of `e_ident[EI_CLASS]`.
    pub fn from_ident(ident: u8) -> Option<Self> {
        [Self::Elf32, Self::Elf64].into_iter().find(|class| class.ident() == ident)
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

    /// The byte order with this value of `e_ident[EI_DATA]`.
    pub fn from_ident(ident: u8) -> Option<Self> {
        [Self::Little, Self::Big].into_iter().find(|endian| endian.ident() == ident)
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
    /// Whether its processor has 64-bit registers (QEMU's `TARGET_LONG_BITS`), as those of some 32-bit programs do too.
    pub registers_64_bit: bool,
    /// Byte order of its ELF files.
    pub endian: Endian,
    /// Values of `e_machine` that the emulator accepts, the one current tools write first.
    pub machines: &'static [u16],
    /// Bits of `e_flags` that distinguish it from another row with the same class, order and machine.
    pub flags: Option<FlagBits>,
    /// GNU triples, the preferred one first.
    pub triples: &'static [&'static str],
    /// OCI platforms without `linux/`, the most general first; empty if there is none.
    pub platforms: &'static [&'static str],
    /// Whether Docker's official images are published for it.
    pub official_images: bool,
    /// Debian's names, the preferred one first; empty where Debian has no port.
    pub debian: &'static [&'static str],
    /// Other spellings: those of Fedora, `uname -m`, dbhi/qus, the kernel.
    pub aliases: &'static [&'static str],
    /// The processor that programs see under qus's emulator, where that is not QEMU's default.
    pub processor: Option<&'static str>,
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
    pub(super) const O32: Self = Self { mask: Self::MIPS_ABI2, value: 0 };
    pub(super) const N32: Self = Self { mask: Self::MIPS_ABI2, value: Self::MIPS_ABI2 };
}

impl Arch {
    pub(super) const fn new(
        name: &'static str,
        class: Class,
        endian: Endian,
        machines: &'static [u16],
        triples: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            class,
            registers_64_bit: matches!(class, Class::Elf64),
            endian,
            machines,
            flags: None,
            triples,
            platforms: &[],
            official_images: false,
            debian: &[],
            aliases: &[],
            processor: None,
        }
    }

    pub(super) const fn flags(mut self, flags: FlagBits) -> Self {
        self.flags = Some(flags);
        self
    }

    /// For 32-bit programs on a processor with 64-bit registers.
    pub(super) const fn registers_64_bit(mut self) -> Self {
        self.registers_64_bit = true;
        self
    }

    pub(super) const fn platforms(mut self, platforms: &'static [&'static str]) -> Self {
        self.platforms = platforms;
        self
    }

    pub(super) const fn official(mut self, platforms: &'static [&'static str]) -> Self {
        self.official_images = true;
        self.platforms(platforms)
    }

    pub(super) const fn debian(mut self, debian: &'static [&'static str]) -> Self {
        self.debian = debian;
        self
    }

    pub(super) const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(super) const fn processor(mut self, processor: &'static str) -> Self {
        self.processor = Some(processor);
        self
    }

    /// File name of its emulator, as in `qemu-aarch64`.
    pub fn emulator(&self) -> String {
        format!("qemu-{}", self.name)
    }

    /// Every spelling that [`std::str::FromStr`] accepts for it, QEMU's name first; each may also have `linux/` before it.
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

/// As its name.
impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}
