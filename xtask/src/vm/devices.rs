//! The emulator's command line: the devices of a machine.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use qemu_src::{Board, Bus, Machine};
use qus_core::machine::{DATA, LINE, PORTS, TARGET_SERIAL, layer_name};
use serde_json::{Value, json};
use xshell::Cmd;

use crate::vm::disks::inherited;
use crate::vm::kernel::Kernel;
use crate::vm::programs::Programs;
use crate::vm::shape::{Area, Shape};
use crate::vm::volumes::{Server, tag};

/// The sockets of an emulator.
pub(crate) struct Ends {
    pub(crate) serial: UnixStream,
    pub(crate) monitor: UnixStream,
    /// In the order of [`PORTS`]; boards have none.
    pub(crate) ports: Vec<UnixStream>,
}

/// What every machine has: firmware, kernel, monitor and memory.
pub(crate) fn common(
    programs: &Programs,
    data: &Machine,
    kernel: &Kernel,
    shape: &Shape<'_>,
    ends: &Ends,
) -> Cmd<'static> {
    let mut cmd = programs.cmd(&data.emulator);
    cmd = cmd.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]);
    for dir in programs.firmware() {
        cmd = cmd.arg("-L").arg(dir);
    }
    cmd = cmd.args(&data.options).arg("-m").arg(shape.memory(data).to_string());
    cmd = cmd.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initramfs);
    let mut parameters = format!("console={} panic=-1", data.console);
    if !shape.verbose {
        parameters += " quiet";
    }
    if data.board().is_some() {
        parameters += &format!(" {LINE}={}", data.console);
    }
    cmd = cmd.arg("-append").arg(parameters);
    cmd = cmd.arg("-chardev").arg(socket("serial", &ends.serial));
    cmd.arg("-chardev").arg(socket("monitor", &ends.monitor)).args(["-mon", "chardev=monitor,mode=control"])
}

/// The devices of a machine that exists in QEMU only.
pub(crate) fn virtio(
    mut cmd: Cmd<'static>,
    bus: Bus,
    data: &Machine,
    shape: &Shape<'_>,
    ends: &Ends,
    servers: &[Server],
) -> Cmd<'static> {
    let suffix = bus.suffix();
    cmd = cmd.arg("-smp").arg(shape.processors().to_string()).args(["-serial", "chardev:serial"]);
    cmd = cmd.arg("-device").arg(format!("virtio-serial-{suffix}"));
    for (name, end) in PORTS.iter().zip(&ends.ports) {
        cmd = cmd.arg("-chardev").arg(socket(name, end));
        cmd = cmd.arg("-device").arg(format!("virtserialport,chardev={name},name={name}"));
    }
    if !servers.is_empty() {
        // The servers read and write the machine's memory.
        let memory = shape.memory(data);
        cmd = cmd.arg("-object").arg(format!("memory-backend-memfd,id=memory,size={memory}M,share=on"));
        cmd = cmd.args(["-machine", "memory-backend=memory"]);
    }
    for (index, server) in servers.iter().enumerate() {
        let tag = tag(index);
        cmd = cmd.arg("-chardev").arg(socket(&tag, &server.connection));
        cmd = cmd.arg("-device").arg(format!("vhost-user-fs-{suffix},chardev={tag},tag={tag}"));
    }
    if let Some(network) = network(shape) {
        // Its option ROM would be for booting from the network.
        let rom = if bus == Bus::Pci { ",romfile=" } else { "" };
        cmd = cmd.arg("-netdev").arg(network);
        cmd = cmd.arg("-device").arg(format!("virtio-net-{suffix},netdev=network{rom}"));
    }
    if let Some(disk) = shape.data {
        let file = json!({ "driver": "file", "filename": disk, "discard": "unmap" });
        // Nobody uses it after the machine's end.
        let cache = json!({ "no-flush": true });
        let node =
            json!({ "node-name": DATA, "driver": "qcow2", "discard": "unmap", "cache": cache, "file": file });
        cmd = cmd.arg("-blockdev").arg(node.to_string());
        cmd = cmd.arg("-device").arg(format!("virtio-blk-{suffix},drive={DATA},serial={DATA}"));
    }
    let layers = slots(shape.disks.len());
    for index in 0..layers {
        let name = layer_name(index);
        cmd = match (shape.disks.get(index), shape.driver) {
            // A journal may have to be replayed, which changes a copy in a temporary file without a name.
            (Some(disk), Some(driver)) => cmd.arg("-drive").arg(format!(
                "if=none,id={name},snapshot=on,format={},file.driver=file,file.filename={}",
                driver.name(),
                inherited(disk).display()
            )),
            (Some(disk), None) => {
                let file = json!({ "driver": "file", "filename": inherited(disk) });
                cmd.arg("-blockdev").arg(node(&name, true, file))
            }
            (None, _) => {
                let empty = json!({ "driver": "null-co", "size": 4096, "read-zeroes": true });
                cmd.arg("-blockdev").arg(node(&name, true, empty))
            }
        };
        cmd = cmd.arg("-device").arg(disk_device(bus, &name, index));
    }
    if let Some(Area { file, start, size }) = shape.target {
        let file = json!({ "driver": "file", "filename": inherited(file), "discard": "unmap" });
        let area = json!({ "driver": "raw", "offset": start, "size": size, "file": file });
        cmd = cmd.arg("-blockdev").arg(node(TARGET_SERIAL, false, area));
        cmd = cmd.arg("-device").arg(disk_device(bus, TARGET_SERIAL, layers));
    }
    cmd
}

fn disk_device(bus: Bus, name: &str, index: usize) -> String {
    // Otherwise the machine stands still when the file system of a file is full.
    let errors = "werror=report,rerror=report";
    let device = format!("virtio-blk-{},drive={name},serial={name},{errors}", bus.suffix());
    // Eight functions of each of the last slots, because the bus has only 32 slots.
    let address = format!(",multifunction=on,addr={:#x}.{}", 0x1e - index / 8, index % 8);
    if bus == Bus::Pci { device + &address } else { device }
}

/// QEMU's description of a disk with a name.
fn node(name: &str, read_only: bool, mut driver: Value) -> String {
    driver["node-name"] = name.into();
    driver["read-only"] = read_only.into();
    driver.to_string()
}

/// The devices of a board; its only disk is the SD card.
pub(crate) fn board(
    mut cmd: Cmd<'static>,
    board: &Board,
    kernel: &Kernel,
    shape: &Shape<'_>,
) -> Cmd<'static> {
    cmd = cmd.arg("-dtb").arg(kernel.device_tree());
    for _ in 0..board.serial {
        cmd = cmd.args(["-serial", "null"]);
    }
    cmd = cmd.args(["-serial", "chardev:serial"]);
    if let Some((network, options)) = network(shape).zip(board.network.as_ref()) {
        cmd = cmd.arg("-netdev").arg(network).args(options);
    }
    for card in shape.disks {
        let file = inherited(card);
        cmd = cmd.arg("-drive").arg(format!("{},id=card,format=raw,file={}", board.drive, file.display()));
    }
    cmd
}

/// The number of disks of a machine. Those without a layer are empty, so that one snapshot serves images with different
/// numbers of layers.
pub(crate) fn slots(layers: usize) -> usize {
    layers.next_power_of_two()
}

fn network(shape: &Shape<'_>) -> Option<String> {
    let forwarded = shape.network?.iter().map(|port| format!(",hostfwd={port}"));
    Some(format!("user,id=network{}", forwarded.collect::<String>()))
}

fn socket(name: &str, end: &UnixStream) -> String {
    format!("socket,id={name},fd={}", end.as_raw_fd())
}
