//! The instructions that an emulator itself takes for a program, counted by callgrind. They are the same on a busy
//! machine and on an idle one, so that a change of a hundredth is seen; they say nothing of caches, of page faults, and
//! of what the kernel does.

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
use crate::bench::session::Place;
use crate::bench::workloads::{EXIT, TRUE, WORKLOADS};
use crate::debian::distribution::Distribution;
use crate::debian::packages;

/// The program, and where it finds its tools if it is not installed.
pub(super) struct Valgrind {
    program: PathBuf,
    library: Option<PathBuf>,
}

impl Valgrind {
    /// What has to be downloaded before it can be used.
    pub(super) fn lacks(cx: &Context) -> Result<Option<String>> {
        let cached = Distribution::detect()?
            .is_some_and(|it| packages::program_dir(cx, &it, &cx.data.debian.packages.valgrind).exists());
        if cached || is_installed("valgrind") {
            return Ok(None);
        }
        Ok(Some("valgrind".to_owned()))
    }

    /// The installed one, or that of the distribution's package, unpacked into the cache.
    ///
    /// # Errors
    /// Neither is to be had.
    pub(super) fn find(cx: &Context) -> Result<Self> {
        if is_installed("valgrind") {
            return Ok(Self { program: "valgrind".into(), library: None });
        }
        let distribution = Distribution::detect()?.context("this machine has no apt");
        let dir = distribution
            .and_then(|distribution| {
                packages::ensure_program(cx, &distribution, &cx.data.debian.packages.valgrind)
            })
            .context("valgrind, which counts instructions, is not installed")
            .hint("install the distribution's package valgrind")?;
        let host = Host::current().context("qus knows no such machine")?;
        // Where the tools lie in the first, the second holds libraries.
        let places = ["usr/libexec/valgrind".to_owned(), format!("usr/lib/{}/valgrind", host.triple)];
        let library = places.iter().map(|place| dir.join(place)).find(|place| place.exists());
        Ok(Self { program: dir.join("usr/bin/valgrind"), library: Some(library.context("it has no tools")?) })
    }

    /// Counts for both programs that tell most of a start, under each emulator.
    pub(super) fn count(&self, place: &Place, emulators: &[Option<PathBuf>]) -> Vec<Instructions> {
        let mut bar = Bar::new("counting instructions");
        let mut counted = Vec::new();
        for workload in WORKLOADS.iter().filter(|workload| [EXIT, TRUE].contains(&workload.name)) {
            let program = roots::outside(place, workload.argv[0]);
            let count = |emulator: &Option<PathBuf>| {
                let Some(emulator) = emulator else { return Count::Absent };
                self.one(emulator, &place.root, &program).map_or_else(failed, Count::Counted)
            };
            let counts = emulators.iter().map(count).collect();
            counted.push(Instructions { name: workload.name.to_owned(), counts });
            bar.set(counted.len() as u64, 2);
        }
        bar.finish();
        counted
    }

    fn one(&self, emulator: &Path, root: &Path, program: &Path) -> Result<u64> {
        let valgrind = &self.program;
        // What is translated at run time is not part of a file, and is written over.
        let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--smc-check=all-non-file"];
        let mut cmd = cmd!(sh(), "{valgrind} {options...} {emulator} -L {root} {program}");
        if let Some(library) = &self.library {
            cmd = cmd.env("VALGRIND_LIB", library);
        }
        let output = exec::output(cmd)?;
        let said = String::from_utf8_lossy(&output.stderr);
        // What is not callgrind's is the emulator's.
        let last = said.lines().rfind(|line| !line.starts_with("==")).unwrap_or_default();
        ensure!(output.status.success(), "{} under callgrind: {}: {last}", emulator.display(), output.status);
        collected(&said).with_context(|| format!("callgrind has counted nothing: {last}"))
    }
}

fn failed(error: anyhow::Error) -> Count {
    say(format_args!("FAILED: {error:#}"));
    Count::Failed(format!("{error:#}"))
}

/// The number in `==123== Collected : 4567`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_total_is_read() {
        let said =
            "==7== Events    : Ir\n==7== Collected : 21123456\n==7== \n==7== I   refs:      21,123,456\n";
        assert_eq!(collected(said), Some(21_123_456));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
