//! Every path that xtask reads or writes, as a function.
//!
//! Outside the workspace there is one folder, the cache; it is safe to delete, and everything in it
//! that has its final name is complete. Nothing else on the machine is written.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qus_core::arch::Host;
use qus_core::bundle::Profile;
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use semver::Version;

use crate::base::settings::Settings;

/// The roots from which all other paths follow.
pub(crate) struct Paths {
    root: PathBuf,
    out: PathBuf,
    cache: PathBuf,
}

impl Paths {
    /// From the place of this crate and the settings.
    ///
    /// # Errors
    /// Nothing says where the cache is.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in a workspace")?;
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

    /// All that is built in this workspace.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The data crate.
    pub(crate) fn qemu_src(&self) -> PathBuf {
        self.root.join("qemu-src")
    }

    /// What images are made with, and files for those who run them.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Sources and bytes of the probes.
    pub(crate) fn probes(&self) -> PathBuf {
        self.root.join("qus-core/probes")
    }

    /// The throwaway engine that commands share.
    pub(crate) fn engine(&self) -> PathBuf {
        self.out.join("engine/run")
    }

    /// What the programs run for one step have said.
    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.out.join("logs").join(step).with_extension("log")
    }

    /// Unpacked and patched source; `id` stands for archive and patches.
    pub(crate) fn source_tree(&self, version: &Version, id: &str) -> PathBuf {
        self.out.join("src").join(format!("qemu-{version}-{id}"))
    }

    /// Where all targets of a host are built; `suffix` tells apart what is built twice.
    pub(crate) fn build_dir(
        &self,
        host: &Host,
        version: &Version,
        profile: Profile,
        suffix: &str,
    ) -> PathBuf {
        self.out.join("build").join(format!("{host}-{version}-{profile}{suffix}"))
    }

    /// What a compiler has learnt from trained emulators.
    pub(crate) fn profile_data(&self, key: &Sha256) -> PathBuf {
        self.cache.join("training").join(key.to_string())
    }

    /// The finished emulators of a host.
    pub(crate) fn bundle(&self, host: &Host) -> PathBuf {
        self.out.join("bundle").join(host.name)
    }

    /// What a node of a builder has sent, before it was looked at.
    pub(crate) fn sent_by_node(&self, host: &Host) -> PathBuf {
        self.out.join("nodes").join(host.name)
    }

    /// The files of a release.
    pub(crate) fn tarballs(&self) -> PathBuf {
        self.out.join("tarballs")
    }

    /// What is in [`Self::tarballs`], and from what it was made.
    pub(crate) fn tarballs_record(&self) -> PathBuf {
        self.out.join("tarballs.json")
    }

    /// A verified download.
    pub(crate) fn download(&self, sha256: &Sha256, file: &str) -> PathBuf {
        self.cache.join("downloads").join(sha256.to_string()).join(file)
    }

    /// Which archive was taken instead of that of a release.
    pub(crate) fn substitute(&self, version: &Version) -> PathBuf {
        self.cache.join("downloads/substitutes").join(format!("{version}.json"))
    }

    /// Unpacked packages; `id` stands for what was asked for.
    pub(crate) fn sysroot(&self, id: &str) -> PathBuf {
        self.cache.join("sysroots").join(id)
    }

    /// Rust of a distribution, for another host; `id` stands for what was asked for.
    pub(crate) fn rust(&self, id: &str) -> PathBuf {
        self.cache.join("rust").join(id)
    }

    /// Python packages: one unpacked, by its hash, or several as they are; `id` stands for what was asked for.
    pub(crate) fn wheel(&self, id: &Sha256) -> PathBuf {
        self.cache.join("wheels").join(id.to_string())
    }

    /// Assemblers for the probes; `id` stands for what was asked for.
    pub(crate) fn assemblers(&self, id: &str) -> PathBuf {
        self.cache.join("assemblers").join(id)
    }

    /// A finished emulator and its record; `key` stands for everything that went into it.
    pub(crate) fn emulator(&self, key: &Sha256) -> PathBuf {
        self.cache.join("emulators").join(key.to_string())
    }

    /// A program of a Debian architecture that the smoke tests run.
    pub(crate) fn guest(&self, debian: &str, program: &str) -> PathBuf {
        self.cache.join("guests").join(format!("{debian}-{program}"))
    }

    /// A root folder of unpacked packages in which the smoke tests run other programs; `id` stands for what
    /// was asked for.
    pub(crate) fn root_folder(&self, id: &str) -> PathBuf {
        self.cache.join("roots").join(id)
    }

    /// The programs of the throwaway engine; `id` stands for what was asked for.
    pub(crate) fn engine_programs(&self, id: &str) -> PathBuf {
        self.cache.join("engine").join(id)
    }

    /// The package manager's private state.
    pub(crate) fn apt(&self, name: &str) -> PathBuf {
        self.cache.join("apt").join(name)
    }
}
