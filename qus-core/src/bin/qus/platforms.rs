//! `qus platforms`: what runs here, in the form that docker/setup-qemu-action reads.

use anyhow::Result;
use qus_core::arch::ARCHES;
use qus_core::binfmt::Binfmt;
use qus_core::emulator::is_own;
use qus_core::explain::readable;
use qus_core::{mount, probe};
use serde::Serialize;

use crate::output::print_json;

/// Print the platforms that run here, as JSON
///
/// The form of tonistiigi/binfmt: `supported` are OCI platforms, determined by running a small program of each,
/// that of the machine first; `emulators` are the enabled handlers.
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Platforms {
    supported: Vec<String>,
    emulators: Vec<String>,
}

pub(crate) fn run(binfmt: &Binfmt, _: &Args) -> Result<()> {
    let snapshot = mount::snapshot(binfmt).ok();
    let mut native = Vec::new();
    let mut emulated = Vec::new();
    for arch in ARCHES.iter().filter(|arch| !arch.platforms.is_empty()) {
        // The emulated CPU has what every variant of Arm needs; of other architectures variants are not determined.
        let count = if arch.name == "arm" { arch.platforms.len() } else { 1 };
        let platforms = arch.platforms.iter().take(count).map(|platform| format!("linux/{platform}"));
        if is_own(arch) {
            native.splice(..0, platforms);
        } else if probe::is_native(arch) {
            native.extend(platforms);
        } else if probe::run(arch).is_ok() {
            emulated.extend(platforms);
        }
    }
    let entries = readable(snapshot.map_or_else(Vec::new, |snapshot| snapshot.handlers));
    let mut emulators: Vec<String> = entries
        .iter()
        .filter(|entry| entry.enabled)
        .map(|entry| entry.rule.name.to_string_lossy().into_owned())
        .collect();
    emulators.sort();
    print_json(&Platforms { supported: [native, emulated].concat(), emulators })
}
