//! Whole machines of another architecture: `cargo xtask vm`.

pub(crate) mod command;
mod config;
mod console;
mod devices;
mod disks;
mod engine;
mod image;
mod initramfs;
mod kernel;
pub(crate) mod layer;
mod machine;
mod modules;
mod monitor;
mod partitions;
mod programs;
mod relay;
mod session;
mod shape;
mod start;
mod store;
pub(crate) mod terminal;
mod volumes;
