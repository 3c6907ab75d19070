//! Arbitrary bytes as a manifest: it may be refused, and every path that is read is one that qus writes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::persist::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        for path in manifest.paths() {
            assert!(path.starts_with("/etc") || path.starts_with("/usr/local/lib/qus"), "{path:?}");
            assert!(path.iter().all(|part| part != ".."), "{path:?}");
        }
    }
});
