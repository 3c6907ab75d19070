//! The messages between `cargo xtask vm` and `qus-init`, the first process of a machine.
//!
//! They are JSON objects, one on each line, on the virtio-serial port [`CONTROL`]. The guest begins with
//! [`Event::Ready`]; the host answers with [`Request::Run`], and may then send [`Request::Resize`], [`Request::Signal`] and
//! [`Request::Renew`] until the guest ends with [`Event::Exited`] or [`Event::Failed`]. The program's streams have ports
//! of their own: [`INPUT`], [`OUTPUT`] and [`ERROR`]. A machine without ports has all of them on one [serial
//! line](crate::multiplex). Ports are not ordered among each other; the host has read all output when it has read as many
//! bytes as [`Exited`] says.
//!
//! If the host answers with [`Request::Copy`] instead, the guest ends with [`Event::Copied`] or [`Event::Failed`].
//!
//! What a guest sends is untrusted: a line longer than [`LONGEST`] is an error.
//!
//! ```
//! use qus_core::machine::{self, Event, VERSION};
//!
//! let mut line = Vec::new();
//! machine::send(&mut line, &Event::Ready { version: VERSION })?;
//! assert_eq!(line, b"{\"ready\":{\"version\":2}}\n");
//! assert_eq!(machine::receive(&mut &*line)?, Some(Event::Ready { version: VERSION }));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of these messages. A host refuses a guest of another version.
pub const VERSION: u32 = 2;

/// The port of the messages.
pub const CONTROL: &str = "qus.control";
/// The port from which the program's standard input is read, up to its end.
pub const INPUT: &str = "qus.input";
/// The port of the program's standard output; with a terminal, of all output.
pub const OUTPUT: &str = "qus.output";
/// The port of the program's standard error.
pub const ERROR: &str = "qus.error";
/// The variable of the guest's kernel command line that names the serial line of a machine without ports, as in `ttyS1`.
pub const LINE: &str = "QUS_LINE";
/// The port of connections to the program's socket: [`crate::connections`].
pub const CONNECTIONS: &str = "qus.connections";
/// All ports, in the order in which they have the channels of a [line](crate::multiplex).
pub const PORTS: [&str; 5] = [CONTROL, INPUT, OUTPUT, ERROR, CONNECTIONS];

/// The serial number of the disk that the program can write.
pub const DATA: &str = "data";

/// The maximum length of a line in bytes.
pub const LONGEST: u64 = 4 << 20;

/// The serial number of the disk, or the name of the partition, with a layer of the image, counted from the lowest.
pub fn layer_name(index: usize) -> String {
    format!("layer{index}")
}

/// The serial number of the disk to which [`Target::Disk`] copies.
pub const TARGET_SERIAL: &str = "target";

/// A message to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Assemble the root file system and run the program.
    Run(Box<Run>),
    /// Copy a root file system.
    Copy(Copy),
    /// The terminal has another size.
    Resize(Size),
    /// Send this signal, by its number of the guest's kernel, to the program.
    Signal(i32),
    /// A machine that runs a program has been started from a snapshot.
    Renew(Renewal),
}

/// What machines of the same snapshot must not have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Renewal {
    /// The time, in nanoseconds since 1970.
    pub time: u64,
    /// Random bytes for the kernel's generator.
    pub entropy: [u8; 32],
}

/// The program and what surrounds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    /// The program, which is searched in the environment's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// The environment, each as `NAME=VALUE`.
    pub env: Vec<String>,
    /// `USER[:GROUP]`, names or numbers; empty for root.
    pub user: String,
    /// The working directory, which is created if it is missing; empty for `/`.
    pub directory: String,
    /// The machine's name.
    pub hostname: String,
    /// The root file system, which the program does not change.
    pub root: Root,
    /// Directories of the host.
    pub volumes: Vec<Volume>,
    /// Whether the machine has a network device.
    pub network: bool,
    /// The size of the terminal, if the program has one.
    pub terminal: Option<Size>,
    /// Where the disk [`DATA`] is mounted, an ext4 file system, if the machine has one.
    pub data: Option<String>,
    /// The Unix socket of the program to which [`CONNECTIONS`] lead, if there is one.
    pub socket: Option<String>,
    /// Time and random bytes.
    pub renewal: Renewal,
}

