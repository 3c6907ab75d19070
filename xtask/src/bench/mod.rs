//! `cargo xtask bench`: compares the performance of emulators.

pub(crate) mod command;
pub(crate) mod emulators;
pub(crate) mod instructions;
pub(crate) mod measure;
pub(crate) mod overview;
pub(crate) mod page;
pub(crate) mod plot;
pub(crate) mod recorded;
pub(crate) mod results;
pub(crate) mod roots;
pub(crate) mod session;
pub(crate) mod sizes;
pub(crate) mod statistics;
pub(crate) mod table;
pub(crate) mod worker;
pub(crate) mod workloads;
