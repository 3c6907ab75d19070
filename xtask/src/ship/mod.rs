//! Release artefacts: images, tarballs, and the plan of a release.

pub(crate) mod images;
pub(crate) mod plan;
pub(crate) mod sbom;
mod sources;
pub(crate) mod tarballs;
mod version;
