//! The container engine: the installed one, or a throwaway one.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod engine_dir;
pub(crate) mod find;
pub(crate) mod nodes;
pub(crate) mod programs;
mod serve;
pub(crate) mod throwaway;
