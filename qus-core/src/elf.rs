//! Reads from an ELF file what it needs to run: class, byte order, machine, flags, type, the
//! loader and the libraries it needs.
//!
//! Written by hand, because qus reads untrusted files of every class and byte order and needs only a few fields. The
//! reader never panics, never reads past the end, and reads only the bytes that it needs, so that files may be large. It
//! refuses files that are not ELF version 1, and headers that point outside the file. It ignores section headers, which
//! a stripped or hostile file need not have.
//!
//! ```
//! use qus_core::elf::Elf;
//!
//! let file = std::fs::File::open("/proc/self/exe")?;
//! let elf = Elf::parse(&file)?;
//! println!("{} {} {:?}", elf.class, elf.endian, elf.arch());
//! assert_eq!(elf.arch().unwrap().name, std::env::consts::ARCH);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Field names and offsets are those of the System V ABI, "Object Files".

mod image;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::arch::{ARCHES, Arch};
pub use crate::arch::{Class, Endian};
pub use image::{ElfImage, Segment};

/// What kind of ELF file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfKind {
    /// `ET_EXEC`: a program at fixed addresses.
    Executable,
    /// `ET_DYN`: a position-independent program, or a library.
    SharedObject,
    /// Anything else, with its `e_type`: object files, core dumps.
    Other(u16),
}

/// The headers of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Word size.
    pub class: Class,
    /// Byte order.
    pub endian: Endian,
    /// `e_ident[EI_OSABI]`: 0 System V, 3 GNU/Linux, 9 FreeBSD.
    pub os_abi: u8,
    /// Program, library or other.
    pub kind: ElfKind,
    /// `e_machine`, in its registry's numbers.
    pub machine: u16,
    /// `e_flags`, whose meaning depends on the machine.
    pub flags: u32,
    /// `PT_INTERP`: the dynamic loader, without its closing zero.
    pub interpreter: Option<PathBuf>,
    /// Number of `DT_NEEDED` entries: libraries that it needs.
    pub needed: usize,
}

/// Why bytes are not a readable ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfError {
    /// They do not begin with `\x7fELF`.
    NotElf,
    /// Class, byte order or version has a value that does not exist.
    BadIdent,
    /// The named part is outside the file, or its entries have an impossible size.
    Truncated(&'static str),
    /// Its dynamic sections have more entries than those of any program.
    TooLarge,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::BadIdent => f.write_str("ELF class, byte order or version is invalid"),
            Self::TooLarge => f.write_str("ELF dynamic section is too large"),
            Self::Truncated(part) => write!(f, "ELF {part} is damaged or cut off"),
        }
    }
}

impl std::error::Error for ElfError {}

/// Where a file's bytes come from.
pub trait ReadAt {
    /// Fills `buf` with the bytes from `offset` on; `None` if not all of them are there.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Option<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(buf.len())?;
        buf.copy_from_slice(self.get(start..end)?);
        Some(())
    }
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Option<()> {
        self.read_exact_at(buf, offset).ok()
    }
}

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
/// `e_phnum` of a file whose real count does not fit and is in a section header. The kernel
/// runs no such file.
const PN_XNUM: u16 = 0xffff;

/// Longest path of a loader that the kernel accepts, in bytes.
const PATH_MAX: u64 = 4096;

/// How many entries of dynamic sections are read in total, each with one system call. Programs have a few dozen.
const MAX_DYNAMIC: u64 = 1 << 14;

impl Elf {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// See [`ElfError`]; every byte sequence is either read or refused.
    pub fn parse(file: &(impl ReadAt + ?Sized)) -> Result<Self, ElfError> {
        let mut magic = [0; 4];
        if file.read_at(0, &mut magic).is_none() || &magic != b"\x7fELF" {
            return Err(ElfError::NotElf);
        }
        let mut ident = [0; 16];
        file.read_at(0, &mut ident).ok_or(ElfError::Truncated("identification"))?;
        let class = Class::from_ident(ident[4]).ok_or(ElfError::BadIdent)?;
        let endian = Endian::from_ident(ident[5]).ok_or(ElfError::BadIdent)?;
        if ident[6] != 1 {
            return Err(ElfError::BadIdent);
        }
        let file = Reader { file, class, endian };
        let (mut elf, table) = file.elf(ident[7]).ok_or(ElfError::Truncated("header"))?;
        let mut budget = MAX_DYNAMIC;
        for segment in file.segments(table) {
            let segment = segment.ok_or(ElfError::Truncated("program header"))?;
            match segment.kind {
                // The kernel uses the first.
                Segment::INTERPRETER if elf.interpreter.is_none() => {
                    elf.interpreter = Some(file.path(segment).ok_or(ElfError::Truncated("interpreter"))?);
                }
                Segment::DYNAMIC => {
                    elf.needed += file.needed(segment, &mut budget)?;
                }
                _ => {}
            }
        }
        Ok(elf)
    }

