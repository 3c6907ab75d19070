//! Collects profile data for profile-guided optimisation (PGO).
//!
//! Instrumented emulators of all architectures for which Debian has programs run the training workload of `pgo.toml`,
//! whatever targets are requested. All of them contribute profile data for shared code, and an emulator does not depend
//! on the other requested targets. A target without Debian programs uses the profile data of a target with the same
//! source. Runs are made as reproducible as possible: one thread, fixed addresses, fixed random numbers, and QEMU's
//! source as input. Profile data can still differ slightly, so it is cached, its hash is part of the recipe, and it is
//! stored in the bundle: the same profile data reproduces the same emulators on any machine.
//!
//! Profile data is collected only with GCC and only for this machine's host, because instrumented emulators of other
//! hosts would have to run under emulation.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qemu_src::{Pgo, WorkloadRun};
use qus_core::arch::Arch;
use qus_core::digest::Sha256;
use qus_core::hint::WithHint;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::files::{self, Scratch};
use crate::base::progress::{Bar, say};
use crate::base::tarball::Tarball;
use crate::base::{cache, unpack};
use crate::debian::guests;
use crate::qemu::compile::{BuildKind, Compile};

/// The file of a bundle that contains its profile data.
pub(crate) const FILE: &str = "training.tar.zst";

/// The maximum size of profile data in bytes.
const MAX_SIZE: u64 = 1 << 30;

/// A directory of GCC's profile data, one file for each object.
#[derive(Debug, Clone)]
pub(crate) struct ProfileData {
    pub(crate) dir: PathBuf,
    /// Hash of the names and contents of all files.
    pub(crate) sha256: Sha256,
}

impl ProfileData {
    /// Reads and hashes the profile data in a directory.
    fn read(dir: PathBuf) -> Result<Self> {
        let mut inputs = String::new();
        for name in names(&dir)? {
            inputs += &format!("{} {name}\n", files::sha256(&dir.join(&name))?);
        }
        ensure!(!inputs.is_empty(), "{} contains no profile data", dir.display());
        Ok(Self { dir, sha256: Sha256::of(inputs) })
    }

    /// Unpacks the profile data of another bundle.
    pub(crate) fn from_file(cx: &Context, file: &Path) -> Result<Self> {
        let dir = unpack::ensure(file, MAX_SIZE, |sha256| cx.paths.profile_data(sha256))
            .with_context(|| format!("{} is not the {FILE} of a bundle", file.display()))?;
        Self::read(dir)
    }

    /// Adds the profile data to a bundle, unless the bundle has it.
    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        if bundle.join(FILE).exists() {
            return Ok(());
        }
        let dir = Scratch::new(files::partial(&bundle.join(FILE)))?;
        let tarball = Tarball::from_files(FILE, &self.dir, &names(&self.dir)?)?;
        let made = tarball.write(dir.path())?;
        fs::rename(made, bundle.join(FILE)).context("cannot write the profile data to the bundle")
    }
}

/// The sorted names of all files in a directory.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The profile data of a recipe, collected if it is not in the cache.
pub(crate) fn ensure(compile: &Compile<'_>) -> Result<ProfileData> {
    let training = &compile.cx.data.pgo;
    let key = Sha256::of(&serde_json::to_vec(&(compile.recipe, training))?);
    let dir = compile.cx.paths.profile_data(&key);
    cache::ensure(&dir, |partial| collect(compile, training, partial))
        .context("cannot collect profile data")
        .hint("use the profile data of another bundle with --training FILE, or build without with --profile dev")?;
    ProfileData::read(dir)
}

