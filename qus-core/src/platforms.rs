//! Which OCI platforms run on this machine, in the form of tonistiigi/binfmt, which docker/setup-qemu-action reads.
//!
//! ```no_run
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::platforms::Platforms;
//!
//! println!("{}", Platforms::detect(&Binfmt::at(MOUNT_POINT))?.supported.join(","));
//! # Ok::<(), qus_core::binfmt::BinfmtError>(())
//! ```

use serde::Serialize;

use crate::arch::ARCHES;
use crate::binfmt::{Binfmt, BinfmtError};
use crate::emulator::is_own;
use crate::explain::readable;
use crate::{mount, probe};

/// What runs on this machine.
#[derive(Debug, Serialize)]
pub struct Platforms {
    /// OCI platforms, that of the machine first.
    pub supported: Vec<String>,
    /// The names of enabled handlers.
    pub emulators: Vec<String>,
}

impl Platforms {
    /// Runs a probe for each platform, and lists the handlers.
    ///
    /// # Errors
    /// Handlers can be seen, and cannot be listed.
    pub fn detect(binfmt: &Binfmt) -> Result<Self, BinfmtError> {
        // Handlers are read before probes run, which may take longer.
        let snapshot = mount::snapshot(binfmt)?;
        let mut native = Vec::new();
        let mut emulated = Vec::new();
        for arch in ARCHES.iter().filter(|arch| !arch.platforms.is_empty()) {
            // The emulated CPU runs all variants of Arm. For other architectures, only the general platform is listed.
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
        let entries = readable(snapshot.handlers);
        let enabled = entries.iter().filter(|entry| entry.enabled);
        let mut emulators: Vec<String> =
            enabled.map(|entry| entry.rule.name.to_string_lossy().into_owned()).collect();
        emulators.sort();
        Ok(Self { supported: [native, emulated].concat(), emulators })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Host;

    #[test]
    fn the_machine_is_first_natively() {
        let platforms = Platforms::detect(&Binfmt::at("/no/such/directory")).unwrap();
        let own = Host::current().unwrap().arch.platforms[0];
        assert_eq!(platforms.supported[0], format!("linux/{own}"));
        assert!(platforms.emulators.is_empty());
    }
}
