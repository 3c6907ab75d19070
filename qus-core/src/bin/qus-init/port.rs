//! Virtio-serial ports by name.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fs_err as fs;

/// How long to wait for a device that the kernel has not found yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a port for reading and writing.
pub(crate) fn open(name: &str) -> Result<File> {
    let path = find("/sys/class/virtio-ports", "name", name)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open the port {name}, {}", path.display()))
}

/// The device in a directory of sysfs that has this value of an attribute; waits for it.
pub(crate) fn find(class: &str, attribute: &str, value: &str) -> Result<PathBuf> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // The directory appears with its first device.
        for entry in fs::read_dir(class).into_iter().flatten() {
            let device = entry?;
            let text = fs::read_to_string(device.path().join(attribute)).unwrap_or_default();
            if text.trim_end() == value {
                return Ok(Path::new("/dev").join(device.file_name()));
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("no device in {class} has the {attribute} {value}")
}
