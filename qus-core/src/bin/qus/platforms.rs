//! `qus platforms`: what runs here, in the form that docker/setup-qemu-action reads.

use anyhow::Result;
use qus_core::binfmt::Binfmt;
use qus_core::platforms::Platforms;

use crate::output::print_json;

/// Print the platforms that run here, as JSON
///
/// The output has the form of tonistiigi/binfmt. `supported` lists the OCI platforms of which a small program runs, the
/// machine's own first; `emulators` lists the enabled handlers.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus platforms")]
pub(crate) struct Args {}

pub(crate) fn run(binfmt: &Binfmt, _: &Args) -> Result<()> {
    print_json(&Platforms::detect(binfmt)?)
}
