//! Checks where handlers are visible and how long they last: in containers and user namespaces.

use anyhow::{Result, ensure};
use fs_err as fs;
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use crate::base::exec::sh;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};

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
    checks.check("user namespace: qus reports whose handlers it changes", whose)
}

fn lasting(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
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
    fixture.require_machine()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    fixture.install(&[arch])?;
    let other = if arch == "sh4" { "hppa" } else { "sh4" };
    let namespaces = &CONTAINER[1..];
    let ended = fixture.run(cmd!(sh(), "unshare {namespaces...} {qus} install {arch} {other} --dry-run"))?;
    ended.exits(0, &[" unchanged ", "would be installed"])
}

fn host_processes(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
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
    require_instances()?;
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
    fixture.require_machine()?;
    require_instances()?;
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
