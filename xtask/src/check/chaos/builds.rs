//! Commands of `cargo xtask` that write files: from a bundle of one emulator, which is in the cache.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err::{self as fs, File};
use qus_core::arch::Host;
use qus_core::bundle::{Bundle, Profile};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::files;
use crate::bundle::manifest;
use crate::check::chaos::sandbox::{Sandbox, Words};
use crate::check::chaos::snapshot::{self, Snapshot};
use crate::check::chaos::subject::{Fault, Subject};
use crate::debian::versions::Versions;
use crate::qus::rust::Rust;
use crate::ship::version;

/// A command of `cargo xtask`.
pub(super) struct Xtask {
    args: Vec<String>,
    /// What the directory of the sandbox has before.
    base: PathBuf,
    /// Paths in it that an undisturbed run does not always write in the same way.
    ignored: Vec<String>,
    variables: Vec<(&'static str, OsString)>,
    faults: &'static [Fault],
}

/// The output of programs, with times and numbers of processes.
const LOGS: &str = "target/qus/logs";

/// Reads a bundle.
///
/// # Errors
/// A [`Skip`] if it has no emulators or no program `qus`.
pub(super) fn require_complete(bundle: &Path) -> Result<Bundle> {
    if !bundle.join("share").exists() {
        bail!(Skip("the bundle has no qus; to build it, run `cargo xtask build-qus`".to_owned()));
    }
    let read = manifest::read(bundle)?.filter(|bundle| !bundle.emulators.is_empty());
    let what = "there is no bundle; to build it, run `cargo xtask build-qemu --all`";
    read.ok_or_else(|| Skip(what.to_owned()).into())
}

/// A bundle with the smallest emulators of another one, with everything that belongs to a release.
pub(super) fn small_bundle(from: &Path, to: &Path, emulators: usize) -> Result<Bundle> {
    let Bundle { recipe, emulators: mut smallest, .. } = require_complete(from)?;
    smallest.sort_by_key(|emulator| emulator.size);
    smallest.truncate(emulators);
    fs::create_dir_all(to)?;
    for emulator in &smallest {
        copy(&from.join(&emulator.file), to)?;
    }
    for part in ["qus", "share", "licenses"] {
        copy(&from.join(part), to)?;
    }
    let bundle = Bundle::new(recipe, smallest);
    manifest::write(&bundle, to)?;
    Ok(bundle)
}

/// Shortens the programs of a bundle, so that packing them takes no seconds.
pub(super) fn shorten(bundle: Bundle, dir: &Path) -> Result<()> {
    const SIZE: u64 = 100_000;
    let shorten = |file: &str| -> Result<PathBuf> {
        let path = dir.join(file);
        File::options().write(true).open(&path)?.set_len(SIZE)?;
        Ok(path)
    };
    shorten("qus")?;
    let Bundle { recipe, mut emulators, .. } = bundle;
    for emulator in &mut emulators {
        emulator.sha256 = files::sha256(&shorten(&emulator.file)?)?;
        emulator.size = SIZE;
    }
    manifest::write(&Bundle::new(recipe, emulators), dir)
}

/// Copies a file or directory into a directory, with its times.
fn copy(from: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    exec::read(cmd!(sh(), "cp --archive {from} {into}")).map(drop)
}

impl Xtask {
    pub(super) fn new(args: &[&str], base: PathBuf) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { args, base, ignored: vec![LOGS.to_owned()], variables: Vec::new(), faults: &Fault::ALL }
    }

    /// Packs a bundle.
    pub(super) fn tarballs(base: PathBuf) -> Self {
        Self::new(&["tarballs"], base)
    }

    /// Assembles a release of a bundle.
    pub(super) fn release(base: PathBuf, host: &Host) -> Self {
        Self::new(&["release", "--no-sources", "--allow-dev", "--host", host.name], base)
    }

