//! Provokes failures with the real kernel. Each must give a clear message and the right exit status, and leave nothing
//! incomplete.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use qus_core::binfmt::{MOUNT_POINT, Rule};
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::kernel::{
    FOREIGN, KernelChecks, KernelFixture, NOBODY, guest_named, require_instances,
};

/// The longest time to wait.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("not root", not_root)?;
    checks.check("binfmt_misc read-only, missing, not mounted, mounted twice; no /proc", not_writable)?;
    checks.check("binfmt_misc disabled, and 1,000 foreign handlers", crowded)?;
    checks.check("unsuitable interpreters", unfit)?;
    checks.check("emulators that an unprivileged user can change", changeable)?;
    checks.check("an interpreter replaced during registration", swapped)?;
    checks.check("a path with spaces, colons and non-UTF-8 bytes", odd_path)?;
    checks.check("an unknown architecture among known ones", unknown)?;
    checks.check("killed between two handlers, then resumed", killed)?;
    checks.check("two concurrent installs", twice_at_once)
}

fn not_root(fixture: &KernelFixture<'_>) -> Result<()> {
    let qus = fixture.unprivileged_dir()?.join("qus");
    let nobody = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let words = ["cannot write ", "hint: run it as root"];
    let arch = FOREIGN[0];
    fixture.run(cmd!(sh(), "setpriv {nobody...} {qus} install {arch}"))?.exits(1, &words)?;
    fixture.run(cmd!(sh(), "setpriv {nobody...} {qus} remove {arch}"))?.exits(1, &words)?;
    fixture.run(cmd!(sh(), "setpriv {nobody...} {qus} status"))?.succeeds()?;
    ensure!(fixture.handler_contents()?.is_empty(), "something was registered");
    Ok(())
}

