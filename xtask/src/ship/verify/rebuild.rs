//! Builds a release again, in a clone of the repository.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use qus_core::hint::hinted;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::files;
use crate::base::progress::{Bar, say};
use crate::qemu::{pgo, sysroot::kept};
use crate::ship::verify::released::{Origin, bundle_of, packed_name};

/// Runs a command as a user who is not root, in a namespace of root's.
const OTHER_USER: &str = "unshare --map-user=12345 --map-group=12345";

/// The builds of a release in a clone of the repository.
pub(super) struct Rebuild<'a> {
    pub(super) cx: &'a Context,
    pub(super) work: &'a Path,
    pub(super) origin: &'a Origin,
    other_user: bool,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(cx: &'a Context, work: &'a Path, origin: &'a Origin) -> Self {
        let line = format!("hostname rebuilt && {OTHER_USER} true");
        let other_user = exec::read(cmd!(sh(), "unshare --map-root-user --uts sh -c {line}"));
        if let Err(error) = &other_user {
            say(format_args!("note: not built as another user and under another host name: {error:#}"));
        }
        Self { cx, work, origin, other_user: other_user.is_ok() }
    }

    /// Builds the release in a clone of the repository, and returns its directory.
    pub(super) fn run(&self, dir: &Path) -> Result<PathBuf> {
        let Origin { release, hosts, commit, repository } = self.origin;
        let (root, clone) = (self.cx.paths.root(), self.clone_dir());
        exec::read(cmd!(sh(), "git clone --quiet {root} {clone}"))?;
        self.checkout(commit)?;
        self.make_cargo_home()?;
        // The images name it.
        if let Some(url) = repository {
            exec::read(cmd!(sh(), "git -C {clone} config remote.origin.url {url}"))?;
        }
        for host in hosts {
            let bundle = bundle_of(dir, release, host)?;
            let kept = |option: &str, file: &str| -> Result<Vec<PathBuf>> {
                let path = dir.join(packed_name(file, release, host));
                Ok(if path.exists() { vec![option.into(), fs::canonicalize(path)?] } else { Vec::new() })
            };
            let (sysroot, training) = (&kept("--sysroot", kept::FILE)?, &kept("--training", pgo::FILE)?);
            let targets: Vec<_> = bundle.emulators.iter().map(|emulator| emulator.target.name).collect();
            let (qemu, profile) = (bundle.recipe.qemu.to_string(), bundle.recipe.profile.to_string());
            // Another number than that of the processors, which is the default.
            let jobs = (std::thread::available_parallelism()?.get() + 1).to_string();
            self.xtask(
                &format!("building the emulators for {host} again"),
                cmd!(
                    sh(),
                    "cargo xtask build-qemu {targets...} --host {host} --qemu {qemu} --profile {profile} --locked
                     --jobs {jobs} {sysroot...} {training...}"
                ),
                Vec::new(),
            )?;
            self.xtask(
                &format!("building qus for {host} again"),
                cmd!(sh(), "cargo xtask build-qus --host {host} {sysroot...}"),
                Vec::new(),
            )?;
        }
        let (hosts, qemu) = (hosts.join(","), release.qemu.to_string());
        self.xtask(
            "packing the release again",
            cmd!(sh(), "cargo xtask release --host {hosts} --qemu {qemu} --no-sources --allow-dev"),
            Vec::new(),
        )?;
        Ok(clone.join("target/qus/release").join(release.to_string()))
    }

    /// A home of cargo without the user's crates, but with the configuration, which may name another registry.
    fn make_cargo_home(&self) -> Result<()> {
        let home = self.cargo_home();
        fs::create_dir_all(&home)?;
        let own = self.cx.settings.cargo_home();
        let config = own.map(|own| own.join("config.toml")).filter(|config| config.exists());
        config.map_or(Ok(()), |config| files::copy(&config, &home.join("config.toml")))
    }

    fn cargo_home(&self) -> PathBuf {
        self.work.join("cargo")
    }

    /// The clone of the repository.
    fn clone_dir(&self) -> PathBuf {
        self.work.join("qus")
    }

    pub(super) fn checkout(&self, commit: &str) -> Result<()> {
        let clone = self.clone_dir();
        let checkout = exec::read(cmd!(sh(), "git -C {clone} checkout --quiet --detach {commit}"));
        checkout.map(drop).map_err(|error| {
            let hint = format!("fetch it: `git fetch origin {commit}`");
            hinted(format!("this repository does not have commit {commit}: {error:#}"), hint)
        })
    }

    /// Runs a command in the clone, with its own cache and home of cargo, and with another locale, time zone and umask
    /// than most have; if user namespaces are available, also as another user and on a machine of another name.
    pub(super) fn xtask(&self, what: &str, cmd: Cmd<'_>, env: Vec<(&str, OsString)>) -> Result<()> {
        let bar = Bar::new(what);
        let log = self.cx.start_log("verify")?;
        let words = cmd.to_string();
        let shell = if self.other_user {
            let line = format!("umask 077; hostname rebuilt; exec {OTHER_USER} {words}");
            cmd!(sh(), "unshare --map-root-user --uts sh -c {line}")
        } else {
            let line = format!("umask 077; exec {words}");
            cmd!(sh(), "sh -c {line}")
        };
        let mut shell = shell
            .envs(env)
            .env("XDG_CACHE_HOME", self.work.join("cache"))
            .env("CARGO_HOME", self.cargo_home())
            .env("LC_ALL", "tr_TR.UTF-8")
            .env("TZ", "Pacific/Chatham")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("SOURCE_DATE_EPOCH");
        if let Some(source) = &self.cx.settings.source {
            shell = shell.env("QUS_SOURCE", fs::canonicalize(source)?);
        }
        exec::run(shell.in_dir(&self.clone_dir()), &log, |line| bar.detail(line))
    }
}
