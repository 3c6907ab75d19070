//! Checks where handlers are visible and how long they last: in containers, and for unprivileged users.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use qus_core::binfmt::MOUNT_POINT;
use xshell::{Cmd, cmd};

use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, NOBODY};

/// Starts a command like a container: with its own mount and PID namespaces.
pub(super) const CONTAINER: [&str; 5] = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"];

/// Starts a command like a machine on which binfmt_misc is not mounted: a new user namespace has no instance.
pub(super) const MACHINE: [&str; 5] = ["--user", "--map-root-user", "--mount", "--pid", "--fork"];

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check(
        "container whose handlers would disappear: refused; with the hint's command they last",
        lasting,
    )?;
    checks.check("container without binfmt_misc: a dry run compares with the host's handlers", dry_run)?;
    checks.check("container with the host's processes: handlers last", host_processes)?;
    checks.check("container with the host's root filesystem: handlers last", host_root)?;
    checks.check("user namespace: qus reports whose handlers it changes", whose)?;
    checks.check("qus run as an unprivileged user does not change the host's handlers", ordinary_user)?;
    checks.check("qus run as root: files keep their owners", as_root)?;
    checks.check("qus run in a foreign root filesystem", foreign_root)?;
    checks.check("qus run where user namespaces are forbidden", forbidden)
}

fn lasting(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let container = CONTAINER.join(" ");
    // Verifies the kernel's rule first, so that this check fails when the rule changes.
    let script = format!(
        r#"set -e
        mount -t proc proc /proc
        {container} "$0" install {arch} && exit 10
        {container} sh -c 'mount -t binfmt_misc binfmt_misc {MOUNT_POINT}; "$0" install {arch}' "$0"
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        test ! -e {MOUNT_POINT}/qemu-{arch} || exit 11
        {container} "$0" install {arch}
        "$0" probe {arch}
        {container} "$0" status {arch}
        {container} "$0" remove all
        for look in 1 2 3; do
            {container} sh -c '
                while :; do sleep 0.005 < {MOUNT_POINT}/status; done 2> /dev/null &
                "$0" install {arch}' "$0"
        done
        {container} "$0" remove all
        test "$(ls {MOUNT_POINT} | wc -l)" = 2"#
    );
    let ended = fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?;
    let words = [
        "handlers would vanish when this container ends",
        "this user namespace cannot register any for the host",
        &format!("mount -t binfmt_misc binfmt_misc {MOUNT_POINT}` in it"),
        "mounted binfmt_misc here; the host has it mounted too",
        "these handlers belong to this user namespace; the host does not see them",
    ];
    ended.exits(0, &words)
}

fn dry_run(fixture: &KernelFixture<'_>) -> Result<()> {
    let (arch, qus) = (FOREIGN[0], fixture.program());
    fixture.install(&[arch])?;
    let other = if arch == "sh4" { "hppa" } else { "sh4" };
    let namespaces = &CONTAINER[1..];
    let ended = fixture.run(cmd!(sh(), "unshare {namespaces...} {qus} install {arch} {other} --dry-run"))?;
    ended.exits(0, &[" unchanged ", "would be installed"])
}

fn host_processes(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let script = format!(
        r#"set -e
        mount -t proc proc /proc
        unshare --mount "$0" install {arch}
        test -e {MOUNT_POINT}/qemu-{arch}
        "$0" probe {arch}"#
    );
    let ended = fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?;
    ended.exits(0, &["mounted binfmt_misc for process 1 too"])
}

fn host_root(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let host = fixture.path("host");
    fs::create_dir(&host)?;
    let script = format!(
        r#"set -e
        mount -t proc proc /proc
        mount --make-rshared /
        mount --rbind / "$1"
        unshare --mount --pid --fork --propagation unchanged sh -c '
            mount --make-private /proc && mount -t proc proc /proc && "$0" install {arch}' "$0"
        test -e {MOUNT_POINT}/qemu-{arch}
        "$0" probe {arch}"#
    );
    let ended = fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus} {host}"))?;
    ended.exits(0, &["which the host shares"])
}

