//! Release artefacts: images, tarballs, and the plan of a release.

mod date;
pub(crate) mod images;
pub(crate) mod packages;
pub(crate) mod plan;
mod publish;
mod releasable;
pub(crate) mod release;
pub(crate) mod sbom;
pub(crate) mod sign;
mod sources;
pub(crate) mod tarballs;
mod verify;
pub(crate) mod version;
