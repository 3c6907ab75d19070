//! Checks the credentials of setuid programs, and that their callers cannot influence the emulator.
//!
//! With flag `C`, the emulator runs with the credentials of a setuid program but in the environment of its caller. A caller
//! who can influence the emulator can write files as root.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use nix::sys::statvfs::{FsFlags, statvfs};
use qus_core::arch::Host;
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::sh;
use crate::bundle::hosts;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, NOBODY};
use crate::check::smoke::fixture::tools::compile;

const OWN_EXECUTABLE: &str = include_str!("../programs/own-executable.c");

/// Attempts for each use and spelling of the path. If the path is resolved twice, nearly every attempt succeeds.
const TRIES: &str = "10";

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("setuid programs with and without flag C", credentials)?;
    checks.check("QEMU's environment variables have no effect on setuid programs", variables)?;
    checks.check("a setuid program named like an option of QEMU is not parsed as one", options)?;
    checks.check("a program named like an option of QEMU runs as a program", names)?;
    checks.check("a core file is readable only by its user", core_file)?;
    // Only for hosts that are built is a compiler available.
    for guest in hosts::built(checks.cx).filter(|host| Some(*host) != Host::current()) {
        let name = format!("a setuid program for {guest} reaches its own file through /proc/self/exe");
        checks.check(name, |fixture| own_executable(fixture, guest))?;
    }
    Ok(())
}

impl KernelFixture<'_> {
    /// Creates a setuid-root copy of a program that all users can execute.
    fn setuid(&self, program: &str) -> Result<PathBuf> {
        self.require_users()?;
        let path = self.copy(&self.foreign(program)?, &format!("setuid-{program}"))?;
        self.make_setuid(&path)?;
        Ok(path)
    }

    fn make_setuid(&self, path: &Path) -> Result<()> {
        if statvfs(self.dir.path())?.flags().contains(FsFlags::ST_NOSUID) {
            return Err(Skip(format!("{} is mounted nosuid", self.dir.path().display())).into());
        }
        chown(path, Some(0), Some(0))?;
        Ok(fs::set_permissions(path, Permissions::from_mode(0o4755))?)
    }

    /// Creates a directory that an unprivileged user owns.
    fn user_dir(&self) -> Result<PathBuf> {
        self.require_users()?;
        let (dir, user) = (self.path("theirs"), Some(NOBODY.parse()?));
        fs::create_dir_all(&dir)?;
        chown(&dir, user, user)?;
        Ok(dir)
    }

    /// Creates a directory that only root can write to.
    fn root_dir(&self) -> Result<PathBuf> {
        let dir = self.path("ours");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        Ok(dir)
    }

    /// Runs a command as an unprivileged user in a directory, with environment variables.
    fn as_nobody(&self, dir: &Path, variables: &[String], command: &[&str]) -> Result<CommandOutput> {
        let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
        self.run(cmd!(sh(), "setpriv {user...} env --chdir {dir} {variables...} {command...}"))
    }
}

fn credentials(fixture: &KernelFixture<'_>) -> Result<()> {
    // With -p, bash keeps the effective user, and prints it.
    let bash = fixture.setuid("bash")?.display().to_string();
    let user = || fixture.as_nobody(Path::new("/"), &[], &[&bash, "-p", "-c", "echo $EUID"]);
    fixture.install(&[FOREIGN[0]])?;
    user()?.writes("0\n")?;
    fixture.install(&[FOREIGN[0], "--no-credentials", "--force"])?;
    user()?.writes(&format!("{NOBODY}\n"))
}

fn variables(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.install(&[FOREIGN[0]])?;
    let setuid = fixture.setuid("bash")?.display().to_string();
    let plain = fixture.copy(&fixture.foreign("bash")?, "plain")?.display().to_string();
    let traced = |program: &str, log: &Path| {
        let variables = [
            "QEMU_LOG=strace".to_owned(),
            format!("QEMU_LOG_FILENAME={}", log.display()),
            "QEMU_SET_ENV=INJECTED=injected".to_owned(),
        ];
        // Prints the variables that a setuid program would pass on to its children.
        fixture.as_nobody(
            Path::new("/"),
            &variables,
            &[program, "-p", "-c", "echo $EUID $INJECTED $QEMU_LOG"],
        )
    };
    let log = fixture.user_dir()?.join("log");
    traced(&plain, &log)?.writes(&format!("{NOBODY} injected strace\n"))?;
    ensure!(
        fs::read_to_string(&log)?.contains("geteuid"),
        "QEMU_LOG_FILENAME has no effect on ordinary programs either"
    );
    let log = fixture.root_dir()?.join("log");
    let ended = traced(&setuid, &log)?;
    ensure!(!log.exists(), "an unprivileged user caused {} to be written as root", log.display());
    ended.writes("0\n")
}

