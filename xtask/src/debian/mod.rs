//! Packages of a Debian-like distribution, without installing anything.

pub(crate) mod apt;
pub(crate) mod distribution;
pub(crate) mod guests;
pub(crate) mod packages;
pub(crate) mod versions;
