//! All paths that xtask reads or writes.
//!
//! Outside the workspace, xtask writes only to the cache directory. The cache can be deleted at any time, and all files
//! in it that have their final names are complete.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qus_core::arch::Host;
use qus_core::bundle::Profile;
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use semver::Version;

use crate::base::settings::Settings;

/// The base directories of all other paths.
pub(crate) struct Paths {
    root: PathBuf,
    out: PathBuf,
    cache: PathBuf,
}

impl Paths {
    /// Determines the base directories from the location of this crate and the settings.
    ///
    /// # Errors
    /// No setting determines the cache directory.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?;
        let target = settings.target_dir.clone().unwrap_or_else(|| root.join("target"));
        let cache = settings.cache_home.clone().or_else(|| Some(settings.home.as_deref()?.join(".cache")));
        let cache = cache.ok_or_else(|| {
            hinted(
                "neither XDG_CACHE_HOME nor HOME is set",
                "set XDG_CACHE_HOME to a directory for the cache",
            )
        })?;
        Ok(Self {
            root: root.to_owned(),
            out: env::current_dir()?.join(target).join("qus"),
            cache: cache.join("qus"),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// All build results of this workspace.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Cargo's target directory.
    pub(crate) fn cargo_target(&self) -> &Path {
        self.out.parent().unwrap_or(&self.out)
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The data crate.
    pub(crate) fn qemu_src(&self) -> PathBuf {
        self.root.join("qemu-src")
    }

    /// The Dockerfile, the bake file and files for users of the images.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Sources and machine code of the probes.
    pub(crate) fn probes(&self) -> PathBuf {
        self.root.join("qus-core/probes")
    }

    /// The inputs of a fuzz target that are kept in the repository.
    pub(crate) fn fuzz_seeds(&self, target: &str) -> PathBuf {
        self.root.join("fuzz").join(target)
    }

    /// The inputs of a fuzz target that reached new code.
    pub(crate) fn fuzz_corpus(&self, target: &str) -> PathBuf {
        self.cache.join("fuzz").join(target)
    }

    /// The shared throwaway engine.
    pub(crate) fn engine(&self) -> PathBuf {
        self.out.join("engine/run")
    }

    /// The engines in machines, each in a directory with its architecture's name.
    pub(crate) fn machine_engines(&self) -> PathBuf {
        self.out.join("vm-engine")
    }

    /// The log of the programs that a step runs.
    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.out.join("logs").join(step).with_extension("log")
    }

    /// Unpacked and patched source; `id` identifies the archive and patches.
    pub(crate) fn source_tree(&self, version: &Version, id: &str) -> PathBuf {
        self.out.join("src").join(format!("qemu-{version}-{id}"))
    }

    /// The build directory for all targets of a host; `suffix` distinguishes builds of different kinds.
    pub(crate) fn build_dir(
        &self,
        host: &Host,
        version: &Version,
        profile: Profile,
        suffix: &str,
    ) -> PathBuf {
        self.out.join("build").join(format!("{host}-{version}-{profile}{suffix}"))
    }

    /// Profile data of instrumented emulators.
    pub(crate) fn profile_data(&self, key: &Sha256) -> PathBuf {
        self.cache.join("training").join(key.to_string())
    }

    /// The finished emulators of a host.
    pub(crate) fn bundle(&self, host: &Host) -> PathBuf {
        self.out.join("bundle").join(host.name)
    }

    /// The bundle that a node of a builder has sent, before it is verified.
    pub(crate) fn sent_by_node(&self, host: &Host) -> PathBuf {
        self.out.join("nodes").join(host.name)
    }

    /// The files of a release.
    pub(crate) fn tarballs(&self) -> PathBuf {
        self.out.join("tarballs")
    }

    /// The record of the tarballs in [`Self::tarballs`] and of their inputs.
    pub(crate) fn tarballs_record(&self) -> PathBuf {
        self.out.join("tarballs.json")
    }

    /// A verified download.
    pub(crate) fn download(&self, sha256: &Sha256, file: &str) -> PathBuf {
        self.cache.join("downloads").join(sha256.to_string()).join(file)
    }

    /// The record of the archive that is used instead of a release's pinned one.
    pub(crate) fn substitute(&self, version: &Version) -> PathBuf {
        self.cache.join("downloads/substitutes").join(format!("{version}.json"))
    }

    /// Licence texts of emulators; `id` identifies their source and libraries.
    pub(crate) fn licences(&self, id: &str) -> PathBuf {
        self.cache.join("licenses").join(id)
    }

    /// Unpacked packages; `id` identifies the requested packages.
    pub(crate) fn sysroot(&self, id: &str) -> PathBuf {
        self.cache.join("sysroots").join(id)
    }

    /// Packages that were kept, by the hash of their tarball.
    pub(crate) fn packages(&self, sha256: &Sha256) -> PathBuf {
        self.cache.join("packages").join(sha256.to_string())
    }

    /// A distribution's Rust for another host; `id` identifies the requested packages.
    pub(crate) fn rust(&self, id: &str) -> PathBuf {
        self.cache.join("rust").join(id)
    }

    /// Python packages: one unpacked wheel, by its hash, or several wheels; `id` identifies the requested packages.
    pub(crate) fn wheel(&self, id: &Sha256) -> PathBuf {
        self.cache.join("wheels").join(id.to_string())
    }

    /// Assemblers for the probes; `id` identifies the requested packages.
    pub(crate) fn assemblers(&self, id: &str) -> PathBuf {
        self.cache.join("assemblers").join(id)
    }

    /// A built emulator and its record; `key` identifies all of its inputs.
    pub(crate) fn emulator(&self, key: &Sha256) -> PathBuf {
        self.cache.join("emulators").join(key.to_string())
    }

    /// A program of a Debian architecture for the smoke tests.
    pub(crate) fn guest(&self, debian: &str, program: &str) -> PathBuf {
        self.cache.join("guests").join(format!("{debian}-{program}"))
    }

    /// The parts of a machine; `part` and `id` identify one and its inputs.
    pub(crate) fn machine(&self, part: &str, id: &str) -> PathBuf {
        self.cache.join("machines").join(format!("{part}-{id}"))
    }

    /// A root filesystem of unpacked packages; `id` identifies the requested packages.
    pub(crate) fn rootfs(&self, id: &str) -> PathBuf {
        self.cache.join("roots").join(id)
    }

    /// The outcome of a cell of `cargo xtask guests`; `key` identifies all of its inputs.
    pub(crate) fn cell(&self, key: &Sha256) -> PathBuf {
        self.cache.join("cells").join(key.to_string()).with_extension("json")
    }

    /// Packages that guests have downloaded.
    pub(crate) fn guest_archives(&self) -> PathBuf {
        self.cache.join("guest-archives")
    }

    /// The recorded results of `cargo xtask guests`.
    pub(crate) fn recorded_guests(&self) -> PathBuf {
        self.qemu_src().join("guests.json")
    }

    /// The programs of the throwaway engine; `id` identifies the requested packages.
    pub(crate) fn engine_programs(&self, id: &str) -> PathBuf {
        self.cache.join("engine").join(id)
    }

    /// The package manager's private state.
    pub(crate) fn apt(&self, name: &str) -> PathBuf {
        self.cache.join("apt").join(name)
    }
}
