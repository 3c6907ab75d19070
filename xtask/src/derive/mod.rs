//! Generates the committed files that derive from code and data.

pub(crate) mod codegen;
pub(crate) mod commands;
pub(crate) mod readme;
