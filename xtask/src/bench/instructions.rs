//! Counts the instructions that an emulator executes for a program, with callgrind. The count does not depend on the load
//! of the machine, so it shows changes of 1 %. It does not include caches, page faults and the kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::Host;
use qus_core::hint::WithHint;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::{Bar, say};
use crate::bench::results::{Count, Instructions};
use crate::bench::roots;
use crate::bench::session::BenchRoot;
use crate::bench::workloads::{EXIT, TRUE, WORKLOADS};
use crate::debian::distribution::Distribution;
use crate::debian::packages;

/// The valgrind program, and the directory of its tools if it is not installed.
pub(super) struct Valgrind {
    program: PathBuf,
    library: Option<PathBuf>,
}

impl Valgrind {
    /// Describes what must be downloaded before valgrind can be used.
    pub(super) fn missing_download(cx: &Context) -> Result<Option<String>> {
        let cached = Distribution::detect()?
            .is_some_and(|it| packages::program_dir(cx, &it, &cx.data.debian.packages.valgrind).exists());
        if cached || is_installed("valgrind") {
            return Ok(None);
        }
        Ok(Some("valgrind".to_owned()))
    }

    /// Finds the installed valgrind, or unpacks the distribution's package into the cache.
    ///
    /// # Errors
    /// Valgrind is neither installed nor available as a package.
    pub(super) fn find(cx: &Context) -> Result<Self> {
        if is_installed("valgrind") {
            return Ok(Self { program: "valgrind".into(), library: None });
        }
        let distribution = Distribution::detect()?.context("this machine has no apt");
        let dir = distribution
            .and_then(|distribution| {
                packages::ensure_program(cx, &distribution, &cx.data.debian.packages.valgrind)
            })
            .context("valgrind is not installed")
            .hint("install the distribution's package valgrind")?;
        let host = Host::current().context("qus does not support this host")?;
        // Distributions that use the first path keep only libraries in the second, so the order matters.
        let places = ["usr/libexec/valgrind".to_owned(), format!("usr/lib/{}/valgrind", host.triple)];
        let library = places.iter().map(|place| dir.join(place)).find(|place| place.exists());
        Ok(Self {
            program: dir.join("usr/bin/valgrind"),
            library: Some(library.context("the valgrind package contains no tools")?),
        })
    }

    /// Counts under each emulator for the two workloads that consist mostly of startup.
    pub(super) fn count(&self, bench_root: &BenchRoot, emulators: &[Option<PathBuf>]) -> Vec<Instructions> {
        let mut bar = Bar::new("counting instructions");
        let mut counted = Vec::new();
        for workload in WORKLOADS.iter().filter(|workload| [EXIT, TRUE].contains(&workload.name)) {
            let program = roots::host_path(bench_root, workload.argv[0]);
            let count = |emulator: &Option<PathBuf>| {
                let Some(emulator) = emulator else { return Count::Absent };
                self.count_one(emulator, &bench_root.root, &program).map_or_else(failed, Count::Counted)
            };
            let counts = emulators.iter().map(count).collect();
            counted.push(Instructions { name: workload.name.to_owned(), counts });
            bar.set(counted.len() as u64, 2);
        }
        bar.finish();
        counted
    }

    fn count_one(&self, emulator: &Path, root: &Path, program: &Path) -> Result<u64> {
        let valgrind = &self.program;
        // Code that the emulator generates at run time is not in a file and is overwritten.
        let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--smc-check=all-non-file"];
        let mut cmd = cmd!(sh(), "{valgrind} {options...} {emulator} -L {root} {program}");
        if let Some(library) = &self.library {
            cmd = cmd.env("VALGRIND_LIB", library);
        }
        let output = exec::output(cmd)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Lines without callgrind's prefix come from the emulator.
        let last = stderr.lines().rfind(|line| !line.starts_with("==")).unwrap_or_default();
        ensure!(output.status.success(), "{} under callgrind: {}: {last}", emulator.display(), output.status);
        collected(&stderr).with_context(|| format!("callgrind reported no instruction count: {last}"))
    }
}

fn failed(error: anyhow::Error) -> Count {
    say(format_args!("FAILED: {error:#}"));
    Count::Failed(format!("{error:#}"))
}

/// Parses the number in `==123== Collected : 4567`.
fn collected(stderr: &str) -> Option<u64> {
    stderr.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_total_is_read() {
        let stderr =
            "==7== Events    : Ir\n==7== Collected : 21123456\n==7== \n==7== I   refs:      21,123,456\n";
        assert_eq!(collected(stderr), Some(21_123_456));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
