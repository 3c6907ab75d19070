//! One small static program for each architecture; all of them together have less than 16 KiB.
//!
//! A probe writes one line that names its architecture and exits with [`STATUS`], which failing loaders and shells do not
//! use. Only running it shows reliably whether this machine runs that architecture, with or without an emulator. The
//! sources are in `probes/`; `cargo xtask codegen` generates the ELF files beside them.
//!
//! A probe is run from memory, so that it needs no directory that is writable and allows execution. If the kernel forbids
//! programs in memory, a temporary file is used. `/proc` must be mounted.
//!
//! ```
//! use qus_core::probe;
//!
//! let own = std::env::consts::ARCH.parse().unwrap();
//! assert_eq!(probe::run(own), Ok(()));
//! assert!(probe::is_native(own));
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::arch::Arch;

/// Exit status of every probe.
pub const STATUS: i32 = 42;

/// How long a probe may run: a thousand times longer than it needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The probe's ELF file.
pub fn image(arch: &Arch) -> &'static [u8] {
    IMAGES.iter().find(|(name, _)| *name == arch.name).expect("a unit test finds one for every row").1
}

/// What the probe writes to its standard output.
pub fn line(arch: &Arch) -> String {
    format!("qus-probe {}\n", arch.name)
}

/// Runs the probe as any program is run: natively, or by the interpreter that the kernel calls for it.
///
/// # Errors
/// Why it did not run.
pub fn run(arch: &Arch) -> Result<(), String> {
    run_image(arch, image(arch), None)
}

/// Runs the probe with an emulator, without the kernel's handlers.
///
/// # Errors
/// Why it did not run.
pub fn run_with(emulator: &Path, arch: &Arch) -> Result<(), String> {
    run_image(arch, image(arch), Some(emulator))
}

/// Whether this machine runs the architecture natively, whatever handlers are registered.
///
/// Every handler in use compares the OS ABI or the padding of the ELF header, and no kernel does: no handler
/// matches a probe with impossible values there.
pub fn is_native(arch: &Arch) -> bool {
    run_image(arch, &disguised(arch), None).is_ok()
}

/// The version that an emulator prints; `None` if it prints none.
pub fn version_of(emulator: &Path) -> Option<String> {
    let (_, stdout, _) = execute(emulator, &["--version".as_ref()]).ok()?;
    let line = String::from_utf8_lossy(&stdout).lines().next()?.to_owned();
    let (_, version) = line.split_once(" version ")?;
    Some(version.split([' ', '(']).next()?.to_owned())
}

/// The probe with impossible values where handlers compare and kernels do not.
pub(crate) fn disguised(arch: &Arch) -> Vec<u8> {
    let mut image = image(arch).to_vec();
    image[7..16].fill(0xff);
    image
}

fn run_image(arch: &Arch, image: &[u8], emulator: Option<&Path>) -> Result<(), String> {
    let (path, _open) = prepare(image).map_err(|error| format!("cannot prepare the probe: {error}"))?;
    let ended = match emulator {
        Some(emulator) => execute(emulator, &[path.as_os_str()]),
        None => execute(&path, &[]),
    };
    let (status, stdout, stderr) = ended.map_err(|error| explain(&error, emulator))?;
    if status == Some(STATUS) && stdout == line(arch).as_bytes() {
        return Ok(());
    }
    let ended = status.map_or("was killed by a signal".to_owned(), |status| format!("exited with {status}"));
    let message = String::from_utf8_lossy(&stderr);
    let message = message.lines().next().map_or(String::new(), |line| format!(": {line}"));
    Err(format!("the probe {ended}{message}"))
}

/// What the kernel means when it does not start a probe, through its handlers or with an emulator.
fn explain(error: &io::Error, emulator: Option<&Path>) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if emulator.is_some() => "the emulator does not exist".to_owned(),
        _ if emulator.is_some() => format!("the emulator cannot be started: {error}"),
        Some(Errno::ENOEXEC) => "no handler matches it, and the machine does not run it natively".to_owned(),
        Some(Errno::ENOENT) => "the handler's interpreter does not exist".to_owned(),
        Some(Errno::ELOOP) => "a handler matches the handler's interpreter itself".to_owned(),
        Some(Errno::EACCES) => "the handler's interpreter is not executable".to_owned(),
        _ => error.to_string(),
    }
}

/// The probe in memory: the path by which this process and its children run it, valid as long as the second value is.
///
/// # Errors
/// There is neither memory nor a directory for it.
pub fn in_memory(arch: &Arch) -> io::Result<(PathBuf, OwnedFd)> {
    prepare(image(arch))
}

/// Whether probes can be run here.
///
/// # Errors
/// Why not.
pub fn can_run() -> Result<(), String> {
    prepare(b"").map(drop).map_err(|error| format!("cannot prepare the probe: {error}"))
}

