//! The ports to the host, and devices by name.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fs_err as fs;
use nix::libc::B921600;
use nix::sys::termios::{ControlFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
use qus_core::machine::{LINE, PORTS};
use qus_core::multiplex;

/// How long to wait for a device that the kernel has not found yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ports to the host.
pub(crate) struct Ports {
    pub(crate) control: File,
    pub(crate) input: File,
    pub(crate) output: File,
    pub(crate) error: File,
    pub(crate) connections: File,
}

impl Ports {
    /// Opens virtio-serial ports, or the serial line that the kernel's command line names.
    pub(crate) fn open() -> Result<Self> {
        let files = match std::env::var(LINE) {
            Ok(name) => open_line(&name).with_context(|| format!("cannot open the serial line {name}"))?,
            Err(_) => PORTS.iter().map(|name| open(name)).collect::<Result<Vec<_>>>()?,
        };
        let [control, input, output, error, connections] =
            <[File; 5]>::try_from(files).map_err(|_| anyhow!("there are not as many ports as names"))?;
        Ok(Self { control, input, output, error, connections })
    }
}

fn open(name: &str) -> Result<File> {
    let path = find("/sys/class/virtio-ports", &format!("port {name}"), |device| {
        has_line(&device.join("name"), name)
    })?;
    open_device(&path)
}

fn open_device(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

fn open_line(name: &str) -> Result<Vec<File>> {
    // The kernel's messages would be in the midst of the program's output. 1 is for those of a kernel that ends.
    fs::write("/proc/sys/kernel/printk", "1")?;
    let line = open_device(&Path::new("/dev").join(name))?;
    let mut settings = tcgetattr(line.as_fd())?;
    cfmakeraw(&mut settings);
    // QEMU's serial port of some boards is as slow as a real one.
    settings.control_flags.remove(ControlFlags::CBAUD);
    settings.control_flags.insert(ControlFlags::from_bits_retain(B921600));
    tcsetattr(line.as_fd(), SetArg::TCSANOW, &settings)?;
    let pairs: Vec<_> = PORTS.iter().map(|_| UnixStream::pair()).collect::<Result<_, _>>()?;
    let (ports, channels): (Vec<_>, _) = pairs.into_iter().unzip();
    multiplex::connect(line.try_clone()?, line, channels, |_| {})?;
    Ok(ports.into_iter().map(|port| OwnedFd::from(port).into()).collect())
}

/// The disk whose serial number, or the partition whose name, this is; waits for it.
pub(crate) fn disk(name: &str) -> Result<PathBuf> {
    let partition = format!("PARTNAME={name}");
    find("/sys/class/block", &format!("disk {name}"), |device| {
        has_line(&device.join("serial"), name) || has_line(&device.join("uevent"), &partition)
    })
}

/// Waits for a network device.
pub(crate) fn wait_for_network(name: &str) -> Result<()> {
    find("/sys/class/net", &format!("network device {name}"), |device| device.ends_with(name)).map(drop)
}

/// The device in a directory of sysfs that is the wanted one; waits for it.
fn find(class: &str, what: &str, is_wanted: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // The directory appears with its first device.
        for entry in fs::read_dir(class).into_iter().flatten() {
            let device = entry?;
            if is_wanted(&device.path()) {
                return Ok(Path::new("/dev").join(device.file_name()));
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("the machine has no {what}")
}

fn has_line(file: &Path, wanted: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line == wanted))
}
