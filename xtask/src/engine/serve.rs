//! The process that holds a throwaway engine together: process 1 of namespaces of its own.
//!
//! All that dockerd, containerd and their containers start ends with it, all that they mount is gone then,
//! and what they write outside the engine's folder goes to memory: containerd and dockerd leave files in
//! `/etc`, `/opt` and `/run` wherever they are told to work.

use std::path::Path;

use anyhow::{Context, Result, bail};
use fs_err::{self as fs, File};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::base::settings::Settings;
use crate::engine::place::{EngineState, Place};
use crate::engine::programs::Programs;

/// Folders of the machine into which an engine writes.
const COVERED: [&str; 3] = ["/etc", "/opt", "/run"];

pub(super) fn run(settings: &Settings, dir: &Path) -> Result<()> {
    let place = Place::at(dir);
    let _lock = place.hold()?;
    let state = EngineState::read(&place).context("the engine's folder has no state")?;
    let programs = Programs::at(&state.programs);
    mount_over(Path::new("/proc"), "proc", "").context("cannot mount /proc")?;
    cover(&place)?;
    let (path, libraries) = (programs.path(settings)?, programs.libraries()?);
    let start = |cmd: xshell::Cmd<'_>, log: &Path| {
        let log = File::create(log)?;
        exec::spawn(cmd.env("PATH", &path).env("LD_LIBRARY_PATH", &libraries), log)
    };
    let (dockerd, config) = (programs.dockerd(), place.daemon_config());
    let engine = start(cmd!(sh(), "{dockerd} --config-file {config}"), &place.engine_log())?;
    let (registry, config) = (programs.registry(), place.registry_config());
    let registry = start(cmd!(sh(), "{registry} serve {config}"), &place.registry_log())?;
    loop {
        // Orphans of the engine come here to be waited for.
        let ended = match wait()? {
            WaitStatus::Exited(process, _) | WaitStatus::Signaled(process, _, _) => process.as_raw() as u32,
            _ => continue,
        };
        for (what, child, log) in
            [("dockerd", &engine, place.engine_log()), ("the registry", &registry, place.registry_log())]
        {
            if child.id() == ended {
                bail!("{what} has ended; see {}", log.display());
            }
        }
    }
}

/// Lets writes to the machine's folders go to memory, and puts files there that the engine is to find.
fn cover(place: &Place) -> Result<()> {
    let memory = place.memory();
    mount_over(&memory, "tmpfs", "").context("cannot mount a tmpfs")?;
    for folder in COVERED.map(Path::new).into_iter().filter(|folder| folder.is_dir()) {
        let [upper, work] =
            ["upper", "work"].map(|kind| memory.join(kind).join(folder.strip_prefix("/").unwrap_or(folder)));
        for dir in [&upper, &work] {
            fs::create_dir_all(dir)?;
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", folder.display(), upper.display(), work.display());
        mount_over(folder, "overlay", &options)
            .with_context(|| format!("cannot keep {} from being written", folder.display()))?;
    }
    for entry in fs::read_dir(place.etc()).into_iter().flatten() {
        let entry = entry?;
        fs::copy(entry.path(), Path::new("/etc").join(entry.file_name())).context("cannot write to /etc")?;
    }
    Ok(())
}

fn mount_over(at: &Path, kind: &str, options: &str) -> nix::Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
}