/// Builds instrumented emulators, and runs the training workload.
fn collect(compile: &Compile<'_>, training: &Pgo, into: &Path) -> Result<()> {
    let cx = compile.cx;
    let mut programs: Vec<(&'static Arch, PathBuf)> = Vec::new();
    for guest in &cx.data.debian.guests {
        programs.push((guest.target, guests::program(cx, guest, "busybox")?));
    }
    say("collecting profile data for profile-guided optimisation; emulators are built twice");
    // The compiler option that enables instrumentation contains this path.
    let data = cx.paths.out().join("build").join("counts");
    files::remove_dir(&data)?;
    let instrumented = compile.with_kind(BuildKind::Instrumented(&data));
    let build = instrumented.build(&cx.data.debian.targets())?;
    // Instrumented programs of the build itself have written profile data too.
    files::remove_dir(&data)?;
    let mut bar = Bar::new("running the training workload");
    let all = programs.len() * training.runs.len();
    let work = cx.paths.out().join("build").join("training");
    for (n, (arch, program)) in programs.iter().enumerate() {
        for (m, run) in training.runs.iter().enumerate() {
            let work = Scratch::new(work.clone())?;
            run_command(compile.tree, &build.join(arch.emulator()), program, run, work.path())
                .with_context(|| format!("{arch}: busybox {}", run.args[0]))?;
            bar.set((n * training.runs.len() + m + 1) as u64, all as u64);
        }
    }
    bar.finish();
    let collected = names(&data)?;
    ensure!(!collected.is_empty(), "the instrumented emulators wrote no profile data to {}", data.display());
    for name in &collected {
        let from = data.join(name);
        files::copy(&from, &into.join(name))?;
        for name in training.profile_from.iter().filter_map(|pair| name_for_target(name, pair)) {
            files::copy(&from, &into.join(name))?;
        }
    }
    files::remove_dir(&data)?;
    files::remove_dir(&build)
}

/// The file name of an object's profile data for a target that uses the data of another one; `None` if the object does
/// not belong to only that other target.
fn name_for_target(name: &str, (target, from): (&Arch, &&Arch)) -> Option<String> {
    let object = name.strip_prefix("libqemu-")?.strip_prefix(from.name)?.strip_prefix("-linux-user.a.p#")?;
    Some(format!("libqemu-{target}-linux-user.a.p#{object}"))
}

/// Runs a command of the workload with fixed addresses and random numbers in an empty directory.
fn run_command(tree: &Path, emulator: &Path, program: &Path, run: &WorkloadRun, dir: &Path) -> Result<()> {
    let tree = tree.display().to_string();
    let args = run.args.iter().map(|arg| arg.replace("{tree}", &tree));
    let command =
        cmd!(sh(), "timeout 300 setarch --addr-no-randomize {emulator} -seed 1 {program} {args...}")
            .env_clear();
    let output = exec::output(command.in_dir(dir))?;
    if output.status.code() != Some(run.status) {
        bail!("ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_names_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let read = || ProfileData::read(dir.path().to_owned());
        assert!(read().unwrap_err().to_string().ends_with("contains no profile data"));
        fs::write(dir.path().join("a.gcda"), "1").unwrap();
        let one = read().unwrap().sha256;
        fs::rename(dir.path().join("a.gcda"), dir.path().join("b.gcda")).unwrap();
        let other = read().unwrap().sha256;
        assert_ne!(one, other);
        fs::write(dir.path().join("b.gcda"), "2").unwrap();
        assert_ne!(read().unwrap().sha256, other);
    }

    #[test]
    fn a_target_uses_the_profile_data_of_another() {
        let [target, from] = ["aarch64_be", "aarch64"].map(|name| name.parse::<&Arch>().unwrap());
        let renamed = |name| name_for_target(name, (target, &from));
        let name = renamed("libqemu-aarch64-linux-user.a.p#target_arm_helper.c.gcda").unwrap();
        assert_eq!(name, "libqemu-aarch64_be-linux-user.a.p#target_arm_helper.c.gcda");
        assert_eq!(renamed("libqemu-aarch64_be-linux-user.a.p#target_arm_helper.c.gcda"), None);
        assert_eq!(renamed("libuser.a.p#target_arm_helper.c.gcda"), None);
    }

    #[test]
    fn another_exit_status_is_an_error() {
        let run = |status| WorkloadRun { args: vec!["x".to_owned()], reason: "test".to_owned(), status };
        let emulator = Path::new("/bin/false");
        let root = Path::new("/");
        assert!(run_command(root, emulator, Path::new("/bin/true"), &run(0), root).is_err());
        run_command(root, emulator, Path::new("/bin/true"), &run(1), root).unwrap();
    }
}
