//! What foreign binaries need, and how the kernel is told to run them.
//!
//! [`arch`] is the one table of architectures from which everything else is derived, [`elf`] reads
//! what a binary needs, [`probe`] holds a tiny program for each row that shows whether it runs.
//! [`binfmt`] speaks with the kernel, [`mount`] puts its file system where it lasts, [`emulator`] looks at
//! the programs to be registered, [`handler`] registers them and [`owner`] knows whose the others are.
//! [`bundle`] describes emulators that were built, [`digest`] has their checksums, [`hint`] says what to do about an
//! error.
//! [`doctor`], [`explain`], [`export`], [`persist`] and [`compat`] hold what the commands of those names know.
//!
//! This crate starts no program but its own probes, never opens a network socket, and only its program
//! `qus` writes to the terminal.

pub mod arch;
pub mod binfmt;
pub mod bundle;
pub mod compat;
pub mod digest;
pub mod doctor;
pub mod elf;
pub mod emulator;
pub mod explain;
pub mod export;
pub mod file;
pub mod handler;
pub mod hint;
pub mod install;
pub mod mount;
pub mod namespace;
pub mod output;
pub mod owner;
pub mod persist;
pub mod probe;
pub mod remove;
pub mod selection;
pub mod status;
mod syscall;
pub mod table;
pub mod text;
pub mod trust;
pub mod watch;
