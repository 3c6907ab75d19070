//! `qus run`: a command with private handlers, without root.

mod command;
mod debug;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{PathBuf, absolute};
use std::process::{Child, Command, Stdio, exit};

use anyhow::{Context as _, Result, ensure};
use clap::builder::{OsStringValueParser, TypedValueParser};
use qus_core::binfmt::Flags;
use qus_core::namespace::bind::Bind;
use qus_core::namespace::subordinate::SubordinateIds;
use qus_core::namespace::{Caller, map_all};
use qus_core::private::{PrivateHandlers, View};
use qus_core::selection::Selection;
use qus_core::text::Show;

use crate::context::EmulatorDirArgs;
use crate::output::message;

/// Run a command with private handlers, without root
///
/// The command runs in new user and mount namespaces, with handlers that the host does not see (Linux 6.7 or later).
/// Users and groups are the same as outside, so that files keep their owners; for an ordinary user, files of all other
/// users belong to `nobody`. The exit status is that of the command.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus run aarch64 -- ./program-for-arm64 --option
  qus run --root ./debian-riscv64 -- /bin/sh
  qus run --root ./debian-riscv64 --bind ./src:/mnt -- /bin/ls /mnt
  qus run --map-root riscv64 -- mmdebstrap --arch=riscv64 trixie ./debian-riscv64
  qus run --strace=log.%d aarch64 -- ./program-for-arm64
  qus run --gdb 1234 aarch64 -- ./program-for-arm64")]
pub(crate) struct Args {
    /// Architectures [default: those of all emulators in the directory]
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Root filesystem of another architecture in which the command runs
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Show a file or directory at another path, in the root filesystem if there is one [default DST: SRC]
    #[arg(long, value_name = "SRC[:DST]", value_parser = OsStringValueParser::new().try_map(|text| Bind::parse(&text)))]
    bind: Vec<Bind>,
    /// Be root inside, as package managers require
    ///
    /// An ordinary user's subordinate users and groups are the others: user 1 inside is the first in /etc/subuid. This
    /// needs the programs newuidmap and newgidmap; without them root is the only user, and files cannot be given to
    /// others. Inside, root cannot create devices, mount disks, change the clock or network of the host, or read
    /// files that the user cannot read.
    #[arg(long)]
    map_root: bool,
    /// Let setuid programs run as the user who starts them
    #[arg(long)]
    no_credentials: bool,
    /// Emulate named architectures even if this machine runs them natively
    #[arg(long, requires = "archs")]
    force: bool,
    #[command(flatten)]
    emulators: EmulatorDirArgs,
    #[command(flatten)]
    debug: debug::DebugArgs,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    command: Vec<OsString>,
}

/// Map users for `qus run` from outside its namespace
#[derive(clap::Args)]
pub(crate) struct MapIdsArgs {
    process: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(root) = &args.root {
        ensure!(root.is_dir(), "{} is not a directory", root.shown());
    }
    let dir = args.emulators.open()?;
    let flags = if args.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT };
    let mut selection = Selection::strict(&args.archs)?;
    selection.all |= selection.archs.is_empty();
    let native = args.force && !selection.all;
    let handlers = PrivateHandlers::new(&dir, &selection.resolve(&dir)?, flags, native)?;
    // Inside, a relative path may lead elsewhere.
    let root = args.root.as_deref().map(absolute).transpose()?;
    let view = View { root, binds: args.bind.clone(), stay_root: args.map_root };
    let is_root = Caller::now().is_root();
    let maps = is_root || args.map_root && has_subordinate_ids();
    let helper = if maps { Some(spawn_helper()?) } else { None };
    handlers.enter(&view, || match helper.map_or(Ok(()), finish_helper) {
        Err(error) if !is_root => {
            note_only_root(&error, None);
            Ok(())
        }
        done => done,
    })?;
    command::execute(&args.command, &args.debug, view.root.as_deref())
}

/// Whether an ordinary user has subordinate users and groups; notes what is missing.
fn has_subordinate_ids() -> bool {
    let missing = SubordinateIds::find(Caller::now()).err();
    if let Some(error) = &missing {
        note_only_root(error, Some(error.hint()));
    }
    missing.is_none()
}

fn note_only_root(why: &impl std::fmt::Display, hint: Option<String>) {
    message(format_args!("note: root is the only user inside, and files cannot be given to others: {why}"));
    if let Some(hint) = hint {
        message(format_args!("hint: {hint}"));
    }
}

/// Starts this program a second time, outside of the namespace. It waits for a byte before it maps users.
#[expect(clippy::disallowed_methods, reason = "another process has to write the map of users")]
fn spawn_helper() -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("map-ids").arg(std::process::id().to_string()).stdin(Stdio::piped());
    command.spawn().context("cannot start the helper that maps users")
}

fn finish_helper(mut helper: Child) -> io::Result<()> {
    if let Some(mut stdin) = helper.stdin.take() {
        stdin.write_all(b"!")?;
    }
    if helper.wait()?.success() { Ok(()) } else { Err(io::Error::other("the helper cannot map all users")) }
}

pub(crate) fn map_ids(args: &MapIdsArgs) -> Result<()> {
    // Without the byte `qus run` has ended with an error, and its number may belong to another process.
    if io::stdin().read(&mut [0])? == 0 {
        exit(1);
    }
    let caller = Caller::now();
    let mapped = if caller.is_root() {
        map_all(args.process)
    } else {
        SubordinateIds::find(caller)?.map(args.process)
    };
    mapped.context("cannot map users")
}
