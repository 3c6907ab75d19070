//! Starts machines: from a snapshot of one that has booted, or by booting one, of which a snapshot is made.
//!
//! A snapshot is taken before the machine has seen an image: nothing of one run is in another's. Time and random numbers
//! are renewed before a program runs.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Error, Result, bail};
use fs_err::File;
use qus_core::machine::{Event, Renewal, VERSION};

use crate::base::context::Context;
use crate::base::progress::{Bar, say};
use crate::base::{cache, files};
use crate::vm::machine::{Kind, Running};
use crate::vm::shape::Shape;

/// The file of a snapshot.
pub(crate) const MEMORY: &str = "memory";

/// The present time, and new random bytes.
pub(crate) fn renewal() -> Result<Renewal> {
    let mut entropy = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("this machine's time is before 1970")?;
    Ok(Renewal { time: time.as_nanos().try_into()?, entropy })
}

/// Starts a machine whose first process waits for a program.
///
/// # Errors
/// It does not start within the time; the message has the kernel's last lines.
pub(crate) fn start(cx: &Context, kind: &Kind, shape: &Shape<'_>, limit: Duration) -> Result<Running> {
    // The servers of volumes are no part of a snapshot, and not all devices of boards can be saved.
    if shape.verbose || !shape.volumes.is_empty() || kind.data().board().is_some() {
        return boot(cx, kind, shape, limit);
    }
    let dir = cx.paths.machine("snapshot", &files::short_id(kind.identity(shape)?));
    let mut booted = None;
    cache::ensure(&dir, |partial| {
        let machine = booted.insert(boot(cx, kind, shape, limit)?);
        let _bar = Bar::short("saving a snapshot of the machine");
        let saved = machine.monitor.save(&partial.join(MEMORY)).and_then(|()| machine.monitor.resume());
        saved.context("cannot save a snapshot of the machine")
    })?;
    if let Some(machine) = booted {
        return Ok(machine);
    }
    restore(cx, kind, shape, &dir.join(MEMORY)).or_else(|error| {
        say(format_args!(
            "warning: a snapshot cannot be used, and is made again at the next start: {error:#}"
        ));
        files::remove_dir(&dir)?;
        boot(cx, kind, shape, limit)
    })
}

fn restore(cx: &Context, kind: &Kind, shape: &Shape<'_>, memory: &Path) -> Result<Running> {
    let mut machine = kind.spawn(cx, shape, true)?;
    match machine.monitor.restore(memory) {
        Ok(()) => Ok(machine),
        Err(error) => Err(machine.fault(error)),
    }
}

/// Boots a machine up to its first process, which waits for a program.
pub(crate) fn boot(cx: &Context, kind: &Kind, shape: &Shape<'_>, limit: Duration) -> Result<Running> {
    let mut machine = kind.spawn(cx, shape, false)?;
    let bar = Bar::short(format!("booting {}", kind.data().name()));
    let event = machine.receive(Some(limit), "the machine has not started");
    drop(bar);
    match event? {
        Event::Ready { version: VERSION } => Ok(machine),
        Event::Ready { version } => bail!("the machine has version {version} of the messages, not {VERSION}"),
        Event::Failed { error, .. } => Err(machine.fault(Error::msg(error))),
        Event::Exited(_) | Event::Copied { .. } => bail!("the machine reports an end before it has a task"),
    }
}
