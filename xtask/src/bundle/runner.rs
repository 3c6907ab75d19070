//! How a program for a host is run on this machine: by itself where the machine can, else under our own emulator
//! of the host, so that what was built for another machine is run before anybody gets it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use qus_core::arch::{Arch, Host};
use qus_core::probe;
use xshell::Cmd;

use crate::base::exec::sh;

/// Words that a command begins with.
pub(crate) struct Runner(Vec<String>);

impl Runner {
    /// For programs of this machine.
    pub(crate) fn native() -> Self {
        Self(Vec::new())
    }

    /// For programs of a host; `emulator` is asked for one that runs on this machine, if it takes one.
    pub(crate) fn of(host: &Host, emulator: impl FnOnce(&'static Arch) -> Result<PathBuf>) -> Result<Self> {
        if Self::takes_emulator(host) {
            return Ok(Self::under(&emulator(host.arch)?, host));
        }
        Ok(Self::native())
    }

    /// Whether this machine does not run the programs of a host by itself.
    pub(crate) fn takes_emulator(host: &Host) -> bool {
        Host::current() != Some(host) && !probe::is_native(host.arch)
    }

    fn under(emulator: &Path, host: &Host) -> Self {
        /// Address space of a 64-bit program. With one of its own, an emulator in it finds free what it wants; in
        /// ours it would find the outer emulator, which `/proc/self/maps` does not show it.
        const SPACE: &str = "0x8000000000";
        let mut words = vec![emulator.display().to_string()];
        if host.arch.registers_64_bit {
            words.extend(["-R".to_owned(), SPACE.to_owned()]);
        }
        if host.arch.name == "riscv64" {
            // Without vectors. With them, qemu-aarch64 10.2.2 for riscv64 loses a program's first argument: either it
            // or the qemu-riscv64 that runs it is wrong, which a machine of that kind would tell.
            words.extend(["-cpu", "rv64"].map(str::to_owned));
        }
        Self(words)
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.0
    }

    /// A command that runs a program.
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
    fn what_runs_here_takes_no_emulator() {
        let runner = Runner::of(hosts::own().unwrap(), |arch| anyhow::bail!("asked for {arch}")).unwrap();
        assert_eq!(runner.words(), [] as [&str; 0]);
    }

    #[test]
    fn wide_hosts_have_room() {
        let words = |host: &str| Runner::under(Path::new("/e"), host.parse().unwrap()).0.join(" ");
        assert_eq!(words("s390x"), "/e -R 0x8000000000");
        assert_eq!(words("arm32v6"), "/e");
        assert_eq!(words("riscv64"), "/e -R 0x8000000000 -cpu rv64");
    }
}
