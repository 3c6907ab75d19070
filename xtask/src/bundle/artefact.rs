//! Looks at a finished emulator instead of trusting the exit status of what made it.
//!
//! It has to be a program for its host, run by itself (no loader, no library), tell nothing of the
//! machine it was built on, and run its probe.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use memchr::memmem;
use qus_core::arch::{Arch, Host};
use qus_core::elf::{Elf, ElfKind};
use qus_core::probe;
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::bundle::runner::Runner;

/// Checks an emulator's file; all findings go into one error.
pub(crate) fn verify(emulator: &Path, host: &Host, build_paths: &[impl AsRef<Path>]) -> Result<()> {
    let bytes = fs::read(emulator)?;
    let findings = inspect(&bytes, host, build_paths);
    ensure!(findings.is_empty(), "{} is not fit to be shipped: {}", emulator.display(), findings.join("; "));
    Ok(())
}

fn inspect(bytes: &[u8], host: &Host, build_paths: &[impl AsRef<Path>]) -> Vec<String> {
    let elf = match Elf::parse(bytes) {
        Ok(elf) => elf,
        Err(error) => return vec![error.to_string()],
    };
    let mut findings = Vec::new();
    if elf.arch() != Some(host.arch) {
        let is = elf.arch().map_or("another machine", |arch| arch.name);
        findings.push(format!("it is for {is}, not for the host {host}"));
    }
    if matches!(elf.kind, ElfKind::Other(_)) {
        findings.push("it is not a program".to_owned());
    }
    if let Some(loader) = &elf.interpreter {
        findings.push(format!("it asks for the loader {}", loader.display()));
    }
    if elf.needed > 0 {
        findings.push(format!("it needs {} shared libraries", elf.needed));
    }
    for path in build_paths.iter().map(AsRef::as_ref) {
        // As a folder: a home of `/root` is not told by `/rootfs`. An empty path and `/` tell nothing.
        let folder = format!("{}/", path.display());
        if path.parent().is_some() && memmem::find(bytes, folder.as_bytes()).is_some() {
            findings.push(format!("the build path {folder} is in it"));
        }
    }
    findings
}

/// Runs the probe of an architecture under an emulator, which may take one itself.
///
/// # Errors
/// Says how line or status differ from what they should be.
pub(crate) fn run_probe(runner: &Runner, emulator: &Path, arch: &Arch) -> Result<()> {
    // An emulator, like the kernel, runs only what may be executed.
    let executable = Permissions::from_mode(0o700);
    let file =
        tempfile::Builder::new().permissions(executable).tempfile().context("cannot write the probe")?;
    fs::write(&file, probe::image(arch)).context("cannot write the probe")?;
    let (runner, path) = (runner.words(), file.path());
    let output = exec::output(cmd!(sh(), "timeout 60 {runner...} {emulator} {path}"))?;
    let line = String::from_utf8_lossy(&output.stdout);
    if line != probe::line(arch) || output.status.code() != Some(probe::STATUS) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("the probe of {arch} wrote {line:?} and ended with {}: {}", output.status, stderr.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd64() -> &'static Host {
        "amd64".parse().unwrap()
    }

    #[test]
    fn findings_are_gathered() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let findings =
            inspect(&own, "s390x".parse().unwrap(), &[root, Path::new("/"), Path::new("")]).join("; ");
        for expected in
            ["not for the host s390x", "asks for the loader /lib", "shared libraries", "build path"]
        {
            assert!(findings.contains(expected), "{expected} in {findings}");
        }
        assert_eq!(findings.matches("build path").count(), 1, "{findings}");
        assert_eq!(inspect(b"#!/bin/sh", amd64(), &[] as &[&Path]), ["not an ELF file"]);
    }

    #[test]
    fn a_static_program_is_fit() {
        let probe = probe::image("x86_64".parse().unwrap());
        assert_eq!(inspect(probe, amd64(), &[Path::new("/no/such/path")]), Vec::<String>::new());
    }

    #[test]
    fn an_emulator_that_runs_nothing_is_found_out() {
        let error = run_probe(&Runner::native(), Path::new("/bin/true"), "alpha".parse().unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the probe of alpha wrote \"\" and ended with exit status: 0"), "{error}");
    }
}