/// The kernel starts the emulator with the program's path, its `argv[0]`, and the other arguments.
fn options(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.install(&[FOREIGN[0]])?;
    let emulator = fixture.bundle.join(format!("qemu-{}", FOREIGN[0]));
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    let log = fixture.root_dir()?.join("by-hand");
    fixture.run(cmd!(sh(), "{emulator} -D {log} -d strace {busybox} true"))?.succeeds()?;
    ensure!(log.exists(), "-D has no effect on the command line either");

    let dir = fixture.user_dir()?;
    symlink(fixture.setuid("busybox")?, dir.join("-D"))?;
    let log = fixture.root_dir()?.join("by-name");
    let (path, busybox) = (log.display().to_string(), busybox.display().to_string());
    // With an empty PATH, a program is searched in the working directory by its bare name.
    let command = ["-D", "-D", &path, "-d", "strace", &busybox, "true"];
    let ended = fixture.as_nobody(&dir, &["PATH=".to_owned()], &command)?;
    ensure!(!log.exists(), "an unprivileged user caused {} to be written as root", log.display());
    ended.exits(127, &["D: applet not found"])
}

fn names(fixture: &KernelFixture<'_>) -> Result<()> {
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    let dir = fixture.user_dir()?;
    // Busybox skips a leading dash, which marks a login shell.
    symlink(&busybox, dir.join("-uname"))?;
    for flags in [&[][..], &["--no-credentials", "--force"]] {
        fixture.install(&[&[FOREIGN[0]], flags].concat())?;
        fixture
            .as_nobody(&dir, &["PATH=".to_owned()], &["-uname", "-m"])?
            .writes(&format!("{}\n", FOREIGN[0]))?;
    }
    Ok(())
}

fn core_file(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.install(&[FOREIGN[0]])?;
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?.display().to_string();
    let dir = fixture.user_dir()?;
    let crash = "umask 0; kill -SEGV $$";
    fixture.as_nobody(&dir, &[], &["prlimit", "--core=unlimited", &busybox, "sh", "-c", crash])?;
    let core = fs::read_dir(&dir)?.filter_map(Result::ok).find(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("qemu_") && name.to_string_lossy().ends_with(".core")
    });
    let mode = core.context("the program left no core file")?.metadata()?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "the core file has mode {mode:o}");
    Ok(())
}

/// A caller who starts a program through a symbolic link can replace the link after the kernel has opened the program.
fn own_executable(fixture: &KernelFixture<'_>, guest: &'static Host) -> Result<()> {
    fixture.require_users()?;
    let compile = |host, name: &str, options: &[&str]| -> Result<String> {
        let path = fixture.path(&format!("{name}-{host}"));
        compile(fixture.cx, host, OWN_EXECUTABLE, options, &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    };
    let attack = compile(hosts::own()?, "attack", &["-static"])?;
    let (victim, other) =
        (compile(guest, "victim", &["-static"])?, compile(guest, "other", &["-static", "-DOTHER"])?);
    fixture.make_setuid(Path::new(&victim))?;
    fixture.install(&[guest.arch.name, "--force"])?;
    let results = fixture
        .as_nobody(&fixture.user_dir()?, &[], &[&attack, "attack", TRIES, &victim, &other])?
        .succeeds()?;
    let wrong: Vec<_> = results
        .lines()
        .filter(|line| !line.ends_with(&format!(": own {TRIES}, other 0 of {TRIES}")))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    for used in ["open", "readlink", "exec"] {
        let right = format!("{used} /proc/self/exe: own {TRIES}, other 0 of {TRIES}");
        ensure!(results.lines().any(|line| line == right), "{right}: not in {results}");
    }
    Ok(())
}
