//! Checks: tests, code layout, schemas, smoke tests, and their report.

pub(crate) mod chaos;
pub(crate) mod guests;
pub(crate) mod layout;
pub(crate) mod report;
pub(crate) mod schemas;
pub(crate) mod smoke;
pub(crate) mod test;