/// Where a root file system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Root {
    /// This number of layers of an image, each on a disk or partition with the name [`layer_name`].
    Layers(usize),
    /// A disk with the name of the first layer, with a file system or with partitions.
    Disk {
        /// The number of the partition; if it is not given, the one that looks like a root file system.
        partition: Option<u32>,
    },
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Copy {
    /// The root file system.
    pub root: Root,
    /// Where it is copied to.
    pub target: Target,
}

/// Where a root file system is copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Target {
    /// [`OUTPUT`], as a tar archive.
    Archive,
    /// The disk [`TARGET_SERIAL`], which has an empty file system.
    Disk,
}

/// A directory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Volume {
    /// The name of the virtiofs device.
    pub tag: String,
    /// Where it is mounted; created if it is missing.
    pub target: String,
    /// Whether the program cannot change it.
    pub read_only: bool,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// In lines.
    pub rows: u16,
    /// In characters.
    pub columns: u16,
}

/// A message from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The machine runs.
    Ready {
        /// [`VERSION`] of the guest.
        version: u32,
    },
    /// The program has ended, and all of its output has been written.
    Exited(Exited),
    /// The root file system has been copied. [`ERROR`] has a line for each thing that could not be kept.
    Copied {
        /// The number of bytes written to [`OUTPUT`].
        output: u64,
        /// The number of bytes written to [`ERROR`].
        error: u64,
    },
    /// The program could not be run, or the root file system not be copied.
    Failed {
        /// 127 if there is no such program, 126 if it cannot be executed, 125 for all other reasons.
        status: u8,
        /// Why, on one line.
        error: String,
    },
}

/// How a program has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Exited {
    /// The exit status; 128 and the signal's number for a program that a signal has killed.
    pub status: u8,
    /// The number of bytes written to [`OUTPUT`].
    pub output: u64,
    /// The number of bytes written to [`ERROR`].
    pub error: u64,
    /// The time of processors used by the program and its descendants, in milliseconds.
    pub processor: u64,
    /// The largest resident set of one process, in bytes.
    pub memory: u64,
}

/// Sends a message as one line.
///
/// # Errors
/// It cannot be written.
pub fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Receives a message; `None` when the other side has closed the port.
///
/// # Errors
/// It cannot be read, is no such message, or is too long.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(LONGEST).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) if line.len() as u64 == LONGEST => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message exceeds {LONGEST} bytes")))
        }
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_port() {
        let renewal = Renewal { time: 1_700_000_000_000_000_000, entropy: [7; 32] };
        let run = Run {
            argv: vec!["echo".into(), "a\nb".into()],
            env: vec!["A=ä".into()],
            user: "1000:users".into(),
            directory: "/srv".into(),
            hostname: "arm64".into(),
            root: Root::Layers(2),
            volumes: vec![Volume { tag: "volume0".into(), target: "/srv".into(), read_only: true }],
            network: true,
            terminal: Some(Size { rows: 24, columns: 80 }),
            data: Some("/var/lib".into()),
            socket: Some("/run/socket".into()),
            renewal: renewal.clone(),
        };
        let copy = Copy { root: Root::Disk { partition: Some(3) }, target: Target::Archive };
        let resize = Request::Resize(Size { rows: 1, columns: 2 });
        let requests = [
            Request::Run(run.into()),
            Request::Copy(copy),
            resize,
            Request::Signal(15),
            Request::Renew(renewal),
        ];
        let mut port = Vec::new();
        for request in &requests {
            send(&mut port, request).unwrap();
        }
        assert_eq!(port.iter().filter(|byte| **byte == b'\n').count(), requests.len());
        let mut port = &*port;
        for request in requests {
            assert_eq!(receive(&mut port).unwrap(), Some(request));
        }
        assert_eq!(receive::<Request>(&mut port).unwrap(), None);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let error = |text: &[u8]| receive::<Event>(&mut { text }).unwrap_err().kind();
        assert_eq!(error(b"\n"), io::ErrorKind::UnexpectedEof, "no JSON");
        assert_eq!(error(b"{\"ready\":{\"version\":2}}"), io::ErrorKind::UnexpectedEof, "no end of line");
        assert_eq!(error(b"{\"gone\":1}\n"), io::ErrorKind::InvalidData);
        assert_eq!(error(&vec![b' '; LONGEST as usize + 1]), io::ErrorKind::InvalidData);
    }
}
