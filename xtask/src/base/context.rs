//! What commands share: settings, paths and data.

use std::path::PathBuf;

use anyhow::Result;
use qemu_src::QemuSrc;

use crate::base::exec;
use crate::base::paths::Paths;
use crate::base::settings::Settings;

/// The immutable context that is passed to all commands.
pub(crate) struct Context {
    /// Settings from the environment.
    pub(crate) settings: Settings,
    /// All paths that xtask reads or writes.
    pub(crate) paths: Paths,
    /// The build data of `qemu-src`.
    pub(crate) data: QemuSrc,
}

impl Context {
    /// Reads the environment and the data of the workspace.
    ///
    /// # Errors
    /// A setting or a data file is invalid.
    pub(crate) fn new() -> Result<Self> {
        Self::with(Settings::from_env()?)
    }

    fn with(settings: Settings) -> Result<Self> {
        let paths = Paths::new(&settings)?;
        let data = QemuSrc::load(&paths.qemu_src())?;
        Ok(Self { settings, paths, data })
    }

    /// A context with its cache in the given directory.
    #[cfg(test)]
    pub(crate) fn with_cache(cache: &std::path::Path) -> Result<Self> {
        let mut settings = Settings::from_env()?;
        settings.cache_home = Some(cache.to_owned());
        Self::with(settings)
    }

    /// Creates the log file of a step, and returns its path.
    pub(crate) fn start_log(&self, step: &str) -> Result<PathBuf> {
        let log = self.paths.log(step);
        exec::start_log(&log)?;
        Ok(log)
    }
}
