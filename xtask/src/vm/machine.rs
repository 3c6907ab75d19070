//! A machine: its emulator, kernel, devices and the sockets to it.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use qemu_src::{Bus, Machine};
use qus_core::arch::Host;
use qus_core::hint::{self, hinted};
use qus_core::machine::{self, CONTROL, ERROR, Event, INPUT, OUTPUT, Request, layer_serial};
use qus_core::text::Show;
use serde_json::{Value, json};
use xshell::Cmd;

use crate::base::context::Context;
use crate::base::exec;
use crate::vm::console::Console;
use crate::vm::disks::inherited;
use crate::vm::kernel::Kernel;
use crate::vm::monitor::Monitor;
use crate::vm::programs::Programs;
use crate::vm::volumes::{Server, Volume, tag};

/// Everything that is needed to start machines of one kind.
pub(crate) struct Kind {
    data: Machine,
    programs: Programs,
    kernel: Kernel,
}

/// The size and the disks of a machine.
pub(crate) struct Shape<'a> {
    /// In MiB; `None` for the default of this kind.
    pub(crate) memory: Option<u32>,
    pub(crate) processors: u32,
    pub(crate) disks: &'a [File],
    /// The ports of the host that lead to the machine; `None` without a network.
    pub(crate) network: Option<&'a [Published]>,
    pub(crate) volumes: &'a [Volume],
    /// Whether the kernel prints all of its messages.
    pub(crate) verbose: bool,
}

/// A port of the host that leads to one of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    address: IpAddr,
    host: u16,
    machine: u16,
    protocol: &'static str,
}

impl FromStr for Published {
    type Err = String;

    /// Parses `[ADDRESS:]HOST:MACHINE[/tcp|/udp]`, as of `docker run`, but local by default.
    fn from_str(given: &str) -> Result<Self, String> {
        let (ports, protocol) = match given.rsplit_once('/') {
            None => (given, "tcp"),
            Some((ports, "tcp")) => (ports, "tcp"),
            Some((ports, "udp")) => (ports, "udp"),
            Some((_, other)) => return Err(format!("unknown protocol {other}; there are tcp and udp")),
        };
        let parse = |port: &str| port.parse().map_err(|_| format!("{port:?} is no port"));
        let (rest, machine) = ports.rsplit_once(':').ok_or("it has no port of the machine, as in 8080:80")?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => {
                (address.parse().map_err(|_| format!("{address:?} is no IP address"))?, host)
            }
            None => (Ipv4Addr::LOCALHOST.into(), rest),
        };
        Ok(Self { address, host: parse(host)?, machine: parse(machine)?, protocol })
    }
}

/// As QEMU's option.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}-:{}", self.protocol, self.address, self.host, self.machine)
    }
}

/// A running machine, which ends when this is dropped, and when this process ends.
pub(crate) struct Running {
    emulator: Child,
    /// What the emulator prints.
    log: File,
    console: Console,
    pub(crate) monitor: Monitor,
    control: BufReader<UnixStream>,
    pub(crate) input: UnixStream,
    pub(crate) output: UnixStream,
    pub(crate) error: UnixStream,
    _volumes: Vec<Server>,
}