/// Tests a user namespace that uses the host's instance, one with its own instance, and one nested in that.
fn whose(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let outer = "has no binfmt_misc of its own; handlers are changed in the one around it";
    let own = "these handlers belong to this user namespace; the host does not see them";
    let user = "unshare --user --map-root-user --mount";
    let names = || -> Result<Vec<String>> {
        Ok(fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect())
    };
    fixture
        .run(cmd!(sh(), "unshare --user --map-root-user --mount {qus} install {arch}"))?
        .exits(0, &[outer])?;
    ensure!(names()? == [format!("qemu-{arch}")], "the host has {:?}", names()?);
    fixture.run(cmd!(sh(), "unshare --user --map-root-user --mount {qus} remove all"))?.exits(0, &[outer])?;
    ensure!(names()?.is_empty(), "the host has {:?}", names()?);
    let script = format!(r#"mount -t binfmt_misc binfmt_misc {MOUNT_POINT} && "$0" install {arch}"#);
    fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?.exits(0, &[own])?;
    let script = format!(
        r#"mount -t binfmt_misc binfmt_misc {MOUNT_POINT} && {user} "$0" install {arch} && test -e {MOUNT_POINT}/qemu-{arch}"#
    );
    fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?.exits(0, &[outer])?;
    ensure!(names()?.is_empty(), "the host has {:?}", names()?);
    let here = fixture.qus(&["install", arch])?;
    ensure!(!here.stderr.contains("user namespace"), "{}", here.stderr);
    here.succeeds().map(drop)
}

impl KernelFixture<'_> {
    /// `qus run` by an unprivileged user, from a directory that this user can read.
    fn run_as_nobody(&self, args: &[&str]) -> Result<Cmd<'_>> {
        let qus = self.unprivileged_dir()?.join("qus");
        Ok(cmd!(sh(), "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {qus} run {args...}"))
    }
}

fn ordinary_user(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let arch = FOREIGN[0];
    let foreign = fixture.foreign_handler("qus-smoke-jar", ":qus-smoke-jar:E::qus-smoke-jar::/bin/true:")?;
    let before = fixture.handler_contents()?;
    let dir = fixture.unprivileged_dir()?;
    let busybox = dir.join("busybox").to_string_lossy().into_owned();
    let nobody = |args: &[&str]| fixture.run(fixture.run_as_nobody(args)?);
    nobody(&[arch, "--", &busybox, "uname", "-m"])?.writes(&format!("{arch}\n"))?;
    let handlers = format!("qemu-{arch}\nregister\nstatus\n");
    nobody(&["--", &busybox, "ls", MOUNT_POINT])?.writes(&handlers)?;
    nobody(&["--", &busybox, "id", "-u"])?.writes(&format!("{NOBODY}\n"))?;
    nobody(&["--map-root", "--", &busybox, "id", "-u"])?.writes("0\n")?;
    ensure!(nobody(&["--", &busybox, "sh", "-c", "exit 7"])?.status == Some(7), "the exit status is lost");
    nobody(&["--", "/no/such/program"])?.exits(127, &["cannot run /no/such/program"])?;
    nobody(&["vax", "--", "true"])?.exits(1, &["unknown architecture `vax`"])?;
    let other = if arch == "riscv64" { "s390x" } else { "riscv64" };
    nobody(&[other, "--", "true"])?.exits(1, &[&format!("there is no qemu-{other} in")])?;
    let killed = exec::output(fixture.run_as_nobody(&["--", &busybox, "sh", "-c", "kill -TERM $$"])?)?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&killed.status);
    ensure!(signal == Some(Signal::SIGTERM as i32), "after SIGTERM it ended with {}", killed.status);
    ensure!(fixture.handler_contents()? == before, "the host's handlers have changed");
    drop(foreign);
    Ok(())
}

fn as_root(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let qus = fixture.program();
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    let file = fixture.path("owned");
    fs::write(&file, "")?;
    std::os::unix::fs::chown(&file, Some(1234), Some(4321))?;
    let arch = FOREIGN[0];
    let stat = cmd!(sh(), "{qus} run {arch} -- {busybox} stat -c %u:%g {file}");
    fixture.run(stat)?.writes("1234:4321\n")?;
    ensure!(fixture.handler_contents()?.is_empty(), "the host's handlers have changed");
    Ok(())
}

fn foreign_root(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let root = fixture.path("foreign-root");
    for dir in ["bin", "proc", "dev"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fixture.copy(&fixture.foreign("busybox")?, "foreign-root/bin/busybox")?;
    for applet in ["sh", "uname", "cat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let root = root.to_string_lossy().into_owned();
    let script = "uname -m; cat /proc/sys/kernel/ostype; echo gone > /dev/null; pwd";
    let expected = format!("{}\nLinux\n/\n", FOREIGN[0]);
    let ended = fixture.run(fixture.run_as_nobody(&["--root", &root, "--", "/bin/sh", "-c", script])?)?;
    ended.writes(&expected)?;
    let missing = fixture.run_as_nobody(&["--root", "/no/such/directory", "--", "/bin/sh"])?;
    fixture.run(missing)?.exits(1, &["/no/such/directory is not a directory"])
}

/// Runs inside a user namespace, because the limit of each namespace can be set separately.
fn forbidden(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let qus = fixture.program();
    let arch = FOREIGN[0];
    let script = format!(
        r#"mount -t proc proc /proc && echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" run {arch} -- true"#
    );
    let ended = fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?;
    ended
        .exits(1, &["cannot create a user namespace", "hint: as root: `sysctl user.max_user_namespaces="])?;
    let limit = fs::read_to_string(Path::new("/proc/sys/user/max_user_namespaces")).context("no limit")?;
    ensure!(limit.trim() != "0", "the limit of this machine was changed");
    Ok(())
}
