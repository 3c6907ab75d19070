//! `qus` and the real kernel: handlers registered, programs called by name, every failure provoked.
//!
//! Everything happens in mount namespaces of our own, and in user namespaces where a setting would reach
//! further. Handlers are registered in the kernel's first instance of binfmt_misc all the same, so that the
//! level is skipped where the machine has handlers under our names; it removes what it has registered.

mod credentials;
mod faults;
mod looking;
mod others;
mod places;
mod programs;
mod watch;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::check::report::{self, Report};
use crate::debian::guests;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use qus_core::arch::Host;
use qus_core::binfmt::{Binfmt, MOUNT_POINT, State};
use qus_core::handler::arch_of;
use qus_core::mount::mount_at;
use qus_core::namespace::kernel;
use serde_json::Value;
use xshell::{Cmd, cmd};

const LEVEL: &str = "kernel";

/// `nobody` on every distribution.
const NOBODY: &str = "65534";

/// The architecture that stands for all foreign ones, with its Debian name: this machine does not run it.
pub(super) const FOREIGN: [&str; 2] =
    if cfg!(target_arch = "aarch64") { ["riscv64", "riscv64"] } else { ["aarch64", "arm64"] };

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    // Only this thread enters the mount namespace, and whatever it starts.
    thread::scope(|scope| {
        let checks = scope.spawn(|| {
            let bench = Bench::new(cx);
            let mut checks = Checks { bench, cx, report };
            programs::run(&mut checks)?;
            credentials::run(&mut checks)?;
            faults::run(&mut checks)?;
            places::run(&mut checks)?;
            looking::run(&mut checks)?;
            watch::run(&mut checks)?;
            others::run(&mut checks)
        });
        checks.join().map_err(|_| anyhow!("a check of the kernel level panicked"))?
    })
}

/// The checks of this level: each begins and ends without handlers of ours.
struct Checks<'a> {
    bench: Result<Bench<'a>>,
    cx: &'a Context,
    report: &'a mut Report,
}

impl Checks<'_> {
    fn check(&mut self, name: impl Into<String>, check: impl FnOnce(&Bench<'_>) -> Result<()>) -> Result<()> {
        let bench = &self.bench;
        self.report.check(LEVEL, name, || {
            let bench = bench.as_ref().map_err(report::again)?;
            let checked = check(bench);
            bench.qus(&["remove", "all"])?.succeeds()?;
            checked
        })
    }
}

