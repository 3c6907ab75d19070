//! Checks `qus run --map-root` as an ordinary user: subordinate users, and the programs that create root filesystems.

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::error::Skip;
use crate::base::exec::sh;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};
use crate::check::smoke::fixture::tools;
use crate::debian::distribution::Distribution;

/// The number of a user that no distribution gives away.
const USER: u32 = 54321;

/// A file system that a script needs cannot be mounted.
const NO_OVERLAY: i32 = 77;

/// Gives the user subordinate users and groups.
const SUBORDINATE: &str = "echo qus-smoke:3000000:65536 | tee /etc/subuid > /etc/subgid\n";

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks
        .check("qus run --map-root: subordinate users own files, and nothing more is allowed", subordinate)?;
    checks.check("qus run --map-root without subordinate users: a note, and its hint helps", missing)?;
    checks.check("qus run --map-root: mmdebstrap of riscv64 as an ordinary user", mmdebstrap)?;
    checks.check("qus run --map-root: debootstrap of riscv64 as an ordinary user", debootstrap)
}

impl KernelFixture<'_> {
    /// Runs a script as root where the packages seem to be installed, and `/etc` can be changed. In it `user` runs a
    /// command as an ordinary user in a directory of its own; `$qus`, `$busybox` and `$arch` are set.
    fn with_user(&self, name: &str, script: &str) -> Result<CommandOutput> {
        require_instances()?;
        // In a user namespace newuidmap does not run as root.
        self.require_machine()?;
        let (tools, dir) = (tools::rootless(self.cx)?, self.unprivileged_dir()?);
        let emulator = self.bundle.join("qemu-riscv64");
        if emulator.exists() {
            self.copy(&emulator, "unprivileged/qemu-riscv64")?;
        }
        let home = self.path(name);
        fs::create_dir(&home)?;
        std::os::unix::fs::chown(&home, Some(USER), Some(USER))?;
        let script = format!(
            r#"set -e
            tools=$0 dir=$1 home=$2 arch={} qus=$dir/qus busybox=$dir/busybox
            mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work || exit {NO_OVERLAY}
            mount -t overlay -o "lowerdir=$tools/usr:/usr" overlay /usr || exit {NO_OVERLAY}
            mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work overlay /etc || exit {NO_OVERLAY}
            umount --lazy /mnt
            echo "qus-smoke:x:{USER}:{USER}::$home:/bin/sh" >> /etc/passwd
            echo "qus-smoke:x:{USER}:" >> /etc/group
            : > /etc/subuid > /etc/subgid
            cd "$home"
            user() {{
                setpriv --reuid {USER} --regid {USER} --clear-groups env HOME="$home" USER=qus-smoke TMPDIR=/tmp \
                    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
            }}
            {script}"#,
            FOREIGN[0]
        );
        let ended = self.run(cmd!(sh(), "unshare --mount sh -c {script} {tools} {dir} {home}"))?;
        if ended.status == Some(NO_OVERLAY) {
            bail!(Skip(format!("cannot mount an overlay: {}", ended.stderr.trim())));
        }
        Ok(ended)
    }

    /// Checks that commands create a root filesystem of riscv64 in `root`, which can be used and removed.
    fn bootstrap(&self, name: &str, made: &str) -> Result<()> {
        if !self.bundle.join("qemu-riscv64").exists() {
            bail!(Skip("the bundle has no emulator for riscv64".to_owned()));
        }
        let script = format!(
            r#"{SUBORDINATE}
            {made} > log 2>&1 || {{ tail -n 30 log root/debootstrap/debootstrap.log >&2; exit 1; }}
            user "$qus" run --map-root --root root riscv64 -- /bin/sh -c '
                set -e
                uname -m
                dpkg --print-architecture
                dpkg --audit
                test "$(stat -c %U:%G /etc/passwd)" = root:root
                for user in root:0 games:5 nobody:65534; do
                    touch /tmp/file && chown "${{user%:*}}" /tmp/file && stat -c %u /tmp/file && rm /tmp/file
                done'
            test "$(stat -c %u:%g root/etc/passwd)" = {USER}:{USER}
            test ! -s root/dev/null
            user "$qus" run --map-root riscv64 -- rm -r root
            test ! -e root"#
        );
        self.with_user(name, &script)?.writes("riscv64\nriscv64\n0\n5\n65534\n")
    }
}

