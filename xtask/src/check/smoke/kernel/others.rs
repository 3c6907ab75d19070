//! Checks the rules that `qus` writes with the programs that read them: those that register handlers or mount
//! binfmt_misc at boot, from Debian's packages.
//!
//! Each program runs in its own root filesystem, and in a user namespace if possible, because systemd-binfmt first
//! removes all handlers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use qemu_src::PackageSet;
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use crate::base::cache;
use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::base::progress::say;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};
use crate::check::smoke::kernel::places::MACHINE;
use crate::debian::distribution::Distribution;
use crate::debian::packages;

/// Architectures with a longer magic and with two machine numbers.
const MORE: &str = "mipsn32 microblaze";

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("install --persist, then systemd-binfmt; remove --persist", systemd)?;
    checks.check("install, then install --persist: it takes over without interruption", taken_over)?;
    checks.check("a failed install --persist mounts nothing", unmounted)?;
    checks.check("install --persist, then OpenRC; remove --persist", openrc)?;
    checks.check("qus.service: systemd-analyze reports no problem", unit)?;
    checks.check("export debian, then update-binfmts", debian)?;
    checks.check("export raw, then direct registration in the kernel", raw)?;
    checks.check("an automounter mounts binfmt_misc when qus accesses it", automounter)?;
    checks.check("--persist on a full disk", full_disk)?;
    checks.check("--persist where no program would register handlers at boot", nothing_there)
}

impl KernelFixture<'_> {
    /// Copies a root filesystem with packages.
    pub(super) fn root_filesystem(&self, name: &str, set: &PackageSet) -> Result<PathBuf> {
        let unpacked = self
            .unpacked(set)
            .map_err(|error| Skip(format!("packages of a root filesystem are not available: {error:#}")))?;
        let root = self.path(name);
        exec::read(cmd!(sh(), "cp --archive {unpacked} {root}"))?;
        Ok(root)
    }

    fn init_systems(&self, name: &str) -> Result<PathBuf> {
        self.root_filesystem(name, &self.cx.data.debian.packages.init_rootfs)
    }

    fn unpacked(&self, set: &PackageSet) -> Result<PathBuf> {
        let distribution = Distribution::detect()?.context("this machine has no apt")?;
        let dir = self.cx.paths.rootfs(&format!("{}-{}", distribution.codename, packages::id(set)));
        if !dir.exists() {
            cache::publish(&dir, |partial| {
                let what = "a root filesystem for checks";
                packages::fetch(self.cx, &distribution, &set.from, None, what, partial, |apt, into| {
                    apt.unpack_all(&set.packages, into).map(drop)
                })?;
                for dir in ["proc", "dev", "run", "tmp"] {
                    fs::create_dir_all(partial.join(dir))?;
                }
                Ok(())
            })?;
            say(format_args!("unpacked {}", set.packages.join(", ")));
        }
        Ok(dir)
    }

    /// Runs a script in a user namespace like on a separate machine. `$root` is its root filesystem, in which `inside`
    /// runs programs; `$qus` and `$archs` are also set.
    pub(super) fn on_a_machine(&self, root: &std::path::Path, script: &str) -> Result<CommandOutput> {
        require_instances()?;
        let qus = self.program();
        let script = format!(
            r#"set -e
            qus=$0 root=$1 archs="{} {MORE}"
            inside() {{ chroot "$root" "$@"; }}
            mount -t proc proc /proc
            mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
            mount --rbind /proc "$root/proc"
            mount --rbind /dev "$root/dev"
            mount -t tmpfs none "$root/run"
            before=$(cd "$root" && find . -xdev | sort)
            unchanged() {{ test "$before" = "$(cd "$root" && find . -xdev | sort)"; }}
            {script}"#,
            FOREIGN[0]
        );
        self.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus} {root}"))
    }
}

/// Verifies that the handlers work and equal those that `qus` registers.
const REGISTERED: &str = r#"$qus probe $archs
$qus status $archs --json > "$root/status"
rm "$root/status"
$qus doctor $archs
"#;

fn systemd(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.init_systems("systemd")?;
    let script = format!(
        r#"
        $qus install $archs --persist --host-root "$root"
        conf=$(cksum "$root/etc/binfmt.d/qus.conf")
        $qus install $archs --persist --host-root "$root"
        $qus install mipsn32 --persist --host-root "$root" && exit 10
        test "$conf" = "$(cksum "$root/etc/binfmt.d/qus.conf")"
        $qus remove all
        inside /lib/systemd/systemd-binfmt
        {REGISTERED}
        $qus remove all --persist --host-root "$root"
        test "$(ls {MOUNT_POINT} | wc -l)" = 2
        unchanged"#
    );
    fixture.on_a_machine(&root, &script)?.exits(
        0,
        &["registered at every boot", "would drop persistent handlers: ", "/etc/binfmt.d/qus.conf removed"],
    )
}

