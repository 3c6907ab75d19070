//! Arbitrary bytes as `bundle.json`: it may be refused, a version can be the name of a directory, no file is outside of
//! the bundle's directory, and what is read is written and read again, the same.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use qus_core::bundle::Bundle;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("bundle.json");
    if let Ok(bundle) = Bundle::parse(path, bytes) {
        let version = bundle.recipe.qemu.to_string();
        assert!(version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains(['/', '\0']), "{version:?}");
        for emulator in &bundle.emulators {
            assert!(!emulator.file.contains('/') && emulator.file != "..", "{:?}", emulator.file);
        }
        assert_eq!(Bundle::parse(path, bundle.json().as_bytes()).expect("what was written is read"), bundle);
    }
});
