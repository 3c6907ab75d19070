//! Prepares the directories in which workloads run: a root filesystem of the guest with Debian's packages, and a directory
//! with the workloads' files. The guest's gcc compiles their C programs, under the bundle's emulator.
//!
//! Both are cached separately, so that a changed workload does not cause a new download.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qemu_src::Guest;
use qus_core::arch::Arch;
use qus_core::probe;

use crate::base::cache;
use crate::base::context::Context;
use crate::base::progress::Bar;
use crate::bench::session::{BenchRoot, MOUNT_POINTS, Session};
use crate::bench::worker::Request;
use crate::bench::workloads::{self, PROGRAMS, Workload};
use crate::debian::{distribution, guests};

/// Finds the Debian guest whose root filesystem runs the workloads of a target.
fn rootfs_guest<'a>(cx: &'a Context, target: &Arch) -> Result<&'a Guest> {
    cx.data.debian.rootfs_guest(target).context("there is no root filesystem for this guest")
}

/// Describes what must be downloaded before these workloads can run.
pub(super) fn missing_download(
    cx: &Context,
    guest: &Arch,
    workloads: &[&Workload],
) -> Result<Option<String>> {
    if workloads.iter().all(|workload| !workload.in_root) {
        return Ok(None);
    }
    let debian = rootfs_guest(cx, guest)?;
    let dir = guests::root_dir(cx, debian, "bench", &cx.data.debian.packages.bench_rootfs);
    Ok((!dir.exists()).then(|| format!("a root filesystem of Debian's {debian}, some 100 MB")))
}

/// Creates directories in `temp` in which only the probe can run.
pub(super) fn create_empty(guest: &Arch, temp: &Path) -> Result<BenchRoot> {
    let bench_root = BenchRoot { root: temp.join("root"), bench: temp.join("bench") };
    for dir in MOUNT_POINTS.map(|dir| bench_root.root.join(dir)).iter().chain([&bench_root.bench]) {
        fs::create_dir_all(dir)?;
    }
    write_probe(guest, &bench_root.bench)?;
    Ok(bench_root)
}

/// Prepares directories in which every workload can run.
pub(super) fn prepare(cx: &Context, guest: &Arch, emulator: &Path) -> Result<BenchRoot> {
    let (debian, set) = (rootfs_guest(cx, guest)?, &cx.data.debian.packages.bench_rootfs);
    let root = guests::root(cx, debian, "bench", set)?;
    for dir in MOUNT_POINTS.map(|dir| root.join(dir)) {
        fs::create_dir_all(&dir)?;
    }
    let name = format!("bench-{}", workloads::id()?);
    let bench = guests::root_dir(cx, debian, &name, set);
    if !bench.exists() {
        let _bar = Bar::new(format!("compiling the workloads for {guest} with its own gcc, under emulation"));
        cache::publish(&bench, |partial| {
            workloads::write(partial)?;
            write_probe(guest, partial)?;
            let bench_root = BenchRoot { root: root.clone(), bench: partial.to_owned() };
            compile(&mut Session::start(guest, emulator, &bench_root)?)
        })?;
    }
    Ok(BenchRoot { root, bench })
}

fn write_probe(guest: &Arch, dir: &Path) -> Result<()> {
    let path = dir.join("probe");
    fs::write(&path, probe::image(guest))
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs ldconfig, as the packages' scripts would, and compiles the C programs.
fn compile(session: &mut Session) -> Result<()> {
    let mut run = |argv: Vec<String>| {
        let what = argv.join(" ");
        let ran = session.run(&Request { argv, times: 1, status: 0, memory: false })?;
        ensure!(ran.status == Some(0), "{what} failed in the root filesystem: {}", ran.describe_end());
        Ok(())
    };
    run(vec!["/usr/sbin/ldconfig".to_owned()])?;
    for (name, flags, _) in PROGRAMS {
        let words = ["/usr/bin/gcc"].iter().chain(flags).map(|word| (*word).to_owned());
        let files = ["-o".to_owned(), format!("/bench/{name}"), format!("/bench/{name}.c")];
        run(words.chain(files).collect())?;
    }
    Ok(())
}

/// Reads the name and version of the system in the root filesystem.
pub(super) fn system(bench_root: &BenchRoot) -> Option<String> {
    let release = fs::read_to_string(bench_root.root.join("usr/lib/os-release")).ok()?;
    distribution::os_release_field(&release, "PRETTY_NAME")
}

/// Returns the path on the host of a program inside the root filesystem.
pub(super) fn host_path(bench_root: &BenchRoot, program: &str) -> PathBuf {
    match program.strip_prefix("/bench/") {
        Some(name) => bench_root.bench.join(name),
        None => bench_root.root.join(program.trim_start_matches('/')),
    }
}
