//! The directory of a throwaway engine: the paths of its files, and its recorded state.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use serde::{Deserialize, Serialize};

use crate::base::files;

/// The directory of an engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineDir(pub(crate) PathBuf);

impl EngineDir {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// The lock that all of the engine's processes hold.
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Acquires the lock for this process and its descendants.
    pub(crate) fn acquire_lock(&self) -> Result<Flock<File>> {
        let path = self.lock();
        let open = File::options().write(true).create(true).truncate(false).open(&path);
        let file = open.with_context(|| format!("cannot write {}", path.display()))?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        locked
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("another engine is running in {}", self.0.display()))
    }

    /// Whether a process holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        let file = File::options().read(true).open(self.lock());
        file.is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("engine.json")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("docker.sock")
    }

    /// The client's configuration, instead of `~/.docker`.
    pub(crate) fn client(&self) -> PathBuf {
        self.0.join("client")
    }

    /// Files that are copied to the engine's `/etc`.
    pub(super) fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// The mount point of a tmpfs.
    pub(super) fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    pub(super) fn daemon_config(&self) -> PathBuf {
        self.0.join("daemon.json")
    }

    pub(super) fn registry_config(&self) -> PathBuf {
        self.0.join("registry.json")
    }

    pub(crate) fn engine_log(&self) -> PathBuf {
        self.0.join("dockerd.log")
    }

    pub(super) fn registry_log(&self) -> PathBuf {
        self.0.join("registry.log")
    }

    pub(super) fn id(&self) -> String {
        engine_id(&self.0)
    }
}

/// The name of an engine's resources outside its directory (network bridge, control groups), derived from the
/// directory.
pub(crate) fn engine_id(dir: &Path) -> String {
    format!("qus-{}", &files::short_id(dir.as_os_str().as_encoded_bytes())[..8])
}

/// The recorded state of a running engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EngineState {
    pub(super) programs: PathBuf,
    /// The port of the registry on the loopback interface.
    pub(super) port: u16,
    /// The process whose end terminates all other processes of the engine.
    pub(super) process: Option<u32>,
}

impl EngineState {
    /// Reads the state; `None` if it does not exist or cannot be parsed.
    pub(super) fn read(dir: &EngineDir) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.state()).ok()?).ok()
    }

    pub(super) fn write(&self, dir: &EngineDir) -> Result<()> {
        files::write(&dir.state(), &serde_json::to_vec_pretty(self)?)
    }
}
