//! `machines.toml`: whole machines, with their emulators and kernels.

use qus_core::arch::Host;
use serde::Deserialize;

/// `machines.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machines {
    /// The suite of the packages of emulators and programs.
    pub suite: String,
    /// Packages that every machine needs.
    pub programs: Vec<String>,
    /// Kernel modules that every machine needs, in the order in which they are loaded.
    pub modules: Vec<String>,
    /// Those that are loaded when a machine gets its program.
    pub late_modules: Vec<String>,
    /// The machines.
    #[serde(rename = "machine")]
    pub machines: Vec<Machine>,
}

/// A machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The host whose programs it runs.
    pub host: &'static Host,
    /// The package with the emulator.
    pub package: String,
    /// The emulator's name.
    pub emulator: String,
    /// Its options.
    pub options: Vec<String>,
    /// The default size of its memory in MiB.
    pub memory: u32,
    /// The kernel's name of the first serial port.
    pub console: String,
    /// How virtio devices are attached.
    pub bus: Bus,
    /// Kernel modules that this machine needs before those of every machine.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The package that depends on the newest kernel.
    pub kernel: String,
}

/// The bus of virtio devices, as in the names of QEMU's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// `virtio-blk-pci`
    Pci,
    /// `virtio-blk-ccw`
    Ccw,
}

impl Bus {
    /// The end of the names of devices.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Pci => "pci",
            Self::Ccw => "ccw",
        }
    }
}

impl Machines {
    /// The machine that runs programs of this host: its own, or one of another variant or of the 64-bit architecture of the
    /// family, whose kernel runs them, too.
    pub fn of(&self, host: &Host) -> Option<&Machine> {
        let find = |runs: &dyn Fn(&Host) -> bool| self.machines.iter().find(|machine| runs(machine.host));
        find(&|own| own == host)
            .or_else(|| find(&|own| own.arch == host.arch))
            .or_else(|| find(&|own| own.may_run(host.arch)))
    }

    /// The modules that a machine loads first, in this order.
    pub fn modules<'a>(&'a self, machine: &'a Machine) -> impl Iterator<Item = &'a str> {
        machine.modules.iter().chain(&self.modules).map(String::as_str)
    }

    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (index, machine) in self.machines.iter().enumerate() {
            if self.machines[..index].iter().any(|other| other.host == machine.host) {
                findings.push(format!("machine {}: duplicate", machine.host));
            }
        }
        findings
    }
}
