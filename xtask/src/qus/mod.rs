//! The program `qus` for a host: `cargo xtask build-qus`.

pub(crate) mod build;
pub(crate) mod init;
mod licences;
pub(crate) mod rust;
