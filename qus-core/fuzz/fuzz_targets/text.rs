//! Arbitrary text to be printed: no control characters remain in it, but the tabs and newlines of a message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::text::{Show, lines};

fuzz_target!(|text: &str| {
    assert!(!text.shown().to_string().contains(char::is_control));
    assert!(!lines(text).contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
});
