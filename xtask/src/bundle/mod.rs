//! What was built: described, verified, and run.

pub(crate) mod artefact;
pub(crate) mod hosts;
pub(crate) mod manifest;
pub(crate) mod runner;
