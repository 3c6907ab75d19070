//! Configures the build folder, lets ninja make the missing emulators, strips and verifies them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::arch::{ARCHES, Arch};
use qus_core::bundle::Recipe;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::files;
use crate::base::progress::{Bar, say};
use crate::bundle::artefact;
use crate::bundle::runner::Runner;
use crate::qemu::request::Request;
use crate::qemu::sysroot::Sysroot;

/// What a build is for.
#[derive(Clone, Copy)]
pub(crate) enum Phase<'a> {
    /// Emulators, without a profile.
    Plain,
    /// Emulators that count what they do in this folder.
    Training(&'a Path),
    /// Emulators, by the counts in this folder.
    Trained(&'a Path),
}

/// One build folder and all that it is made from.
#[derive(Clone, Copy)]
pub(crate) struct Compile<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) recipe: &'a Recipe,
    pub(crate) tree: &'a Path,
    pub(crate) sysroot: &'a Sysroot,
    pub(crate) runner: &'a Runner,
    pub(crate) request: &'a Request<'a>,
    pub(crate) phase: Phase<'a>,
}

impl<'a> Compile<'a> {
    /// The same for something else.
    pub(crate) fn in_phase<'b>(&self, phase: Phase<'b>) -> Compile<'b>
    where
        'a: 'b,
    {
        Compile { phase, ..*self }
    }

    /// Builds emulators that nobody gets, and returns where they are.
    pub(crate) fn build(&self, targets: &[&'static Arch]) -> Result<PathBuf> {
        let dir = self.dir();
        self.configure(&dir)?;
        self.make(&dir, targets)?;
        Ok(dir)
    }

    fn dir(&self) -> PathBuf {
        let suffix = match self.phase {
            Phase::Training(_) => "-training",
            Phase::Plain | Phase::Trained(_) => "",
        };
        self.cx.paths.build_dir(self.recipe.host, &self.recipe.qemu, self.request.profile, suffix)
    }

    /// Arguments of configure for what the build is for. Counts are found by the names of objects in the build
    /// folder, wherever that is.
    fn phase_flags(&self, dir: &Path) -> Vec<String> {
        let compiler = |what: &str, counts: &Path| {
            format!(
                "--extra-cflags=-fprofile-{what}={} -fprofile-prefix-path={}",
                counts.display(),
                dir.display()
            )
        };
        match self.phase {
            Phase::Plain => vec![],
            // With gcov, QEMU writes its counts where it ends without going through exit().
            Phase::Training(counts) => vec![
                "--enable-gcov".to_owned(),
                compiler("generate", counts),
                "--extra-ldflags=-fprofile-generate".to_owned(),
            ],
            // Threads count without locks, and what was compiled for gcov differs by a call.
            Phase::Trained(counts) => vec![
                compiler("use", counts),
                "--extra-cflags=-fprofile-correction -Wno-missing-profile -Wno-error=coverage-mismatch"
                    .to_owned(),
            ],
        }
    }

    /// Builds emulators and hands each to `keep` when it is stripped and verified. Returns the compiler
    /// seconds that went into each target's own files, by its name, and under `""` into what they share.
    pub(crate) fn run(
        &self,
        targets: &[&'static Arch],
        keep: impl Fn(&'static Arch, &Path) -> Result<()>,
    ) -> Result<BTreeMap<String, f64>> {
        let dir = self.build(targets)?;
        for &arch in targets {
            let stripped = self.strip(&dir.join(arch.emulator()))?;
            self.verify(&stripped)?;
            artefact::run_probe(self.runner, &stripped, arch)?;
            keep(arch, &stripped)?;
        }
        let log = fs::read_to_string(dir.join(".ninja_log")).context("ninja has left no log")?;
        Ok(seconds_by_target(&log))
    }

    /// Runs configure, unless this folder was configured for the same recipe.
    fn configure(&self, dir: &Path) -> Result<()> {
        let stamp = dir.join("qus-recipe.json");
        let launcher = self.cx.settings.compiler_cache.as_ref().map(|cache| &*cache.program);
        let recipe = serde_json::to_vec_pretty(&(self.recipe, self.tree, &launcher))?;
        if fs::read(&stamp).is_ok_and(|old| old == recipe) {
            return Ok(());
        }
        files::remove(dir)?;
        fs::create_dir_all(dir)?;
        say(format_args!("configuring QEMU {} …", self.recipe.qemu));
        let log = self.cx.start_log("configure")?;
        let configure = self.tree.join("configure");
        let flags = &self.recipe.flags;
        let (cc, options) = self.sysroot.cc();
        let cc =
            launcher.map(str::to_owned).into_iter().chain([cc]).chain(options).collect::<Vec<_>>().join(" ");
        let native = self.cx.settings.cc();
        // The tools' names come from the environment, so that no prefix is told but that there is one.
        let cross = if self.sysroot.is_cross() {
            vec!["--cross-prefix=".into(), format!("--host-cc={native}")]
        } else {
            vec![]
        };
        let python = exec::read(cmd!(sh(), "python3 -c 'import sys; print(sys.executable)'"))?;
        let maps = self.prefix_maps(dir);
        let phase = self.phase_flags(dir);
        exec::run(
            self.enter(cmd!(
                sh(),
                "{configure} {flags...} {cross...} --cc={cc} --python={python} --extra-cflags={maps} {phase...}"
            ))
            .in_dir(dir),
            &log,
            |_| {},
        )?;
        files::write(&stamp, &recipe)
    }

    /// Gives a command the dependencies, and a cache of what was compiled what it needs to take two clones for one.
    fn enter<'b>(&self, cmd: Cmd<'b>) -> Cmd<'b> {
        // Compiled beside its source, Python would change what has checksums, and believe what lies there.
        let cmd = self.sysroot.enter(cmd).env("PYTHONPYCACHEPREFIX", self.cx.paths.out().join("pycache"));
        let Some(cache) = &self.cx.settings.compiler_cache else { return cmd };
        let cmd = cache.variables.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
        // No place of this machine ends up in what is compiled: `prefix_maps`.
        cmd.env("CCACHE_BASEDIR", self.cx.paths.out())
            .env("CCACHE_NOHASHDIR", "1")
            .env("CCACHE_IGNOREOPTIONS", "-ffile-prefix-map=*")
    }

    /// Compiler options that keep the places of tree and build folder out of the emulators.
    fn prefix_maps(&self, dir: &Path) -> String {
        let name = format!("qemu-{}", self.recipe.qemu);
        let up = Path::new("../../src").join(self.tree.file_name().unwrap_or_default());
        format!(
            "-ffile-prefix-map={}={name} -ffile-prefix-map={}={name} -ffile-prefix-map={}=build",
            self.tree.display(),
            up.display(),
            dir.display(),
        )
    }

    fn make(&self, dir: &Path, targets: &[&Arch]) -> Result<()> {
        let log = self.cx.start_log("ninja")?;
        let names: Vec<_> = targets.iter().map(|arch| arch.emulator()).collect();
        let jobs = self.request.jobs.map(|jobs| format!("-j{jobs}"));
        let what = match &*names {
            [one] => format!("building {one}{}", self.purpose()),
            many => format!("building {} emulators{}", many.len(), self.purpose()),
        };
        let mut bar = Bar::new(what);
        exec::run(self.enter(cmd!(sh(), "ninja {jobs...} {names...}")).in_dir(dir), &log, |line| {
            if let Some((done, all)) = steps(line) {
                bar.set(done, all);
            }
        })?;
        bar.finish();
        Ok(())
    }

    fn purpose(&self) -> &'static str {
        match self.phase {
            Phase::Training(_) => " that count",
            Phase::Plain | Phase::Trained(_) => "",
        }
    }

    fn strip(&self, emulator: &Path) -> Result<PathBuf> {
        let stripped = emulator.with_extension("stripped");
        let strip = self.sysroot.tool("strip");
        exec::read(self.sysroot.enter(cmd!(sh(), "{strip} --strip-all -o {stripped} {emulator}")))?;
        Ok(stripped)
    }

    fn verify(&self, emulator: &Path) -> Result<()> {
        let mut build_paths = vec![self.cx.paths.root(), self.cx.paths.out(), self.cx.paths.cache()];
        build_paths.extend(self.cx.settings.home.as_deref());
        artefact::verify(emulator, self.request.host, &build_paths)
    }
}

