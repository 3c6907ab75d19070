//! The directory of a throwaway engine, and what is in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use serde::{Deserialize, Serialize};

use crate::base::files;

/// The folder of an engine, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Held by the engine's processes as long as one of them lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Takes the lock for this process and all that it starts.
    pub(super) fn hold(&self) -> Result<Flock<File>> {
        let path = self.lock();
        let open = File::options().write(true).create(true).truncate(false).open(&path);
        let file = open.with_context(|| format!("cannot write {}", path.display()))?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        locked
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("another engine runs in {}", self.0.display()))
    }

    pub(super) fn state(&self) -> PathBuf {
        self.0.join("engine.json")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("docker.sock")
    }

    /// The client's configuration, instead of `~/.docker`.
    pub(super) fn client(&self) -> PathBuf {
        self.0.join("client")
    }

    /// Files that the engine is to find in `/etc`.
    pub(super) fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// Where a file system in memory is mounted.
    pub(super) fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    pub(super) fn daemon_config(&self) -> PathBuf {
        self.0.join("daemon.json")
    }

    pub(super) fn registry_config(&self) -> PathBuf {
        self.0.join("registry.json")
    }

    pub(super) fn engine_log(&self) -> PathBuf {
        self.0.join("dockerd.log")
    }

    pub(super) fn registry_log(&self) -> PathBuf {
        self.0.join("registry.log")
    }

    pub(super) fn mark(&self) -> String {
        mark(&self.0)
    }
}

/// The name of what an engine has outside its folder, a bridge and control groups; the same for the same folder.
pub(crate) fn mark(dir: &Path) -> String {
    format!("qus-{}", &files::short_id(dir.as_os_str().as_encoded_bytes())[..8])
}

/// What a running engine has written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EngineState {
    pub(super) programs: PathBuf,
    /// Of the registry, on the loopback interface.
    pub(super) port: u16,
    /// The process that all others of the engine end with.
    pub(super) process: Option<u32>,
}

impl EngineState {
    /// `None` if there is none that can be read.
    pub(super) fn read(place: &Place) -> Option<Self> {
        serde_json::from_slice(&fs::read(place.state()).ok()?).ok()
    }

    pub(super) fn write(&self, place: &Place) -> Result<()> {
        files::write(&place.state(), &serde_json::to_vec_pretty(self)?)
    }
}
