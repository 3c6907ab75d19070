//! Arbitrary bytes as the kernel's text for a handler: it may be refused, and nothing may panic; what is
//! read can be compared and inspected.

#![no_main]

use std::ffi::OsStr;

use libfuzzer_sys::fuzz_target;
use qus_core::binfmt::Entry;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::parse(OsStr::new("qemu-arm"), bytes) {
        assert_eq!(entry.rule.differences(&entry.rule), []);
        let _ = (entry.is_ours(), entry.rule.matches(bytes), entry.rule.line());
    }
});
