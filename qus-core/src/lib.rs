//! What foreign binaries need, and how the kernel is told to run them.
//!
//! [`arch`] is the one table of architectures from which everything else is derived.

pub mod arch;
pub mod binfmt;
pub mod compat;
pub mod doctor;
pub mod elf;
pub mod emulator;
pub mod explain;
pub mod export;
pub mod handler;
pub mod mount;
pub mod namespace;
pub mod owner;
pub mod persist;
pub mod probe;
pub mod table;
