//! Starts an engine: from a snapshot of a machine in which one runs already.
//!
//! A snapshot has the machine's memory and its disk, as they were when the engine answered for the first time. Each engine
//! gets a copy of that disk.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};
use fs_err::{self as fs, File};
use qus_core::arch::Host;
use qus_core::connections::Connections;
use qus_core::hint::{self, WithHint, hinted};
use qus_core::machine::{Event, Request, Root, Run};
use qus_core::text::Show;

use crate::base::context::Context;
use crate::base::progress::{Bar, say};
use crate::base::{cache, files};
use crate::vm::disks;
use crate::vm::engine::root;
use crate::vm::machine::{self, Kind, Running};
use crate::vm::relay::Output;
use crate::vm::shape::{Published, Shape};
use crate::vm::start::{self, MEMORY};

/// The name of the disk in the directory of a snapshot.
const DISK: &str = "disk.qcow2";

/// The interval between questions to an engine that starts, and the time in which one that has been restored answers.
const INTERVAL: u16 = 100;
const RESTORED: Duration = Duration::from_secs(20);

/// How long a machine rests before its snapshot, so that nothing is on its way to it or from it.
const REST: Duration = Duration::from_secs(1);

/// The maximum length of its answer in bytes.
const LONGEST: u64 = 4096;

/// The number of lines of the engine's log in errors.
const LAST_LINES: usize = 10;

/// What an engine's machine is like.
pub(super) struct Wanted<'a> {
    pub(super) host: &'static Host,
    /// In MiB.
    pub(super) memory: Option<u32>,
    pub(super) processors: u32,
    /// The size of the disk in MiB.
    pub(super) disk: u64,
    pub(super) published: &'a [Published],
    /// For the first start.
    pub(super) limit: Duration,
}

/// Files of an engine.
pub(super) struct Files<'a> {
    pub(super) disk: &'a Path,
    pub(super) log: &'a Path,
}

/// An engine in a running machine.
pub(super) struct Engine<'a> {
    machine: Running,
    connections: Arc<Connections>,
    log: &'a Path,
}

/// Starts an engine that answers. The first one of its kind boots a machine, and saves the snapshot.
///
/// # Errors
/// The machine or its engine does not start within the time; the message has the last lines that they have printed.
pub(super) fn start<'a>(cx: &Context, wanted: &Wanted<'_>, at: &Files<'a>) -> Result<Engine<'a>> {
    let kind = Kind::with_engine(cx, machine::find(cx, wanted.host)?)?;
    let root = root::ensure(cx, &kind)?;
    let disks = [files::open(&root.join(root::DISK))?];
    let shape = Shape {
        memory: wanted.memory,
        processors: Some(wanted.processors),
        disks: &disks,
        driver: None,
        target: None,
        data: Some(at.disk),
        network: Some(wanted.published),
        volumes: &[],
        verbose: false,
    };
    let (machine, size) = (kind.identity(&shape)?, wanted.disk);
    let id = files::short_id(format!("{machine} {size} {}", cache::identity(&root)?));
    let snapshot = cx.paths.machine("engine", &id);
    let ensure = || {
        cache::ensure(&snapshot, |partial| {
            let disk = partial.join(DISK);
            disks::empty(cx, kind.programs(), size, &disk)?;
            let shape = Shape { data: Some(&disk), ..shape };
            save(cx, &kind, &shape, wanted.limit, at.log, &partial.join(MEMORY))
                .hint("if the kernel or the engine lacks memory, `--memory` gives the machine more")
        })
    };
    let spawn = || {
        files::remove_any(at.disk)?;
        fs::copy(snapshot.join(DISK), at.disk)?;
        kind.spawn(cx, &shape, true)
    };
    let restore = |mut machine: Running| {
        let restored = machine.monitor.restore(&snapshot.join(MEMORY));
        restored.map_err(|error| machine.fault(error))?;
        let mut engine = Engine::new(machine, at.log)?;
        engine.machine.send(&Request::Renew(start::renewal()?))?;
        engine.wait_until_ready(RESTORED)?;
        Ok::<_, Error>(engine)
    };
    ensure()?;
    restore(spawn()?).or_else(|error| {
        say(format_args!("warning: a snapshot cannot be used, and is made again: {error:#}"));
        files::remove_dir(&snapshot)?;
        ensure()?;
        restore(spawn()?)
    })
}

