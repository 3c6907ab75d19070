//! The emulator's command line: the devices of a machine.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use qemu_src::{Board, Bus, Machine};
use qus_core::machine::{DATA, LINE, PORTS, layer_name};
use serde_json::{Value, json};
use xshell::Cmd;

use crate::vm::disks::inherited;
use crate::vm::kernel::Kernel;
use crate::vm::programs::Programs;
use crate::vm::shape::Shape;
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
    for index in 0..slots(shape.disks.len()) {
        let name = layer_name(index);
        let file = match shape.disks.get(index) {
            Some(disk) => json!({ "driver": "file", "filename": inherited(disk) }),
            None => json!({ "driver": "null-co", "size": 4096, "read-zeroes": true }),
        };
        let mut node = json!({ "node-name": name, "read-only": true });
        if let (Value::Object(node), Value::Object(file)) = (&mut node, file) {
            node.extend(file);
        }
        cmd = cmd.arg("-blockdev").arg(node.to_string());
        let mut device = format!("virtio-blk-{suffix},drive={name},serial={name}");
        if bus == Bus::Pci {
            // Eight functions of each of the last slots, because the bus has only 32 slots.
            device += &format!(",multifunction=on,addr={:#x}.{}", 0x1e - index / 8, index % 8);
        }
        cmd = cmd.arg("-device").arg(device);
    }
    cmd
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
