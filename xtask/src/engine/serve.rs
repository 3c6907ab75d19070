//! Process 1 of a throwaway engine's namespaces.
//!
//! When it ends, all processes and mounts of dockerd, containerd and their containers are removed. Writes outside the
//! engine's directory go to a tmpfs, because containerd and dockerd create files in `/etc`, `/opt` and `/run` whatever
//! their configuration is.

use std::path::Path;

use anyhow::{Context, Result, bail};
use fs_err::{self as fs, File};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::base::settings::Settings;
use crate::engine::engine_dir::{EngineDir, EngineState};
use crate::engine::programs::Programs;

/// Directories of the machine into which an engine writes.
const OVERLAID: [&str; 3] = ["/etc", "/opt", "/run"];

pub(super) fn run(settings: &Settings, dir: &Path) -> Result<()> {
    let engine_dir = EngineDir::new(dir);
    let _lock = engine_dir.acquire_lock()?;
    let state = EngineState::read(&engine_dir).context("the engine's directory has no state")?;
    let programs = Programs::at(&state.programs);
    mount_over(Path::new("/proc"), "proc", "").context("cannot mount /proc")?;
    mount_overlays(&engine_dir)?;
    let (path, libraries) = (programs.path(settings)?, programs.libraries()?);
    let start = |cmd: xshell::Cmd<'_>, log: &Path| {
        let log = File::create(log)?;
        exec::spawn(cmd.env("PATH", &path).env("LD_LIBRARY_PATH", &libraries), log)
    };
    let (dockerd, config) = (programs.dockerd(), engine_dir.daemon_config());
    let engine = start(cmd!(sh(), "{dockerd} --config-file {config}"), &engine_dir.engine_log())?;
    let (registry, config) = (programs.registry(), engine_dir.registry_config());
    let registry = start(cmd!(sh(), "{registry} serve {config}"), &engine_dir.registry_log())?;
    loop {
        // Process 1 also reaps orphans.
        let ended = match wait()? {
            WaitStatus::Exited(process, _) | WaitStatus::Signaled(process, _, _) => process.as_raw() as u32,
            _ => continue,
        };
        for (what, child, log) in [
            ("dockerd", &engine, engine_dir.engine_log()),
            ("the registry", &registry, engine_dir.registry_log()),
        ] {
            if child.id() == ended {
                bail!("{what} exited; see {}", log.display());
            }
        }
    }
}

/// Redirects writes to the machine's directories to a tmpfs, and copies the engine's files to `/etc`.
fn mount_overlays(engine_dir: &EngineDir) -> Result<()> {
    let memory = engine_dir.memory();
    mount_over(&memory, "tmpfs", "").context("cannot mount a tmpfs")?;
    for lower in OVERLAID.map(Path::new).into_iter().filter(|lower| lower.is_dir()) {
        let [upper, work] =
            ["upper", "work"].map(|kind| memory.join(kind).join(lower.strip_prefix("/").unwrap_or(lower)));
        for dir in [&upper, &work] {
            fs::create_dir_all(dir)?;
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount_over(lower, "overlay", &options)
            .with_context(|| format!("cannot mount an overlay over {}", lower.display()))?;
    }
    for entry in fs::read_dir(engine_dir.etc()).into_iter().flatten() {
        let entry = entry?;
        fs::copy(entry.path(), Path::new("/etc").join(entry.file_name())).context("cannot write to /etc")?;
    }
    Ok(())
}

fn mount_over(at: &Path, kind: &str, options: &str) -> nix::Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
}
