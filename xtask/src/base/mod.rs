//! Foundations of all other modules: programs, files, locks, paths, output and errors.

pub(crate) mod cache;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod git;
mod invocation;
pub(crate) mod lock;
pub(crate) mod output;
pub(crate) mod parallel;
pub(crate) mod paths;
pub(crate) mod progress;
pub(crate) mod settings;
pub(crate) mod tarball;
pub(crate) mod unpack;
