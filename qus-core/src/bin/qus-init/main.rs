//! `qus-init`: the first process of a machine that `cargo xtask vm` starts.
//!
//! It mounts the layers of an image or a disk, runs one program in them, relays its streams, reports its exit status and
//! switches the machine off; or it copies them. `qus_core::machine` has the messages.

mod archive;
mod attributes;
mod boot;
mod copy;
mod disk;
mod network;
mod port;
mod program;
mod relay;
mod root;
mod tree;
mod user;

use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{getpid, sethostname, sync};
use qus_core::machine::{self, Event, Request, VERSION};

use port::Ports;
use program::CannotRun;

fn main() -> ExitCode {
    if getpid().as_raw() != 1 {
        let _ = writeln!(
            io::stderr(),
            "error: qus-init is the first process of a machine\nhint: run a machine with `cargo xtask vm run`"
        );
        return ExitCode::from(2);
    }
    let ended = boot::prepare().and_then(|()| Ports::open()).and_then(|ports| {
        let control = ports.control.try_clone()?;
        let event = serve(ports).unwrap_or_else(|error| Event::Failed {
            status: error.downcast_ref().map_or(125, CannotRun::status),
            error: format!("{error:#}"),
        });
        sync();
        machine::send(&control, &event).context("cannot report to the host")?;
        // The host ends the machine when it has read all output. What it has not read would be lost if the machine ended.
        io::copy(&mut &control, &mut io::sink()).map(drop).context("the host is gone")
    });
    if let Err(error) = ended {
        // The console is all that there is.
        let _ = writeln!(io::stderr(), "qus-init: {error:#}");
    }
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // The kernel panics, which ends the machine.
    ExitCode::FAILURE
}

fn serve(ports: Ports) -> Result<Event> {
    machine::send(&ports.control, &Event::Ready { version: VERSION })?;
    let mut requests = BufReader::new(ports.control.try_clone()?);
    let run = match machine::receive(&mut requests).context("cannot read the request")? {
        Some(Request::Run(run)) => run,
        Some(Request::Copy(copy)) => {
            boot::find_devices()?;
            return copy::run(&copy, ports);
        }
        _ => bail!("the host asks for something before a program"),
    };
    boot::renew(&run.renewal)?;
    sethostname(&run.hostname).context("cannot set the host name")?;
    boot::find_devices()?;
    root::assemble(&run.root)?;
    root::mount_volumes(&run.volumes)?;
    if let Some(target) = &run.data {
        root::mount_data(target)?;
    }
    network::configure(run.network, &run.hostname)?;
    if let Some(socket) = &run.socket {
        relay::serve_connections(&ports, socket)?;
    }
    program::run(&run, ports, requests).map(Event::Exited)
}
