//! Copies a program's streams from and to ports.
//!
//! The program gets pipes or a terminal instead of the ports: a port can be opened only once, so that `/dev/stdout` would
//! not work.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use nix::fcntl::OFlag;
use nix::pty::{Winsize, openpty};
use nix::unistd::pipe2;
use qus_core::connections;
use qus_core::machine::Size;

use crate::port::Ports;

/// The streams of a program while they are copied.
pub(crate) struct Streams {
    /// The other side of the program's terminal.
    pub(crate) terminal: Option<File>,
    output: JoinHandle<u64>,
    error: JoinHandle<u64>,
}

impl Streams {
    /// Starts to copy. Returns the program's stdin, stdout and stderr, too.
    pub(crate) fn start(ports: Ports, terminal: Option<Size>) -> Result<(Self, [Stdio; 3])> {
        let Ports { input, output, error, .. } = ports;
        if let Some(size) = terminal {
            let pty = openpty(&winsize(size), None)?;
            let (terminal, slave) = (File::from(pty.master), pty.slave);
            copy(input, terminal.try_clone()?);
            let streams = Self {
                output: copy(terminal.try_clone()?, output),
                error: thread::spawn(|| 0),
                terminal: Some(terminal),
            };
            return Ok((streams, [slave.try_clone()?.into(), slave.try_clone()?.into(), slave.into()]));
        }
        let pipe = || pipe2(OFlag::O_CLOEXEC);
        let (stdin, stdout, stderr) = (pipe()?, pipe()?, pipe()?);
        copy(input, stdin.1.into());
        let streams = Self {
            terminal: None,
            output: copy(stdout.0.into(), output),
            error: copy(stderr.0.into(), error),
        };
        Ok((streams, [stdin.0.into(), stdout.1.into(), stderr.1.into()]))
    }

    /// Waits until all output of all processes has been written, and returns the numbers of bytes.
    pub(crate) fn finish(self) -> (u64, u64) {
        (self.output.join().unwrap_or(0), self.error.join().unwrap_or(0))
    }
}

/// Starts to connect the host to a socket of the program.
pub(crate) fn serve_connections(ports: &Ports, socket: &str) -> Result<()> {
    let (port, to) = (ports.connections.try_clone()?, ports.connections.try_clone()?);
    let path = socket.to_owned();
    thread::spawn(move || {
        if let Err(error) = connections::serve(port, to, move || UnixStream::connect(&path)) {
            let _ = writeln!(io::stderr(), "qus-init: the host's connections: {error}");
        }
    });
    Ok(())
}

/// The kernel's form of a size.
pub(crate) fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Copies up to the end, and returns the number of bytes. When nobody reads any more, the rest is discarded, as by a closed
/// pipe; a terminal without processes ends with an error.
fn copy(mut from: File, mut to: File) -> JoinHandle<u64> {
    thread::spawn(move || {
        let (mut buffer, mut copied) = (vec![0; 64 << 10], 0);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return copied,
                Ok(length) if to.write_all(&buffer[..length]).is_ok() => copied += length as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return copied,
            }
        }
    })
}
