//! Checks emulators without handlers: every probe, and busybox of every guest that Debian has.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{ARCHES, Arch, Host};
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, InDir, sh};
use crate::base::files;
use crate::bundle::artefact;
use crate::bundle::runner::Runner;
use crate::check::report::{self, Report};
use crate::debian::guests;

const LEVEL: &str = "emulator";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let host = Host::current().context("qus has no emulators for this host")?;
    let (bundle, native) = (cx.paths.bundle(host), Runner::native());
    for arch in &ARCHES {
        report.check(LEVEL, format!("probe {arch}"), || {
            artefact::run_probe(&native, &emulator(&bundle, arch)?, arch)
        })?;
    }
    for guest in &cx.data.debian.guests {
        // Fetched once for each guest. If that fails, all its checks have the same result.
        let program = guests::program(cx, guest, "busybox");
        let busybox = || -> Result<Busybox<'_>> {
            let program = program.as_ref().map_err(report::copy_error)?.clone();
            Ok(Busybox { runner: &native, emulator: emulator(&bundle, guest.target)?, program })
        };
        let name = |what: &str| format!("busybox {guest}: {what}");
        report.check(LEVEL, name("uname"), || {
            busybox()?.expect(&["uname", "-m"], &format!("{}\n", guest.machine))
        })?;
        report.check(LEVEL, name("shell loop"), || busybox()?.shell_loop())?;
        report.check(LEVEL, name("sort"), || busybox()?.sort())?;
        report.check(LEVEL, name("tar"), || busybox()?.tar())?;
        report.check(LEVEL, name("sha256sum"), || busybox()?.sha256sum())?;
        report.check(LEVEL, name("unprivileged user"), || busybox()?.unprivileged_user())?;
    }
    Ok(())
}

/// Finds an emulator of the bundle; skips the check if there is none.
pub(super) fn emulator(bundle: &Path, arch: &Arch) -> Result<PathBuf> {
    let path = bundle.join(arch.emulator());
    if !path.exists() {
        return Err(
            Skip(format!("not in the bundle; to build it, run `cargo xtask build-qemu {arch}`")).into()
        );
    }
    Ok(path)
}

/// A guest's busybox and an emulator, which may itself run under another emulator.
pub(super) struct Busybox<'a> {
    pub(super) runner: &'a Runner,
    pub(super) emulator: PathBuf,
    pub(super) program: PathBuf,
}

impl Busybox<'_> {
    /// Runs an applet in a directory and compares its stdout.
    fn expect_in(&self, dir: &Path, args: &[&str], stdout: &str) -> Result<()> {
        let Self { runner, emulator, program } = self;
        let runner = runner.words();
        let run = cmd!(sh(), "timeout 120 {runner...} {emulator} {program} {args...}");
        check_output(exec::output(run.in_dir(dir))?, &format!("busybox {}", args[0]), stdout)
    }

    pub(super) fn expect(&self, args: &[&str], stdout: &str) -> Result<()> {
        self.expect_in(Path::new("/"), args, stdout)
    }

    /// Runs a loop of thousands of iterations, and a fork with a pipe.
    pub(super) fn shell_loop(&self) -> Result<()> {
        let script =
            "i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done; echo $i; echo forked | { read x; echo $x; }";
        self.expect(&["sh", "-c", script], "2000\nforked\n")
    }

    fn sort(&self) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut numbers: Vec<u32> = (0..2000u32).map(|n| n.wrapping_mul(2_654_435_761)).collect();
        let lines = |numbers: &[u32]| {
            numbers.iter().fold(String::new(), |mut text, n| {
                let _ = writeln!(text, "{n}");
                text
            })
        };
        fs::write(dir.path().join("numbers"), lines(&numbers))?;
        numbers.sort_unstable();
        self.expect_in(dir.path(), &["sort", "-n", "numbers"], &lines(&numbers))
    }

    /// Packs and unpacks directories, a link and an executable, and compares them.
    pub(super) fn tar(&self) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (before, after) = (dir.path().join("before"), dir.path().join("after"));
        fs::create_dir_all(before.join("deep/er"))?;
        fs::create_dir(&after)?;
        let script = before.join("deep/er/script");
        fs::write(&script, "#!/bin/sh\n".repeat(5000))?;
        fs::set_permissions(&script, Permissions::from_mode(0o750))?;
        std::os::unix::fs::symlink("deep/er/script", before.join("link"))?;
        self.expect_in(dir.path(), &["tar", "-cf", "all.tar", "-C", "before", "."], "")?;
        self.expect_in(dir.path(), &["tar", "-xf", "all.tar", "-C", "after"], "")?;
        let unpacked = after.join("deep/er/script");
        ensure!(fs::read(&unpacked)? == fs::read(&script)?, "the file has different content");
        let mode = fs::metadata(&unpacked)?.permissions().mode() & 0o777;
        ensure!(mode == 0o750, "the file has mode {mode:o}");
        ensure!(
            fs::read_link(after.join("link"))? == Path::new("deep/er/script"),
            "the link has a different target"
        );
        Ok(())
    }

    fn sha256sum(&self) -> Result<()> {
        let expected = files::sha256(&self.program)?;
        let path = self.program.to_string_lossy();
        self.expect(&["sha256sum", &*path], &format!("{expected}  {path}\n"))
    }

    /// Runs the program as an unprivileged user.
    fn unprivileged_user(&self) -> Result<()> {
        /// `nobody` on every distribution.
        const NOBODY: &str = "65534";
        // Other users may not have access to the clone and the cache.
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let (emulator, program) = (dir.path().join("emulator"), dir.path().join("busybox"));
        fs::copy(&self.emulator, &emulator)?;
        fs::copy(&self.program, &program)?;
        let change_user: &[&str] = if nix::unistd::geteuid().is_root() {
            &["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
        } else {
            &[]
        };
        let args = ["sh", "-c", "echo as $((1 + 1))"];
        let run = cmd!(sh(), "timeout 120 {change_user...} {emulator} {program} {args...}");
        let output = exec::output(run.in_dir(Path::new("/")))?;
        check_output(output, "busybox sh", "as 2\n")
    }
}

/// Asserts that a program succeeds and prints this to stdout.
pub(super) fn check_output(output: std::process::Output, what: &str, stdout: &str) -> Result<()> {
    let (printed, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success(),
        "{what} failed ({}): {}",
        output.status,
        if stderr.trim().is_empty() { printed.trim() } else { stderr.trim() }
    );
    ensure!(printed == stdout, "{what} printed {printed:?} instead of {stdout:?}");
    Ok(())
}
