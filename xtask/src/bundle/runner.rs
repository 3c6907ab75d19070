//! Runs programs of a host on this machine: natively if possible, otherwise under the emulator of that host, so that
//! programs for other hosts are tested before they are released.

use std::path::{Path, PathBuf};

use anyhow::Result;
use qus_core::arch::{Arch, Host};
use qus_core::probe;
use xshell::Cmd;

use crate::base::exec::sh;

/// The first words of a command that runs a program of a host.
pub(crate) struct Runner(Vec<String>);

impl Runner {
    /// A runner for native programs.
    pub(crate) fn native() -> Self {
        Self(Vec::new())
    }

    /// A runner for programs of a host; `emulator` returns an emulator for this machine, if one is needed.
    pub(crate) fn new(host: &Host, emulator: impl FnOnce(&'static Arch) -> Result<PathBuf>) -> Result<Self> {
        if Self::needs_emulator(host) {
            return Ok(Self::under(&emulator(host.arch)?, host));
        }
        Ok(Self::native())
    }

    /// Whether this machine cannot run programs of a host natively.
    pub(crate) fn needs_emulator(host: &Host) -> bool {
        Host::current() != Some(host) && !probe::is_native(host.arch)
    }

    fn under(emulator: &Path, host: &Host) -> Self {
        /// The reserved address space of a 64-bit program. Without it, an emulator that itself runs under an emulator
        /// may choose addresses of the outer emulator, which `/proc/self/maps` does not show.
        const SPACE: &str = "0x8000000000";
        let mut words = vec![emulator.display().to_string()];
        if host.arch.registers_64_bit {
            words.extend(["-R".to_owned(), SPACE.to_owned()]);
        }
        if host.arch.name == "riscv64" {
            // Without vector instructions. With them, qemu-aarch64 10.2.2 for riscv64 loses a program's first argument.
            // Whether it or the qemu-riscv64 that runs it is at fault could be determined on riscv64 hardware.
            words.extend(["-cpu", "rv64"].map(str::to_owned));
        }
        Self(words)
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.0
    }

    /// The command that runs a program.
    pub(crate) fn cmd(&self, program: &Path) -> Cmd<'static> {
        match &*self.0 {
            [] => sh().cmd(program),
            [first, others @ ..] => sh().cmd(first).args(others).arg(program),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::hosts;

    #[test]
    fn native_programs_need_no_emulator() {
        let runner = Runner::new(hosts::own().unwrap(), |arch| anyhow::bail!("requested {arch}")).unwrap();
        assert_eq!(runner.words(), [] as [&str; 0]);
    }

    #[test]
    fn only_64_bit_hosts_reserve_address_space() {
        let words = |host: &str| Runner::under(Path::new("/e"), host.parse().unwrap()).0.join(" ");
        assert_eq!(words("s390x"), "/e -R 0x8000000000");
        assert_eq!(words("arm32v6"), "/e");
        assert_eq!(words("riscv64"), "/e -R 0x8000000000 -cpu rv64");
    }
}
