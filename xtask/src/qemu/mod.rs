//! Builds emulators from QEMU's source: `cargo xtask build-qemu`.

pub(crate) mod archive;
pub(crate) mod args;
pub(crate) mod build;
pub(crate) mod bump;
pub(crate) mod compile;
pub(crate) mod compiler;
pub(crate) mod download;
pub(crate) mod licences;
pub(crate) mod pgo;
pub(crate) mod preflight;
pub(crate) mod request;
pub(crate) mod source;
pub(crate) mod store;
pub(crate) mod substitute;
pub(crate) mod sysroot;
pub(crate) mod toolchain;
pub(crate) mod tree;
