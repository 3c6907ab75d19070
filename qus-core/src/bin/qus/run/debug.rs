//! Options of `qus run` that set the environment of the command and of emulators.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use qus_core::text::Show;

#[derive(clap::Args)]
#[command(next_help_heading = "Debugging")]
pub(crate) struct DebugArgs {
    /// Print the system calls of emulated programs, to standard error or a file
    ///
    /// A program overwrites the file of another; %d in its name becomes the number of the process. With --root, it is a
    /// path in the root filesystem.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    strace: Option<Option<PathBuf>>,
    /// Let emulated programs wait for gdb on a TCP port, or on a socket in the file system
    ///
    /// Other machines can reach the port, and anyone who connects controls the program; only you can use a socket.
    /// With --root, it is a path in the root filesystem.
    #[arg(long, value_name = "PORT|SOCKET", value_parser = OsStringValueParser::new().try_map(not_empty))]
    gdb: Option<OsString>,
    /// Processor to emulate, such as `max`; `qemu-ARCH -cpu help` lists them
    #[arg(long, value_name = "MODEL")]
    cpu: Option<OsString>,
    /// Set a variable in the environment of the command
    #[arg(long, value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(variable))]
    env: Vec<(OsString, OsString)>,
}

fn not_empty(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(text) }
}

fn variable(text: OsString) -> Result<(OsString, OsString), &'static str> {
    let at = text.as_bytes().iter().position(|&byte| byte == b'=').filter(|&at| at > 0);
    let (name, value) = text.as_bytes().split_at(at.ok_or("it is not NAME=VALUE")?);
    Ok((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
}

impl DebugArgs {
    /// The variables that the command gets in addition; of two with one name, the later is used.
    pub(crate) fn variables(&self) -> Vec<(&OsStr, &OsStr)> {
        let log = self.strace.as_ref().and_then(Option::as_deref).map(Path::as_os_str);
        let of_options = [
            ("QEMU_STRACE", self.strace.as_ref().map(|_| OsStr::new("1"))),
            ("QEMU_LOG_FILENAME", log),
            ("QEMU_GDB", self.gdb.as_deref()),
            ("QEMU_CPU", self.cpu.as_deref()),
        ];
        let of_options = of_options.into_iter().filter_map(|(name, value)| Some((OsStr::new(name), value?)));
        let mut variables: Vec<_> = of_options.collect();
        variables.extend(self.env.iter().map(|(name, value)| (&**name, &**value)));
        variables
    }

    /// The value of a variable as the command gets it.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        let own = self.variables().into_iter().rev().find(|(other, _)| *other == name);
        own.map(|(_, value)| value.to_owned()).or_else(|| std::env::var_os(name))
    }

    /// The command with which gdb connects to a program, if programs wait for it. Both paths are those outside.
    pub(crate) fn gdb_command(&self, program: &Path, root: Option<&Path>) -> Option<String> {
        let gdb = self.gdb.as_deref()?;
        let is_port = gdb.as_bytes().iter().all(u8::is_ascii_digit);
        let target = if is_port {
            format!("localhost:{}", gdb.shown())
        } else {
            outside(Path::new(gdb), root).shown().to_string()
        };
        let connect = format!("target remote {target}");
        Some(format!("gdb-multiarch -ex {} {}", connect.quoted(), program.quoted()))
    }
}

/// The path outside of what has a path in the root filesystem.
pub(crate) fn outside(path: &Path, root: Option<&Path>) -> PathBuf {
    // The command starts in the root directory.
    root.map_or_else(|| path.to_owned(), |root| root.join(path.strip_prefix("/").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        debug: DebugArgs,
    }

    fn parse(args: &str) -> DebugArgs {
        Cli::try_parse_from(std::iter::once("qus").chain(args.split_whitespace())).unwrap().debug
    }

    #[test]
    fn options_become_variables() {
        let variables = |args: &str| -> Vec<String> {
            let args = parse(args);
            args.variables()
                .iter()
                .map(|(name, value)| format!("{}={}", name.shown(), value.shown()))
                .collect()
        };
        assert_eq!(variables(""), [""; 0]);
        assert_eq!(variables("--strace"), ["QEMU_STRACE=1"]);
        assert_eq!(
            variables("--strace=log.%d --cpu max --gdb 1234 --env A=b=c --env D="),
            ["QEMU_STRACE=1", "QEMU_LOG_FILENAME=log.%d", "QEMU_GDB=1234", "QEMU_CPU=max", "A=b=c", "D="]
        );
        assert_eq!(parse("--env A=1 --env A=2").variable("A").unwrap(), "2");
        for wrong in ["--env A", "--env =b", "--gdb="] {
            assert!(Cli::try_parse_from(["qus"].into_iter().chain(wrong.split(' '))).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gdb_is_started_outside() {
        let command = |args: &str, root| parse(args).gdb_command(Path::new("/r/a b"), root);
        assert_eq!(command("", None), None);
        let port = "gdb-multiarch -ex 'target remote localhost:1234' '/r/a b'";
        assert_eq!(command("--gdb 1234", None).unwrap(), port);
        let socket = "gdb-multiarch -ex 'target remote /r/tmp/gdb' '/r/a b'";
        assert_eq!(command("--gdb /tmp/gdb", Some(Path::new("/r"))).unwrap(), socket);
    }
}
