//! Release artefacts: images, tarballs, and the plan of a release.

pub(crate) mod images;
pub(crate) mod plan;
mod releasable;
pub(crate) mod release;
pub(crate) mod sbom;
mod sources;
pub(crate) mod tarballs;
mod version;
