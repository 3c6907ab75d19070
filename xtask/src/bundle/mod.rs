//! Bundles of built emulators: description, verification, and running programs of a host.

pub(crate) mod artefact;
pub(crate) mod hosts;
pub(crate) mod licences;
pub(crate) mod manifest;
pub(crate) mod runner;
