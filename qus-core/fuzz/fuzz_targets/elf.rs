//! Arbitrary bytes to the ELF parser: it may refuse them, it must not panic, and the loader that it returns
//! must be in them. The probes are a good initial corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::elf::Elf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(elf) = Elf::parse(bytes) {
        let _ = (elf.arch(), elf.abi());
        if let Some(loader) = elf.interpreter {
            let loader = loader.as_os_str().as_encoded_bytes();
            assert!(loader.is_empty() || bytes.windows(loader.len()).any(|part| part == loader));
        }
    }
});
