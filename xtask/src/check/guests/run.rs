//! Runs the cells of a guest under an emulator.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::{Cell, CellOutcome, CellRun, Guest, GuestRun, Port};
use qus_core::arch::Arch;
use qus_core::digest::Sha256;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::files::{self, Scratch};
use crate::base::lock::{self, Lock};
use crate::base::progress::{Bar, say};
use crate::bench::emulators::Emulators;
use crate::bundle::hosts;
use crate::debian::distribution::Distribution;
use crate::debian::packages;

/// The first cell, which makes the root filesystem.
const ROOT: &str = "debootstrap";

/// Its time limit in seconds.
const ROOT_SECONDS: u32 = 1800;

/// Runs a cell's script in a copy of the root filesystem.
const CELL: &str = include_str!("cell.sh");

/// The exit status of a cell that cannot run.
const SKIPPED: i32 = 77;

/// How many lines of a cell's output are kept.
const LAST_LINES: usize = 12;

/// What cells run in.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// Debian's name of the guest or port.
    pub(super) name: &'a str,
    /// The target that emulates it.
    pub(super) target: &'static Arch,
    /// The architecture of the root filesystem.
    pub(super) root: &'a Guest,
    /// The suite of the root filesystem.
    pub(super) suite: &'a str,
    /// The port, whose programs are compiled in a root filesystem of this machine's architecture.
    pub(super) port: Option<&'a Port>,
}

/// Runs cells of one guest under one emulator.
pub(super) struct Runner<'a> {
    cx: &'a Context,
    subject: Subject<'a>,
    emulators: &'a Emulators,
    resume: bool,
    /// QEMU's source, if a cell has files of it.
    source: Option<&'a Path>,
    /// Identifies the emulator and the guest's suite.
    key: String,
}

impl<'a> Runner<'a> {
    /// Returns `None` if there is no emulator for the guest.
    pub(super) fn new(
        cx: &'a Context,
        subject: Subject<'a>,
        emulators: &'a Emulators,
        source: Option<&'a Path>,
        resume: bool,
    ) -> Result<Option<Self>> {
        let Some(emulator) = emulators.find(subject.target)? else { return Ok(None) };
        let Subject { name, suite, .. } = subject;
        let key = files::short_id(format!("{}\n{suite}\n{name}", files::sha256(&emulator)?));
        Ok(Some(Self { cx, subject, emulators, resume, source, key }))
    }

    pub(super) fn run(&self, cells: &[&Cell]) -> Result<GuestRun> {
        let mut run = GuestRun {
            guest: self.subject.name.to_owned(),
            suite: self.subject.suite.to_owned(),
            emulator: self.emulators.label.clone(),
            cells: Vec::new(),
        };
        let _lock = self.lock()?;
        let made = self.root(self.resume)?;
        let has_root = made.outcome == CellOutcome::Passed;
        run.cells.push(made);
        if has_root {
            for cell in cells.iter().filter(|cell| cell.ports || self.subject.port.is_none()) {
                run.cells
                    .push(self.cached(&cell.name, &self.inputs(cell)?, self.resume, || self.cell(cell))?);
            }
        }
        Ok(run)
    }

    /// All that the outcome of a cell depends on.
    fn inputs(&self, cell: &Cell) -> Result<String> {
        let packages = self.packages(cell).join(" ");
        let mut inputs = format!("{}\n{packages}\n{CELL}\n{}", self.key, files::sha256(&self.script(cell))?);
        if cell.qemu_files.is_some() {
            // The directory's name has a hash of the source and the patches.
            let name = self.source.and_then(Path::file_name).unwrap_or_default();
            inputs += &format!("\n{}", name.to_string_lossy());
        } else if let Some(dir) = self.files(cell) {
            let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
            let mut paths = paths.collect::<Result<Vec<_>>>()?;
            paths.sort();
            for path in paths {
                inputs += &format!("\n{} {}", path.display(), files::sha256(&path)?);
            }
        }
        Ok(inputs)
    }

    /// The packages that a cell needs, with the compiler of a port in place of the guest's.
    fn packages<'b>(&'b self, cell: &'b Cell) -> Vec<&'b str> {
        let is_compiler = |package: &&str| ["gcc", "libc6-dev"].contains(package);
        let packages = cell.packages.iter().map(String::as_str);
        match self.subject.port {
            Some(port) => packages
                .filter(|package| !is_compiler(package))
                .chain(port.packages.iter().map(String::as_str))
                .collect(),
            None => packages.collect(),
        }
    }

    /// The compiler for a cell's programs.
    fn compiler(&self) -> String {
        match self.subject.port {
            Some(port) => format!("{}-gcc -static", port.target.triples[0]),
            None => "gcc".to_owned(),
        }
    }

    /// The directory whose files a cell gets.
    fn files(&self, cell: &Cell) -> Option<PathBuf> {
        let of_repository = cell.files.as_ref().map(|dir| self.cx.paths.root().join(dir));
        of_repository.or_else(|| Some(self.source?.join(cell.qemu_files.as_ref()?)))
    }

    /// Locks the root filesystem, which another clone of the repository may use.
    pub(super) fn lock(&self) -> Result<Lock> {
        lock::lock_entry(&self.root_dir())
    }

    /// Runs the first cell, which makes the root filesystem, or with `resume` takes one that is there.
    pub(super) fn root(&self, resume: bool) -> Result<CellRun> {
        self.cached(ROOT, &self.key, resume && self.root_dir().exists(), || self.make_root(&self.root_dir()))
    }

