//! Configures the build directory, builds the missing emulators with ninja, strips and verifies them.

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
use crate::base::progress::Bar;
use crate::bundle::artefact;
use crate::bundle::runner::Runner;
use crate::qemu::request::Request;
use crate::qemu::sysroot::Sysroot;

/// The kind of a build.
#[derive(Clone, Copy)]
pub(crate) enum BuildKind<'a> {
    /// Without profile data.
    Plain,
    /// Instrumented emulators, which write profile data to this directory.
    Instrumented(&'a Path),
    /// Optimised with the profile data in this directory.
    ProfileGuided(&'a Path),
}

/// A build directory and its inputs.
#[derive(Clone, Copy)]
pub(crate) struct Compile<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) recipe: &'a Recipe,
    pub(crate) tree: &'a Path,
    pub(crate) sysroot: &'a Sysroot,
    pub(crate) runner: &'a Runner,
    pub(crate) request: &'a Request<'a>,
    pub(crate) kind: BuildKind<'a>,
}

impl<'a> Compile<'a> {
    /// The same build of another kind.
    pub(crate) fn with_kind<'b>(&self, kind: BuildKind<'b>) -> Compile<'b>
    where
        'a: 'b,
    {
        Compile { kind, ..*self }
    }

    /// Builds emulators without storing them, and returns the build directory.
    pub(crate) fn build(&self, targets: &[&'static Arch]) -> Result<PathBuf> {
        let dir = self.dir();
        self.configure(&dir)?;
        self.make(&dir, targets)?;
        Ok(dir)
    }

    fn dir(&self) -> PathBuf {
        let suffix = match self.kind {
            BuildKind::Instrumented(_) => "-training",
            BuildKind::Plain | BuildKind::ProfileGuided(_) => "",
        };
        self.cx.paths.build_dir(self.recipe.host, &self.recipe.qemu, self.request.profile, suffix)
    }

    /// Arguments of configure for the kind of the build. Profile data is found by the object names relative to the
    /// build directory, which may be anywhere.
    fn kind_flags(&self, dir: &Path) -> Vec<String> {
        let compiler = |what: &str, data: &Path| {
            format!(
                "--extra-cflags=-fprofile-{what}={} -fprofile-prefix-path={}",
                data.display(),
                dir.display()
            )
        };
        match self.kind {
            BuildKind::Plain => vec![],
            // With gcov, QEMU writes its profile data also when it ends without calling exit().
            BuildKind::Instrumented(data) => vec![
                "--enable-gcov".to_owned(),
                compiler("generate", data),
                "--extra-ldflags=-fprofile-generate".to_owned(),
            ],
            // Counters are not synchronised between threads, and code compiled for gcov has an additional call.
            BuildKind::ProfileGuided(data) => vec![
                compiler("use", data),
                "--extra-cflags=-fprofile-correction -Wno-missing-profile -Wno-error=coverage-mismatch"
                    .to_owned(),
            ],
        }
    }

    /// Builds, strips and verifies emulators, and passes each to `store`. Returns the compiler time in seconds of each
    /// target's own files by the target's name, and of shared files under `""`.
    pub(crate) fn run(
        &self,
        targets: &[&'static Arch],
        store: impl Fn(&'static Arch, &Path) -> Result<()>,
    ) -> Result<BTreeMap<String, f64>> {
        let dir = self.build(targets)?;
        for &arch in targets {
            let stripped = self.strip(&dir.join(arch.emulator()))?;
            self.verify(&stripped)?;
            artefact::run_probe(self.runner, &stripped, arch)?;
            store(arch, &stripped)?;
        }
        let log = fs::read_to_string(dir.join(".ninja_log")).context("ninja did not write its log")?;
        Ok(seconds_by_target(&log))
    }

    /// Runs configure, unless the directory has been configured for the same recipe.
    fn configure(&self, dir: &Path) -> Result<()> {
        let stamp = dir.join("qus-recipe.json");
        let launcher = self.cx.settings.compiler_cache.as_ref().map(|cache| &*cache.program);
        let recipe = serde_json::to_vec_pretty(&(self.recipe, self.tree, &launcher))?;
        if fs::read(&stamp).is_ok_and(|old| old == recipe) {
            return Ok(());
        }
        files::remove_dir(dir)?;
        fs::create_dir_all(dir)?;
        let bar = Bar::new(format!("configuring QEMU {}", self.recipe.qemu));
        let log = self.cx.start_log("configure")?;
        let configure = self.tree.join("configure");
        let flags = &self.recipe.flags;
        let (cc, options) = self.sysroot.cc();
        let cc =
            launcher.map(str::to_owned).into_iter().chain([cc]).chain(options).collect::<Vec<_>>().join(" ");
        let native = self.cx.settings.cc();
        // The names of the tools come from the environment; the empty prefix only enables cross compilation.
        let cross = if self.sysroot.is_cross() {
            vec!["--cross-prefix=".into(), format!("--host-cc={native}")]
        } else {
            vec![]
        };
        let python = exec::read(cmd!(sh(), "python3 -c 'import sys; print(sys.executable)'"))?;
        let maps = self.prefix_maps(dir);
        let kind = self.kind_flags(dir);
        exec::run(
            self.enter(cmd!(
                sh(),
                "{configure} {flags...} {cross...} --cc={cc} --python={python} --extra-cflags={maps} {kind...}"
            ))
            .in_dir(dir),
            &log,
            |line| bar.detail(line),
        )?;
        files::write(&stamp, &recipe)
    }

    /// Sets the environment of the dependencies, and that of a compiler cache so that it works across clones.
    fn enter<'b>(&self, cmd: Cmd<'b>) -> Cmd<'b> {
        // Python must not write its bytecode to the source tree, which is verified with checksums, nor use bytecode
        // there.
        let cmd = self.sysroot.enter(cmd).env("PYTHONPYCACHEPREFIX", self.cx.paths.out().join("pycache"));
        let Some(cache) = &self.cx.settings.compiler_cache else { return cmd };
        let cmd = cache.variables.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
        // Object files contain no paths of this machine, see `prefix_maps`.
        cmd.env("CCACHE_BASEDIR", self.cx.paths.out())
            .env("CCACHE_NOHASHDIR", "1")
            .env("CCACHE_IGNOREOPTIONS", "-ffile-prefix-map=*")
    }

    /// Compiler options that remove the paths of the source tree and the build directory from the emulators.
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
        let (adjective, purpose) = match self.kind {
            BuildKind::Instrumented(_) => ("instrumented ", " for profile-guided optimisation"),
            BuildKind::Plain | BuildKind::ProfileGuided(_) => ("", ""),
        };
        let what = match &*names {
            [one] => format!("building {adjective}{one} for {}{purpose}", self.request.host),
            many => {
                format!("building {} {adjective}emulators for {}{purpose}", many.len(), self.request.host)
            }
        };
        let mut bar = Bar::new(what);
        exec::run(self.enter(cmd!(sh(), "ninja {jobs...} {names...}")).in_dir(dir), &log, |line| {
            if let Some((done, all)) = parse_progress(line) {
                bar.set(done, all);
            }
        })?;
        bar.finish();
        Ok(())
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

/// Parses ninja's progress, `[12/398] …`.
fn parse_progress(line: &str) -> Option<(u64, u64)> {
    let (done, all) = line.strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
    Some((done.parse().ok()?, all.parse().ok()?))
}

/// Sums the seconds in ninja's log by target; `""` is the key of shared files. Of a file that was built twice, the last
/// time is used.
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
        let is_own = |arch: &&Arch| {
            let name = &arch.name;
            output == arch.emulator()
                || output.starts_with(&format!("qemu-{name}.p/"))
                || output.starts_with(&format!("libqemu-{name}-linux-user."))
        };
        let target = ARCHES.iter().find(is_own).map_or("", |arch| arch.name);
        *seconds.entry(target.to_owned()).or_default() += taken;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_ninja_is_parsed() {
        assert_eq!(parse_progress("[12/398] Compiling C object x.o"), Some((12, 398)));
        assert_eq!(parse_progress("ninja: Entering directory"), None);
        assert_eq!(parse_progress("[a/b] x"), None);
    }

    #[test]
    fn seconds_are_summed_by_target() {
        let log = "# ninja log v5\n0\t1500\t1\tlibqemu-arm-linux-user.a.p/a.o\tf\n0\t1000\t1\tlibcommon.a.p/b.o\tf\n\
            0\t9000\t1\tqemu-arm\tf\n5\t505\t1\tqemu-arm\tf\n0\t250\t1\tlibqemu-armeb-linux-user.a.p/a.o\tf\nbroken\n";
        let seconds = seconds_by_target(log);
        assert_eq!(seconds, [("".into(), 1.0), ("arm".into(), 2.0), ("armeb".into(), 0.25)].into());
    }
}
