//! The size and the devices of a machine, as the user wants them.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use qemu_src::Machine;

use crate::base::error::Usage;
use crate::vm::drive::Driver;
use crate::vm::volumes::Volume;

/// The size and the devices of a machine.
pub(crate) struct Shape<'a> {
    /// In MiB; `None` for the default of this kind.
    pub(crate) memory: Option<u32>,
    pub(crate) processors: Option<u32>,
    pub(crate) disks: &'a [File],
    /// The form of a disk that is not a layer; then it is the only one.
    pub(crate) driver: Option<Driver>,
    /// The disk to which the machine copies.
    pub(crate) target: Option<&'a Area>,
    /// The file of a disk that the machine writes, in QEMU's format qcow2.
    pub(crate) data: Option<&'a Path>,
    /// The ports of the host that lead to the machine; `None` without a network.
    pub(crate) network: Option<&'a [Published]>,
    pub(crate) volumes: &'a [Volume],
    /// Whether the kernel prints all of its messages.
    pub(crate) verbose: bool,
}

/// A part of a file.
pub(crate) struct Area {
    pub(crate) file: File,
    /// In bytes.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl Shape<'_> {
    /// In MiB.
    pub(crate) fn memory(&self, machine: &Machine) -> u32 {
        self.memory.unwrap_or(machine.memory)
    }

    pub(crate) fn processors(&self) -> u32 {
        self.processors.unwrap_or(1)
    }

    /// # Errors
    /// Boards have a fixed size, and no directories of the host.
    pub(crate) fn check(&self, machine: &Machine) -> Result<()> {
        let Some(board) = machine.board() else { return Ok(()) };
        for (is_given, option, what) in [
            (self.memory.is_some(), "--memory", "the memory of a board is fixed"),
            (self.processors.is_some(), "--cpus", "the processors of a board are fixed"),
            (!self.volumes.is_empty(), "--volume", "a board cannot use directories of this machine"),
        ] {
            if is_given {
                let name = &board.name;
                return Err(Usage(format!("{what}; omit {option} for {name}, or --board")).into());
            }
        }
        Ok(())
    }
}

/// A port of the host that leads to one of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    address: IpAddr,
    host: u16,
    machine: u16,
    protocol: &'static str,
}

impl FromStr for Published {
    type Err = String;

    /// Parses `[ADDRESS:]HOST:MACHINE[/tcp|/udp]`, as of `docker run`, but local by default.
    fn from_str(given: &str) -> Result<Self, String> {
        let (ports, protocol) = match given.rsplit_once('/') {
            None => (given, "tcp"),
            Some((ports, "tcp")) => (ports, "tcp"),
            Some((ports, "udp")) => (ports, "udp"),
            Some((_, other)) => return Err(format!("unknown protocol {other}; there are tcp and udp")),
        };
        let parse = |port: &str| port.parse().map_err(|_| format!("{port:?} is no port"));
        let (rest, machine) = ports.rsplit_once(':').ok_or("it has no port of the machine, as in 8080:80")?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => {
                (address.parse().map_err(|_| format!("{address:?} is no IP address"))?, host)
            }
            None => (Ipv4Addr::LOCALHOST.into(), rest),
        };
        Ok(Self { address, host: parse(host)?, machine: parse(machine)?, protocol })
    }
}

/// As QEMU's option.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}-:{}", self.protocol, self.address, self.host, self.machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports() {
        let option = |given: &str| given.parse::<Published>().map(|port| port.to_string());
        assert_eq!(option("8080:80").unwrap(), "tcp:127.0.0.1:8080-:80");
        assert_eq!(option("0.0.0.0:53:5353/udp").unwrap(), "udp:0.0.0.0:53-:5353");
        for (given, error) in [
            ("80", "it has no port of the machine, as in 8080:80"),
            ("80:http", "\"http\" is no port"),
            ("localhost:80:80", "\"localhost\" is no IP address"),
            ("80:80/sctp", "unknown protocol sctp; there are tcp and udp"),
            ("99999:80", "\"99999\" is no port"),
        ] {
            assert_eq!(option(given).unwrap_err(), error);
        }
    }
}
