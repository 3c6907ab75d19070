//! A machine: its emulator, kernel, devices and the sockets to it.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use nix::poll::{PollFd, PollFlags, poll};
use qemu_src::{Devices, Machine};
use qus_core::arch::Host;
use qus_core::hint::{self, hinted};
use qus_core::machine::{self, Event, PORTS, Request};
use qus_core::multiplex;
use qus_core::text::Show;

use crate::base::context::Context;
use crate::base::exec;
use crate::vm::console::Console;
use crate::vm::devices::{self, Ends, slots};
use crate::vm::kernel::Kernel;
use crate::vm::monitor::Monitor;
use crate::vm::programs::Programs;
use crate::vm::shape::Shape;
use crate::vm::volumes::Server;

/// Everything that is needed to start machines of one kind.
pub(crate) struct Kind {
    data: Machine,
    programs: Programs,
    kernel: Kernel,
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
    pub(crate) connections: UnixStream,
    _volumes: Vec<Server>,
}

impl Kind {
    /// Fetches or builds the parts of a machine, unless they are in the cache.
    pub(crate) fn ensure(cx: &Context, machine: &Machine) -> Result<Self> {
        Self::with(cx, machine.clone(), &[])
    }

    /// Like [`Self::ensure`], for a machine that reads more file systems than those of layers.
    pub(crate) fn with_file_systems(cx: &Context, machine: &Machine) -> Result<Self> {
        Self::with(cx, machine.clone(), &cx.data.machines.file_systems)
    }

    /// Like [`Self::ensure`], for a machine with a container engine.
    pub(crate) fn with_engine(cx: &Context, machine: &Machine) -> Result<Self> {
        let (engine, mut machine) = (&cx.data.machines.engine, machine.clone());
        machine.memory = machine.memory.max(engine.memory);
        Self::with(cx, machine, &engine.modules)
    }

    fn with(cx: &Context, data: Machine, modules: &[String]) -> Result<Self> {
        let (programs, kernel) = (Programs::ensure(cx, &data)?, Kernel::ensure(cx, &data, modules)?);
        Ok(Self { data, programs, kernel })
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    pub(crate) fn data(&self) -> &Machine {
        &self.data
    }

    /// What decides whether a snapshot of one machine can be used for another.
    pub(crate) fn identity(&self, shape: &Shape<'_>) -> Result<String> {
        let (memory, processors) = (shape.memory(&self.data), shape.processors());
        let Machine { emulator, options, console, .. } = &self.data;
        let (programs, kernel) = (self.programs.identity()?, self.kernel.identity()?);
        let (slots, network, data) =
            (slots(shape.disks.len()), shape.network.is_some(), shape.data.is_some());
        let (driver, target) = (shape.driver, shape.target.is_some());
        Ok(format!(
            "{programs} {kernel} {emulator} {options:?} {console} {memory} {processors} {slots} {network} {data} \
            {driver:?} {target}"
        ))
    }

    /// Starts an emulator, which boots the machine or waits for a snapshot.
    pub(crate) fn spawn(&self, cx: &Context, shape: &Shape<'_>, from_snapshot: bool) -> Result<Running> {
        let pair = || UnixStream::pair().context("cannot create a socket");
        let ((serial, serial_end), (monitor, monitor_end)) = (pair()?, pair()?);
        let ports: Vec<_> = PORTS.iter().map(|_| pair()).collect::<Result<_>>()?;
        let (ports, port_ends) = ports.into_iter().unzip::<_, _, Vec<_>, _>();
        let mut ends = Ends { serial: serial_end, monitor: monitor_end, ports: port_ends };
        let console = match self.data.devices {
            Devices::Virtio(_) => serial,
            Devices::Board(_) => {
                let (console, mut text) = pair()?;
                let channels = std::mem::take(&mut ends.ports);
                // Nobody reads the console of a machine that has ended.
                let on_text = move |bytes: &[u8]| drop(text.write_all(bytes));
                multiplex::connect(serial.try_clone()?, serial, channels, on_text)?;
                console
            }
        };
        let log = tempfile::tempfile()?;
        let servers = shape.volumes.iter().map(|volume| Server::start(cx, &self.programs, volume));
        let servers: Vec<_> = servers.collect::<Result<_>>()?;
        let sockets = [&ends.serial, &ends.monitor].into_iter().chain(&ends.ports);
        let sockets = sockets.chain(servers.iter().map(|server| &server.connection)).map(AsFd::as_fd);
        let disks = shape.disks.iter().chain(shape.target.map(|area| &area.file)).map(AsFd::as_fd);
        let descriptors: Vec<_> = sockets.chain(disks).collect();
        let command = devices::common(&self.programs, &self.data, &self.kernel, shape, &ends);
        let command = match &self.data.devices {
            Devices::Virtio(bus) => devices::virtio(command, *bus, &self.data, shape, &ends, &servers),
            Devices::Board(board) => devices::board(command, board, &self.kernel, shape),
        };
        let command = if from_snapshot { command.args(["-incoming", "defer"]) } else { command };
        let emulator = exec::spawn_with(command, &descriptors, log.try_clone()?)?;
        let [control, input, output, error, connections] = <[UnixStream; 5]>::try_from(ports)
            .map_err(|_| anyhow!("there are not as many ports as names"))?;
        let mut running = Running {
            emulator,
            console: Console::follow(console, shape.verbose),
            monitor: Monitor::new(monitor)?,
            control: BufReader::new(control),
            log,
            input,
            output,
            error,
            connections,
            _volumes: servers,
        };
        // Otherwise nothing would end when the emulator does.
        drop(ends);
        running.monitor.negotiate().map_err(|error| running.fault(error))?;
        Ok(running)
    }
}

/// The machine that runs programs of a host, and is no board.
pub(crate) fn find<'a>(cx: &'a Context, host: &Host) -> Result<&'a Machine> {
    let machines = &cx.data.machines;
    machines.of(host).ok_or_else(|| {
        let known: Vec<_> = machines.virtual_machines().map(Machine::name).collect();
        hinted(
            format_args!("there is no machine for {host}; there are {}", known.join(", ")),
            "`qus run` runs programs of 33 targets without a machine",
        )
    })
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

    /// Waits until the machine has sent a message or ended; `false` after this time in milliseconds.
    pub(crate) fn wait_for_message(&self, limit: u16) -> Result<bool> {
        let mut descriptors = [PollFd::new(self.control.get_ref().as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut descriptors, limit)? > 0)
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
