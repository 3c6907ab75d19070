//! A container engine in a machine: `cargo xtask vm engine`.

pub(crate) mod command;
mod root;
mod serve;
mod start;