    fn root_dir(&self) -> PathBuf {
        self.cx.paths.rootfs(&format!("guest-{}-{}", self.subject.name, self.key))
    }

    fn script(&self, cell: &Cell) -> PathBuf {
        self.cx.paths.root().join("xtask/src/check/guests/cells").join(&cell.name).with_extension("sh")
    }

    /// Runs a cell, or with `resume` takes its outcome from an earlier run, in which it did not fail.
    fn cached(
        &self,
        name: &str,
        key: &str,
        resume: bool,
        run: impl FnOnce() -> Result<CellOutcome>,
    ) -> Result<CellRun> {
        let file = self.cx.paths.cell(&Sha256::of(format!("{name}\n{key}").as_bytes()));
        if resume && file.exists() {
            let earlier: CellRun =
                serde_json::from_slice(&fs::read(&file)?).with_context(|| file.display().to_string())?;
            if !matches!(earlier.outcome, CellOutcome::Failed(_)) {
                return Ok(earlier);
            }
        }
        let start = Instant::now();
        let bar = Bar::new(format!("{name} in {} under {}", self.subject.name, self.emulators.label));
        let outcome = run()?;
        drop(bar);
        let done = CellRun { name: name.to_owned(), outcome, seconds: start.elapsed().as_secs() };
        let why = done.outcome.why().map(|why| format!(": {why}")).unwrap_or_default();
        let word = done.outcome.word();
        say(format_args!("{word:<7}  {}  {name}, {} s{why}", self.subject.name, done.seconds));
        files::write(&file, &serde_json::to_vec(&done)?)?;
        Ok(done)
    }

    fn make_root(&self, root: &Path) -> Result<CellOutcome> {
        let distribution =
            Distribution::detect()?.ok_or_else(|| Skip("this machine has no apt".to_owned()))?;
        let debootstrap =
            packages::ensure_program(self.cx, &distribution, &self.cx.data.debian.packages.rootless)?;
        let (partial, mirror) = (files::partial(root), distribution.mirror()?);
        for dir in [root, &partial] {
            // Files of other users are only in the way of ordinary users.
            files::remove_dir(dir)?;
        }
        let Subject { root: guest, suite, .. } = self.subject;
        let outcome = self.enter(
            ROOT_SECONDS,
            include_str!("root.sh"),
            &[
                debootstrap.as_os_str(),
                guest.debian.as_ref(),
                suite.as_ref(),
                partial.as_os_str(),
                mirror.as_ref(),
                guest.machine.as_ref(),
            ],
        )?;
        if outcome == CellOutcome::Passed {
            files::rename(&partial, root)?;
        }
        Ok(outcome)
    }

    /// Runs a cell in a copy of the root filesystem.
    pub(super) fn cell(&self, cell: &Cell) -> Result<CellOutcome> {
        let (root, script) = (self.root_dir(), self.script(cell));
        // On a disk, where most programs work, and whose directories have other positions than those of a tmpfs.
        let work = Scratch::new(files::with_suffix(&root, "cell"))?;
        // One for each guest, because apt locks it.
        let archives = self.cx.paths.guest_archives().join(self.subject.name);
        fs::create_dir_all(archives.join("partial"))?;
        let files = self.files(cell).unwrap_or_default();
        let compiler = self.compiler();
        let paths = [&*root, work.path(), &archives, &script, &files].map(Path::as_os_str);
        let names = [self.subject.target.name, &*compiler].into_iter().chain(self.packages(cell));
        let arguments: Vec<_> = paths.into_iter().chain(names.map(AsRef::as_ref)).collect();
        let outcome = self.enter(cell.seconds, CELL, &arguments)?;
        Ok(match (outcome, cell.known.get(self.subject.name)) {
            (CellOutcome::Failed(_), Some(why)) => CellOutcome::Known(why.clone()),
            (outcome, _) => outcome,
        })
    }

    /// Runs a script of this machine where the emulator is the only handler. All of its processes end with it.
    fn enter(&self, seconds: u32, script: &str, arguments: &[&std::ffi::OsStr]) -> Result<CellOutcome> {
        let qus = self.cx.paths.bundle(hosts::own()?).join("qus");
        let (dir, arch, seconds) = (&self.emulators.dir.dir, self.subject.target.name, seconds.to_string());
        let run = cmd!(
            sh(),
            "{qus} run --dir {dir} --map-root --force {arch} -- timeout --signal=KILL {seconds}
                unshare --mount --pid --fork --kill-child --mount-proc sh -c {script} sh {arguments...}"
        );
        let output = exec::output(run)?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Ok(match output.status.code() {
            Some(0) => CellOutcome::Passed,
            Some(SKIPPED) => CellOutcome::Skipped(text.lines().last().unwrap_or_default().to_owned()),
            Some(137) | None => {
                CellOutcome::Failed(format!("no end after {seconds} s; {}", last_lines(&text)))
            }
            Some(status) => CellOutcome::Failed(format!("exit status {status}; {}", last_lines(&text))),
        })
    }
}

/// The end of an output in one line.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output() {
        assert_eq!(last_lines("a\n\n b\n"), "a;  b");
        let many: String = (0..30).map(|n| format!("{n}\n")).collect();
        assert!(last_lines(&many).starts_with("18; ") && last_lines(&many).ends_with("; 29"));
    }
}
