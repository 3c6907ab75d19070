//! Arbitrary bytes as a line of a binfmt.d file: what is read is written and read again, the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::binfmt::Rule;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rule) = Rule::parse(bytes) {
        let line = rule.line().expect("a rule that was read can be written");
        assert_eq!(Rule::parse(&line), Ok(rule));
    }
});
