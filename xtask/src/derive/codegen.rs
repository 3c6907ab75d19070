//! `cargo xtask codegen`: writes what is committed but derived, or checks that it is fresh.
//!
//! Derived are the probes, from their assembler sources, the tables of the README files, from the table of
//! architectures, and the plot of a bench, from its recorded results. The probes' ELF headers are made here rather than
//! by a linker: one segment and no section is all they need. Assemblers come from the distribution's packages and are
//! not installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use qus_core::arch::{ARCHES, Arch, Host};
use qus_core::elf::{Class, Endian};
use qus_core::hint::hinted;
use serde::Deserialize;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::output::out;
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::bench::recorded;
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::derive::readme;

/// Write the derived files that are committed: probes, README tables, the plot of a bench
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; exit 1 if a file is not what its source makes
    #[arg(long)]
    check: bool,
}

/// `probes.toml`, which describes its fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probes {
    suite: String,
    libraries: Vec<String>,
    probe: BTreeMap<String, Probe>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    package: String,
    source: Option<String>,
    r#as: Vec<String>,
    objcopy: String,
    #[serde(default)]
    e_flags: u32,
    unchecked: Option<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let mut derived = readme::all(cx)?;
    let tables = derived.len();
    derived.extend(recorded::plot(cx)?);
    let probes = Probes::load(cx)?;
    let assemblers = assemblers(cx, &probes)?;
    let mut by_hand = 0;
    for arch in &ARCHES {
        let probe = probes.probe.get(arch.name).with_context(|| format!("probes.toml has no {arch}"))?;
        let code = assemble(cx, &assemblers, arch, probe)?;
        derived
            .push((cx.paths.probes().join(arch.name).with_extension("elf"), elf(arch, probe.e_flags, &code)));
        if let Some(reason) = &probe.unchecked {
            say(format_args!("{arch}: encoded by hand, no assembler has checked it: {reason}"));
            by_hand += 1;
        }
    }
    let stale: Vec<_> =
        derived.iter().filter(|(path, bytes)| !fs::read(path).is_ok_and(|old| old == *bytes)).collect();
    if args.check {
        let names: Vec<_> = stale.iter().map(|(path, _)| path.display().to_string()).collect();
        if !names.is_empty() {
            return Err(hinted(
                format_args!("these files are not up to date: {}", names.join(", ")),
                "to write them, run `cargo xtask codegen`",
            ));
        }
    } else {
        stale.iter().try_for_each(|(path, bytes)| {
            say(format_args!("writing {}", path.display()));
            files::write(path, bytes)
        })?;
    }
    out(&format!(
        "{} probes from their sources ({by_hand} of them encoded by hand), the tables of {tables} README files\n",
        ARCHES.len()
    ))
}