/// Boots a machine, starts the engine, and saves the machine's memory; its disk is complete then.
fn save(
    cx: &Context,
    kind: &Kind,
    shape: &Shape<'_>,
    limit: Duration,
    log: &Path,
    memory: &Path,
) -> Result<()> {
    let machine = start::boot(cx, kind, shape, limit)?;
    let _bar = Bar::short(format!("starting a container engine for {}", kind.data().host));
    machine.send(&Request::Run(program(kind.data().host)?.into()))?;
    let mut engine = Engine::new(machine, log)?;
    engine.wait_until_ready(limit)?;
    thread::sleep(REST);
    engine.machine.monitor.save(memory).context("cannot save a snapshot of the machine")
}

/// The engine as the program of a machine.
fn program(host: &Host) -> Result<Run> {
    Ok(Run {
        argv: vec!["dockerd".to_owned()],
        env: Vec::new(),
        user: String::new(),
        directory: String::new(),
        hostname: host.name.to_owned(),
        root: Root::Layers(1),
        volumes: Vec::new(),
        network: true,
        terminal: None,
        data: Some(root::DATA.to_owned()),
        socket: Some(root::SOCKET.to_owned()),
        renewal: start::renewal()?,
    })
}

impl<'a> Engine<'a> {
    /// Follows an engine that starts, or has been restored.
    fn new(machine: Running, log: &'a Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?.into_file();
        for output in [&machine.output, &machine.error] {
            Output::start(output.try_clone()?, &file, machine.control()?)?;
        }
        let port = machine.connections.try_clone()?;
        let connections = Connections::start(port.try_clone()?, port, fastrand::u32(..)).into();
        Ok(Self { machine, connections, log })
    }

    /// The connections to the engine.
    pub(super) fn connections(&self) -> Arc<Connections> {
        self.connections.clone()
    }

    /// Waits until the engine answers.
    ///
    /// # Errors
    /// It or its machine ends, or does not answer within the time.
    fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.answers().context("the machine does not connect to its engine")? {
            if self.machine.wait_for_message(INTERVAL)? {
                return Err(self.ended());
            }
            if start.elapsed() > limit {
                let late = format!("the engine does not answer within {} s", limit.as_secs());
                return Err(self.fault(hinted(late, "a longer `--boot-timeout` or more `--memory` may help")));
            }
        }
        Ok(())
    }

    /// Whether the engine answers a request; `false` while it has no socket.
    fn answers(&self) -> io::Result<bool> {
        let (mut client, end) = UnixStream::pair()?;
        self.connections.open(end)?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut answer = Vec::new();
        let asked = client.write_all(b"GET /_ping HTTP/1.0\r\n\r\n");
        let _ = asked.and_then(|()| client.take(LONGEST).read_to_end(&mut answer));
        Ok(answer.starts_with(b"HTTP/1.0 200 "))
    }

    /// Waits for the end of the engine or its machine, which is unexpected.
    pub(super) fn ended(&mut self) -> Error {
        let error = match self.machine.receive(None, "") {
            Ok(Event::Exited(ended)) => anyhow!("the engine has ended with the exit status {}", ended.status),
            Ok(Event::Failed { error, .. }) => anyhow!("the engine cannot be started: {}", error.shown()),
            Ok(Event::Ready { .. } | Event::Copied { .. }) => anyhow!("the machine reports something else"),
            Err(error) => error,
        };
        self.fault(error)
    }

    /// An error with what the engine has printed.
    fn fault(&self, error: Error) -> Error {
        let text = fs::read(self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(LAST_LINES).collect();
        let lines: String = lines.iter().rev().map(|line| format!("\n    {}", line.shown())).collect();
        let log = if lines.is_empty() { String::new() } else { format!("; the engine's last lines:{lines}") };
        let message = format!("{error:#}{log}");
        hint::of(&error).map_or_else(|| anyhow!("{message}"), |hint| hinted(&message, hint))
    }
}
