//! Runs programs of other architectures on Linux: registers QEMU's user-mode emulators with the kernel's binfmt_misc,
//! verifies that they work, and explains why a program does not run.
//!
//! # From a program to a handler that runs it
//!
//! Read what a program needs, look up its handler, install one if there is none, and verify it:
//!
//! ```no_run
//! use std::fs::File;
//!
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::elf::Elf;
//! use qus_core::emulator::EmulatorDir;
//! use qus_core::explain::{handler_of, readable};
//! use qus_core::install::{InstallOptions, install};
//! use qus_core::{mount, probe};
//!
//! # fn main() -> anyhow::Result<()> {
//! // Which architecture is it for?
//! let elf = Elf::parse(&File::open("./busybox-riscv64")?)?;
//! let arch = elf.arch().expect("QEMU emulates it");
//!
//! // Does the kernel have a handler for it?
//! let binfmt = Binfmt::at(MOUNT_POINT);
//! let handlers = readable(mount::snapshot(&binfmt)?.handlers);
//! if handler_of(probe::image(arch), &handlers).is_none() {
//!     // Install one, which needs root. It is verified, and removed again if it does not work.
//!     let dir = EmulatorDir::find()?;
//!     let done = install(&binfmt, &dir, &[arch], &InstallOptions::default(), &mut |_| {})?;
//!     println!("{}: {}", arch.name, done.outcomes[0].state);
//! }
//!
//! // Do programs of that architecture run now?
//! probe::run(arch).map_err(anyhow::Error::msg)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! | what | where |
//! |---|---|
//! | the table of architectures and hosts, from which everything else is derived | [`arch`], [`selection`] |
//! | ELF files, and a small program of each architecture | [`elf`], [`probe`] |
//! | the kernel's handlers | [`binfmt`], [`handler`], [`owner`] |
//! | mounts and namespaces | [`mount`], [`namespace`] |
//! | emulators, what they were built from, and who can change them | [`emulator`], [`interpreter`], [`bundle`], [`trust`] |
//! | what the commands of `qus` do | [`install`], [`watch`], [`remove`], [`persist`], [`private`], [`status`], [`platforms`], [`doctor`], [`explain`], [`export`], [`compat`] |
//! | the messages of whole machines | [`machine`], [`multiplex`] |
//! | errors and what to do about them | [`hint`] |
//! | text, tables, files, checksums | [`text`], [`table`], [`output`], [`mod@file`], [`digest`] |
//!
//! # What it does not do
//!
//! It starts no programs except its own probes and the emulators under test, opens no network socket, and prints nothing;
//! printing is up to the program `qus`.

pub mod arch;
pub mod binfmt;
pub mod bundle;
pub mod compat;
pub mod connections;
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
pub mod interpreter;
pub mod machine;
pub mod mount;
pub mod multiplex;
pub mod namespace;
pub mod output;
pub mod owner;
pub mod persist;
pub mod platforms;
pub mod private;
pub mod probe;
pub mod release;
pub mod remove;
pub mod selection;
pub mod status;
mod syscall;
pub mod table;
pub mod terminal;
pub mod text;
pub mod trust;
pub mod watch;