impl Probes {
    fn load(cx: &Context) -> Result<Self> {
        let path = cx.paths.probes().join("probes.toml");
        let text = fs::read_to_string(&path)?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// A folder with the unpacked assemblers.
fn assemblers(cx: &Context, probes: &Probes) -> Result<PathBuf> {
    let mut packages: Vec<_> =
        probes.probe.values().map(|probe| &probe.package).chain(&probes.libraries).collect();
    packages.sort();
    packages.dedup();
    let wanted = packages.iter().fold(probes.suite.clone(), |wanted, package| wanted + " " + package);
    let dir = cx.paths.assemblers(&files::short_id(wanted));
    let fetched = cache::ensure(&dir, |partial| {
        let log = cx.start_log("assemblers")?;
        say("fetching assemblers (nothing is installed) …");
        let distribution = Distribution::detect()?.context("this machine has no apt")?;
        let apt = Apt::foreign(&cx.paths.apt("assemblers"), &log, &distribution, &probes.suite, &[])?;
        apt.unpack(&packages, partial).map(drop)
    });
    fetched.map_err(|error| Skip(format!("the assemblers come from Debian and cannot be had: {error:#}")))?;
    Ok(dir)
}

/// The code of a probe as flat bytes.
fn assemble(cx: &Context, assemblers: &Path, arch: &Arch, probe: &Probe) -> Result<Vec<u8>> {
    let source = probe.source.clone().unwrap_or_else(|| format!("{}.s", arch.name));
    let source = cx.paths.probes().join(source);
    let [program, args @ ..] = &*probe.r#as else { bail!("probes.toml names no assembler for {arch}") };
    let temp = tempfile::tempdir()?;
    let (object, flat) = (temp.path().join("object"), temp.path().join("flat"));
    let bin = assemblers.join("usr/bin");
    let libraries = assemblers.join("usr/lib").join(Host::current().context("unknown machine")?.triple);
    let (assembler, objcopy) = (bin.join(program), bin.join(&probe.objcopy));
    let assembled = exec::read(
        cmd!(sh(), "{assembler} {args...} -o {object} {source}").env("LD_LIBRARY_PATH", &libraries),
    );
    assembled.with_context(|| format!("cannot assemble the probe of {arch}"))?;
    exec::read(
        cmd!(sh(), "{objcopy} -O binary -j .text {object} {flat}").env("LD_LIBRARY_PATH", &libraries),
    )?;
    fs::read(&flat).context("objcopy has written nothing")
}

/// Wraps code in the smallest ELF file that kernels and emulators load: one segment, which holds the
/// headers too.
fn elf(arch: &Arch, flags: u32, code: &[u8]) -> Vec<u8> {
    /// Above the lowest address that Linux lets a program map, below where emulators lie.
    const BASE: u64 = 0x10_0000;
    /// The largest page size in use.
    const ALIGN: u64 = 0x1_0000;
    let wide = arch.class == Class::Elf64;
    let (header, entry): (u64, u64) = if wide { (64, 56) } else { (52, 32) };
    let size = header + entry + code.len() as u64;
    let mut file = Writer { bytes: Vec::new(), wide, endian: arch.endian };
    file.bytes.extend(b"\x7fELF");
    file.bytes.extend([if wide { 2 } else { 1 }, if arch.endian == Endian::Little { 1 } else { 2 }, 1]);
    file.bytes.extend([0; 9]);
    file.half(2); // e_type: ET_EXEC
    file.half(arch.machines[0]);
    file.word(1); // e_version
    file.address(BASE + header + entry);
    file.address(header); // e_phoff
    file.address(0); // e_shoff
    file.word(flags);
    for half in [header as u16, entry as u16, 1, 0, 0, 0] {
        file.half(half); // e_ehsize, e_phentsize, e_phnum, and no sections
    }
    let (load, read_and_execute) = (1, 5);
    file.word(load);
    // The flags stand where they keep the addresses behind them aligned.
    if wide {
        file.word(read_and_execute);
    }
    for address in [0, BASE, BASE, size, size] {
        file.address(address); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz
    }
    if !wide {
        file.word(read_and_execute);
    }
    file.address(ALIGN);
    file.bytes.extend(code);
    file.bytes
}

struct Writer {
    bytes: Vec<u8>,
    wide: bool,
    endian: Endian,
}

impl Writer {
    fn half(&mut self, value: u16) {
        match self.endian {
            Endian::Little => self.bytes.extend(value.to_le_bytes()),
            Endian::Big => self.bytes.extend(value.to_be_bytes()),
        }
    }

    fn word(&mut self, value: u32) {
        match self.endian {
            Endian::Little => self.bytes.extend(value.to_le_bytes()),
            Endian::Big => self.bytes.extend(value.to_be_bytes()),
        }
    }

    fn address(&mut self, value: u64) {
        match (self.wide, self.endian) {
            (false, _) => self.word(value as u32),
            (true, Endian::Little) => self.bytes.extend(value.to_le_bytes()),
            (true, Endian::Big) => self.bytes.extend(value.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_source() {
        let cx = &Context::new().unwrap();
        let probes = Probes::load(cx).unwrap();
        assert!(probes.probe.keys().map(String::as_str).eq(ARCHES.iter().map(|arch| arch.name)));
        for (name, probe) in &probes.probe {
            let source = probe.source.clone().unwrap_or_else(|| format!("{name}.s"));
            assert!(cx.paths.probes().join(source).is_file(), "{name}");
        }
    }

    #[test]
    fn tables_are_fresh() {
        let cx = &Context::new().unwrap();
        let tables = readme::all(cx).unwrap();
        for (path, bytes) in tables.into_iter().chain(recorded::plot(cx).unwrap()) {
            let fresh = fs::read(&path).unwrap() == bytes;
            assert!(fresh, "{} is stale: cargo xtask codegen", path.display());
        }
    }
}
