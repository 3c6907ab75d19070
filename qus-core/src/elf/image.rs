//! Writes small ELF files: the probes, and files for tests.
//!
//! ```
//! use qus_core::elf::{Elf, ElfImage, Segment};
//!
//! let arch = "riscv64".parse().unwrap();
//! let load = Segment { kind: Segment::LOAD, flags: Segment::READ | Segment::EXECUTE, ..Segment::default() };
//! let file = ElfImage { segments: &[load], content: b"code", ..ElfImage::of(arch) }.bytes();
//! let elf = Elf::parse(&*file).unwrap();
//! assert_eq!(elf.arch(), Some(arch));
//! ```

use crate::arch::{Arch, Class, Endian};

/// An ELF program to be written: its header, followed by program headers and content.
#[derive(Debug, Clone)]
pub struct ElfImage<'a> {
    /// Word size.
    pub class: Class,
    /// Byte order.
    pub endian: Endian,
    /// `e_machine`
    pub machine: u16,
    /// `e_flags`
    pub flags: u32,
    /// `e_entry`
    pub entry: u64,
    /// The program headers.
    pub segments: &'a [Segment],
    /// What follows them.
    pub content: &'a [u8],
}

/// A program header. Its size in the file is that in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Segment {
    /// `p_type`
    pub kind: u32,
    /// `p_flags`
    pub flags: u32,
    /// `p_offset`
    pub offset: u64,
    /// `p_vaddr` and `p_paddr`
    pub address: u64,
    /// `p_filesz` and `p_memsz`
    pub size: u64,
    /// `p_align`
    pub align: u64,
}

impl Segment {
    /// `PT_LOAD`: mapped into memory.
    pub const LOAD: u32 = 1;
    /// `PT_DYNAMIC`: which libraries are needed.
    pub const DYNAMIC: u32 = 2;
    /// `PT_INTERP`: the path of the loader.
    pub const INTERPRETER: u32 = 3;
    /// `PF_X`
    pub const EXECUTE: u32 = 1;
    /// `PF_R`
    pub const READ: u32 = 4;
}

impl ElfImage<'_> {
    /// An empty file for an architecture.
    pub fn of(arch: &Arch) -> Self {
        Self {
            class: arch.class,
            endian: arch.endian,
            machine: arch.machines[0],
            flags: 0,
            entry: 0,
            segments: &[],
            content: &[],
        }
    }

    /// How many bytes precede the content.
    pub fn headers_size(&self) -> u64 {
        let (header, segment) = self.sizes();
        u64::from(header) + u64::from(segment) * self.segments.len() as u64
    }

    fn sizes(&self) -> (u16, u16) {
        match self.class {
            Class::Elf32 => (52, 32),
            Class::Elf64 => (64, 56),
        }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let (header, segment) = self.sizes();
        let mut file = Writer { bytes: b"\x7fELF".to_vec(), class: self.class, endian: self.endian };
        file.bytes.extend([self.class.ident(), self.endian.ident(), 1]); // EI_VERSION
        file.bytes.extend([0; 9]);
        file.half(2); // e_type: ET_EXEC
        file.half(self.machine);
        file.word(1); // e_version
        file.address(self.entry);
        file.address(header.into()); // e_phoff
        file.address(0); // e_shoff
        file.word(self.flags);
        // e_ehsize, e_phentsize, e_phnum, and no sections
        for half in [header, segment, self.segments.len() as u16, 0, 0, 0] {
            file.half(half);
        }
        for Segment { kind, flags, offset, address, size, align } in self.segments {
            file.word(*kind);
            // The position of the flags depends on the class, so that 64-bit addresses are aligned.
            if self.class == Class::Elf64 {
                file.word(*flags);
            }
            // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz
            for number in [offset, address, address, size, size] {
                file.address(*number);
            }
            if self.class == Class::Elf32 {
                file.word(*flags);
            }
            file.address(*align);
        }
        file.bytes.extend(self.content);
        file.bytes
    }
}

struct Writer {
    bytes: Vec<u8>,
    class: Class,
    endian: Endian,
}

impl Writer {
    fn half(&mut self, value: u16) {
        self.bytes.extend(self.endian.half(value));
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(self.endian.word(value));
    }

    fn address(&mut self, value: u64) {
        match (self.class, self.endian) {
            (Class::Elf32, _) => self.word(value as u32),
            (Class::Elf64, Endian::Little) => self.bytes.extend(value.to_le_bytes()),
            (Class::Elf64, Endian::Big) => self.bytes.extend(value.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHES;
    use crate::probe;

    /// What `cargo xtask codegen` does with the code of a probe.
    #[test]
    fn every_probe_is_written_byte_for_byte() {
        const BASE: u64 = 0x10_0000;
        for arch in &ARCHES {
            let probe = probe::image(arch);
            let flags_at = if arch.class == Class::Elf64 { 48 } else { 36 };
            let flags = probe[flags_at..flags_at + 4].try_into().unwrap();
            let flags = match arch.endian {
                Endian::Little => u32::from_le_bytes(flags),
                Endian::Big => u32::from_be_bytes(flags),
            };
            let load = Segment {
                kind: Segment::LOAD,
                flags: Segment::READ | Segment::EXECUTE,
                offset: 0,
                address: BASE,
                size: probe.len() as u64,
                align: 0x1_0000,
            };
            let image = ElfImage { flags, segments: &[load], ..ElfImage::of(arch) };
            let headers = image.headers_size();
            let content = &probe[headers as usize..];
            assert_eq!(ElfImage { entry: BASE + headers, content, ..image }.bytes(), probe, "{arch}");
        }
    }
}
