//! Arbitrary bytes as `bundle.json`: it may be refused, and a version can be the name of a directory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::emulator::read_bundle;

fuzz_target!(|bytes: &[u8]| {
    if let Some((Some(version), _)) = read_bundle(bytes, "qemu-arm") {
        assert!(version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains(['/', '\0']), "{version:?}");
    }
});
