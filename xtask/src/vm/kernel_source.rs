//! Kernels that are built, for boards that no package's kernel supports.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err::{self as fs, File};
use lzma_rust2::XzReader;
use qemu_src::{KernelBuild, Machine};
use qus_core::hint::hinted;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, is_installed, sh};
use crate::base::progress::Bar;
use crate::debian::versions::Versions;
use crate::qemu::sysroot::Sysroot;

/// The names of a kernel and of a board's device tree in the cache.
pub(crate) const IMAGE: &str = "kernel";
pub(crate) const DEVICE_TREE: &str = "device-tree";

/// What the kernel's build needs besides a compiler.
const PROGRAMS: [&str; 3] = ["bc", "make", "perl"];

/// Builds a kernel from the archive in `unpacked`, a package with the kernel's source.
///
/// # Errors
/// A program is missing, the kernel has not all of the options, or its build fails.
pub(crate) fn build(
    cx: &Context,
    machine: &Machine,
    build: &KernelBuild,
    archive: &Path,
    into: &Path,
) -> Result<()> {
    let board = machine.board().context("only kernels of boards are built")?;
    let device_tree = &board.device_tree;
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| !is_installed(program)).collect();
    ensure!(
        missing.is_empty(),
        hinted(
            format_args!(
                "the kernel of {} is built from source, which needs {}",
                machine.name(),
                missing.join(", ")
            ),
            format_args!("`sudo apt install {}`", missing.join(" "))
        )
    );
    let sysroot = Sysroot::ensure(cx, machine.host, Versions::UpdatedIfPossible)?;
    let dir = tempfile::tempdir_in(into)?;
    {
        let _bar = Bar::new("unpacking the kernel's source");
        let archive = XzReader::new(File::open(archive)?, true);
        tar::Archive::new(archive).unpack(dir.path()).context("cannot unpack the kernel's source")?;
    }
    let source = fs::read_dir(dir.path())?.next().context("the archive is empty")??.path();
    let wanted: String = build.options.iter().map(|option| format!("CONFIG_{option}=y\n")).collect();
    let options = dir.path().join("options");
    fs::write(&options, &wanted)?;
    let _bar = Bar::new(format!("building a kernel for {}", machine.name()));
    let (compiler, flags) = sysroot.cc();
    let (compiler, prefix) = (format!("CC={compiler} {}", flags.join(" ")), sysroot.tool(""));
    let prefix = if sysroot.is_cross() { prefix } else { String::new() };
    let architecture = &build.architecture;
    let make = |targets: &[&str]| {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        let make = cmd!(
            sh(),
            "make -s -j {jobs} ARCH={architecture} CROSS_COMPILE={prefix} {compiler} O=out {targets...}"
        );
        let make = sysroot.enter(make).env("KCONFIG_ALLCONFIG", &options);
        exec::run(make.in_dir(&source), &cx.start_log("kernel")?, |_| {})
    };
    make(&["allnoconfig"])?;
    let config = fs::read_to_string(source.join("out/.config"))?;
    let refused: Vec<_> = wanted.lines().filter(|line| !config.lines().any(|set| set == *line)).collect();
    ensure!(refused.is_empty(), "the kernel cannot have {}", refused.join(", "));
    make(&[&build.image, device_tree])?;
    let built = source.join("out/arch").join(architecture).join("boot");
    fs::rename(built.join(&build.image), into.join(IMAGE))?;
    fs::rename(built.join("dts").join(device_tree), into.join(DEVICE_TREE))?;
    Ok(())
}
