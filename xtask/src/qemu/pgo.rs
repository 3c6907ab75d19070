//! Profiles for the compiler: which code of the emulators is used, and how, learnt from instrumented ones.
//!
//! Instrumented emulators of all architectures that Debian has programs for run the commands of `pgo.toml`,
//! whatever was asked for, so that what they share is trained by all and an emulator is the same whichever others were
//! built. A target that Debian has no programs for gets the counts of one with the same source. Runs are as equal as
//! they can be made: one thread, fixed addresses, fixed random numbers, the source of QEMU as their input. Counts may
//! differ in the last digit all the same, so that the profile is kept, belongs to the recipe by its hash, and lies in
//! the bundle: given again, it makes the same emulators anywhere.
//!
//! Only GCC is trained, and only for the host that this machine is: elsewhere instrumented emulators would run under an
//! emulator themselves.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qemu_src::{Pgo, WorkloadRun};
use qus_core::arch::Arch;
use qus_core::digest::{HashingReader, Sha256};
use qus_core::hint::WithHint;
use xshell::cmd;

use crate::base::cache;
use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::files;
use crate::base::progress::{Bar, one_line, say};
use crate::base::tarball::{self, Tarball};
use crate::debian::guests;
use crate::qemu::compile::{Compile, Phase};

/// The file of a bundle that holds its profile.
pub(crate) const FILE: &str = "training.tar.zst";

/// A folder of what GCC has counted, a file for each of its objects.
#[derive(Debug, Clone)]
pub(crate) struct ProfileData {
    pub(crate) dir: PathBuf,
    /// Of all files and their names.
    pub(crate) sha256: Sha256,
}

impl ProfileData {
    /// The profile in a folder.
    fn at(dir: PathBuf) -> Result<Self> {
        let mut inputs = String::new();
        for name in names(&dir)? {
            inputs += &format!("{} {name}\n", files::sha256(&dir.join(&name))?);
        }
        ensure!(!inputs.is_empty(), "{} holds no profile", dir.display());
        Ok(Self { dir, sha256: Sha256::of(inputs) })
    }

    /// The profile of another build's bundle.
    pub(crate) fn given(cx: &Context, file: &Path) -> Result<Self> {
        let sha256 = files::sha256(file)?;
        let dir = cx.paths.profile_data(&sha256);
        cache::ensure(&dir, |partial| {
            let mut packed = HashingReader::new(files::open(file)?);
            unpack(tarball::decompress(&mut packed, TOO_LARGE)?, partial)?;
            io::copy(&mut packed, &mut io::sink())?;
            ensure!(packed.finish() == sha256, "it was changed while it was unpacked");
            Ok(())
        })
        .with_context(|| format!("{} is not the {FILE} of a bundle", file.display()))?;
        Self::at(dir)
    }

    /// Has a bundle of this profile's emulators contain it.
    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        if bundle.join(FILE).exists() {
            return Ok(());
        }
        let dir = tempfile::tempdir_in(bundle)?;
        let tarball = Tarball::of(FILE, &self.dir, &names(&self.dir)?)?;
        let made = tarball.write(dir.path())?;
        fs::rename(made, bundle.join(FILE)).context("cannot write the profile into the bundle")
    }
}

/// What no profile comes near to, in bytes, unpacked, and in files.
const TOO_LARGE: u64 = 1 << 30;
const TOO_MANY: usize = 100_000;

/// Unpacks a profile: names of objects, never directories.
fn unpack(tar: impl Read, into: &Path) -> Result<()> {
    for (count, entry) in tar::Archive::new(BufReader::new(tar)).entries()?.enumerate() {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let plain = entry.header().entry_type().is_file() && path.file_name() == Some(path.as_os_str());
        ensure!(plain, "it holds {}, which is not a file of a profile", one_line(path.display()));
        ensure!(count < TOO_MANY, "it holds more than {TOO_MANY} files");
        entry.unpack_in(into)?;
    }
    Ok(())
}

/// Names of all files of a folder, sorted.
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

/// The profile of a recipe, made now if the cache does not have it.
pub(crate) fn ensure(compile: &Compile<'_>) -> Result<ProfileData> {
    let training = &compile.cx.data.pgo;
    let key = Sha256::of(&serde_json::to_vec(&(compile.recipe, training))?);
    let dir = compile.cx.paths.profile_data(&key);
    cache::ensure(&dir, |partial| train(compile, training, partial))
        .context("cannot collect profile data")
        .hint("use that of another build with --training FILE, or build without any with --profile dev")?;
    ProfileData::at(dir)
}

