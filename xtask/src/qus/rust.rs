//! Rust for a host: the target, its standard library, and cargo's options.
//!
//! rustup installs a missing standard library. For targets without a prebuilt one, cargo's `build-std` builds it from
//! rustup's `rust-src`; the option is unstable, so `RUSTC_BOOTSTRAP` is set for this build. If rustup is not installed
//! or can do neither, the compiler and library come from Debian's packages, unpacked into the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qemu_src::{CrossHosts, RustPackages};
use qus_core::arch::Host;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::{Bar, say};
use crate::base::{cache, files};
use crate::bundle::hosts;
use crate::bundle::licences::{LinkedPackage, OF_COMPILER, Part, copy_common};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::versions::Versions;
use crate::qemu;
use crate::qemu::sysroot::Sysroot;
use crate::qus::licences;

/// A Rust toolchain for a host.
pub(crate) struct Rust {
    pub(crate) triple: String,
    /// The linker and its options, as options of rustc.
    flags: Vec<String>,
    /// Provides the linker; `None` for this machine's own.
    sysroot: Option<Sysroot>,
    library: Library,
}

/// Where the standard library comes from.
enum Library {
    /// It is installed with the compiler.
    Installed,
    /// It is built from source.
    FromSource,
    /// A distribution's package, unpacked with its compiler into this directory.
    Packages(PathBuf),
}

impl Rust {
    /// Finds the toolchain, and fetches missing parts.
    pub(crate) fn ensure(cx: &Context, host: &'static Host, versions: Versions<'_>) -> Result<Self> {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        if host == hosts::own()? {
            let version = exec::read(cmd!(sh(), "rustc -vV"))?;
            let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
            let triple = triple.context("rustc reports no host")?.to_owned();
            return Ok(Self { triple, flags, sysroot: None, library: Library::Installed });
        }
        let spec = cx.data.hosts.get(host).with_context(|| format!("hosts.toml has no {host}"))?;
        let sysroot = Sysroot::ensure(cx, host, versions)?;
        let (linker, options) = sysroot.cc();
        flags.push(format!("-Clinker={linker}"));
        flags.extend(options.iter().chain(sysroot.link()).map(|option| format!("-Clink-arg={option}")));
        let triple = spec.rust.clone();
        let library = match library_from_rustup(&triple) {
            Ok(library) => library,
            Err(error) => library_from_packages(cx, host)
                .with_context(|| format!("{error:#}; and the packages cannot be used"))?,
        };
        Ok(Self { triple, flags, sysroot: Some(sysroot), library })
    }

    /// Makes cargo build for the host, with additional options of rustc.
    pub(crate) fn enter<'a>(&self, cargo: Cmd<'a>, flags: &[String]) -> Cmd<'a> {
        // With --target, cargo does not apply these flags to build scripts and macros, which cannot be static.
        let flags = [&self.flags[..], flags].concat();
        let mut cargo =
            cargo.args(["--target", &self.triple]).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        if let Library::FromSource = self.library {
            cargo = cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        }
        let Some(sysroot) = &self.sysroot else { return cargo };
        match &self.library {
            Library::Packages(dir) => {
                sysroot.add_programs_with(cargo, Some(dir)).env("RUSTC", dir.join("usr/bin/rustc"))
            }
            _ => sysroot.add_programs(cargo),
        }
    }
}

impl Rust {
    /// Writes the licences of Rust's library and of the C library, and returns these.
    pub(crate) fn write_licences(&self, distribution: &str, into: &Path) -> Result<Vec<Part>> {
        let (rustc, root) = match &self.library {
            Library::Packages(dir) => (dir.join("usr/bin/rustc"), Some(dir.join("usr"))),
            _ => (PathBuf::from("rustc"), None),
        };
        let version = exec::read(cmd!(sh(), "{rustc} --version"))?;
        let version = version.split(' ').nth(1).context("rustc reports no version")?;
        let root = match root {
            Some(root) => root,
            None => PathBuf::from(exec::read(cmd!(sh(), "rustc --print sysroot"))?),
        };
        let mut parts = vec![licences::write_of_rust(&root, version, into)?];
        for package in self.c_library()? {
            parts.push(package.copy(distribution, into)?);
        }
        copy_common(into)?;
        Ok(parts)
    }

    /// The packages of the C library and the compiler's own.
    fn c_library(&self) -> Result<Vec<LinkedPackage>> {
        match &self.sysroot {
            Some(sysroot) => qemu::licences::of_compiler(sysroot),
            None => {
                let of = |library: &str| {
                    let file = exec::read(cmd!(sh(), "cc -print-file-name={library}"))?;
                    LinkedPackage::of_file(Path::new(&file))
                };
                OF_COMPILER.into_iter().map(of).collect()
            }
        }
    }
}

/// The standard library for a target: installed, or from rustup, prebuilt or as source.
fn library_from_rustup(triple: &str) -> Result<Library> {
    let libdir = exec::read(cmd!(sh(), "rustc --print target-libdir --target {triple}"));
    if libdir.is_ok_and(|dir| Path::new(&dir).is_dir()) {
        return Ok(Library::Installed);
    }
    ensure!(
        is_installed("rustup"),
        "Rust's standard library for {triple} is not installed, and neither is rustup"
    );
    let bar = Bar::new(format!("rustup target add {triple}"));
    let Err(error) = exec::read(cmd!(sh(), "rustup target add {triple}")) else {
        return Ok(Library::Installed);
    };
    drop(bar);
    say(format_args!("rustup has no standard library for {triple}; it is built from rust-src"));
    let _bar = Bar::new("rustup component add rust-src");
    exec::read(cmd!(sh(), "rustup component add rust-src")).with_context(|| {
        format!("rustup has neither a standard library for {triple} nor its source: {error}")
    })?;
    Ok(Library::FromSource)
}

/// The distribution's compiler and standard library, fetched if they are not in the cache.
fn library_from_packages(cx: &Context, host: &Host) -> Result<Library> {
    let distribution = Distribution::detect()?.context("this machine has no apt")?;
    let dir = cx.paths.rust(&format!("{}-{}-{host}", distribution.id, distribution.codename));
    cache::ensure(&dir, |partial| {
        let log = cx.start_log(&format!("rust-{host}"))?;
        say(format_args!("fetching the distribution's Rust for {host} (nothing is installed) …"));
        let architectures = [hosts::own()?.debian, host.debian];
        let apt = Apt::released(&cx.paths.apt(&format!("rust-{host}")), &log, &distribution, &architectures)?;
        first_available(&cx.data.hosts, |wanted| {
            files::recreate_dir(partial)?;
            apt.unpack_all(&[&wanted.compiler], partial)?;
            apt.unpack(&[format!("{}:{}", wanted.library, host.debian)], partial).map(drop)
        })
    })?;
    Ok(Library::Packages(dir))
}

/// Fetches the first available Rust packages of those in `hosts.toml`.
///
/// # Errors
/// The error of the first packages, if none are available.
pub(crate) fn first_available(hosts: &CrossHosts, fetch: impl Fn(&RustPackages) -> Result<()>) -> Result<()> {
    let mut fetched = hosts.rust.iter().map(fetch);
    let first = fetched.next().context("hosts.toml lists no packages of Rust")?;
    first.or_else(|error| fetched.find_map(Result::ok).ok_or(error))
}
