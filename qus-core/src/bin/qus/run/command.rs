//! What `qus run` becomes: the command, after a check that explains failures that QEMU's message does not.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use anyhow::{Context as _, Result};
use qus_core::elf::Elf;
use qus_core::file;
use qus_core::hint::hinted;
use qus_core::text::Show;

use super::debug::{DebugArgs, outside};
use crate::output::{message, print_error};

/// Where emulators look for the libraries of programs unless `QEMU_LD_PREFIX` names another directory: those of QEMU's
/// own defaults, and of Debian.
const LIBRARIES: [&str; 2] = ["/usr/gnemul/qemu-", "/etc/qemu-binfmt/"];

/// Becomes the command, so that it gets all signals, and its exit status is ours. `root` is the root filesystem that this
/// process is in, as a path outside of it.
#[expect(clippy::disallowed_methods, reason = "the user has requested this command")]
pub(super) fn execute(command: &[OsString], debug: &DebugArgs, root: Option<&Path>) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command was given")?;
    let found = find(program, debug.variable("PATH").as_deref());
    if let Some((file, elf)) = found.as_deref().and_then(|path| Some((path, elf(path)?))) {
        let file = outside(&fs::canonicalize(file)?, root);
        if let Some(error) = missing_loader(&elf, &file, debug, root) {
            print_error(&error);
            exit(126);
        }
        if let Some(gdb) = debug.gdb_command(&file, root) {
            message(format_args!("note: emulated programs wait for gdb; in another terminal: `{gdb}`"));
        }
    }
    let error = Command::new(program).args(arguments).envs(debug.variables()).exec();
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

/// The file that is executed: without a slash, the first in `PATH`.
fn find(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    env::split_paths(path?).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn elf(path: &Path) -> Option<Elf> {
    Elf::parse(&file::open(path).ok()?).ok()
}

/// The error of a program whose loader does not exist: QEMU would print only its path, and the kernel "No such file".
fn missing_loader(elf: &Elf, file: &Path, debug: &DebugArgs, root: Option<&Path>) -> Option<anyhow::Error> {
    let (loader, arch) = (elf.interpreter.as_deref()?, elf.arch()?);
    let has_libraries = LIBRARIES.iter().any(|prefix| Path::new(&format!("{prefix}{arch}")).exists());
    if loader.exists() || has_libraries || debug.variable("QEMU_LD_PREFIX").is_some() {
        return None;
    }
    let place = root.map_or_else(String::new, |root| format!(" in {}", root.shown()));
    let what = format!("cannot run {}: its loader {} does not exist{place}", file.shown(), loader.shown());
    let hint = format!(
        "`qus explain {}` reports what it needs; run it in a root filesystem of {arch} with `--root DIR`, or name that \
         directory, QEMU's `-L`, with `--env QEMU_LD_PREFIX=DIR`",
        file.quoted()
    );
    Some(hinted(what, hint))
}