fn train(compile: &Compile<'_>, training: &Pgo, into: &Path) -> Result<()> {
    let cx = compile.cx;
    let mut programs: Vec<(&'static Arch, PathBuf)> = Vec::new();
    for guest in &cx.data.debian.guests {
        programs.push((guest.target, guests::program(cx, guest, "busybox")?));
    }
    say("the release profile trains its emulators: they are built twice");
    // Compilers write their counts to the place they were told when they compiled.
    let counts = cx.paths.out().join("build").join("counts");
    files::remove(&counts)?;
    let instrumented = compile.in_phase(Phase::Training(&counts));
    let build = instrumented.build(&cx.data.debian.targets())?;
    // Programs of the build itself have counted too.
    files::remove(&counts)?;
    let mut bar = Bar::new("training");
    let all = programs.len() * training.runs.len();
    for (n, (arch, program)) in programs.iter().enumerate() {
        for (m, run) in training.runs.iter().enumerate() {
            run_once(compile.tree, &build.join(arch.emulator()), program, run)
                .with_context(|| format!("{arch}: busybox {}", run.args[0]))?;
            bar.set((n * training.runs.len() + m + 1) as u64, all as u64);
        }
    }
    bar.finish();
    let counted = names(&counts)?;
    ensure!(!counted.is_empty(), "the instrumented emulators have counted nothing in {}", counts.display());
    for name in &counted {
        let from = counts.join(name);
        files::copy(&from, &into.join(name))?;
        for name in training.profile_from.iter().filter_map(|pair| name_for_target(name, pair)) {
            files::copy(&from, &into.join(name))?;
        }
    }
    files::remove(&counts)?;
    files::remove(&build)
}

/// The file name of an object's profile data for a target that uses another's; `None` if the object is not of that other
/// target alone.
fn name_for_target(name: &str, (target, from): (&Arch, &&Arch)) -> Option<String> {
    let object = name.strip_prefix("libqemu-")?.strip_prefix(from.name)?.strip_prefix("-linux-user.a.p#")?;
    Some(format!("libqemu-{target}-linux-user.a.p#{object}"))
}

/// One command, whose addresses and random numbers are the same each time.
fn run_once(tree: &Path, emulator: &Path, program: &Path, run: &WorkloadRun) -> Result<()> {
    let tree = tree.display().to_string();
    let args = run.args.iter().map(|arg| arg.replace("{tree}", &tree));
    let dir = tempfile::tempdir()?;
    let command =
        cmd!(sh(), "timeout 300 setarch --addr-no-randomize {emulator} -seed 1 {program} {args...}")
            .env_clear();
    let output = exec::output(command.in_dir(dir.path()))?;
    if output.status.code() != Some(run.status) {
        bail!("ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_known_by_names_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let at = || ProfileData::at(dir.path().to_owned());
        assert!(at().unwrap_err().to_string().ends_with("holds no profile"));
        fs::write(dir.path().join("a.gcda"), "1").unwrap();
        let one = at().unwrap().sha256;
        fs::rename(dir.path().join("a.gcda"), dir.path().join("b.gcda")).unwrap();
        let other = at().unwrap().sha256;
        assert_ne!(one, other);
        fs::write(dir.path().join("b.gcda"), "2").unwrap();
        assert_ne!(at().unwrap().sha256, other);
    }

    #[test]
    fn a_profile_holds_plain_files_alone() {
        let unpacked = |path: &str, kind| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            unpack(&*builder.into_inner().unwrap(), dir.path()).map(|()| names(dir.path()).unwrap())
        };
        assert_eq!(unpacked("a#b.gcda", tar::EntryType::Regular).unwrap(), ["a#b.gcda"]);
        for path in ["../a", "/a", "a/b", "a/../b", ".."] {
            let error = unpacked(path, tar::EntryType::Regular).unwrap_err().to_string();
            assert!(error.contains("not a file of a profile"), "{path}: {error}");
        }
        for kind in [tar::EntryType::Directory, tar::EntryType::Symlink, tar::EntryType::Fifo] {
            assert!(unpacked("a", kind).is_err());
        }
    }

    #[test]
    fn profile_data_comes_from_targets_that_are_trained() {
        let data = Context::new().unwrap().data;
        let trained = data.debian.targets();
        for (target, from) in data.pgo.profile_from.iter() {
            assert!(!trained.contains(&target), "{target}");
            assert!(trained.contains(from), "{from}");
        }
    }

    #[test]
    fn a_target_uses_the_profile_data_of_one_other() {
        let [target, from] = ["aarch64_be", "aarch64"].map(|name| name.parse::<&Arch>().unwrap());
        let of = |name| name_for_target(name, (target, &from));
        let name = of("libqemu-aarch64-linux-user.a.p#target_arm_helper.c.gcda").unwrap();
        assert_eq!(name, "libqemu-aarch64_be-linux-user.a.p#target_arm_helper.c.gcda");
        assert_eq!(of("libqemu-aarch64_be-linux-user.a.p#target_arm_helper.c.gcda"), None);
        assert_eq!(of("libuser.a.p#target_arm_helper.c.gcda"), None);
    }

    #[test]
    fn a_command_that_ends_otherwise_is_an_error() {
        let run = |status| WorkloadRun { args: vec!["x".to_owned()], reason: "test".to_owned(), status };
        let emulator = Path::new("/bin/false");
        assert!(run_once(Path::new("/"), emulator, Path::new("/bin/true"), &run(0)).is_err());
        run_once(Path::new("/"), emulator, Path::new("/bin/true"), &run(1)).unwrap();
    }
}
