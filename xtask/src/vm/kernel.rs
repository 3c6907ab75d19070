//! The kernel of a machine, and its initial file system.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::{Machine, Origin};

use crate::base::context::Context;
use crate::base::{cache, files};
use crate::debian::distribution::Distribution;
use crate::debian::packages;
use crate::qus;
use crate::vm::initramfs;
use crate::vm::modules;

/// What QEMU loads.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Names of the kernel's package and file begin so.
const PACKAGE: &str = "linux-image-";
const FILES: [&str; 2] = ["vmlinuz-", "vmlinux-"];

impl Kernel {
    /// Fetches the kernel and builds `qus-init`, unless they are in the cache.
    pub(crate) fn ensure(cx: &Context, machine: &Machine) -> Result<Self> {
        let machines = &cx.data.machines;
        let modules: Vec<_> = machines.modules(machine).collect();
        let id = files::short_id(format!("{} {modules:?}", machine.kernel));
        let dir = cx.paths.machine("kernel", &format!("{}-{id}", machine.host));
        cache::ensure(&dir, |partial| fetch(cx, machine, &modules, partial))?;
        let init = fs::read(qus::init::ensure(cx, machine.host)?)?;
        let archive = initramfs::make(&init, &read_modules(&dir.join("modules"))?)?;
        let made = cx.paths.machine("initramfs", &files::short_id(&archive));
        cache::ensure(&made, |partial| files::write(&partial.join("initramfs"), &archive))?;
        Ok(Self { image: dir.join("kernel"), initramfs: made.join("initramfs") })
    }
}

/// Unpacks the newest kernel, and keeps its image and the modules in their order.
fn fetch(cx: &Context, machine: &Machine, modules: &[&str], partial: &Path) -> Result<()> {
    let distribution = Distribution::detect()?
        .context("kernels come from Debian's packages, and this machine has no apt")?;
    let debian = machine.host.debian;
    packages::fetch(
        cx,
        &distribution,
        &Origin::Guests,
        Some(debian),
        &machine.kernel,
        partial,
        |apt, into| {
            let package = apt.dependency(&format!("{}:{debian}", machine.kernel), PACKAGE)?;
            let unpacked = tempfile::tempdir_in(into)?;
            apt.unpack(&[format!("{package}:{debian}")], unpacked.path())?;
            let version = package.strip_prefix(PACKAGE).unwrap_or(&package);
            let mut images =
                FILES.iter().map(|name| unpacked.path().join("boot").join(format!("{name}{version}")));
            let image =
                images.find(|image| image.exists()).with_context(|| format!("{package} has no kernel"))?;
            fs::rename(image, into.join("kernel"))?;
            let dirs = ["usr/lib/modules", "lib/modules"].map(|dir| unpacked.path().join(dir).join(version));
            let dir = dirs
                .into_iter()
                .find(|dir| dir.exists())
                .with_context(|| format!("{package} has no modules"))?;
            fs::create_dir(into.join("modules"))?;
            for (number, module) in modules::resolve(&dir, modules.iter().copied())?.iter().enumerate() {
                files::write(
                    &into.join("modules").join(format!("{number:03}-{}.ko", module.name)),
                    &module.bytes,
                )?;
            }
            Ok(())
        },
    )
}

/// The names and contents of the files in a directory.
fn read_modules(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read(&path)?))
    };
    paths.into_iter().map(read).collect()
}
