//! The programs of machines from Debian's packages, which run with their own C library and loader.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err::File;
use qemu_src::{Machine, Origin};
use qus_core::digest::Sha256;
use qus_core::elf::Elf;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::sh;
use crate::base::{cache, files};
use crate::bundle::hosts;
use crate::debian::guests;

/// Unpacked packages.
pub(crate) struct Programs {
    root: PathBuf,
    loader: PathBuf,
    libraries: PathBuf,
}

impl Programs {
    /// Fetches the emulator of a machine, and programs that make disks, unless they are in the cache.
    pub(crate) fn ensure(cx: &Context, machine: &Machine) -> Result<Self> {
        let wanted = [&machine.package].into_iter().chain(&cx.data.machines.programs);
        Self::fetch(cx, &machine.package, &wanted.collect::<Vec<_>>(), &machine.emulator)
    }

    /// Fetches the programs that convert disks, unless they are in the cache.
    pub(crate) fn of_converter(cx: &Context) -> Result<Self> {
        let wanted: Vec<_> = cx.data.machines.converter_programs.iter().collect();
        Self::fetch(cx, "programs that convert disks", &wanted, "qemu-img")
    }

    /// Fetches packages; `program` is one of theirs.
    fn fetch(cx: &Context, what: &str, wanted: &[&String], program: &str) -> Result<Self> {
        let own = hosts::own()?;
        let suite = &cx.data.machines.suite;
        let root = cx.paths.machine("programs", &files::short_id(format!("{suite} {wanted:?}")));
        let from = Origin::Suite(suite.clone());
        guests::fetch(cx, &from, own.debian, what, &root, |apt, into| {
            apt.unpack_all(wanted, into).map(drop)
        })?;
        let program = root.join("usr/bin").join(program);
        let interpreter = Elf::parse(File::open(&program)?.file())?.interpreter;
        let interpreter = interpreter.with_context(|| format!("{} is static", program.display()))?;
        let loader = root.join("usr").join(interpreter.strip_prefix("/").unwrap_or(&interpreter));
        let libraries = root.join("usr/lib").join(own.triple);
        Ok(Self { root, loader, libraries })
    }

    /// What identifies the programs.
    pub(crate) fn identity(&self) -> Result<Sha256> {
        cache::identity(&self.root)
    }

    /// The path of another file.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A command that runs a program.
    pub(crate) fn cmd(&self, name: &str) -> Cmd<'static> {
        let Self { root, loader, libraries } = self;
        let program = root.join("usr/bin").join(name);
        let (modules, types) = (libraries.join("qemu"), root.join("etc/mke2fs.conf"));
        let cmd = cmd!(sh(), "{loader} --library-path {libraries} {program}");
        cmd.env("QEMU_MODULE_DIR", modules).env("MKE2FS_CONFIG", types)
    }

    /// The directories with firmware.
    pub(crate) fn firmware(&self) -> impl Iterator<Item = PathBuf> + '_ {
        ["qemu", "seabios"].iter().map(|name| self.root.join("usr/share").join(name))
    }
}
