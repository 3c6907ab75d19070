//! Checks that read-only commands change nothing, not even temporarily: they create no mount that other processes see, no
//! instance that hides the handlers of a user namespace, and nothing that a concurrent `install` mistakes for permanent.

use anyhow::{Result, ensure};
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use crate::base::exec::sh;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};
use crate::check::smoke::kernel::places::{CONTAINER, MACHINE};

/// All read-only commands, and a removal without effect. `$0` is qus.
const LOOKS: &str = r#""$0" status; "$0" platforms; "$0" doctor; "$0" explain /bin/true; "$0" remove sh4"#;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check(
        "read-only commands create no mount that other processes see, and find the host's handlers",
        unseen,
    )?;
    checks.check("read-only commands in a user namespace keep its inherited handlers", inherited)?;
    checks.check("without memfd_create, fsmount, pidfd_open and others: all commands work", forbidden)?;
    checks.check("without mount, or with /proc read-only: qus run prints a hint", not_to_mount)?;
    checks.check("install during read-only commands: handlers that would disappear are refused", beside)
}

/// Runs in a container on a host that has mounted binfmt_misc.
fn unseen(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_machine()?;
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    fixture.install(&[arch])?;
    let script = format!(
        r#"(while :; do test -e {MOUNT_POINT}/register && echo seen; done > "$1") &
        watcher=$!
        for round in 1 2 3 4 5; do {LOOKS}; done > /dev/null 2>&1
        kill $watcher
        "$0" status {arch} > /dev/null && "$0" doctor {arch} > /dev/null && "$0" platforms | grep -q qemu-{arch} || exit 10
        wc -l < "$1""#
    );
    let log = fixture.path("sightings");
    let namespaces = &CONTAINER[1..];
    fixture.run(cmd!(sh(), "unshare {namespaces...} sh -c {script} {qus} {log}"))?.writes("0\n")
}

/// A user namespace uses its parent's handlers until it gets its own instance, which is permanent.
fn inherited(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    fixture.install(&[arch])?;
    let looks = LOOKS.replace(r#"; "$0" remove sh4"#, "");
    let script = format!(
        r#"mount -t proc proc /proc
        "$0" probe {arch} > /dev/null || exit 10
        ({looks}; "$0" status {arch}) > /dev/null 2>&1 || exit 11
        "$0" probe {arch} > /dev/null || exit 12
        # Verifies the kernel's rule, so that this check fails when the rule changes.
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT} && umount {MOUNT_POINT}
        "$0" probe {arch} > /dev/null && exit 13
        echo kept"#
    );
    fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?.writes("kept\n")
}

/// Runs in a container on a machine that has not mounted binfmt_misc, where handlers would disappear with the container.
fn beside(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let container = CONTAINER.join(" ");
    let script = format!(
        r#"mount -t proc proc /proc
        exec {container} sh -c '
            refused() {{
                "$0" install {arch} --no-probe 2> "$1" && exit 10
                grep -q "would vanish when this container ends" "$1" || {{ cat "$1" >&2; exit 11; }}
            }}
            (while :; do {LOOKS}; done > /dev/null 2>&1) &
            round=0
            while [ $round -lt 40 ]; do
                refused "$1"
                round=$((round + 1))
            done
            kill $!
            # A read-only command that is stopped while it holds its lock.
            flock --shared /proc/self/ns/user sleep 1 &
            sleep 0.2
            refused "$1"
            wait $!
            test ! -e {MOUNT_POINT}/register || exit 12
            echo refused each time' "$0" "$1""#
    );
    let log = fixture.path("beside");
    fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus} {log}"))?.writes("refused each time\n")
}

/// Runs a command without some system calls; takes the error number and the names of the calls.
const FORBID: &str = include_str!("forbid.py");

/// ENOSYS, from a kernel without the call, and EPERM, from a container's seccomp filter.
const UNKNOWN: &str = "38";
const DENIED: &str = "1";

fn forbidden(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_machine()?;
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let namespaces = &CONTAINER[1..];
    let script = format!(
        r#""$0" doctor {arch} > /dev/null && "$0" status {arch} && "$0" probe {arch} > /dev/null && "$0" remove {arch}"#
    );
    for (error, calls) in [
        (DENIED, "memfd_create"),
        (UNKNOWN, "memfd_create,fsopen,fsmount,pidfd_open,pidfd_send_signal,clone3,close_range,openat2"),
        (DENIED, "fsopen,fsconfig,fsmount,pidfd_open"),
    ] {
        let without = ["-c", FORBID, error, calls];
        fixture.run(cmd!(sh(), "python3 {without...} {qus} install {arch}"))?.succeeds()?;
        let container = cmd!(sh(), "unshare {namespaces...} python3 {without...} /bin/sh -c {script} {qus}");
        let ended = fixture.run(container)?;
        ensure!(ended.stderr.contains(&format!("qemu-{arch} removed")), "{calls}: {}", ended.stderr);
        let output = ended.succeeds()?;
        ensure!(output.contains(&format!("qemu-{arch}")), "{calls}: handlers are not found: {output}");
    }
    Ok(())
}

fn not_to_mount(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let words = ["error: cannot mount /: ", "hint: a security module or a container's seccomp profile"];
    fixture
        .run(cmd!(sh(), "python3 -c {FORBID} {DENIED} mount {qus} run {arch} -- /bin/true"))?
        .exits(1, &words)?;
    let script = format!(
        r#"mount -o remount,bind,ro /proc && setpriv --reuid 65534 --clear-groups "$0" run {arch} -- /bin/true"#
    );
    let qus = fixture.unprivileged_dir()?.join("qus");
    let ended = fixture.run(cmd!(sh(), "unshare --mount sh -c {script} {qus}"))?;
    ended.exits(1, &["Read-only file system", "hint: as root: `mount -o remount,rw /proc`"])
}
