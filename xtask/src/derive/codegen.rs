//! `cargo xtask codegen`: writes the generated files that are committed, or checks that they are up to date.
//!
//! Generated are the probes from their assembler sources, the tables of the documents from the code, and the plot of
//! the benchmark from its recorded results. The ELF headers of the probes are written without a linker, because one
//! segment and no sections suffice. Assemblers come from Debian packages, which are unpacked and not installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, bail};
use fs_err as fs;
use qemu_src::Debian;
use qus_core::arch::{ARCHES, Arch, Host};
use qus_core::elf::{ElfImage, Segment};
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

/// Generate the committed files: probes, tables of the documents, benchmark plot
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; exit with status 1 if a file is not up to date
    #[arg(long)]
    check: bool,
}

/// The contents of `probes.toml`, which documents its fields.
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
    let mut derived = readme::generate(cx)?;
    let tables = derived.len();
    derived.extend(recorded::plot(cx)?);
    let probes = Probes::load(cx)?;
    let assemblers = ensure_assemblers(cx, &probes)?;
    let mut by_hand = 0;
    for arch in &ARCHES {
        let probe = probes.probe.get(arch.name).with_context(|| format!("probes.toml has no {arch}"))?;
        let code = assemble(cx, &assemblers, arch, probe)?;
        derived.push((
            cx.paths.probes().join(arch.name).with_extension("elf"),
            wrap_in_elf(arch, probe.e_flags, &code),
        ));
        if let Some(reason) = &probe.unchecked {
            say(format_args!("{arch}: encoded by hand, not checked by an assembler: {reason}"));
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
        "{} probes ({by_hand} of them encoded by hand), tables of {tables} documents\n",
        ARCHES.len()
    ))
}

impl Probes {
    fn load(cx: &Context) -> Result<Self> {
        let path = cx.paths.probes().join("probes.toml");
        let text = fs::read_to_string(&path)?;
        Self::parse(&text, &cx.data.debian).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, debian: &Debian) -> Result<Self> {
        let probes: Self = toml::from_str(text)?;
        debian.suite(&probes.suite).map_err(Error::msg)?;
        Ok(probes)
    }
}

/// Unpacks the assemblers into the cache and returns their directory.
fn ensure_assemblers(cx: &Context, probes: &Probes) -> Result<PathBuf> {
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
    fetched.map_err(|error| Skip(format!("the assemblers from Debian are not available: {error:#}")))?;
    Ok(dir)
}

/// Assembles the source of a probe and returns its machine code.
fn assemble(cx: &Context, assemblers: &Path, arch: &Arch, probe: &Probe) -> Result<Vec<u8>> {
    let source = probe.source.clone().unwrap_or_else(|| format!("{}.s", arch.name));
    let source = cx.paths.probes().join(source);
    let [program, args @ ..] = &*probe.r#as else { bail!("probes.toml names no assembler for {arch}") };
    let temp = tempfile::tempdir()?;
    let (object, flat) = (temp.path().join("object"), temp.path().join("flat"));
    let bin = assemblers.join("usr/bin");
    let libraries =
        assemblers.join("usr/lib").join(Host::current().context("qus does not support this host")?.triple);
    let (assembler, objcopy) = (bin.join(program), bin.join(&probe.objcopy));
    let assembled = exec::read(
        cmd!(sh(), "{assembler} {args...} -o {object} {source}").env("LD_LIBRARY_PATH", &libraries),
    );
    assembled.with_context(|| format!("cannot assemble the probe of {arch}"))?;
    exec::read(
        cmd!(sh(), "{objcopy} -O binary -j .text {object} {flat}").env("LD_LIBRARY_PATH", &libraries),
    )?;
    fs::read(&flat).context("objcopy has written no file")
}

/// Wraps code in an ELF file with one segment, which also contains the headers.
fn wrap_in_elf(arch: &Arch, flags: u32, code: &[u8]) -> Vec<u8> {
    /// Above the lowest address that Linux lets a program map, and below the addresses of emulators.
    const BASE: u64 = 0x10_0000;
    /// The largest page size in use.
    const ALIGN: u64 = 0x1_0000;
    let mut load = Segment {
        kind: Segment::LOAD,
        flags: Segment::READ | Segment::EXECUTE,
        address: BASE,
        align: ALIGN,
        ..Segment::default()
    };
    let headers = ElfImage { segments: &[load], ..ElfImage::of(arch) }.headers_size();
    load.size = headers + code.len() as u64;
    ElfImage { flags, entry: BASE + headers, segments: &[load], content: code, ..ElfImage::of(arch) }.bytes()
}

#[cfg(test)]
mod tests {
    use qus_core::elf::{Class, Endian};

    use super::*;

    #[test]
    fn every_architecture_has_a_source() {
        let cx = &Context::new().unwrap();
        let probes = Probes::load(cx).unwrap();
        assert!(probes.probe.keys().map(String::as_str).eq(ARCHES.iter().map(|arch| arch.name)));
        for (name, probe) in &probes.probe {
            let source = probe.source.clone().unwrap_or_else(|| format!("{name}.s"));
            assert!(cx.paths.probes().join(source).is_file(), "{name}");
        }
    }

    #[test]
    fn an_unknown_suite_is_an_error() {
        let debian = &Context::new().unwrap().data.debian;
        let parse = |suite: &str| {
            Probes::parse(&format!("suite = '{suite}'\nlibraries = []\nprobe = {{}}"), debian).map(drop)
        };
        parse(&debian.suites[0].name).unwrap();
        assert!(parse("buster").unwrap_err().to_string().contains("unknown suite `buster`"));
    }

    #[test]
    fn probes_are_rebuilt_byte_for_byte() {
        for arch in &ARCHES {
            let probe = qus_core::probe::image(arch);
            let wide = arch.class == Class::Elf64;
            let (flags_at, headers) = if wide { (48, 64 + 56) } else { (36, 52 + 32) };
            let flags = probe[flags_at..flags_at + 4].try_into().unwrap();
            let flags = match arch.endian {
                Endian::Little => u32::from_le_bytes(flags),
                Endian::Big => u32::from_be_bytes(flags),
            };
            assert_eq!(wrap_in_elf(arch, flags, &probe[headers..]), probe, "{arch}");
        }
    }

    #[test]
    fn tables_are_up_to_date() {
        let cx = &Context::new().unwrap();
        let tables = readme::generate(cx).unwrap();
        for (path, bytes) in tables.into_iter().chain(recorded::plot(cx).unwrap()) {
            let current = fs::read(&path).unwrap() == bytes;
            assert!(current, "{} is out of date: run `cargo xtask codegen`", path.display());
        }
    }
}
