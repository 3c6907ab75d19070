//! Arbitrary bytes as `/proc/self/mountinfo`: what is found is in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qus_core::mount::shared_proc_in;

fuzz_target!(|bytes: &[u8]| {
    if let Some(path) = shared_proc_in(bytes) {
        let path = path.as_os_str().as_encoded_bytes();
        assert!(bytes.windows(path.len()).any(|part| part == path));
    }
});
