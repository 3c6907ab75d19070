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
    /// What a machine with a container engine has besides.
    pub engine: Engine,
    /// Those of file systems of disks.
    pub file_systems: Vec<String>,
    /// The host whose machine reads disks and images to convert them.
    pub converter: &'static Host,
    /// Packages with programs that make disks.
    pub converter_programs: Vec<String>,
    /// The machines.
    #[serde(rename = "machine")]
    pub machines: Vec<Machine>,
}

/// A container engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Packages of the machine's architecture.
    pub packages: Vec<String>,
    /// Kernel modules.
    pub modules: Vec<String>,
    /// The default size of the memory in MiB, unless the machine has more.
    pub memory: u32,
}

/// A machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The host whose programs it runs.
    pub host: &'static Host,
    /// How its devices are attached.
    pub devices: Devices,
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
    /// Kernel modules that this machine needs before those of every machine.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The package that depends on that of the newest kernel, or of its source.
    pub kernel: String,
    /// How the kernel is built, if the package has source.
    #[serde(default)]
    pub build: Option<KernelBuild>,
}

/// How a kernel is built: with as few options as possible, none of them as a module.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelBuild {
    /// The kernel's name of the architecture.
    pub architecture: String,
    /// The file that is built.
    pub image: String,
    /// Options, without `CONFIG_`.
    pub options: Vec<String>,
}

/// How the devices of a machine are attached.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Devices {
    /// By virtio: a machine that exists in QEMU only, of any size.
    Virtio(Bus),
    /// As on a board that one can buy.
    Board(Board),
}

/// What a board has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Board {
    /// QEMU's name of it.
    pub name: String,
    /// What it is, and what QEMU's lacks.
    pub description: String,
    /// The file of its device tree in the kernel's package.
    pub device_tree: String,
    /// The number of QEMU's serial port that the kernel's console uses, counted from 0.
    pub serial: u32,
    /// What QEMU's option `-drive` has for its SD card, which `options` of the machine can attach by the name `card`.
    pub drive: String,
    /// QEMU's options that attach the network `network`, if Linux can use that of QEMU's board.
    pub network: Option<Vec<String>>,
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

impl Machine {
    /// The name of the board, or of the host.
    pub fn name(&self) -> &str {
        self.board().map_or(self.host.name, |board| &board.name)
    }

    /// The board, if it is one.
    pub fn board(&self) -> Option<&Board> {
        match &self.devices {
            Devices::Virtio(_) => None,
            Devices::Board(board) => Some(board),
        }
    }

    /// Whether its kernel runs programs of this host: its own, those of another variant, or those of the 32-bit
    /// architecture of the family.
    pub fn runs(&self, host: &Host) -> bool {
        self.host.arch == host.arch || self.host.may_run(host.arch)
    }
}

impl Machines {
    /// The machine that runs programs of this host, and is no board: the host's own, or one that [runs](Machine::runs) them.
    pub fn of(&self, host: &Host) -> Option<&Machine> {
        let find = |runs: &dyn Fn(&Machine) -> bool| self.virtual_machines().find(|machine| runs(machine));
        find(&|machine| machine.host == host)
            .or_else(|| find(&|machine| machine.host.arch == host.arch))
            .or_else(|| find(&|machine| machine.runs(host)))
    }

    /// All machines that are no boards.
    pub fn virtual_machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.board().is_none())
    }

    /// The board of this name.
    pub fn board(&self, name: &str) -> Option<&Machine> {
        self.boards().find(|machine| machine.name() == name)
    }

    /// All boards.
    pub fn boards(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.board().is_some())
    }

    /// The modules that a machine loads first, in this order.
    pub fn modules<'a>(&'a self, machine: &'a Machine) -> impl Iterator<Item = &'a str> {
        machine.modules.iter().chain(&self.modules).map(String::as_str)
    }

    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if self.of(self.converter).is_none() {
            findings.push(format!("converter: there is no machine for {}", self.converter));
        }
        for (index, machine) in self.machines.iter().enumerate() {
            if self.machines[..index].iter().any(|other| other.name() == machine.name()) {
                findings.push(format!("machine {}: duplicate", machine.name()));
            }
        }
        findings
    }
}