/// A program in memory, or where that is forbidden in a file without a name: the path by which this process and its
/// children run it, valid as long as the second value is.
fn prepare(image: &[u8]) -> io::Result<(PathBuf, OwnedFd)> {
    /// `MFD_EXEC`, which Linux 6.3 and later require where `vm.memfd_noexec` is 1.
    const EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
    let create = |flags| memfd_create(c"qus-probe", MFdFlags::MFD_CLOEXEC | flags);
    let memory = create(EXEC).or_else(|_| create(MFdFlags::empty()));
    let mut writer = memory.map(File::from).or_else(|errno| unnamed().ok_or(errno))?;
    let path = |fd: &dyn AsRawFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    writer.write_all(image)?;
    // A file that is open for writing cannot be executed, and an interpreter that opens it by name needs
    // it to stay open.
    let reader = nix::fcntl::open(&path(&writer), OFlag::O_RDONLY, Mode::empty())?;
    Ok((path(&reader), reader))
}

/// An empty file on a file system whose programs can be run.
fn unnamed() -> Option<File> {
    let dirs = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/run".into(), "/dev/shm".into()];
    dirs.iter().find_map(|dir| {
        let path = dir.join(format!(".qus-probe-{}", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(0o700).open(&path).ok()?;
        let removed = std::fs::remove_file(&path);
        let noexec = fstatvfs(&file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC));
        (removed.is_ok() && !noexec).then_some(file)
    })
}

/// Exit status, `None` after a signal; the first bytes of standard output and of standard error.
type Ended = (Option<i32>, Vec<u8>, Vec<u8>);

#[expect(clippy::disallowed_methods, reason = "this crate starts only probes and emulators")]
fn execute(program: &Path, args: &[&OsStr]) -> io::Result<Ended> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the probe hangs"));
        }
        sleep(Duration::from_micros(200));
    };
    Ok((status.code(), written(child.stdout.take())?, written(child.stderr.take())?))
}

/// What a program that has ended wrote to a pipe, at most 4096 bytes. The end of the pipe is not waited for: a process
/// that the program left in the background may hold it.
fn written(pipe: Option<impl Read + AsFd>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(pipe) = pipe else { return Ok(bytes) };
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    match pipe.take(4096).read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(bytes),
    }
}

macro_rules! images {
    ($($name:literal)*) => {
        [$(($name, include_bytes!(concat!("../probes/", $name, ".elf")))),*]
    };
}

static IMAGES: [(&str, &[u8]); 33] = images! {
    "aarch64" "aarch64_be" "alpha" "arm" "armeb" "hexagon" "hppa" "i386" "loongarch64" "m68k"
    "microblaze" "microblazeel" "mips" "mips64" "mips64el" "mipsel" "mipsn32" "mipsn32el" "or1k"
    "ppc" "ppc64" "ppc64le" "riscv32" "riscv64" "s390x" "sh4" "sh4eb" "sparc" "sparc32plus"
    "sparc64" "x86_64" "xtensa" "xtensaeb"
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHES;

    #[test]
    fn all_of_them_are_small_and_name_themselves() {
        let total: usize = ARCHES.iter().map(|arch| image(arch).len()).sum();
        assert!(total < 16 * 1024, "{total} bytes");
        for arch in &ARCHES {
            let line = line(arch);
            assert!(image(arch).windows(line.len()).any(|part| part == line.as_bytes()), "{arch}");
        }
    }

    #[test]
    fn this_machine_runs_its_own_natively() {
        let own: &Arch = std::env::consts::ARCH.parse().unwrap();
        assert!(is_native(own));
        assert_eq!(run(own), Ok(()));
        let other: &Arch = if own.name == "alpha" { "s390x" } else { "alpha" }.parse().unwrap();
        assert!(!is_native(other));
    }

    #[test]
    fn an_emulator_that_runs_nothing_is_detected_natively() {
        let arch: &Arch = "alpha".parse().unwrap();
        assert_eq!(run_with(Path::new("/bin/true"), arch), Err("the probe exited with 0".to_owned()));
        let error = run_with(Path::new("/no/such/emulator"), arch).unwrap_err();
        assert!(error.contains("does not exist"), "{error}");
    }

    #[test]
    fn a_process_in_the_background_is_not_waited_for() {
        let begin = Instant::now();
        let args = ["-c", "sleep 30 & echo out; echo err >&2; exit 3"].map(OsStr::new);
        let ended = execute(Path::new("/bin/sh"), &args).unwrap();
        assert_eq!(ended, (Some(3), b"out\n".to_vec(), b"err\n".to_vec()));
        assert!(begin.elapsed() < Duration::from_secs(20), "it waited for `sleep`");
    }
}
