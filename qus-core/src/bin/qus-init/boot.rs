//! What a machine needs before its program: the kernel's file systems, modules, time and random numbers.
#![expect(unsafe_code, reason = "an ioctl without a safe wrapper")]

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use fs_err::{self as fs, File};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::libc::c_int;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, umask};
use nix::time::{ClockId, clock_settime};
use qus_core::machine::Renewal;

/// The directories of modules in the initial file system, which are named in the order in which they are loaded: those of
/// every machine, and those for disks and the network.
const MODULES: &str = "/modules";
const LATE_MODULES: &str = "/late-modules";

/// Mounts the kernel's file systems and loads the modules.
pub(crate) fn prepare() -> Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(target)?;
        mount_kernel(kind, target)?;
    }
    load(MODULES)
}

/// Loads the modules for disks and the network.
pub(crate) fn find_devices() -> Result<()> {
    load(LATE_MODULES)
}

fn load(dir: &str) -> Result<()> {
    let mut modules: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.sort();
    modules.into_iter().try_for_each(|module| {
        let file = File::open(&module)?;
        match finit_module(file.file(), c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot load {}", module.display())),
        }
    })
}

/// Mounts a file system of the kernel.
pub(crate) fn mount_kernel(kind: &str, target: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount {target}"))
}

/// Sets the time, and adds to the kernel's random numbers.
pub(crate) fn renew(renewal: &Renewal) -> Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, Duration::from_nanos(renewal.time).into())
        .context("cannot set the time")?;
    add_entropy(renewal.entropy).context("cannot add random numbers")
}

/// `struct rand_pool_info` of `linux/random.h`.
#[repr(C)]
struct PoolInfo {
    /// In bits.
    entropy: c_int,
    /// In bytes.
    size: c_int,
    bytes: [u8; 32],
}

// RNDADDENTROPY and RNDRESEEDCRNG of `linux/random.h`.
nix::ioctl_write_ptr!(add_to_pool, b'R', 0x03, [c_int; 2]);
nix::ioctl_none!(reseed, b'R', 0x07);

fn add_entropy(bytes: [u8; 32]) -> Result<()> {
    let info = PoolInfo { entropy: 8 * 32, size: 32, bytes };
    let random = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the kernel reads the two numbers and as many bytes as the second one says, all of which `info` has.
    unsafe { add_to_pool(random.as_raw_fd(), (&raw const info).cast()) }?;
    // SAFETY: it takes no argument.
    unsafe { reseed(random.as_raw_fd()) }?;
    Ok(())
}
