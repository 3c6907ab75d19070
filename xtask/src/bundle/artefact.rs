//! Verifies a built emulator.
//!
//! It must be a static program for its host (no dynamic loader, no shared libraries), contain no path of the build
//! machine, and run its probe.

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

/// Verifies an emulator's file; one error lists all findings.
pub(crate) fn verify(emulator: &Path, host: &Host, build_paths: &[impl AsRef<Path>]) -> Result<()> {
    let bytes = fs::read(emulator)?;
    let findings = inspect(&bytes, host, build_paths);
    ensure!(findings.is_empty(), "{} cannot be released: {}", emulator.display(), findings.join("; "));
    Ok(())
}

fn inspect(bytes: &[u8], host: &Host, build_paths: &[impl AsRef<Path>]) -> Vec<String> {
    let elf = match Elf::parse(bytes) {
        Ok(elf) => elf,
        Err(error) => return vec![error.to_string()],
    };
    let mut findings = Vec::new();
    if elf.arch() != Some(host.arch) {
        let is = elf.arch().map_or("an unknown architecture", |arch| arch.name);
        findings.push(format!("it is built for {is}, not for the host {host}"));
    }
    if matches!(elf.kind, ElfKind::Other(_)) {
        findings.push("it is not an executable".to_owned());
    }
    if let Some(loader) = &elf.interpreter {
        findings.push(format!("it requires the dynamic loader {}", loader.display()));
    }
    if elf.needed > 0 {
        findings.push(format!("it requires {} shared libraries", elf.needed));
    }
    for path in build_paths.iter().map(AsRef::as_ref) {
        // With a trailing slash, `/root` does not match `/rootfs`. An empty path and `/` disclose nothing.
        let dir = format!("{}/", path.display());
        if path.parent().is_some() && memmem::find(bytes, dir.as_bytes()).is_some() {
            findings.push(format!("it contains the build path {dir}"));
        }
    }
    findings
}

/// Runs the probe of an architecture under an emulator, which may itself run under another emulator.
///
/// # Errors
/// The output or the exit status differs from the expected one.
pub(crate) fn run_probe(runner: &Runner, emulator: &Path, arch: &Arch) -> Result<()> {
    // Nothing is left of it if this process is killed.
    let (path, _open) = probe::in_memory(arch).context("cannot prepare the probe")?;
    let runner = runner.words();
    let output = exec::output(cmd!(sh(), "timeout 60 {runner...} {emulator} {path}"))?;
    let line = String::from_utf8_lossy(&output.stdout);
    if line != probe::line(arch) || output.status.code() != Some(probe::STATUS) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("the probe of {arch} printed {line:?} and ended with {}: {}", output.status, stderr.trim());
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
    fn all_findings_are_reported() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let findings =
            inspect(&own, "s390x".parse().unwrap(), &[root, Path::new("/"), Path::new("")]).join("; ");
        for expected in
            ["not for the host s390x", "requires the dynamic loader /lib", "shared libraries", "build path"]
        {
            assert!(findings.contains(expected), "{expected} in {findings}");
        }
        assert_eq!(findings.matches("build path").count(), 1, "{findings}");
        assert_eq!(inspect(b"#!/bin/sh", amd64(), &[] as &[&Path]), ["not an ELF file"]);
    }

    #[test]
    fn a_static_program_has_no_findings() {
        let probe = probe::image("x86_64".parse().unwrap());
        assert_eq!(inspect(probe, amd64(), &[Path::new("/no/such/path")]), Vec::<String>::new());
    }

    #[test]
    fn an_emulator_that_does_not_run_its_probe_is_an_error() {
        let error = run_probe(&Runner::native(), Path::new("/bin/true"), "alpha".parse().unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the probe of alpha printed \"\" and ended with exit status: 0"), "{error}");
    }

    #[test]
    fn a_probe_has_no_file_that_could_be_left() {
        let error = run_probe(&Runner::native(), Path::new("/bin/echo"), "alpha".parse().unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("printed \"/proc/self/fd/"), "{error}");
    }
}
