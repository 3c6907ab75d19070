//! Programs of all kinds, damaged ones and noise.

use super::*;
use crate::probe;
use arbtest::arbtest;

/// A little-endian ELF64 program with the given segments: kind, offset, size.
fn program(segments: &[(u32, u64, u64)], content: &[u8]) -> Vec<u8> {
    let segment = |&(kind, offset, size): &_| Segment { kind, offset, size, ..Segment::default() };
    let segments: Vec<_> = segments.iter().map(segment).collect();
    ElfImage { segments: &segments, content, ..ElfImage::of("x86_64".parse().unwrap()) }.bytes()
}

#[test]
fn every_probe_belongs_to_its_row() {
    for arch in &ARCHES {
        let elf = Elf::parse(probe::image(arch)).unwrap();
        assert_eq!(elf.arch(), Some(arch));
        assert_eq!(elf.kind, ElfKind::Executable, "{arch}");
        assert_eq!((elf.interpreter.as_ref(), elf.needed), (None, 0), "{arch}: it is static");
        let mips = [("mips", "o32"), ("mipsn32el", "n32"), ("mips64", "n64"), ("x86_64", "")];
        if let Some((_, abi)) = mips.iter().find(|(name, _)| *name == arch.name) {
            assert_eq!(elf.abi().unwrap_or_default(), *abi, "{arch}");
        }
    }
}

#[test]
fn this_test_program_is_dynamic_natively() {
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let elf = Elf::parse(&file).unwrap();
    assert_eq!(elf.arch().map(|arch| arch.name), Some(std::env::consts::ARCH));
    assert!(elf.interpreter.as_ref().unwrap().starts_with("/"));
    assert!(elf.needed > 0);
}

#[test]
fn interpreter_and_needed() {
    let start = 64 + 2 * 56;
    let mut tail = b"/lib/ld.so\0".to_vec();
    for word in [1u64, 7, 1, 9, 0, 0, 1, 5] {
        tail.extend(word.to_le_bytes());
    }
    let file = program(&[(Segment::INTERPRETER, start, 11), (Segment::DYNAMIC, start + 11, 64)], &tail);
    let elf = Elf::parse(&*file).unwrap();
    assert_eq!(elf.interpreter, Some("/lib/ld.so".into()));
    assert_eq!(elf.needed, 2, "an entry after DT_NULL does not count");
}

#[test]
fn damage_is_named() {
    let good = program(&[(1, 0, 0)], b"");
    assert_eq!(Elf::parse(&b"#!/bin/sh"[..]), Err(ElfError::NotElf));
    assert_eq!(Elf::parse(&b""[..]), Err(ElfError::NotElf));
    assert_eq!(Elf::parse(&good[..10]), Err(ElfError::Truncated("identification")));
    assert_eq!(Elf::parse(&good[..40]), Err(ElfError::Truncated("header")));
    assert_eq!(Elf::parse(&good[..100]), Err(ElfError::Truncated("program header")));
    let outside = program(&[(Segment::INTERPRETER, u64::MAX, u64::MAX)], b"");
    assert_eq!(Elf::parse(&*outside), Err(ElfError::Truncated("interpreter")));
    let many = program(&vec![(Segment::DYNAMIC, 1 << 17, 1 << 40); 2000], &[1; 1 << 20]);
    assert_eq!(Elf::parse(&*many), Err(ElfError::TooLarge));
    for (at, value) in [(4, 3), (5, 0), (6, 2)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Elf::parse(&*bad), Err(ElfError::BadIdent));
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        let _ = Elf::parse(&*bytes);
        Ok(())
    });
}

/// Damaged headers reach further than noise does, which seldom begins with the magic.
#[test]
fn damaged_probes_never_panic() {
    arbtest(|u| {
        let mut bytes = probe::image(u.choose(&ARCHES)?).to_vec();
        for _ in 0..u.int_in_range(1..=8)? {
            let at = u.choose_index(bytes.len())?;
            bytes[at] = u.arbitrary()?;
        }
        let end = u.int_in_range(0..=bytes.len())?;
        if let Ok(elf) = Elf::parse(&bytes[..end]) {
            let _ = elf.arch();
        }
        Ok(())
    });
}
