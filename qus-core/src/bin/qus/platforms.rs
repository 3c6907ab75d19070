//! `qus platforms`: what runs here, in the form that docker/setup-qemu-action reads.

use anyhow::Result;
use qus_core::binfmt::Binfmt;
use qus_core::platforms::Platforms;

use crate::output::print_json;

/// Print the platforms that run here, as JSON
///
/// The form of tonistiigi/binfmt: `supported` are OCI platforms, determined by running a small program of each,
/// that of the machine first; `emulators` are the enabled handlers.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(binfmt: &Binfmt, _: &Args) -> Result<()> {
    print_json(&Platforms::detect(binfmt))
}
