//! The process of an engine: starts its machine, and connects clients to it until the machine ends.
//!
//! It begins as a child of `up`, with which it ends, and whose terminal has its messages. When the engine answers, it
//! continues alone.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result};
use fs_err::{self as fs, File};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};
use serde::{Deserialize, Serialize};

use crate::base::context::Context;
use crate::base::{exec, files};
use crate::engine::engine_dir::EngineDir;
use crate::engine::programs::Programs;
use crate::vm::engine::start::{self, Files, Wanted};

/// What the process prints when the engine answers.
pub(super) const READY: &str = "ready\n";

/// The log of the process when it runs alone.
fn log(dir: &EngineDir) -> PathBuf {
    dir.0.join("serve.log")
}

/// Why an engine has ended that answered before, with the log that has more.
pub(super) fn last_error(dir: &EngineDir) -> Option<String> {
    let text = fs::read_to_string(log(dir)).ok()?;
    let first = text.lines().next()?.trim_end_matches(':');
    Some(format!("{} (see {})", first.trim_start_matches("error: "), log(dir).display()))
}

/// The recorded state of a running engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// The process whose end ends the machine.
    pub(super) process: u32,
    /// The programs with docker, if it is not installed.
    pub(super) client: Option<PathBuf>,
}

impl State {
    /// Reads the state; `None` if no engine runs in this directory.
    pub(super) fn read(dir: &EngineDir) -> Option<Self> {
        if !dir.is_locked() {
            return None;
        }
        serde_json::from_slice(&fs::read(dir.state()).ok()?).ok()
    }
}

/// Runs an engine in its directory, which only this user can read.
///
/// # Errors
/// It does not start, or it ends for another reason than this process's end.
pub(super) fn run(cx: &Context, dir: &EngineDir, wanted: &Wanted<'_>) -> Result<()> {
    // No key of the terminal is for the machine; this process ends with the one that has started it.
    setsid().context("cannot leave the terminal")?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let _lock = dir.acquire_lock()?;
    let (disk, engine_log) = (dir.0.join("disk.qcow2"), dir.engine_log());
    let mut engine = start::start(cx, wanted, &Files { disk: &disk, log: &engine_log })?;
    let listener = UnixListener::bind(dir.socket()).context("cannot create the engine's socket")?;
    fs::set_permissions(dir.socket(), PermissionsExt::from_mode(0o600))?;
    let state = State { process: std::process::id(), client: client(cx, dir)? };
    files::write(&dir.state(), &serde_json::to_vec_pretty(&state)?)?;
    become_independent(dir)?;
    let connections = engine.connections();
    thread::spawn(move || {
        for client in listener.incoming() {
            // One that cannot be connected is closed.
            let _ = client.and_then(|client| connections.open(client));
        }
    });
    Err(engine.ended())
}

/// The programs with docker and their configuration, unless docker is installed.
fn client(cx: &Context, dir: &EngineDir) -> Result<Option<PathBuf>> {
    if exec::is_installed("docker") {
        return Ok(None);
    }
    let programs = Programs::ensure(cx)?;
    programs.write_client_config(&cx.settings, &dir.client())?;
    Ok(Some(programs.dir().to_owned()))
}

/// Leaves the process that has started this one, and its streams.
fn become_independent(dir: &EngineDir) -> Result<()> {
    prctl::set_pdeathsig(None).context("cannot continue without the process that started this one")?;
    let mut stdout = io::stdout();
    stdout
        .write_all(READY.as_bytes())
        .and_then(|()| stdout.flush())
        .context("nobody waits for the engine")?;
    dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    dup2_stderr(File::create(log(dir))?)?;
    Ok(())
}
