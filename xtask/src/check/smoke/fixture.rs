//! What checks are made with: commands that ended, an engine, a cache of its own.

pub(crate) mod bench;
pub(crate) mod dock;
pub(crate) mod ended;
pub(crate) mod handlers;
pub(crate) mod process;
pub(crate) mod tools;
pub(crate) mod workbench;