    /// Builds the emulators of a bundle, which are in the cache.
    pub(super) fn build_qemu(cx: &Context, bundle: &Bundle, base: PathBuf) -> Result<Self> {
        let recipe = &bundle.recipe;
        if let Some(input) = version::differing_input(&cx.data, recipe) {
            let what = format!("the bundle has {input} than this checkout");
            bail!(Skip(format!("{what}; to build it, run `cargo xtask build-qemu --all`")));
        }
        let (version, cache) = (recipe.qemu.to_string(), base.join("cache/qus"));
        let mut args = vec!["build-qemu", "--qemu", &*version];
        for emulator in &bundle.emulators {
            let cached = cx.paths.emulator(&recipe.key(emulator.target));
            if recipe.profile != Profile::Dev || !cached.exists() {
                let what = "the cache has no emulators of the bundle";
                bail!(Skip(format!("{what}; to build them, run `cargo xtask build-qemu --all`")));
            }
            copy(&cached, &cache.join("emulators"))?;
            args.push(emulator.target.name);
        }
        copy(&cx.paths.cache().join("licenses"), &cache)?;
        for dir in ["downloads", "sysroots"] {
            symlink(cx.paths.cache().join(dir), cache.join(dir))?;
        }
        let mut this = Self::new(&args, base);
        // Python's bytecode has times.
        this.ignored.push("target/qus/pycache".to_owned());
        Ok(this)
    }

    /// Builds `qus`, which is compiled already: this copies it, and generates completions and manual pages.
    pub(super) fn build_qus(cx: &Context, host: &'static Host, base: PathBuf) -> Result<Self> {
        let triple = Rust::ensure(cx, host, Versions::UpdatedIfPossible)?.triple;
        let (out, into) = (cx.paths.out(), base.join("target"));
        let compiled = out.with_file_name(&triple);
        if !compiled.join("qus/qus").exists() {
            bail!(Skip("qus is not compiled; to build it, run `cargo xtask build-qus`".to_owned()));
        }
        copy(&compiled, &into)?;
        // What the compiler itself runs, such as macros, is in the directory of the profile, which is that of the bundle too.
        for part in [".fingerprint", "deps"] {
            copy(&out.join(part), &into.join("qus"))?;
        }
        for entry in fs::read_dir(out.join(".fingerprint"))? {
            let build = out.join("build").join(entry?.file_name());
            if build.exists() {
                copy(&build, &into.join("qus/build"))?;
            }
        }
        let mut this = Self::new(&["build-qus"], base);
        // If times change, cargo compiles everything again, for minutes.
        this.faults = &[Fault::Kill, Fault::FullDisk, Fault::ReadOnly, Fault::Twice];
        let cargo = [".fingerprint", "deps", "build", "examples", "incremental", ".cargo-lock"];
        this.ignored.extend(cargo.map(|part| format!("target/qus/{part}")));
        this.ignored
            .extend([&*triple, ".rustc_info.json", "CACHEDIR.TAG"].map(|part| format!("target/{part}")));
        Ok(this)
    }

    /// Sets environment variables.
    pub(super) fn with(self, variables: Vec<(&'static str, OsString)>, ignored: &[&str]) -> Self {
        let ignored = ignored.iter().map(|&path| path.to_owned());
        Self { variables, ignored: self.ignored.into_iter().chain(ignored).collect(), ..self }
    }

    /// The words of the command, with further arguments.
    pub(super) fn words_with(&self, sandbox: &Sandbox, args: &[&str]) -> Result<Words> {
        let variable = |(name, value): (&str, OsString)| {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            word
        };
        let dirs = [("XDG_CACHE_HOME", "cache"), ("CARGO_TARGET_DIR", "target"), ("TMPDIR", "tmp")]
            .map(|(name, dir)| (name, sandbox.dir().join(dir).into_os_string()));
        let mut words: Words = vec!["env".into(), "--unset=QUS_SOURCE".into()];
        words.extend(dirs.into_iter().chain(self.variables.iter().cloned()).map(variable));
        words.push(std::env::current_exe()?.into());
        words.extend(self.args.iter().map(Into::into));
        words.extend(args.iter().map(Into::into));
        Ok(words)
    }

    pub(super) fn snapshot(&self, sandbox: &Sandbox) -> Result<Snapshot> {
        snapshot::take(sandbox, &self.ignored)
    }
}

impl Subject for Xtask {
    fn faults(&self) -> &'static [Fault] {
        self.faults
    }

    fn prepare(&self, sandbox: &Sandbox) -> Result<()> {
        let (base, dir) = (self.base.join("."), sandbox.files());
        exec::read(cmd!(sh(), "cp --archive {base} {dir}"))?;
        Ok(fs::create_dir_all(dir.join("tmp"))?)
    }

    fn words(&self, sandbox: &Sandbox) -> Result<Words> {
        self.words_with(sandbox, &[])
    }

    fn finish(&self, sandbox: &Sandbox) -> Result<Snapshot> {
        sandbox.run(&self.words(sandbox)?)?.succeeds()?;
        self.snapshot(sandbox)
    }
}
