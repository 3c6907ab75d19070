//! What qus knows about foreign binaries, free of side effects.
//!
//! [`arch`] is the one table of architectures from which everything else is derived, [`elf`] reads
//! what a binary needs, [`binfmt`] turns a row of the table into the kernel's magic and mask, and
//! [`probe`] holds a tiny program for each row that shows whether it runs.
//!
//! This crate never starts a container engine, never opens a network socket and never draws on the
//! terminal; `xtask` does those things.

pub mod arch;
pub mod binfmt;
pub mod elf;
pub mod probe;