fn subordinate(fixture: &KernelFixture<'_>) -> Result<()> {
    let script = format!(
        r#"{SUBORDINATE}
        echo qus-smoke:4000000:10 | tee -a /etc/subuid >> /etc/subgid
        inside() {{ user "$qus" run --map-root $arch -- "$busybox" "$@"; }}
        inside sh -c 'id -u; id -g; touch own others; chown 5:6 others; stat -c %u:%g own others'
        stat -c %u:%g own others
        inside sh -c 'touch more; chown 65537:65546 more'
        stat -c %u:%g more
        inside chown 65547 own 2> /dev/null && exit 10
        # Files of other users outside are not the user's.
        touch roots; chmod 600 roots
        inside cat roots 2> /dev/null && exit 11
        inside chown 0 roots 2> /dev/null && exit 12
        inside mknod null c 1 3 2> /dev/null && exit 13
        # Without the option all is as before.
        user "$qus" run $arch -- "$busybox" id -u
        user "$qus" run $arch -- "$busybox" chown 5 own 2> /dev/null && exit 14
        # A program in a relative directory of PATH is not run.
        mkdir bin
        printf '#!/bin/sh\ntouch "$HOME/was-run"\n' > bin/newuidmap
        chmod 755 bin/newuidmap; cp bin/newuidmap bin/newgidmap; chown -R {USER} .
        user PATH=bin:.:/usr/bin "$qus" run --map-root $arch -- "$busybox" id -u
        test ! -e was-run"#
    );
    let ended = fixture.with_user("subordinate", &script)?;
    ended.writes(&format!("0\n0\n0:0\n5:6\n{USER}:{USER}\n3000004:3000005\n4000000:4000009\n{USER}\n0\n"))
}

fn missing(fixture: &KernelFixture<'_>) -> Result<()> {
    // Each of the notes, and what the hint of the second changes.
    let script = r#"
        inside() { user "$@" "$qus" run --map-root $arch -- "$busybox" sh -c 'id -u; touch x; chown 5 x && stat -c %u x'; }
        inside PATH=/nowhere && exit 10
        inside 2> log && exit 11
        cat log >&2
        hint=$(sed -n 's/^hint: as root: `\(.*\)`$/\1/p' log)
        sh -c "$hint"
        inside 2> log
        test ! -s log
        # The programs have lost their setuid bit, as in some containers.
        cp /usr/bin/newuidmap /usr/bin/newgidmap .
        inside PATH="$home" && exit 12
        echo end"#;
    let ended = fixture.with_user("missing", script)?;
    let note = "note: root is the only user inside, and files cannot be given to others: ";
    let words = [
        &*format!("{note}the program newuidmap is not installed\nhint: as root: `apt-get install uidmap`"),
        &format!("{note}no line for qus-smoke is in /etc/subuid and /etc/subgid\nhint: as root: `usermod "),
        &format!("{note}the helper cannot map all users"),
    ];
    ensure!(ended.stdout == "0\n0\n0\n5\n0\nend\n", "{:?}: {}", ended.stdout, ended.stderr);
    ended.exits(0, &words)
}

/// Only essential packages, because others take minutes, and without updates, whose indexes mirrors serve inconsistently.
fn mmdebstrap(fixture: &KernelFixture<'_>) -> Result<()> {
    let suite = suite(fixture)?;
    let distribution = Distribution::detect()?.ok_or_else(|| Skip("this machine has no apt".to_owned()))?;
    let source = distribution.other_suite("deb", suite, &[]).map_err(|error| Skip(format!("{error:#}")))?;
    let made = format!(
        r#"user "$qus" run --map-root riscv64 -- \
            mmdebstrap --variant=essential --arch=riscv64 {suite} root '{source}'"#
    );
    fixture.bootstrap("mmdebstrap", &made)
}

/// debootstrap creates devices, which no user namespace allows, unless it is in a container that has them.
fn debootstrap(fixture: &KernelFixture<'_>) -> Result<()> {
    let suite = suite(fixture)?;
    let made = format!(
        r#"user mkdir -p root/dev
        user "$qus" run --map-root --env container=lxc --bind "/dev:$home/root/dev" riscv64 -- \
            debootstrap --variant=minbase --arch=riscv64 {suite} root"#
    );
    fixture.bootstrap("debootstrap", &made)
}

fn suite<'a>(fixture: &KernelFixture<'a>) -> Result<&'a str> {
    fixture.cx.data.debian.guest_suites.first().map(String::as_str).context("debian.toml has no guest suite")
}
