//! Arbitrary bytes to the ELF parser: it may refuse them, it may not panic, and what it returns has
//! to lie inside them. The probes are a good first corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::elf::Elf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(elf) = Elf::parse(bytes) {
        let _ = elf.arch();
        if let Some(interpreter) = elf.interpreter {
            assert!(bytes.as_ptr_range().contains(&interpreter.as_ptr()) || interpreter.is_empty());
        }
    }
});