    /// Its calling convention, where that decides which libraries it needs.
    ///
    /// From the psABI documents of the architectures: `EF_ARM_ABI_FLOAT_*`, `EF_RISCV_FLOAT_ABI`, `EF_PPC64_ABI`.
    pub fn abi(&self) -> Option<&'static str> {
        let flags = self.flags;
        Some(match self.arch()?.name {
            "arm" | "armeb" if flags >> 24 < 4 => "older than EABI",
            "arm" | "armeb" if flags & 0x400 != 0 => "EABI, hard float (Debian armhf)",
            "arm" | "armeb" => "EABI, soft float (Debian armel) or unspecified",
            "riscv32" | "riscv64" => match flags & 6 {
                0 => "soft float",
                2 => "single float",
                4 => "double float",
                _ => "quad float",
            },
            "mips" | "mipsel" => "o32",
            "mipsn32" | "mipsn32el" => "n32",
            "mips64" | "mips64el" => "n64",
            "ppc64" | "ppc64le" => match flags & 3 {
                1 => "ELFv1",
                2 => "ELFv2",
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The architecture whose emulator runs it; `None` if QEMU emulates none.
    pub fn arch(&self) -> Option<&'static Arch> {
        ARCHES.iter().find(|arch| {
            arch.class == self.class
                && arch.endian == self.endian
                && arch.machines.contains(&self.machine)
                && arch.flags.is_none_or(|bits| self.flags & bits.mask == bits.value)
        })
    }
}

/// A file read with its own word size and byte order.
struct Reader<'a, R: ?Sized> {
    file: &'a R,
    class: Class,
    endian: Endian,
}

/// Where the program headers are.
#[derive(Clone, Copy)]
struct Table {
    offset: u64,
    entry_size: u64,
    count: u64,
}

#[derive(Clone, Copy)]
struct Part {
    kind: u32,
    offset: u64,
    size: u64,
}

impl<R: ReadAt + ?Sized> Reader<'_, R> {
    fn elf(&self, os_abi: u8) -> Option<(Elf, Table)> {
        let kind = match self.half(16)? {
            2 => ElfKind::Executable,
            3 => ElfKind::SharedObject,
            other => ElfKind::Other(other),
        };
        // e_phoff, e_flags, e_phentsize: all fields after e_entry move with the word size.
        let (phoff, flags, phentsize) = match self.class {
            Class::Elf32 => (28, 36, 42),
            Class::Elf64 => (32, 48, 54),
        };
        let elf = Elf {
            class: self.class,
            endian: self.endian,
            os_abi,
            kind,
            machine: self.half(18)?,
            flags: self.word(flags)?,
            interpreter: None,
            needed: 0,
        };
        let count = self.half(phentsize + 2)?;
        let table = Table {
            offset: self.address(phoff)?,
            entry_size: self.half(phentsize)?.into(),
            count: if count == PN_XNUM { 0 } else { count.into() },
        };
        Some((elf, table))
    }

    /// The program headers in turn, `None` for one outside the file or too small to hold its fields.
    fn segments(&self, table: Table) -> impl Iterator<Item = Option<Part>> {
        let (size, p_offset, p_filesz) = match self.class {
            Class::Elf32 => (32, 4, 16),
            Class::Elf64 => (56, 8, 32),
        };
        (0..table.count).map(move |index| {
            let start = table.offset.checked_add(index * table.entry_size)?;
            if table.entry_size < size {
                return None;
            }
            Some(Part {
                kind: self.word(start)?,
                offset: self.address(start.checked_add(p_offset)?)?,
                size: self.address(start.checked_add(p_filesz)?)?,
            })
        })
    }

    /// The loader's path, up to its closing zero.
    fn path(&self, segment: Part) -> Option<PathBuf> {
        if segment.size > PATH_MAX {
            return None;
        }
        let mut path = vec![0; segment.size as usize];
        self.file.read_at(segment.offset, &mut path)?;
        path.truncate(path.iter().position(|&byte| byte == 0).unwrap_or(path.len()));
        Some(OsString::from_vec(path).into())
    }

    /// Counts `DT_NEEDED` up to `DT_NULL` or the end.
    fn needed(&self, segment: Part, budget: &mut u64) -> Result<usize, ElfError> {
        let entry = 2 * self.address_size() as u64;
        let mut needed = 0;
        for index in 0..segment.size / entry {
            *budget = budget.checked_sub(1).ok_or(ElfError::TooLarge)?;
            let start = segment.offset.checked_add(index * entry);
            match start.and_then(|start| self.address(start)).ok_or(ElfError::Truncated("dynamic section"))? {
                DT_NULL => break,
                DT_NEEDED => needed += 1,
                _ => {}
            }
        }
        Ok(needed)
    }

    fn address_size(&self) -> usize {
        match self.class {
            Class::Elf32 => 4,
            Class::Elf64 => 8,
        }
    }

    fn address(&self, offset: u64) -> Option<u64> {
        self.number(offset, self.address_size())
    }

    fn word(&self, offset: u64) -> Option<u32> {
        Some(self.number(offset, 4)? as u32)
    }

    fn half(&self, offset: u64) -> Option<u16> {
        Some(self.number(offset, 2)? as u16)
    }

    /// Reads at most eight bytes in the file's order.
    fn number(&self, offset: u64, size: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..size];
        self.file.read_at(offset, bytes)?;
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.endian {
            Endian::Little => bytes.iter().rev().fold(0, push),
            Endian::Big => bytes.iter().fold(0, push),
        })
    }
}

#[cfg(test)]
mod tests;
