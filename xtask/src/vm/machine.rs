//! A machine: its emulator, kernel, devices and the sockets to it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;

use anyhow::{Context as _, Result};
use qemu_src::{Bus, Machine};
use qus_core::arch::Host;
use qus_core::hint::hinted;
use qus_core::machine::{CONTROL, ERROR, INPUT, OUTPUT, layer_serial};
use qus_core::text::Show;
use serde_json::json;
use xshell::Cmd;

use crate::base::context::Context;
use crate::base::exec;
use crate::vm::disks::inherited;
use crate::vm::kernel::Kernel;
use crate::vm::programs::Programs;

/// Everything that is needed to start machines of one kind.
pub(crate) struct Kind {
    data: KindData,
    programs: Programs,
    kernel: Kernel,
}

/// What of `machines.toml` a command line has.
struct KindData {
    host: &'static Host,
    emulator: String,
    options: Vec<String>,
    memory: u32,
    console: String,
    bus: Bus,
}

/// The size and the disks of a machine.
pub(crate) struct Shape<'a> {
    /// In MiB; `None` for the default of this kind.
    pub(crate) memory: Option<u32>,
    pub(crate) processors: u32,
    pub(crate) disks: &'a [File],
    /// Whether the kernel prints all of its messages.
    pub(crate) verbose: bool,
}

/// A running machine, which ends when this is dropped, and when this process ends.
pub(crate) struct Running {
    emulator: Child,
    log: PathBuf,
    pub(crate) console: UnixStream,
    pub(crate) control: UnixStream,
    pub(crate) input: UnixStream,
    pub(crate) output: UnixStream,
    pub(crate) error: UnixStream,
}

impl Kind {
    /// Finds the machine for programs of a host, and fetches or builds its parts unless they are in the cache.
    pub(crate) fn ensure(cx: &Context, host: &'static Host) -> Result<Self> {
        let machine = cx.data.machines.of(host).ok_or_else(|| unknown(cx, host))?;
        Ok(Self {
            data: KindData::new(machine),
            programs: Programs::ensure(cx, machine)?,
            kernel: Kernel::ensure(cx, machine)?,
        })
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    pub(crate) fn host(&self) -> &'static Host {
        self.data.host
    }

    /// Starts a machine.
    pub(crate) fn start(&self, cx: &Context, shape: &Shape<'_>) -> Result<Running> {
        let pair = || UnixStream::pair().context("cannot create a socket");
        let ((console, console_end), (control, control_end)) = (pair()?, pair()?);
        let ((input, input_end), (output, output_end), (error, error_end)) = (pair()?, pair()?, pair()?);
        let ends: [OwnedFd; 5] =
            [console_end.into(), control_end.into(), input_end.into(), output_end.into(), error_end.into()];
        let log = cx.start_log("qemu")?;
        let disks = shape.disks.iter().map(AsFd::as_fd);
        let descriptors: Vec<_> = ends.iter().map(AsFd::as_fd).chain(disks).collect();
        let emulator = exec::spawn_with(self.command(shape, &ends), &descriptors, File::create(&log)?)?;
        Ok(Running { emulator, log, console, control, input, output, error })
    }

    /// The emulator's command line. `ends` are its sockets: the console and the ports in the order of [`PORTS`].
    fn command(&self, shape: &Shape<'_>, ends: &[OwnedFd; 5]) -> Cmd<'static> {
        let data = &self.data;
        let bus = data.bus.suffix();
        let mut cmd = self.programs.cmd(&data.emulator);
        cmd = cmd.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]);
        for dir in self.programs.firmware() {
            cmd = cmd.arg("-L").arg(dir);
        }
        cmd = cmd.args(&data.options).arg("-m").arg(shape.memory.unwrap_or(data.memory).to_string());
        cmd = cmd.arg("-smp").arg(shape.processors.to_string());
        cmd = cmd.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.kernel.initramfs);
        let quiet = if shape.verbose { "" } else { " quiet" };
        cmd = cmd.arg("-append").arg(format!("console={} panic=-1{quiet}", data.console));
        let [console, ports @ ..] = ends;
        let socket = |name: &str, end: &OwnedFd| format!("socket,id={name},fd={}", end.as_raw_fd());
        cmd = cmd.arg("-chardev").arg(socket("console", console)).args(["-serial", "chardev:console"]);
        cmd = cmd.arg("-device").arg(format!("virtio-serial-{bus}"));
        for (name, end) in PORTS.iter().zip(ports) {
            cmd = cmd.arg("-chardev").arg(socket(name, end));
            cmd = cmd.arg("-device").arg(format!("virtserialport,chardev={name},name={name}"));
        }
        for (index, disk) in shape.disks.iter().enumerate() {
            let name = layer_serial(index);
            let file = json!({ "driver": "file", "node-name": name, "filename": inherited(disk), "read-only": true });
            cmd = cmd.arg("-blockdev").arg(file.to_string());
            let mut device = format!("virtio-blk-{bus},drive={name},serial={name}");
            if data.bus == Bus::Pci {
                // Eight functions of each of the last slots, because the bus has only 32 slots.
                device += &format!(",multifunction=on,addr={:#x}.{}", 0x1e - index / 8, index % 8);
            }
            cmd = cmd.arg("-device").arg(device);
        }
        cmd
    }
}

/// The virtio-serial ports.
const PORTS: [&str; 4] = [CONTROL, INPUT, OUTPUT, ERROR];

impl KindData {
    fn new(machine: &Machine) -> Self {
        Self {
            host: machine.host,
            emulator: machine.emulator.clone(),
            options: machine.options.clone(),
            memory: machine.memory,
            console: machine.console.clone(),
            bus: machine.bus,
        }
    }
}

fn unknown(cx: &Context, host: &Host) -> anyhow::Error {
    let known: Vec<_> = cx.data.machines.machines.iter().map(|machine| machine.host.name).collect();
    hinted(
        format_args!("there is no machine for {host}; there are {}", known.join(", ")),
        "`qus run` runs programs of 33 targets without a machine",
    )
}

impl Running {
    /// What the emulator has printed, as the end of an error's message.
    pub(crate) fn complaint(&self) -> String {
        let text = fs_err::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(|line| format!("\n    {}", line.shown())).collect();
        if lines.is_empty() { String::new() } else { format!("; QEMU's messages:{}", lines.concat()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}
