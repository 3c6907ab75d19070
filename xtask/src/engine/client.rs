//! The docker client, which performs all operations on an engine.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};
use xshell::{Cmd, cmd};

use crate::base::exec::{self, sh};
use crate::base::settings::Settings;

/// A docker client and the environment that selects its engine.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(super) program: OsString,
    pub(super) env: Vec<(&'static str, OsString)>,
}

impl Client {
    /// The installed client with its configured engine.
    pub(crate) fn installed() -> Self {
        Self { program: "docker".into(), env: Vec::new() }
    }

    /// Like [`Self::installed`].
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find_installed() -> Result<Self> {
        ensure!(exec::is_installed("docker"), "docker is not installed");
        Ok(Self::installed())
    }

    /// A docker command.
    pub(crate) fn cmd(&self, args: &[&str]) -> Cmd<'static> {
        let program = &self.program;
        self.with_env(cmd!(sh(), "{program} {args...}"))
    }

    /// Makes another program use this client's configuration, such as its logins to registries.
    pub(crate) fn with_env<'a>(&self, cmd: Cmd<'a>) -> Cmd<'a> {
        self.env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value))
    }

    /// Environment variables that make another program use this client when it calls `docker`.
    pub(crate) fn variables(&self, settings: &Settings) -> Result<Vec<(&'static str, OsString)>> {
        let path = settings.path_with(Path::new(&self.program).parent().map(Path::to_owned))?;
        Ok(self.env.iter().cloned().chain([("PATH", path)]).collect())
    }

    /// Sets an environment variable for all commands.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Checks that the engine responds.
    ///
    /// # Errors
    /// The client's message, if it cannot connect.
    pub(crate) fn check_engine(&self) -> Result<()> {
        exec::read(self.cmd(&["version", "--format", "{{.Server.Version}}"])).map(drop)
    }
}
