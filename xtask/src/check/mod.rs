//! Every check: tests, smoke checks with real parts, and their report.

pub(crate) mod layout;
pub(crate) mod report;
pub(crate) mod schemas;
pub(crate) mod smoke;
pub(crate) mod test;
