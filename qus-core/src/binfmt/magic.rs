//! The bytes by which binfmt_misc recognises a foreign binary, derived from the table of architectures alone.
//!
//! QEMU has a list of such values in `scripts/qemu-binfmt-conf.sh`. It is not copied: a test compares with it and lists
//! the rows in which it is wrong. [`Magic::of`] describes the intended differences.

use crate::arch::{Arch, Class};

/// The mark in the padding of our magic, bytes 9 to 11, where its mask is zero.
pub const MARK: [u8; 3] = *b"qus";

/// Where [`MARK`] begins: `EI_PAD`.
const MARK_AT: usize = 9;

/// Where the emulator's build is, up to the end of the padding.
const BUILD: std::ops::Range<usize> = 12..16;

/// The first bytes of an emulator's SHA-256, or zeros if it is not known.
pub type Build = [u8; 4];

/// Bytes at the start of a file and which of their bits count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magic {
    /// What a file must begin with.
    pub magic: Vec<u8>,
    /// The bits that are compared; as long as `magic`.
    pub mask: Vec<u8>,
}

impl Magic {
    /// The magic of an architecture's programs: one for each machine number that its emulator accepts.
    ///
    /// Compared are
    /// - class, byte order and version;
    /// - that the OS ABI is below 4, which includes System V and GNU/Linux and excludes FreeBSD (9);
    /// - that the type is a program, at fixed addresses (2) or position-independent (3);
    /// - the machine, and the flags where the row needs them.
    ///
    /// The ABI version and the padding (bytes 8 to 15) are not compared: they do not depend on the architecture, and
    /// AppImages have a mark there. The kernel stores and shows also the bytes that it does not compare. Ours are [`MARK`],
    /// which distinguishes our handlers from all others, and the emulator's [`Build`], because its path is the same in
    /// every image.
    pub fn of(arch: &Arch, build: Build) -> impl Iterator<Item = Magic> {
        arch.machines.iter().map(move |&machine| {
            let mut this = Magic { magic: Vec::new(), mask: Vec::new() };
            this.push(b"\x7fELF", &[0xff; 4]);
            this.push(&[arch.class.ident(), arch.endian.ident(), 1], &[0xff; 3]);
            this.push(&[0; 2], &[0xfc, 0]);
            this.push(&MARK, &[0; MARK.len()]);
            this.push(&build, &[0; BUILD.end - BUILD.start]);
            this.push(&arch.endian.half(2), &arch.endian.half(0xfffe));
            this.push(&arch.endian.half(machine), &[0xff; 2]);
            if let Some(flags) = arch.flags {
                // Only rows of the 32-bit layout need them; e_entry, e_phoff and e_shoff lie between.
                debug_assert_eq!(arch.class, Class::Elf32);
                this.push(&arch.endian.word(1), &[0xff; 4]);
                this.push(&[0; 12], &[0; 12]);
                this.push(&arch.endian.word(flags.value), &arch.endian.word(flags.mask));
            }
            this
        })
    }

    /// Whether the kernel would use this handler for a file that begins with `header`.
    pub fn matches(&self, header: &[u8]) -> bool {
        header.len() >= self.magic.len()
            && self
                .magic
                .iter()
                .zip(&self.mask)
                .zip(header)
                .all(|((magic, mask), byte)| (byte ^ magic) & mask == 0)
    }

    /// Whether [`Magic::of`] has created it, in this version of qus or another one.
    pub fn is_marked(&self) -> bool {
        let bytes = MARK_AT..MARK_AT + MARK.len();
        self.magic.get(bytes.clone()) == Some(&MARK) && self.mask.get(bytes) == Some(&[0; MARK.len()])
    }

    /// Returns the emulator's build and replaces it by zeros; `None` in magic that is not ours.
    pub fn take_build(&mut self) -> Option<Build> {
        let build = Build::try_from(self.magic.get(BUILD)?).ok().filter(|_| self.is_marked())?;
        self.magic[BUILD].fill(0);
        Some(build)
    }

