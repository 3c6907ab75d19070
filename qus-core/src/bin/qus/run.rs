//! `qus run`: a command with handlers that only it sees, for users without any right.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};

use anyhow::{Context as _, Result, ensure};
use qus_core::binfmt::{Binfmt, Flags, MOUNT_POINT, Rule};
use qus_core::namespace::{Caller, enter_root, furnish, map_all};
use qus_core::{emulator, handler, probe};

use crate::context::{Wanted, archs, emulators};
use crate::output::say;
use qus_core::text::Show;

/// Run a command with handlers of its own, without root
///
/// The command runs in a new user and mount namespace with a binfmt_misc of its own (Linux 6.7 or later).
/// The host sees none of it. Users and groups are those outside, so that files keep their owners; an
/// ordinary user sees everybody else's files as nobody's. The exit status is the command's.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus run aarch64 -- ./program-for-arm64 --option
  qus run --root ./debian-riscv64 -- /bin/sh
  qus run --map-root --root ./alpine-s390x -- apk add gcc")]
pub(crate) struct Args {
    /// Architectures [default: all emulators at hand]
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Root folder of a foreign system in which the command runs
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Be root inside, as package managers want
    #[arg(long)]
    map_root: bool,
    /// Let setuid programs run as whoever starts them
    #[arg(long)]
    no_credentials: bool,
    /// Folder with emulators: qemu-ARCH or qemu-ARCH-static
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    command: Vec<OsString>,
}

/// Lets `qus run` map users from outside its namespace.
#[derive(clap::Args)]
pub(crate) struct MapIdsArgs {
    process: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(root) = &args.root {
        ensure!(root.is_dir(), "{} is not a folder", root.shown());
    }
    // Emulators are looked at from outside, where all users are seen.
    let rules = rules(args)?;
    let caller = Caller::now();
    let helper = if caller.is_root() { Some(spawn_helper()?) } else { None };
    caller.enter(|| helper.map_or(Ok(()), finish_helper))?;
    let binfmt = Binfmt::at(MOUNT_POINT);
    for rule in &rules {
        binfmt.register(rule).with_context(|| format!("cannot register {}", rule.name.shown()))?;
    }
    if let Some(root) = &args.root {
        furnish(root)?;
    }
    if !args.map_root {
        caller.be_himself()?;
    }
    if let Some(root) = &args.root {
        enter_root(root)?;
    }
    execute(&args.command)
}

/// The rules for what was asked for and this machine does not run itself.
fn rules(args: &Args) -> Result<Vec<Rule>> {
    let folder = emulators(args.dir.as_deref())?;
    let flags = if args.no_credentials { Flags::NO_CREDENTIALS } else { Flags::DEFAULT };
    let mut wanted = Wanted::known(&args.archs)?;
    wanted.all |= wanted.archs.is_empty();
    let mut rules = Vec::new();
    for arch in archs(&folder, &wanted)? {
        if emulator::is_own(arch) || probe::is_native(arch) {
            continue;
        }
        let emulator = folder
            .get(arch)
            .with_context(|| format!("there is no {} in {}", arch.emulator(), folder.dir.shown()))?;
        emulator::inspect(&emulator.path).with_context(|| format!("{} is not fit", emulator.path.shown()))?;
        rules.extend(handler::rules_of(emulator, flags));
    }
    Ok(rules)
}

/// Becomes the command, so that its exit status and signals are nobody else's.
#[expect(clippy::disallowed_methods, reason = "this command is what the user asked for")]
fn execute(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command was given")?;
    let error = Command::new(program).args(arguments).exec();
    say(format_args!("error: cannot run {}: {error}", Path::new(program).shown()));
    if error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) {
        say("  because: no handler takes it; see `qus explain`");
    }
    exit(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}

/// Starts this program once more, which stays outside, and waits for a byte.
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
    if helper.wait()?.success() {
        Ok(())
    } else {
        Err(io::Error::other("the helper could not map all users"))
    }
}

pub(crate) fn map_ids(args: &MapIdsArgs) -> Result<()> {
    // Without the byte `qus run` has ended, has said why, and its number may be another's.
    if io::stdin().read(&mut [0])? == 0 {
        exit(1);
    }
    map_all(args.process).context("cannot map users")
}
