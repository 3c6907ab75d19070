//! The kernel of a machine, and its initial file system.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::{Machine, Origin};

use crate::base::context::Context;
use crate::base::{cache, files};
use crate::debian::guests;
use crate::qus;
use crate::vm::initramfs::{self, MODULES};
use crate::vm::kernel_source::{self, DEVICE_TREE, IMAGE};
use crate::vm::modules;

/// What QEMU loads.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Names of the kernel's package and file begin so.
const PACKAGE: &str = "linux-image-";
const FILES: [&str; 2] = ["vmlinuz-", "vmlinux-"];
/// That of the source's package begins so.
const SOURCE_PACKAGE: &str = "linux-source-";

impl Kernel {
    /// Fetches the kernel and builds `qus-init`, unless they are in the cache. `more` modules are loaded last.
    pub(crate) fn ensure(cx: &Context, machine: &Machine, more: &[String]) -> Result<Self> {
        let machines = &cx.data.machines;
        let late = machines.late_modules.iter().chain(more).map(|name| &**name).collect();
        let wanted = [machines.modules(machine).collect(), late];
        let device_tree = machine.board().map(|board| &*board.device_tree);
        let build = machine.build.as_ref().map(|build| format!(" {build:?}")).unwrap_or_default();
        let id = files::short_id(format!("{} {wanted:?} {device_tree:?}{build}", machine.kernel));
        let dir = cx.paths.machine("kernel", &format!("{}-{id}", machine.name()));
        let (name, debian) = (&machine.kernel, machine.host.debian);
        guests::fetch(cx, &Origin::Guests, debian, name, &dir, |apt, into| {
            let unpacked = tempfile::tempdir_in(into)?;
            if let Some(build) = &machine.build {
                let package = apt.dependency(name, SOURCE_PACKAGE)?;
                apt.unpack(&[&package], unpacked.path())?;
                let archive = unpacked.path().join("usr/src").join(format!("{package}.tar.xz"));
                return kernel_source::build(cx, machine, build, &archive, into);
            }
            let package = apt.dependency(&format!("{name}:{debian}"), PACKAGE)?;
            apt.unpack(&[format!("{package}:{debian}")], unpacked.path())?;
            keep(unpacked.path(), &package, &wanted, device_tree, into)
        })?;
        let init = fs::read(qus::init::ensure(cx, machine.host)?)?;
        let [first, late] = match machine.build {
            None => MODULES.map(|name| read_modules(&dir.join(name))),
            Some(_) => [Ok(Vec::new()), Ok(Vec::new())],
        };
        let archive = initramfs::make(&init, &[first?, late?])?;
        let made = cx.paths.machine("initramfs", &files::short_id(&archive));
        cache::ensure(&made, |partial| files::write(&partial.join("initramfs"), &archive))?;
        Ok(Self { image: dir.join(IMAGE), initramfs: made.join("initramfs") })
    }

    /// The device tree of a board.
    pub(crate) fn device_tree(&self) -> PathBuf {
        self.image.with_file_name(DEVICE_TREE)
    }

    /// What identifies the kernel and the initial file system.
    pub(crate) fn identity(&self) -> Result<String> {
        let dir = |file: &Path| cache::identity(file.parent().unwrap_or(file));
        Ok(format!("{} {}", dir(&self.image)?, dir(&self.initramfs)?))
    }
}

/// Moves the image of an unpacked package, and writes the modules in the order in which they are loaded.
fn keep(
    unpacked: &Path,
    package: &str,
    wanted: &[Vec<&str>; 2],
    device_tree: Option<&str>,
    into: &Path,
) -> Result<()> {
    let version = package.strip_prefix(PACKAGE).unwrap_or(package);
    let first_of = |paths: [PathBuf; 2]| {
        let found = paths.into_iter().find(|path| path.exists());
        found.with_context(|| format!("{package} has no kernel, or no modules"))
    };
    let image = first_of(FILES.map(|name| unpacked.join("boot").join(format!("{name}{version}"))))?;
    fs::rename(image, into.join(IMAGE))?;
    if let Some(file) = device_tree {
        let dir = unpacked.join("usr/lib").join(package);
        fs::rename(dir.join(file), into.join(DEVICE_TREE))?;
    }
    let dir = first_of(["usr/lib/modules", "lib/modules"].map(|dir| unpacked.join(dir).join(version)))?;
    let [first, late] = wanted;
    let count = modules::resolve(&dir, first)?.len();
    let mut modules = modules::resolve(&dir, first.iter().chain(late))?;
    let late = modules.split_off(count);
    for (name, modules) in MODULES.iter().zip([modules, late]) {
        fs::create_dir(into.join(name))?;
        for (number, module) in modules.iter().enumerate() {
            let file = format!("{number:03}-{}.ko", module.name);
            fs::write(into.join(name).join(file), &module.bytes)?;
        }
    }
    Ok(())
}

/// The names and contents of the files in a directory.
fn read_modules(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read(&path)?))
    };
    files::sorted(dir)?.into_iter().map(read).collect()
}
