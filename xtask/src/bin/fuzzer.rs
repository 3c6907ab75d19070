//! The fuzzer that `cargo xtask fuzz` builds and runs: libFuzzer's main program, with a target of `fuzz/targets.rs`.

#![no_main]
#![allow(dead_code, reason = "targets need a small part of these modules")]

#[path = "../base/mod.rs"]
mod base;
#[path = "../bundle/mod.rs"]
mod bundle;
#[path = "../debian/mod.rs"]
mod debian;
#[path = "../engine/mod.rs"]
mod engine;
#[path = "../fuzz/mod.rs"]
mod fuzz;
#[path = "../qemu/mod.rs"]
mod qemu;
#[path = "../qus/mod.rs"]
mod qus;
#[path = "../ship/mod.rs"]
mod ship;
#[path = "../vm/mod.rs"]
mod vm;

use std::sync::LazyLock;

use fuzz::targets::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

/// The target that the command line names; libFuzzer ignores options of this form.
static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::args().find_map(|argument| argument.strip_prefix("--target=").map(str::to_owned));
    let target = TARGETS.iter().find(|target| name.as_deref() == Some(target.name));
    target.expect("--target=TARGET names a target")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
