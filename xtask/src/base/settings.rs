//! Settings from environment variables, read once at startup; docs/settings.md lists them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result};
use qus_core::hint::hinted;

use crate::base::error::Usage;

/// Settings from the environment. An empty variable is treated as unset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// `QUS_SOURCE`: an archive of QEMU's source or a directory of archives, tried first.
    pub(crate) source: Option<PathBuf>,
    /// `QUS_BUILDX_OPTIONS`: additional options of `docker buildx build` for builds on nodes.
    pub(crate) buildx_options: Vec<String>,
    /// `CC`: the C compiler for this machine, instead of `cc`.
    pub(crate) cc: Option<String>,
    /// `QUS_COMPILER_CACHE`: ccache or sccache.
    pub(crate) compiler_cache: Option<CompilerCache>,
    /// `SOURCE_DATE_EPOCH`: the creation time of images, in seconds since 1970.
    pub(crate) source_date_epoch: Option<u64>,
    /// `CARGO_TARGET_DIR`; a relative path is resolved against the current directory, as cargo does.
    pub(crate) target_dir: Option<PathBuf>,
    /// `XDG_CACHE_HOME`
    pub(crate) cache_home: Option<PathBuf>,
    /// `CARGO_HOME`
    cargo_home: Option<PathBuf>,
    /// `DOCKER_CONFIG`
    pub(crate) docker_config: Option<PathBuf>,
    /// `HOME`
    pub(crate) home: Option<PathBuf>,
    /// `TMPDIR`
    temp_dir: Option<PathBuf>,
    /// `PATH`
    path: OsString,
}

/// A compiler cache, called in front of the compiler. It does not change the result.
#[derive(Debug, Clone)]
pub(crate) struct CompilerCache {
    pub(crate) program: String,
    /// Its own environment variables, which are passed on to it.
    pub(crate) variables: Vec<(String, String)>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// A value is invalid.
    pub(crate) fn from_env() -> Result<Self> {
        /// Prefixes of variables of compiler caches and of their shared storage.
        const PREFIXES: [&str; 5] = ["CCACHE_", "SCCACHE_", "AWS_", "ACTIONS_", "XDG_CACHE_HOME"];
        let value = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| value(name).map(PathBuf::from);
        let text = |name: &str| -> Result<Option<String>> {
            let text = value(name).map(OsString::into_string).transpose();
            text.map_err(|_| Usage(format!("{name} is not UTF-8")).into())
        };
        let is_cache_variable =
            |(name, _): &(String, String)| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let variables = || {
            env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        };
        let compiler_cache = text("QUS_COMPILER_CACHE")?.map(|program| CompilerCache {
            program,
            variables: variables().filter(is_cache_variable).collect(),
        });
        let epoch = text("SOURCE_DATE_EPOCH")?.map(|epoch| epoch.parse());
        let epoch = epoch.transpose().map_err(|_| {
            Usage(
                "SOURCE_DATE_EPOCH is not a number of seconds since 1970, as `date +%s` prints it".to_owned(),
            )
        })?;
        let options = text("QUS_BUILDX_OPTIONS")?.unwrap_or_default();
        let settings = Self {
            source: path("QUS_SOURCE"),
            buildx_options: options.split_whitespace().map(str::to_owned).collect(),
            cc: text("CC")?,
            compiler_cache,
            source_date_epoch: epoch,
            target_dir: path("CARGO_TARGET_DIR"),
            cache_home: path("XDG_CACHE_HOME"),
            cargo_home: path("CARGO_HOME"),
            docker_config: path("DOCKER_CONFIG"),
            home: path("HOME"),
            temp_dir: path("TMPDIR"),
            path: value("PATH").unwrap_or_default(),
        };
        if let Some(dir) = settings.cache_home.as_ref().filter(|dir| !dir.is_absolute()) {
            let what = format!("XDG_CACHE_HOME is {}, which is not an absolute path", dir.display());
            return Err(hinted(what, "set XDG_CACHE_HOME to an absolute path"));
        }
        Ok(settings)
    }

    /// The C compiler for this machine.
    pub(crate) fn cc(&self) -> &str {
        self.cc.as_deref().unwrap_or("cc")
    }

    /// `PATH` with additional directories at the front.
    pub(crate) fn path_with(&self, dirs: impl IntoIterator<Item = PathBuf>) -> Result<OsString> {
        let all = dirs.into_iter().chain(env::split_paths(&self.path));
        env::join_paths(all).context("PATH cannot contain a directory with a colon")
    }

    /// The variables that a command needs if it does not inherit the environment.
    pub(crate) fn essential(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        let home = self.home.as_deref().map(|dir| ("HOME", dir.as_os_str()));
        let temp = self.temp_dir.as_deref().map(|dir| ("TMPDIR", dir.as_os_str()));
        home.into_iter().chain(temp).chain([("PATH", &*self.path)])
    }

    /// The configuration directory of the docker client.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        self.docker_config.clone().or_else(|| Some(self.home.as_deref()?.join(".docker")))
    }

    /// The home directory of cargo.
    pub(crate) fn cargo_home(&self) -> Option<PathBuf> {
        self.cargo_home.clone().or_else(|| Some(self.home.as_deref()?.join(".cargo")))
    }

    /// The user's directories, whose paths must not occur in a program.
    pub(crate) fn personal_dirs(&self) -> Vec<PathBuf> {
        [self.home.clone(), self.cargo_home()].into_iter().flatten().collect()
    }
}