    fn push(&mut self, magic: &[u8], mask: &[u8]) {
        self.magic.extend(magic);
        self.mask.extend(mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHES;
    use crate::probe;

    /// Upstream's name of an entry, its magic and its mask, in hexadecimal.
    const UPSTREAM: &str = include_str!("../../testdata/qemu-binfmt-conf.txt");

    /// Where upstream's list is wrong: the entry, the bytes that differ from ours, and what is wrong.
    const UPSTREAM_MISTAKES: [(&str, &[usize], &str); 7] = [
        ("i386", &[5, 6], "byte order and version may be 0"),
        ("i486", &[5, 6], "byte order and version may be 0"),
        ("x86_64", &[5, 6], "byte order and version may be 0"),
        ("alpha", &[5, 6], "byte order and version may be 0"),
        ("m68k", &[6], "the version may be 0"),
        ("ppc64le", &[19], "the high byte of the machine may be anything"),
        ("microblaze", &[16, 17], "the type is in the wrong byte order: it never matches"),
    ];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).expect("hexadecimal") as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn upstream_agrees_where_it_is_right() {
        let mut rows = 0;
        for line in UPSTREAM.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split(' ').collect();
            let (name, magic, mask) = (fields[0], hex(fields[1]), hex(fields[2]));
            let (arch, machine) = match name {
                "i486" => ("i386", 1),
                // Upstream has only the old machine number of these two.
                "microblaze" | "microblazeel" => (name, 1),
                _ => (name, 0),
            };
            let ours = Magic::of(arch.parse().unwrap(), [0; 4]).nth(machine).unwrap();
            assert_eq!((ours.magic.len(), ours.mask.len()), (magic.len(), mask.len()), "{name}");
            let differing: Vec<usize> = (0..magic.len())
                // OS ABI, ABI version, padding: ours is one rule for all, upstream's vary.
                .filter(|at| !(7..16).contains(at))
                .filter(|&at| (ours.magic[at], ours.mask[at]) != (magic[at], mask[at]))
                .collect();
            let known = UPSTREAM_MISTAKES.iter().find(|(mistaken, ..)| *mistaken == name);
            assert_eq!(differing, known.map_or(&[][..], |(_, bytes, _)| bytes), "{name}");
            rows += 1;
        }
        assert_eq!(rows, ARCHES.len() + 1, "all rows and i486");
    }

    #[test]
    fn freebsd_is_left_alone_and_appimages_are_not() {
        let arch = "x86_64".parse().unwrap();
        let mut header = probe::image(arch).to_vec();
        let taken = |header: &[u8]| Magic::of(arch, [0; 4]).any(|magic| magic.matches(header));
        header[8..11].copy_from_slice(b"AI\x02");
        assert!(taken(&header));
        header[7] = 9;
        assert!(!taken(&header));
    }

    #[test]
    fn ours_are_marked_and_upstreams_are_not() {
        for arch in &ARCHES {
            for mut magic in Magic::of(arch, [1, 2, 3, 4]) {
                assert!(magic.is_marked(), "{arch}");
                assert_eq!(magic.take_build(), Some([1, 2, 3, 4]));
                assert_eq!(magic.take_build(), Some([0; 4]));
                magic.mask[MARK_AT] = 0xff;
                assert!(!magic.is_marked(), "what is compared is no mark");
                assert_eq!(magic.take_build(), None);
            }
        }
        for line in UPSTREAM.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split(' ').collect();
            assert!(!Magic { magic: hex(fields[1]), mask: hex(fields[2]) }.is_marked(), "{}", fields[0]);
        }
    }

    #[test]
    fn no_handler_of_ours_takes_a_disguised_probe() {
        for arch in &ARCHES {
            let image = probe::disguised(arch);
            assert!(!Magic::of(arch, [0; 4]).any(|magic| magic.matches(&image)), "{arch}");
        }
    }

    #[test]
    fn a_probe_is_matched_by_its_own_row_only() {
        for arch in &ARCHES {
            for other in &ARCHES {
                let matched = Magic::of(other, [0; 4]).any(|magic| magic.matches(probe::image(arch)));
                assert_eq!(matched, arch == other, "{arch} by the magic of {other}");
            }
        }
    }
}
