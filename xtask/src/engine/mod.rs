//! The container engine: yours, or a throwaway one.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod find;
pub(crate) mod nodes;
pub(crate) mod place;
mod programs;
mod serve;
pub(crate) mod throwaway;
