//! Fixtures and helpers of the checks.

pub(crate) mod build;
pub(crate) mod command_output;
pub(crate) mod engine;
pub(crate) mod handlers;
pub(crate) mod kernel;
pub(crate) mod process;
pub(crate) mod release;
pub(crate) mod tools;
