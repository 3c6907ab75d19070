//! `qus run`: a command with private handlers, without root.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};

use anyhow::{Context as _, Result, ensure};
use qus_core::binfmt::Flags;
use qus_core::hint::hinted;
use qus_core::namespace::{Caller, map_all};
use qus_core::private::PrivateHandlers;
use qus_core::selection::Selection;
use qus_core::text::Show;

use crate::context::emulator_dir;
use crate::output::print_error;

/// Run a command with private handlers, without root
///
/// The command runs in new user and mount namespaces, with handlers that the host does not see (Linux 6.7 or later).
/// Users and groups are the same as outside, so that files keep their owners; for an ordinary user, files of all other
/// users belong to `nobody`. The exit status is that of the command.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus run aarch64 -- ./program-for-arm64 --option
  qus run --root ./debian-riscv64 -- /bin/sh
  qus run --map-root --root ./alpine-s390x -- apk add gcc")]
pub(crate) struct Args {
    /// Architectures [default: those of all emulators in the directory]
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Root filesystem of another architecture in which the command runs
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Be root inside, as package managers require
    #[arg(long)]
    map_root: bool,
    /// Let setuid programs run as the user who starts them
    #[arg(long)]
    no_credentials: bool,
    /// Directory with emulators: qemu-ARCH or qemu-ARCH-static
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
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
    let dir = emulator_dir(args.dir.as_deref())?;
    let flags = if args.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT };
    let mut selection = Selection::strict(&args.archs)?;
    selection.all |= selection.archs.is_empty();
    let handlers = PrivateHandlers::new(&dir, &selection.resolve(&dir)?, flags)?;
    let helper = if Caller::now().is_root() { Some(spawn_helper()?) } else { None };
    handlers.enter(args.root.as_deref(), args.map_root, || helper.map_or(Ok(()), finish_helper))?;
    execute(&args.command)
}

/// Becomes the command, so that it gets all signals, and its exit status is ours.
#[expect(clippy::disallowed_methods, reason = "the user has requested this command")]
fn execute(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command was given")?;
    let error = Command::new(program).args(arguments).exec();
    let program = Path::new(program);
    let is_unknown = error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32);
    let status = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    let what = format!("cannot run {}: {error}", program.shown());
    print_error(&match is_unknown {
        true => hinted(what, format!("`qus explain {}` reports why", program.quoted())),
        false => anyhow::Error::msg(what),
    });
    exit(status)
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
    map_all(args.process).context("cannot map users")
}
