//! Committed files that follow from the code and the data.

pub(crate) mod codegen;
pub(crate) mod readme;