/// Reads `[12/398] …`.
fn steps(line: &str) -> Option<(u64, u64)> {
    let (done, all) = line.strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
    Some((done.parse().ok()?, all.parse().ok()?))
}

/// Adds up the seconds of ninja's log by the target whose files they made, `""` for shared ones. A
/// file made twice counts with its last time.
fn seconds_by_target(log: &str) -> BTreeMap<String, f64> {
    let mut by_output = BTreeMap::new();
    for line in log.lines().filter(|line| !line.starts_with('#')) {
        // start and end in milliseconds, time stamp, output, hash of the command
        let fields: Vec<_> = line.split('\t').collect();
        if let [start, end, _, output, _] = fields[..] {
            let milliseconds = |field: &str| field.parse::<f64>().unwrap_or(0.0);
            by_output.insert(output, (milliseconds(end) - milliseconds(start)) / 1000.0);
        }
    }
    let mut seconds = BTreeMap::new();
    for (output, taken) in by_output {
        let belongs = |arch: &&Arch| {
            let name = &arch.name;
            output == arch.emulator()
                || output.starts_with(&format!("qemu-{name}.p/"))
                || output.starts_with(&format!("libqemu-{name}-linux-user."))
        };
        let target = ARCHES.iter().find(belongs).map_or("", |arch| arch.name);
        *seconds.entry(target.to_owned()).or_default() += taken;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninja_counts() {
        assert_eq!(steps("[12/398] Compiling C object x.o"), Some((12, 398)));
        assert_eq!(steps("ninja: Entering directory"), None);
        assert_eq!(steps("[a/b] x"), None);
    }

    #[test]
    fn seconds_go_to_their_target() {
        let log = "# ninja log v5\n0\t1500\t1\tlibqemu-arm-linux-user.a.p/a.o\tf\n0\t1000\t1\tlibcommon.a.p/b.o\tf\n\
            0\t9000\t1\tqemu-arm\tf\n5\t505\t1\tqemu-arm\tf\n0\t250\t1\tlibqemu-armeb-linux-user.a.p/a.o\tf\nbroken\n";
        let seconds = seconds_by_target(log);
        assert_eq!(seconds, [("".into(), 1.0), ("arm".into(), 2.0), ("armeb".into(), 0.25)].into());
    }
}
