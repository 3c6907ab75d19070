//! The programs that register handlers when a machine starts, from Debian's packages, with the rules that
//! `qus` writes for them.
//!
//! Each runs in a root folder of its own, in a user namespace: systemd-binfmt begins by removing every
//! handler there is.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use super::places::MACHINE;
use super::{Bench, Checks, Ended, FOREIGN};
use crate::apt::{Apt, Distribution};
use crate::progress::say;
use crate::report::Skip;
use crate::{cache, exec};

/// What is unpacked, with all that it depends on.
const PACKAGES: [&str; 4] = ["binfmt-support", "dash", "openrc", "systemd"];

/// Rows with longer magic, and with two machine numbers.
const MORE: &str = "mipsn32 microblaze";

pub(super) fn run(checks: &mut Checks<'_>) -> Result<()> {
    checks.check("install --persist, then systemd-binfmt; remove --persist", systemd)?;
    checks.check("install --persist, then OpenRC; remove --persist", openrc)?;
    checks.check("export debian, then update-binfmts", debian)?;
    checks.check("export raw, then the kernel itself", raw)?;
    checks.check("--persist where nothing would register at the next start", nothing_there)
}

impl Bench<'_> {
    /// A copy of a root folder with the packages.
    fn root_folder(&self, name: &str) -> Result<PathBuf> {
        let sh = self.sh;
        let unpacked = self.packages().map_err(|error| Skip(format!("no packages to run: {error:#}")))?;
        let root = self.path(name);
        exec::read(cmd!(sh, "cp --archive {unpacked} {root}"))?;
        Ok(root)
    }

    fn packages(&self) -> Result<PathBuf> {
        let distribution = Distribution::detect()?.context("this machine has no apt")?;
        let id = cache::sha256(PACKAGES.join(" ").as_bytes());
        let dir = self.paths.root_folder(&format!("{}-{}", distribution.codename, &id[..8]));
        if !dir.exists() {
            let log = self.paths.log("root-folder");
            exec::start_log(&log)?;
            let apt = Apt::own(self.sh, &self.paths.apt("root-folder"), &log, &distribution)?;
            cache::publish(&dir, |partial| {
                apt.unpack_all(&PACKAGES, partial)?;
                for folder in ["proc", "dev", "run", "tmp"] {
                    fs::create_dir_all(partial.join(folder))?;
                }
                Ok(())
            })?;
            say(format_args!("unpacked {}", PACKAGES.join(", ")));
        }
        Ok(dir)
    }

    /// Runs a script on a machine of its own with the root folder `$root`, as which `inside` runs a program,
    /// `$qus`, and the architectures `$archs`.
    fn on_a_machine(&self, root: &std::path::Path, script: &str) -> Result<Ended> {
        let (sh, qus) = (self.sh, self.program());
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
        self.ends(cmd!(sh, "unshare {MACHINE...} sh -c {script} {qus} {root}"))
    }
}

/// What all of them have to bring about: handlers that work, the same that `qus` has.
const REGISTERED: &str = r#"$qus probe $archs
$qus status $archs --json > "$root/status"
rm "$root/status"
$qus doctor $archs
"#;

fn systemd(bench: &Bench<'_>) -> Result<()> {
    let root = bench.root_folder("systemd")?;
    let script = format!(
        r#"
        $qus install $archs --persist --host-root "$root"
        conf=$(cksum "$root/etc/binfmt.d/qus.conf")
        $qus install $archs --persist --host-root "$root"
        test "$conf" = "$(cksum "$root/etc/binfmt.d/qus.conf")"
        $qus remove all
        inside /lib/systemd/systemd-binfmt
        {REGISTERED}
        $qus remove all --persist --host-root "$root"
        test "$(ls {MOUNT_POINT} | wc -l)" = 2
        unchanged"#
    );
    bench
        .on_a_machine(&root, &script)?
        .fails(0, &["kept for the next start", "/etc/binfmt.d/qus.conf removed"])
}

fn openrc(bench: &Bench<'_>) -> Result<()> {
    let root = bench.root_folder("openrc")?;
    fs::remove_file(root.join("lib/systemd/systemd-binfmt"))?;
    // What OpenRC makes when it starts a machine.
    let folders = "daemons exclusive failed inactive options scheduled started starting stopping wasinactive";
    let script = format!(
        r#"
        for folder in {folders}; do mkdir -p "$root/run/openrc/$folder"; done
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
    bench.on_a_machine(&root, &script)?.fails(0, &["/etc/init.d/qus removed"])
}

fn debian(bench: &Bench<'_>) -> Result<()> {
    let root = bench.root_folder("debian")?;
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
    let ended = bench.on_a_machine(&root, &script)?;
    ensure!(ended.stdout.contains("qemu-microblaze-47787"), "{}", ended.stdout);
    ended.succeeds().map(drop)
}

fn raw(bench: &Bench<'_>) -> Result<()> {
    let root = bench.path("raw");
    for folder in ["proc", "dev", "run"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let script = format!(
        r#"
        $qus export raw $archs | while IFS= read -r line; do
            printf %s "$line" > {MOUNT_POINT}/register
        done
        $qus install $archs
        {REGISTERED}"#
    );
    bench.on_a_machine(&root, &script)?.fails(0, &["unchanged"])
}

fn nothing_there(bench: &Bench<'_>) -> Result<()> {
    let root = bench.path("no-service");
    fs::create_dir(&root)?;
    let words = ["there is neither systemd-binfmt nor OpenRC", "remedy: "];
    let root = root.to_string_lossy().into_owned();
    bench.qus(&["install", FOREIGN[0], "--persist", "--host-root", &root])?.fails(1, &words)?;
    ensure!(bench.texts()?.is_empty(), "something was registered");
    ensure!(fs::read_dir(&root)?.next().is_none(), "something was written");
    Ok(())
}
