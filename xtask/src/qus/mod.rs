//! The program `qus` for a host: `cargo xtask build-qus`.

pub(crate) mod build;
mod licences;
pub(crate) mod rust;
