//! Rust for a host: the target, its standard library, and cargo's options.
//!
//! A standard library that is not there is added by rustup. Of hosts that rustup has none for, it is built from the
//! source that rustup has, by cargo's `build-std`; the compiler takes the option from those only that ask for what
//! is not stable, so it is asked with `RUSTC_BOOTSTRAP`, for this build alone. Where rustup cannot do either, or is not
//! there, compiler and library are Debian's, unpacked into the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qemu_src::{CrossHosts, RustPackages};
use qus_core::arch::Host;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::say;
use crate::base::{cache, files};
use crate::bundle::hosts;
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::updates::Updates;
use crate::qemu::sysroot::Sysroot;

/// What builds for a host.
pub(crate) struct Rust {
    pub(crate) triple: String,
    /// Linker and its options, as options of rustc.
    flags: Vec<String>,
    /// Has the linker found; `None` where it is this machine's own.
    sysroot: Option<Sysroot>,
    library: Library,
}

/// Where the standard library comes from.
enum Library {
    /// It lies beside the compiler.
    There,
    /// It is built too.
    FromSource,
    /// From a distribution, with its compiler, unpacked into this folder.
    Packages(PathBuf),
}

impl Rust {
    /// Looks for everything, and fetches what is missing.
    pub(crate) fn ensure(cx: &Context, host: &'static Host) -> Result<Self> {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        if host == hosts::own()? {
            let version = exec::read(cmd!(sh(), "rustc -vV"))?;
            let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
            let triple = triple.context("rustc names no host")?.to_owned();
            return Ok(Self { triple, flags, sysroot: None, library: Library::There });
        }
        let spec = cx.data.hosts.get(host).with_context(|| format!("hosts.toml has no {host}"))?;
        let sysroot = Sysroot::ensure(cx, host, Updates::Wanted)?;
        let (linker, options) = sysroot.cc();
        flags.push(format!("-Clinker={linker}"));
        flags.extend(options.iter().chain(sysroot.link()).map(|option| format!("-Clink-arg={option}")));
        let triple = spec.rust.clone();
        let library = match by_rustup(&triple) {
            Ok(library) => library,
            Err(error) => packages(cx, host).with_context(|| format!("{error:#}; nor by packages"))?,
        };
        Ok(Self { triple, flags, sysroot: Some(sysroot), library })
    }

    /// Has cargo build for the host, with further options of rustc.
    pub(crate) fn enter<'a>(&self, cargo: Cmd<'a>, flags: &[String]) -> Cmd<'a> {
        // With a target named, cargo keeps these flags from build scripts and macros, which cannot be static.
        let flags = [&self.flags[..], flags].concat();
        let mut cargo =
            cargo.args(["--target", &self.triple]).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        if let Library::FromSource = self.library {
            cargo = cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        }
        let Some(sysroot) = &self.sysroot else { return cargo };
        match &self.library {
            Library::Packages(dir) => {
                sysroot.add_programs_of(cargo, Some(dir)).env("RUSTC", dir.join("usr/bin/rustc"))
            }
            _ => sysroot.add_programs(cargo),
        }
    }
}

/// The standard library for a target, if it is there, or rustup has it or its source.
fn by_rustup(triple: &str) -> Result<Library> {
    let there = exec::read(cmd!(sh(), "rustc --print target-libdir --target {triple}"));
    if there.is_ok_and(|dir| Path::new(&dir).is_dir()) {
        return Ok(Library::There);
    }
    ensure!(is_installed("rustup"), "Rust's standard library for {triple} is not there, and no rustup");
    say(format_args!("rustup target add {triple} …"));
    let Err(error) = exec::read(cmd!(sh(), "rustup target add {triple}")) else { return Ok(Library::There) };
    say(format_args!("rustup has no standard library for {triple}; building it, from rustup's rust-src …"));
    exec::read(cmd!(sh(), "rustup component add rust-src")).with_context(|| {
        format!("rustup has neither a standard library for {triple} nor its source: {error}")
    })?;
    Ok(Library::FromSource)
}

/// Compiler and standard library of the distribution, fetched now if they are not there.
fn packages(cx: &Context, host: &Host) -> Result<Library> {
    let distribution = Distribution::detect()?.context("this machine has no apt")?;
    let dir = cx.paths.rust(&format!("{}-{}-{host}", distribution.id, distribution.codename));
    cache::ensure(&dir, |partial| {
        let log = cx.start_log(&format!("rust-{host}"))?;
        say(format_args!("fetching the distribution's Rust for {host} (nothing is installed) …"));
        let architectures = [hosts::own()?.debian, host.debian];
        let apt = Apt::released(&cx.paths.apt(&format!("rust-{host}")), &log, &distribution, &architectures)?;
        first_available(&cx.data.hosts, |wanted| {
            files::clear(partial)?;
            apt.unpack_all(&[&wanted.compiler], partial)?;
            apt.unpack(&[format!("{}:{}", wanted.library, host.debian)], partial).map(drop)
        })
    })?;
    Ok(Library::Packages(dir))
}

/// Fetches the first packages of Rust in `hosts.toml` that can be fetched.
///
/// # Errors
/// That of the first packages, if none can.
pub(crate) fn first_available(hosts: &CrossHosts, fetch: impl Fn(&RustPackages) -> Result<()>) -> Result<()> {
    let mut fetched = hosts.rust.iter().map(fetch);
    let first = fetched.next().context("hosts.toml names no packages of Rust")?;
    first.or_else(|error| fetched.find_map(Result::ok).ok_or(error))
}
