//! Directories of this machine in a machine, served by virtiofsd.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Child;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use qus_core::hint::hinted;
use qus_core::machine;

use crate::base::context::Context;
use crate::base::exec;
use crate::vm::programs::Programs;

/// A directory of this machine, and where the program finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    source: PathBuf,
    target: String,
    read_only: bool,
}

impl FromStr for Volume {
    type Err = String;

    /// Parses `HOST:MACHINE[:ro]`, as of `docker run`.
    fn from_str(given: &str) -> Result<Self, String> {
        let (paths, read_only) = match given.strip_suffix(":ro") {
            Some(paths) => (paths, true),
            None => (given.strip_suffix(":rw").unwrap_or(given), false),
        };
        let (source, target) =
            paths.rsplit_once(':').ok_or("it has no directory of the machine, as in .:/work")?;
        if !target.starts_with('/') {
            return Err(format!("{target:?} is no absolute path"));
        }
        Ok(Self { source: source.into(), target: target.to_owned(), read_only })
    }
}

impl Volume {
    /// What the machine mounts.
    pub(crate) fn mount(&self, index: usize) -> machine::Volume {
        machine::Volume { tag: tag(index), target: self.target.clone(), read_only: self.read_only }
    }
}

/// The name by which the machine finds a volume.
pub(crate) fn tag(index: usize) -> String {
    format!("volume{index}")
}

/// A running server of a volume, which ends when this is dropped, and when this process ends.
pub(crate) struct Server {
    process: Child,
    /// The emulator's connection.
    pub(crate) connection: UnixStream,
}

impl Server {
    /// Starts to serve a volume.
    pub(crate) fn start(cx: &Context, programs: &Programs, volume: &Volume) -> Result<Self> {
        let Volume { source, read_only, .. } = volume;
        let missing = || {
            let hint = format!("create it: `mkdir {}`", source.display());
            hinted(format_args!("the volume {} is no directory", source.display()), hint)
        };
        ensure!(source.is_dir(), missing());
        let (listener, connection) = connected()?;
        // Only root can change the root directory. The server follows no links either way.
        let sandbox = if nix::unistd::geteuid().is_root() { "chroot" } else { "none" };
        let log = cx.start_log("virtiofsd")?;
        let server = programs.cmd("../libexec/virtiofsd").args(["--sandbox", sandbox, "--log-level", "warn"]);
        let server = server.arg("--shared-dir").arg(source).arg("--fd").arg(listener.as_raw_fd().to_string());
        let server = server.args(read_only.then_some("--readonly"));
        let process = exec::spawn_with(server, &[listener.as_fd()], File::create(log)?)?;
        Ok(Self { process, connection })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A listening socket that has one connection and no name any more, so that nobody else can connect.
fn connected() -> Result<(UnixListener, UnixStream)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).context("cannot create a socket")?;
    let connection = UnixStream::connect(&path).context("cannot connect to a socket")?;
    Ok((listener, connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let volume = |given: &str| given.parse::<Volume>().map(|volume| volume.mount(1));
        let mount =
            |read_only| machine::Volume { tag: "volume1".to_owned(), target: "/b".to_owned(), read_only };
        assert_eq!(volume("a:/b").unwrap(), mount(false));
        assert_eq!(volume("a:b:/b:ro").unwrap(), mount(true));
        assert_eq!(volume("a").unwrap_err(), "it has no directory of the machine, as in .:/work");
        assert_eq!(volume("a:b").unwrap_err(), "\"b\" is no absolute path");
    }
}