/// Where `qus` and the emulators are, and folders to work in.
pub(super) struct Bench<'a> {
    pub(super) cx: &'a Context,
    pub(super) bundle: PathBuf,
    binfmt: Binfmt,
    /// Everybody may look into it, and setuid programs work there.
    dir: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    pub(super) fn new(cx: &'a Context) -> Result<Self> {
        let host = Host::current().context("qus is not built for this kind of machine")?;
        let bundle = cx.paths.bundle(host.name);
        if !nix::unistd::geteuid().is_root() {
            bail!(Skip("only root can register handlers".to_owned()));
        }
        if !bundle.join("qus").exists() {
            bail!(Skip("there is no qus in the bundle; build it: cargo xtask build-qus".to_owned()));
        }
        let binfmt = Binfmt::at(MOUNT_POINT);
        unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| {
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            })
            .and_then(|()| match binfmt.state() {
                State::Writable => Ok(()),
                _ => mount_at(binfmt.root()),
            })
            .map_err(|errno| Skip(format!("binfmt_misc cannot be mounted here: {}", errno.desc())))?;
        let taken = binfmt.entries()?.into_iter().find(|(name, _)| arch_of(name).is_some());
        if let Some((name, _)) = taken {
            bail!(Skip(format!("this machine has a handler {} that may be in use", name.to_string_lossy())));
        }
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
        Ok(Self { cx, bundle, binfmt, dir })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `qus`, which finds the emulators of the bundle beside it.
    pub(super) fn program(&self) -> PathBuf {
        self.bundle.join("qus")
    }

    pub(super) fn qus(&self, args: &[&str]) -> Result<Ended> {
        let qus = self.program();
        self.ends(cmd!(sh(), "{qus} {args...}"))
    }

    /// Runs any command to its end, which has to come within a minute.
    pub(super) fn ends(&self, command: Cmd<'_>) -> Result<Ended> {
        let what = command.to_string();
        Ok(Ended::new(what, exec::output(command)?))
    }

    /// Has `qus` register emulators, and returns what it says of each architecture.
    pub(super) fn install(&self, args: &[&str]) -> Result<Vec<Value>> {
        let said = self.qus(&[&["install", "--json"], args].concat())?.succeeds()?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Skips what needs a binfmt_misc in a user namespace.
    fn needs_instances(&self) -> Result<()> {
        match kernel() {
            Some(version) if version < (6, 7) => {
                bail!(Skip("before Linux 6.7 there is one binfmt_misc for all".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// A static program for another architecture, from Debian.
    pub(super) fn guest(&self, debian: &str, program: &str) -> Result<PathBuf> {
        guests::program(self.cx, debian, program)
    }

    /// A copy of a file at a path below the bench's folder.
    pub(super) fn copy(&self, from: &Path, to: &str) -> Result<PathBuf> {
        let to = self.path(to);
        fs::create_dir_all(to.parent().context("it lies in a folder")?)?;
        match fs::remove_file(&to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(to)
    }

    /// A folder for ordinary users with `qus` and one emulator.
    fn for_everybody(&self) -> Result<PathBuf> {
        let emulator = format!("qemu-{}", FOREIGN[0]);
        for file in ["qus", "bundle.json", &emulator] {
            self.copy(&self.bundle.join(file), &format!("everybody/{file}"))?;
        }
        self.copy(&self.guest(FOREIGN[1], "busybox")?, "everybody/busybox")?;
        Ok(self.path("everybody"))
    }

    /// What the kernel says of every handler.
    pub(super) fn texts(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut texts = Vec::new();
        for (name, _) in self.binfmt.entries()? {
            texts.push((name.to_string_lossy().into_owned(), fs::read(self.binfmt.root().join(&name))?));
        }
        texts.sort();
        Ok(texts)
    }

    /// Registers a handler of somebody else's, which removes itself from the kernel when dropped.
    pub(super) fn foreign_handler(&self, name: &str, line: &str) -> Result<Foreign> {
        let register = self.binfmt.root().join("register");
        fs::write(&register, line).with_context(|| format!("cannot register {name}"))?;
        Ok(Foreign { path: self.binfmt.root().join(name) })
    }
}

/// Waits for something that has to happen within half a minute.
pub(super) fn until(what: &str, mut happens: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happens()? {
        ensure!(Instant::now() < deadline, "{what} does not happen");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A handler that `qus` must not touch.
pub(super) struct Foreign {
    path: PathBuf,
}

impl Foreign {
    pub(super) fn text(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("{} is gone", self.path.display()))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, "-1");
    }
}

/// How a command ended, and what it said.
pub(super) struct Ended {
    what: String,
    pub(super) status: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    fn new(what: String, output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { what, status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// It ended with 0; what it wrote to stdout.
    pub(super) fn succeeds(self) -> Result<String> {
        ensure!(
            self.status == Some(0),
            "`{}` ended with {:?}: {}",
            self.what,
            self.status,
            self.stderr.trim()
        );
        Ok(self.stdout)
    }

    /// It wrote this and ended with 0.
    pub(super) fn writes(self, expected: &str) -> Result<()> {
        let what = self.what.clone();
        let wrote = self.succeeds()?;
        ensure!(wrote == expected, "`{what}` wrote {wrote:?} instead of {expected:?}");
        Ok(())
    }

    /// It ended with this status, and stderr has all of these words.
    pub(super) fn fails(self, status: i32, words: &[&str]) -> Result<()> {
        ensure!(
            self.status == Some(status),
            "`{}` ended with {:?} instead of {status}: {}{}",
            self.what,
            self.status,
            self.stdout,
            self.stderr.trim()
        );
        for word in words {
            ensure!(
                self.stderr.contains(word),
                "`{}` does not say `{word}`: {}",
                self.what,
                self.stderr.trim()
            );
        }
        Ok(())
    }
}