/// Probes run during the replacement: each must find a handler.
fn taken_over(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.init_systems("taken-over")?;
    let first = FOREIGN[0];
    let script = format!(
        r#"
        has() {{ test "$(sed -n 's/^interpreter //p' {MOUNT_POINT}/qemu-{first})" = "$1"; }}
        $qus install $archs
        (until test -e "$root/end"; do $qus probe $archs > /dev/null || echo no handler; done) &
        probes=$!
        $qus install $archs --persist --host-root "$root" --dry-run
        has "$(dirname "$qus")/qemu-{first}"
        $qus install $archs --persist --host-root "$root"
        touch "$root/end"
        wait $probes
        rm "$root/end"
        copy=$(echo "$root"/usr/local/lib/qus/*/qemu-{first})
        has "$copy"
        $qus install $archs
        $qus install $archs --persist --host-root "$root"
        has "$copy"
        $qus install $archs --persist --host-root "$root" --no-credentials && exit 10
        $qus remove {first} --persist --host-root "$root" && exit 11
        test -e "$copy"
        has "$copy"
        $qus remove $archs --persist --host-root "$root"
        test "$(ls {MOUNT_POINT} | wc -l)" = 2
        unchanged"#
    );
    let ended = fixture.on_a_machine(&root, &script)?;
    ensure!(!ended.stdout.contains("no handler"), "a program found no handler");
    let words =
        ["would be replaced", " replaced ", " unchanged ", "flags: is POCF, should be PF", "would drop "];
    ended.exits(0, &words)
}

fn unmounted(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let script = format!(
        r#"set -e
        mount -t proc proc /proc
        unshare --mount "$0" install {arch} --persist --host-root /no/such/directory && exit 10
        test ! -e {MOUNT_POINT}/register"#
    );
    let ended = fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?;
    ended.exits(0, &["cannot open /no/such/directory", "hint: ", "`--host-root DIR`"])
}

fn openrc(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.init_systems("openrc")?;
    fs::remove_file(root.join("lib/systemd/systemd-binfmt"))?;
    // The directories that OpenRC creates at boot.
    let dirs = "daemons exclusive failed inactive options scheduled started starting stopping wasinactive";
    let script = format!(
        r#"
        for dir in {dirs}; do mkdir -p "$root/run/openrc/$dir"; done
        touch "$root/run/openrc/softlevel"
        $qus install $archs --persist --host-root "$root"
        test -L "$root/etc/runlevels/boot/qus"
        $qus remove all
        inside /sbin/openrc-run /etc/init.d/qus start
        {REGISTERED}
        inside /sbin/openrc-run /etc/init.d/qus stop
        test "$(ls {MOUNT_POINT} | wc -l)" = 2
        $qus remove --persist --host-root "$root"
        unchanged"#
    );
    fixture.on_a_machine(&root, &script)?.exits(0, &["/etc/init.d/qus removed"])
}

/// Verifies that systemd-analyze accepts the unit, and rejects a damaged one.
fn unit(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.init_systems("unit")?;
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(&units)?;
    // What a machine with docker has.
    let docker = root.join("usr/bin/docker");
    fs::write(&docker, "#!/bin/sh\n")?;
    fs::set_permissions(&docker, Permissions::from_mode(0o755))?;
    fs::write(units.join("docker.service"), "[Service]\nExecStart=/usr/bin/docker\n")?;
    let verify = |unit: &str| -> Result<CommandOutput> {
        fs::write(units.join("qus.service"), unit)?;
        fixture.on_a_machine(&root, "inside systemd-analyze verify /etc/systemd/system/qus.service")
    };
    let unit = fs::read_to_string(fixture.cx.paths.images().join("qus.service"))?;
    let verified = verify(&unit)?;
    ensure!(verified.stderr.is_empty(), "{}", verified.stderr);
    verified.succeeds()?;
    for (from, to, word) in [
        ("RemainAfterExit=", "RemainAfterExitt=", "Unknown key"),
        ("=oneshot", "=oneshoot", "oneshoot"),
        ("Requires=docker", "Requires=dokcer", "dokcer.service not found"),
        ("/usr/bin/docker", "/usr/bin/dokcer", "/usr/bin/dokcer is not executable"),
    ] {
        ensure!(unit.contains(from), "qus.service has no {from}");
        let damaged = verify(&unit.replace(from, to))?;
        ensure!(damaged.stderr.contains(word), "{to} is not reported: {}", damaged.stderr);
    }
    Ok(())
}

fn debian(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.init_systems("debian")?;
    let script = format!(
        r#"
        mkdir "$root/emulators"
        for arch in $archs; do cp "$(dirname "$qus")/qemu-$arch" "$root/emulators"; done
        $qus export debian $archs --as /emulators > "$root/script"
        inside /bin/sh /script
        $qus probe $archs
        ls "$root/var/lib/binfmts"
        inside update-binfmts --package qus --remove qemu-{} /emulators/qemu-{0}
        test ! -e {MOUNT_POINT}/qemu-{0}"#,
        FOREIGN[0]
    );
    let ended = fixture.on_a_machine(&root, &script)?;
    ensure!(ended.stdout.contains("qemu-microblaze-47787"), "{}", ended.stdout);
    ended.succeeds().map(drop)
}

fn raw(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.path("raw");
    for dir in ["proc", "dev", "run"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let script = format!(
        r#"
        $qus export raw $archs | while IFS= read -r line; do
            printf %s "$line" > {MOUNT_POINT}/register
        done
        $qus install $archs
        {REGISTERED}"#
    );
    fixture.on_a_machine(&root, &script)?.exits(0, &["unchanged"])
}

/// Runs in the initial user namespace, because autofs cannot be mounted in another.
fn automounter(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_machine()?;
    let root = fixture.init_systems("autofs")?;
    fs::write(root.join("etc/auto.master"), "/- /etc/auto.direct\n")?;
    fs::write(root.join("etc/auto.direct"), format!("{MOUNT_POINT} -fstype=binfmt_misc :binfmt_misc\n"))?;
    let (arch, qus) = (FOREIGN[0], fixture.program());
    fs::create_dir_all(root.join("var/run"))?;
    fs::copy(&qus, root.join("tmp/qus"))?;
    fs::copy(fixture.bundle.join(format!("qemu-{arch}")), root.join(format!("tmp/qemu-{arch}")))?;
    // Processes of the automounter's own process group do not trigger a mount.
    let script = format!(
        r#"cd "$0"
        umount {MOUNT_POINT}
        mount --rbind /proc proc && mount --rbind /dev dev && mount -t tmpfs none run || exit 10
        setsid chroot . /usr/sbin/automount --foreground --verbose /etc/auto.master > log 2>&1 &
        automounter=$!
        tries=0
        until grep -q 'mounted direct' log; do
            tries=$((tries + 1))
            test $tries -lt 100 || break
            sleep 0.1
        done
        grep -q 'binfmt_misc autofs' proc/mounts
        was_autofs=$?
        chroot . /tmp/qus install {arch}
        installed=$?
        grep -q 'binfmt_misc binfmt_misc' proc/mounts
        is_mounted=$?
        chroot . /tmp/qus remove all
        kill $automounter
        wait $automounter
        echo $was_autofs $installed $is_mounted"#
    );
    fixture.run(cmd!(sh(), "unshare --mount sh -c {script} {root}"))?.writes("0 0 0\n")
}

/// Handlers that cannot be saved are not registered, and no file is left.
fn full_disk(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.path("full");
    fs::create_dir(&root)?;
    mount(Some("none"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=9m"))?;
    let kept = || -> Result<()> {
        fs::create_dir_all(root.join("usr/lib/systemd"))?;
        fs::write(root.join("usr/lib/systemd/systemd-binfmt"), "")?;
        let root = root.to_string_lossy().into_owned();
        let words = ["cannot write", "No space left on device"];
        fixture.qus(&["install", "all", "--persist", "--host-root", &root])?.exits(1, &words)?;
        ensure!(fixture.handler_contents()?.is_empty(), "something was registered");
        fixture.qus(&["remove", "--persist", "--host-root", &root])?.succeeds()?;
        let left = fixture.run(cmd!(sh(), "find {root} -type f"))?;
        left.writes(&format!("{root}/usr/lib/systemd/systemd-binfmt\n"))
    };
    let kept = kept();
    umount2(&root, MntFlags::MNT_DETACH)?;
    kept
}

fn nothing_there(fixture: &KernelFixture<'_>) -> Result<()> {
    let root = fixture.path("no-service");
    fs::create_dir(&root)?;
    let words = ["the host has neither systemd-binfmt nor OpenRC", "hint: "];
    let root = root.to_string_lossy().into_owned();
    fixture.qus(&["install", FOREIGN[0], "--persist", "--host-root", &root])?.exits(1, &words)?;
    ensure!(fixture.handler_contents()?.is_empty(), "something was registered");
    ensure!(fs::read_dir(&root)?.next().is_none(), "something was written");
    Ok(())
}
