//! What commands share: settings, paths and data.

use std::path::PathBuf;

use anyhow::Result;
use qemu_src::QemuSrc;

use crate::base::exec;
use crate::base::paths::Paths;
use crate::base::settings::Settings;

/// Handed down to everything that needs some of it, and never changed.
pub(crate) struct Context {
    /// The environment.
    pub(crate) settings: Settings,
    /// Where everything is.
    pub(crate) paths: Paths,
    /// What is built, and from what.
    pub(crate) data: QemuSrc,
}

impl Context {
    /// From the environment, and the data of the workspace.
    ///
    /// # Errors
    /// A setting or a data file that cannot be used.
    pub(crate) fn new() -> Result<Self> {
        Self::with(Settings::from_env()?)
    }

    fn with(settings: Settings) -> Result<Self> {
        let paths = Paths::new(&settings)?;
        let data = QemuSrc::load(&paths.qemu_src())?;
        Ok(Self { settings, paths, data })
    }

    /// For tests: with the cache in another directory.
    #[cfg(test)]
    pub(crate) fn with_cache(cache: &std::path::Path) -> Result<Self> {
        let mut settings = Settings::from_env()?;
        settings.cache_home = Some(cache.to_owned());
        Self::with(settings)
    }

    /// Starts the log of a step, and returns its path.
    pub(crate) fn start_log(&self, step: &str) -> Result<PathBuf> {
        let log = self.paths.log(step);
        exec::start_log(&log)?;
        Ok(log)
    }
}
