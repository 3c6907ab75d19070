//! Arbitrary arguments, one to a line: they may be refused, and what they are translated to is never in an
//! old form again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::compat::translate;

fuzz_target!(|text: &str| {
    let args: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(Ok(commands)) = translate(&args) {
        assert!(!commands.is_empty());
        for command in commands {
            assert_eq!(translate(&command), None, "{command:?}");
        }
    }
});