fn not_writable(fixture: &KernelFixture<'_>) -> Result<()> {
    let (arch, qus) = (FOREIGN[0], fixture.program());
    // Each command has its own mount namespace, so that it does not affect the others.
    let script = format!(r#"mount -o remount,bind,ro {MOUNT_POINT} && exec "$0" install {arch}"#);
    let words = ["is mounted read-only", "hint: remount it: `mount -o remount,rw"];
    fixture.run(cmd!(sh(), "unshare --mount sh -c {script} {qus}"))?.exits(1, &words)?;
    fixture
        .qus(&["--mount", "/no/such/directory", "install", arch])?
        .exits(1, &["there is no directory /no/such/directory"])?;
    let script = r#"mount -t tmpfs none /proc && exec "$0" --mount /proc/sys/fs/binfmt_misc doctor"#;
    let doctor = fixture.run(cmd!(sh(), "unshare --mount sh -c {script} {qus}"))?;
    let words = ["/proc is not mounted", "hint: `mount -t proc proc /proc`"];
    ensure!(words.iter().all(|word| doctor.stdout.contains(word)), "{}", doctor.stdout);
    ensure!(doctor.status == Some(1), "doctor ended with {:?}", doctor.status);
    let script = format!(r#"mount -t tmpfs none /proc && exec "$0" install --no-probe {arch}"#);
    let words = ["/proc is not mounted", "hint: mount it: `mount -t proc proc /proc`"];
    fixture.run(cmd!(sh(), "unshare --mount sh -c {script} {qus}"))?.exits(1, &words)?;
    // For `install`, which mounts it, see `places`.
    let words = ["not mounted", "hint: `mount -t binfmt_misc"];
    let script =
        format!(r#"umount {MOUNT_POINT} && setpriv --bounding-set=-all --inh-caps=-all "$0" doctor"#);
    let doctor = fixture.run(cmd!(sh(), "unshare --mount sh -c {script} {qus}"))?;
    ensure!(words.iter().all(|word| doctor.stdout.contains(word)), "{}", doctor.stdout);
    // A user namespace inherits the host's mount and mounts its own instance over it.
    require_instances()?;
    let script = format!(r#"mount -t binfmt_misc binfmt_misc {MOUNT_POINT} && "$0" doctor"#);
    let doctor = fixture.run(cmd!(sh(), "unshare --user --map-root-user --mount sh -c {script} {qus}"))?;
    ensure!(doctor.stdout.contains("are mounted one over another"), "{}", doctor.stdout);
    ensure!(fixture.handler_contents()?.is_empty(), "something was registered");
    Ok(())
}

/// Runs in a user namespace, where disabling binfmt_misc does not affect the host.
fn crowded(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let script = format!(
        r#"set -e
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        cd {MOUNT_POINT}
        i=0
        while [ $i -lt 1000 ]; do
            echo ":other-$i:E::other-$i::/bin/true:" > register
            i=$((i + 1))
        done
        before=$(cat other-* | cksum)
        "$0" install {arch}
        "$0" status --json > /dev/null
        "$0" doctor {arch}
        echo 0 > status
        "$0" doctor {arch} && exit 10
        "$0" remove all
        "$0" install {arch} && exit 11
        test ! -e qemu-{arch} || exit 12
        test "$(cat status)" = disabled || exit 13
        echo 1 > status
        "$0" install {arch}
        "$0" remove all
        test "$(ls | grep -c '^other-')" = 1000
        test "$before" = "$(cat other-* | cksum)"
        echo all are left"#
    );
    let ended = fixture.run(cmd!(sh(), "unshare --user --map-root-user --mount sh -c {script} {qus}"))?;
    for word in ["it is switched off", "1001 handlers, 1 working"] {
        ensure!(ended.stdout.contains(word), "`{word}` is not in {}", ended.stdout);
    }
    ensure!(ended.stderr.contains("error: binfmt_misc is switched off"), "{}", ended.stderr);
    let output = ended.succeeds()?;
    ensure!(output.ends_with("all are left\n"), "{output}");
    Ok(())
}

fn unfit(fixture: &KernelFixture<'_>) -> Result<()> {
    let emulator = |arch: &str| fixture.bundle.join(format!("qemu-{arch}"));
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    fixture.copy(&emulator("sh4"), "unfit/qemu-sh4")?;
    mode(&fixture.copy(&emulator("alpha"), "unfit/qemu-alpha")?, 0o644)?;
    fixture.copy(Path::new("/bin/true"), "unfit/qemu-hppa")?;
    mode(
        &fixture.copy(&fixture.guest(guest_named(fixture.cx, "s390x")?, "busybox")?, "unfit/qemu-m68k")?,
        0o755,
    )?;
    fixture.copy(&emulator("riscv64"), "unfit/qemu-riscv32")?;
    fs::write(fixture.path("unfit/qemu-or1k"), "#!/bin/sh\n")?;
    mode(&fixture.path("unfit/qemu-or1k"), 0o755)?;
    let dir = fixture.path("unfit").to_string_lossy().into_owned();
    let archs = ["sh4", "alpha", "hppa", "m68k", "riscv32", "or1k", "sparc"];
    let words = [
        "qemu-alpha is not executable",
        "qemu-hppa is not static: it needs /",
        "qemu-m68k is for s390x, which this machine does not run",
        "qemu-riscv32 does not run its own architecture",
        "qemu-or1k is not a program: not an ELF file",
        "there is no qemu-sparc in",
        "not installed: alpha hppa m68k or1k riscv32 sparc",
    ];
    fixture.qus(&[&["install", "--dir", &dir], &archs[..]].concat())?.exits(1, &words)?;
    let names: Vec<_> = fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect();
    ensure!(names == ["qemu-sh4"], "expected only the suitable emulator, found {names:?}");
    fixture
        .qus(&["install", "--dir", "/no/such/directory", "sh4"])?
        .exits(1, &["/no/such/directory", "No such file"])?;
    let empty = fixture.path("empty");
    fs::create_dir(&empty)?;
    let empty = empty.to_string_lossy().into_owned();
    fixture.qus(&["install", "--dir", &empty, "all"])?.exits(1, &["there is no emulator in", "--dir"])?;

    let noexec = fixture.path("noexec");
    fs::create_dir(&noexec)?;
    mount(Some("none"), &noexec, Some("tmpfs"), MsFlags::MS_NOEXEC, None::<&str>)?;
    let checked = fixture.copy(&emulator("arm"), "noexec/qemu-arm").and_then(|_| {
        let dir = noexec.to_string_lossy().into_owned();
        fixture.qus(&["install", "--dir", &dir, "arm"])?.exits(1, &["mounted noexec", "--dir"])
    });
    umount2(&noexec, MntFlags::MNT_DETACH)?;
    checked
}

/// A user who can change an emulator controls what root executes.
fn changeable(fixture: &KernelFixture<'_>) -> Result<()> {
    // In a user namespace, directories of the machine's root seem to belong to this other user.
    fixture.require_machine()?;
    let (arch, qus, user) = (FOREIGN[0], fixture.program(), Some(NOBODY.parse()?));
    let emulator =
        fixture.copy(&fixture.bundle.join(format!("qemu-{arch}")), &format!("theirs-bin/qemu-{arch}"))?;
    let dir = fixture.path("theirs-bin");
    // As with sudo -E, the environment comes from another user.
    let install =
        |qus: &Path| fixture.run(cmd!(sh(), "{qus} install {arch} --no-probe").env("QEMU_BIN_DIR", &dir));
    let words = ["would decide what root runs", "--any-owner"];
    chown(&emulator, user, user)?;
    install(&qus)?.exits(1, &words)?;
    chown(&emulator, Some(0), Some(0))?;
    fs::set_permissions(&emulator, Permissions::from_mode(0o777))?;
    install(&qus)?.exits(1, &words)?;
    fs::set_permissions(&emulator, Permissions::from_mode(0o755))?;
    chown(&dir, user, user)?;
    install(&qus)?.exits(1, &words)?;
    ensure!(fixture.handler_contents()?.is_empty(), "something was registered");
    fixture.run(cmd!(sh(), "{qus} install {arch} --any-owner --dir {dir}"))?.succeeds()?;
    fixture.qus(&["remove", arch])?.succeeds()?;

    // A user who runs their own build with sudo: root already trusts the owner of qus.
    chown(&emulator, user, user)?;
    let theirs = fixture.copy(&qus, "theirs-bin/qus")?;
    chown(&theirs, user, user)?;
    install(&theirs)?.exits(0, &["note: user 65534 can change the emulators in"])
}

fn swapped(fixture: &KernelFixture<'_>) -> Result<()> {
    let emulator = fixture.copy(&fixture.bundle.join("qemu-arm"), "swapped/qemu-arm")?;
    let dir = fixture.path("swapped").to_string_lossy().into_owned();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let swapper = scope.spawn(|| -> Result<()> {
            let other = emulator.with_extension("other");
            while !end.load(Ordering::Relaxed) {
                fs::copy(&emulator, &other)?;
                fs::rename(&other, &emulator)?;
            }
            Ok(())
        });
        let noticed = || -> Result<()> {
            let deadline = Instant::now() + TIMEOUT;
            while Instant::now() < deadline {
                let ended = fixture.qus(&["install", "arm", "--no-probe", "--dir", &dir])?;
                if ended.status == Some(0) {
                    fixture.qus(&["remove", "arm"])?.succeeds()?;
                    continue;
                }
                ensure!(fixture.handler_contents()?.is_empty(), "a refused handler is registered");
                if ended.stderr.contains("was replaced while it was registered") {
                    return ended.exits(1, &["not installed: arm"]);
                }
            }
            bail!("a replaced interpreter was not detected")
        };
        let noticed = noticed();
        end.store(true, Ordering::Relaxed);
        swapper.join().map_err(|_| anyhow::anyhow!("the replacing thread panicked"))??;
        noticed
    })
}

fn odd_path(fixture: &KernelFixture<'_>) -> Result<()> {
    let dir = fixture.dir.path().join(OsStr::from_bytes(b"a b:c,d\xff"));
    fs::create_dir(&dir)?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let emulator = dir.join(format!("qemu-{arch}"));
    fs::copy(fixture.bundle.join(format!("qemu-{arch}")), &emulator)?;
    fixture.run(cmd!(sh(), "{qus} install {arch} --json").arg("--dir").arg(&dir))?.succeeds()?;
    fixture.qus(&["status", "--json"])?.succeeds()?;
    let entry =
        fixture.binfmt.entry(OsStr::new(&format!("qemu-{arch}")))?.context("nothing is registered")?;
    ensure!(entry.rule.interpreter == emulator, "the kernel has {:?}", entry.rule.interpreter);
    fixture.run(cmd!(sh(), "{qus} install {arch}").arg("--dir").arg(&dir))?.exits(0, &["unchanged"])
}

fn unknown(fixture: &KernelFixture<'_>) -> Result<()> {
    let words = ["unknown architecture `aarch46`; did you mean aarch64", "not installed: aarch46"];
    fixture.qus(&["install", "sh4", "aarch46", "hppa"])?.exits(1, &words)?;
    fixture.qus(&["probe", "sh4", "hppa"])?.succeeds()?;
    fixture
        .qus(&["remove", "sh4", "aarch46"])?
        .exits(1, &["qemu-sh4 removed", "unknown architecture `aarch46`"])?;
    fixture.qus(&["remove", "all"])?.succeeds()?;
    let hint = "hint: seconds follow `=`: `qus install sh4 --watch=5`";
    fixture.qus(&["install", "--watch", "5", "sh4"])?.exits(1, &[hint])?;
    ensure!(fixture.handler_contents()?.is_empty(), "something was registered");
    fixture.qus(&["install"])?.exits(2, &["<ARCH>"])
}

fn killed(fixture: &KernelFixture<'_>) -> Result<()> {
    let qus = fixture.program();
    let mut child = exec::spawn(cmd!(sh(), "{qus} install all"), fs::File::create(fixture.path("output"))?)?;
    let deadline = Instant::now() + TIMEOUT;
    while fixture.handler_contents()?.len() < 3 {
        ensure!(Instant::now() < deadline, "nothing was registered");
    }
    child.kill()?;
    child.wait()?;
    let before = fixture.handler_contents()?.len();
    ensure!(before < 31, "all {before} were registered before the kill");
    fixture.qus(&["install", "all"])?.exits(0, &["unchanged", "installed"])?;
    ensure!(fixture.handler_contents()?.len() > before, "nothing was added");
    fixture.qus(&["status", "arm", "xtensaeb"])?.succeeds()?;

    // Simulates a replacement that was killed after its first or second step.
    let arm = fixture.binfmt.entry(OsStr::new("qemu-arm"))?.context("arm is not registered")?;
    let new = Rule { name: "qemu-arm.new".into(), ..arm.rule };
    for steps in 1..=2 {
        fixture.binfmt.register(&new)?;
        if steps == 2 {
            fixture.binfmt.remove(OsStr::new("qemu-arm"))?;
        }
        fixture.qus(&["probe", "arm"])?.succeeds()?;
        fixture.qus(&["install", "arm"])?.succeeds()?;
        let names: Vec<_> = fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect();
        ensure!(
            names.contains(&"qemu-arm".to_owned()) && !names.contains(&"qemu-arm.new".to_owned()),
            "{names:?}"
        );
    }
    Ok(())
}

fn twice_at_once(fixture: &KernelFixture<'_>) -> Result<()> {
    let qus = fixture.program();
    let output = |name: &str| fs::File::create(fixture.path(name));
    let install = || cmd!(sh(), "{qus} install --force all");
    let mut both = vec![exec::spawn(install(), output("one")?)?, exec::spawn(install(), output("two")?)?];
    for child in &mut both {
        let status = child.wait()?;
        ensure!(status.success(), "a concurrent install ended with {status}");
    }
    let output = fs::read_to_string(fixture.path("one"))? + &fs::read_to_string(fixture.path("two"))?;
    let count = |word: &str| output.lines().filter(|line| line.contains(word)).count();
    ensure!(
        count(" installed ") == count(" unchanged "),
        "a handler was not registered exactly once: {output}"
    );
    ensure!(
        !fixture.handler_contents()?.iter().any(|(name, _)| name.ends_with(".new")),
        "temporary handlers are left: {:?}",
        fixture.handler_contents()?
    );
    Ok(())
}
