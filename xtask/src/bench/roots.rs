//! Where workloads run: a root folder of the guest with Debian's packages, and a folder with the workloads' own files,
//! whose C programs the guest's compiler has compiled under the emulator of the bundle.
//!
//! Both are in the cache, apart from each other, so that another workload does not mean another download.

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
use crate::base::progress::say;
use crate::bench::session::{FOLDERS, Place, Session};
use crate::bench::worker::Request;
use crate::bench::workloads::{self, PROGRAMS, Workload};
use crate::debian::{distribution, guests};

/// The guest whose root filesystem runs the workloads of a target.
fn rootfs_guest<'a>(cx: &'a Context, target: &Arch) -> Result<&'a Guest> {
    cx.data.debian.rootfs_guest(target).context("there is no root filesystem of it")
}

/// What has to be downloaded before these workloads can run.
pub(super) fn lacks(cx: &Context, guest: &Arch, workloads: &[&Workload]) -> Result<Option<String>> {
    if workloads.iter().all(|workload| !workload.in_root) {
        return Ok(None);
    }
    let debian = rootfs_guest(cx, guest)?;
    let dir = guests::root_dir(cx, debian, "bench", &cx.data.debian.packages.bench_rootfs);
    Ok((!dir.exists()).then(|| format!("a root filesystem of Debian's {debian}, some 100 MB")))
}

/// A place where nothing but the probe is to run; `temp` has nothing else in it.
pub(super) fn bare(guest: &Arch, temp: &Path) -> Result<Place> {
    let place = Place { root: temp.join("root"), bench: temp.join("bench") };
    for folder in FOLDERS.map(|folder| place.root.join(folder)).iter().chain([&place.bench]) {
        fs::create_dir_all(folder)?;
    }
    write_probe(guest, &place.bench)?;
    Ok(place)
}

/// A place where every workload can run.
pub(super) fn whole(cx: &Context, guest: &Arch, emulator: &Path) -> Result<Place> {
    let (debian, set) = (rootfs_guest(cx, guest)?, &cx.data.debian.packages.bench_rootfs);
    let root = guests::root(cx, debian, "bench", set)?;
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        fs::create_dir_all(&folder)?;
    }
    let name = format!("bench-{}", workloads::id()?);
    let bench = guests::root_dir(cx, debian, &name, set);
    if !bench.exists() {
        say(format_args!("preparing the workloads for {guest}: compiled by its own gcc, emulated …"));
        cache::publish(&bench, |partial| {
            workloads::write(partial)?;
            write_probe(guest, partial)?;
            let place = Place { root: root.clone(), bench: partial.to_owned() };
            compile(&mut Session::start(guest, emulator, &place)?)
        })?;
    }
    Ok(Place { root, bench })
}

fn write_probe(guest: &Arch, dir: &Path) -> Result<()> {
    let path = dir.join("probe");
    fs::write(&path, probe::image(guest))
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What the packages' scripts would have done for the linker, and the programs in C.
fn compile(session: &mut Session) -> Result<()> {
    let mut run = |argv: Vec<String>| {
        let what = argv.join(" ");
        let ran = session.run(&Request { argv, times: 1, status: 0, memory: false })?;
        ensure!(ran.status == Some(0), "{what} fails in the root folder: {}", ran.ending());
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

/// The name and version of the system in a root folder, which is of the first suite that could be had.
pub(super) fn system(place: &Place) -> Option<String> {
    let release = fs::read_to_string(place.root.join("usr/lib/os-release")).ok()?;
    distribution::os_release_field(&release, "PRETTY_NAME")
}

/// The path, as the machine sees it, of a program that the guest sees here.
pub(super) fn outside(place: &Place, program: &str) -> PathBuf {
    match program.strip_prefix("/bench/") {
        Some(name) => place.bench.join(name),
        None => place.root.join(program.trim_start_matches('/')),
    }
}