impl Kind {
    /// Finds the machine for programs of a host, and fetches or builds its parts unless they are in the cache.
    pub(crate) fn ensure(cx: &Context, host: &'static Host) -> Result<Self> {
        let machine = cx.data.machines.of(host).ok_or_else(|| unknown(cx, host))?;
        Ok(Self {
            data: machine.clone(),
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

    /// In MiB.
    fn memory(&self, shape: &Shape<'_>) -> u32 {
        shape.memory.unwrap_or(self.data.memory)
    }

    /// What decides whether a snapshot of one machine can be used for another.
    pub(crate) fn identity(&self, shape: &Shape<'_>) -> Result<String> {
        let (memory, processors) = (self.memory(shape), shape.processors);
        let Machine { emulator, options, console, .. } = &self.data;
        let (programs, kernel) = (self.programs.identity()?, self.kernel.identity()?);
        let (slots, network) = (slots(shape.disks.len()), shape.network.is_some());
        Ok(format!(
            "{programs} {kernel} {emulator} {options:?} {console} {memory} {processors} {slots} {network}"
        ))
    }

    /// Starts an emulator, which boots the machine or waits for a snapshot.
    pub(crate) fn spawn(&self, cx: &Context, shape: &Shape<'_>, from_snapshot: bool) -> Result<Running> {
        let pair = || UnixStream::pair().context("cannot create a socket");
        let ((console, console_end), (monitor, monitor_end), (control, control_end)) =
            (pair()?, pair()?, pair()?);
        let ((input, input_end), (output, output_end), (error, error_end)) = (pair()?, pair()?, pair()?);
        let ends = [console_end, monitor_end, control_end, input_end, output_end, error_end];
        let log = tempfile::tempfile()?;
        let disks = shape.disks.iter().map(AsFd::as_fd);
        let servers = shape.volumes.iter().map(|volume| Server::start(cx, &self.programs, volume));
        let servers: Vec<_> = servers.collect::<Result<_>>()?;
        let volumes = servers.iter().map(|server| server.connection.as_fd());
        let descriptors: Vec<_> = ends.iter().map(AsFd::as_fd).chain(disks).chain(volumes).collect();
        let command = self.command(shape, &ends, &servers);
        let command = if from_snapshot { command.args(["-incoming", "defer"]) } else { command };
        let mut running = Running {
            emulator: exec::spawn_with(command, &descriptors, log.try_clone()?)?,
            console: Console::follow(console, shape.verbose),
            monitor: Monitor::new(monitor)?,
            control: BufReader::new(control),
            log,
            input,
            output,
            error,
            _volumes: servers,
        };
        // Otherwise nothing would end when the emulator does.
        drop(ends);
        running.monitor.negotiate().map_err(|error| running.fault(error))?;
        Ok(running)
    }

    /// The emulator's command line. `ends` are its sockets: the console, the monitor, and the ports in the order of [`PORTS`].
    fn command(&self, shape: &Shape<'_>, ends: &[UnixStream; 6], servers: &[Server]) -> Cmd<'static> {
        let data = &self.data;
        let bus = data.bus.suffix();
        let mut cmd = self.programs.cmd(&data.emulator);
        cmd = cmd.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]);
        for dir in self.programs.firmware() {
            cmd = cmd.arg("-L").arg(dir);
        }
        let memory = self.memory(shape);
        cmd = cmd.args(&data.options).arg("-m").arg(memory.to_string());
        cmd = cmd.arg("-smp").arg(shape.processors.to_string());
        cmd = cmd.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.kernel.initramfs);
        let quiet = if shape.verbose { "" } else { " quiet" };
        cmd = cmd.arg("-append").arg(format!("console={} panic=-1{quiet}", data.console));
        let [console, monitor, ports @ ..] = ends;
        let socket = |name: &str, end: &UnixStream| format!("socket,id={name},fd={}", end.as_raw_fd());
        cmd = cmd.arg("-chardev").arg(socket("console", console)).args(["-serial", "chardev:console"]);
        cmd = cmd
            .arg("-chardev")
            .arg(socket("monitor", monitor))
            .args(["-mon", "chardev=monitor,mode=control"]);
        cmd = cmd.arg("-device").arg(format!("virtio-serial-{bus}"));
        for (name, end) in PORTS.iter().zip(ports) {
            cmd = cmd.arg("-chardev").arg(socket(name, end));
            cmd = cmd.arg("-device").arg(format!("virtserialport,chardev={name},name={name}"));
        }
        if !servers.is_empty() {
            // The servers read and write the machine's memory.
            cmd = cmd.arg("-object").arg(format!("memory-backend-memfd,id=memory,size={memory}M,share=on"));
            cmd = cmd.args(["-machine", "memory-backend=memory"]);
        }
        for (index, server) in servers.iter().enumerate() {
            let tag = tag(index);
            cmd = cmd.arg("-chardev").arg(socket(&tag, &server.connection));
            cmd = cmd.arg("-device").arg(format!("vhost-user-fs-{bus},chardev={tag},tag={tag}"));
        }
        if let Some(published) = shape.network {
            let forwarded = published.iter().map(|port| format!(",hostfwd={port}"));
            cmd = cmd.arg("-netdev").arg(format!("user,id=network{}", forwarded.collect::<String>()));
            // Its option ROM would be for booting from the network.
            let rom = if data.bus == Bus::Pci { ",romfile=" } else { "" };
            cmd = cmd.arg("-device").arg(format!("virtio-net-{bus},netdev=network{rom}"));
        }
        for index in 0..slots(shape.disks.len()) {
            let name = layer_serial(index);
            let file = match shape.disks.get(index) {
                Some(disk) => json!({ "driver": "file", "filename": inherited(disk) }),
                None => json!({ "driver": "null-co", "size": 4096, "read-zeroes": true }),
            };
            let mut node = json!({ "node-name": name, "read-only": true });
            if let (Value::Object(node), Value::Object(file)) = (&mut node, file) {
                node.extend(file);
            }
            cmd = cmd.arg("-blockdev").arg(node.to_string());
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

/// The number of disks of a machine. Those without a layer are empty, so that one snapshot serves images with different
/// numbers of layers.
fn slots(layers: usize) -> usize {
    layers.next_power_of_two()
}

/// The virtio-serial ports.
const PORTS: [&str; 4] = [CONTROL, INPUT, OUTPUT, ERROR];

fn unknown(cx: &Context, host: &Host) -> anyhow::Error {
    let known: Vec<_> = cx.data.machines.machines.iter().map(|machine| machine.host.name).collect();
    hinted(
        format_args!("there is no machine for {host}; there are {}", known.join(", ")),
        "`qus run` runs programs of 33 targets without a machine",
    )
}

impl Running {
    /// Sends a message to the first process.
    pub(crate) fn send(&self, request: &Request) -> Result<()> {
        machine::send(self.control.get_ref(), request).context("cannot send a message to the machine")
    }

    /// Another connection to the port of messages, to send some or to close it.
    pub(crate) fn control(&self) -> Result<UnixStream> {
        Ok(self.control.get_ref().try_clone()?)
    }

    /// Receives the next message within a time, after which `late` is the error.
    pub(crate) fn receive(&mut self, limit: Option<Duration>, late: &str) -> Result<Event> {
        self.control.get_ref().set_read_timeout(limit)?;
        let received = match machine::receive(&mut self.control) {
            Ok(Some(event)) => return Ok(event),
            Ok(None) => anyhow!("the machine ended unexpectedly"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = limit.unwrap_or_default().as_secs();
                hinted(
                    format_args!("{late} within {seconds} s"),
                    "a longer `--timeout` or `--boot-timeout` may help",
                )
            }
            Err(error) => anyhow!("the machine sends no messages of qus-init: {error}"),
        };
        Err(self.fault(received))
    }

    /// An error with what the emulator and the kernel have printed.
    pub(crate) fn fault(&self, error: Error) -> Error {
        let (mut text, mut log) = (String::new(), &self.log);
        let _ = log.rewind().and_then(|()| log.read_to_string(&mut text));
        let lines: Vec<_> = text.lines().map(|line| format!("\n    {}", line.shown())).collect();
        let emulator =
            if lines.is_empty() { String::new() } else { format!("; QEMU's messages:{}", lines.concat()) };
        let message = format!("{error:#}{emulator}{}", self.console.last_lines());
        hint::of(&error).map_or_else(|| anyhow!("{message}"), |hint| hinted(&message, hint))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports() {
        let option = |given: &str| given.parse::<Published>().map(|port| port.to_string());
        assert_eq!(option("8080:80").unwrap(), "tcp:127.0.0.1:8080-:80");
        assert_eq!(option("0.0.0.0:53:5353/udp").unwrap(), "udp:0.0.0.0:53-:5353");
        for (given, error) in [
            ("80", "it has no port of the machine, as in 8080:80"),
            ("80:http", "\"http\" is no port"),
            ("localhost:80:80", "\"localhost\" is no IP address"),
            ("80:80/sctp", "unknown protocol sctp; there are tcp and udp"),
            ("99999:80", "\"99999\" is no port"),
        ] {
            assert_eq!(option(given).unwrap_err(), error);
        }
    }
}
