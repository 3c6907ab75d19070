//! `qus install --watch`, and what a cluster asks it whether it is ready.

use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use fs_err::{self as fs, File};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture};
use crate::check::smoke::fixture::process::until;
use crate::check::smoke::kernel::places::MACHINE;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("install --watch: what is taken away comes back; SIGTERM removes it", watched)?;
    checks.check("install --watch as process 1 of a container", first_process)?;
    checks.check("install --watch goes on where its messages cannot be written", unread)?;
    checks.check("install --watch ends where nothing can be installed", in_vain)?;
    checks.check("status all, doctor all: every emulator at hand", at_hand)
}

/// A running `qus`, which does not outlive its check.
struct WatchProcess(Child);

impl Drop for WatchProcess {
    fn drop(&mut self) {
        // It has ended, or it cannot be helped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watched(fixture: &KernelFixture<'_>) -> Result<()> {
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let jar = fixture.foreign_handler("qus-smoke-jar", ":qus-smoke-jar:E::qus-smoke-jar::/bin/true:")?;
    let before = jar.text()?;
    fixture.install(&["hppa"])?;
    let output = fixture.path("watch-talk");
    let said = |word: &str| -> Result<usize> { Ok(fs::read_to_string(&output)?.matches(word).count()) };
    let command = cmd!(sh(), "{qus} install {arch} sh4 --watch=1");
    let mut running = WatchProcess(exec::spawn(command, File::create(&output)?)?);
    until("watching", || Ok(said("checking every 1 s")? == 1))?;

    let handler = fixture.binfmt.root().join(format!("qemu-{arch}"));
    let text = fs::read(&handler)?;
    fs::write(&handler, "-1")?;
    until("coming back", || Ok(said(" installed ")? == 3))?;
    ensure!(fs::read(&handler)? == text, "another handler came back");
    fixture.qus(&["probe", arch])?.succeeds()?;
    ensure!(said("qemu-sh4")? == 1, "what did not change was said again");

    // As `install`, it lets stay what differs, and it says so once.
    let differs = "enabled: is false, should be true";
    fs::write(&handler, "0")?;
    until("a difference told", || Ok(said(differs)? == 1))?;
    sleep(Duration::from_millis(2500));
    ensure!(said(differs)? == 1, "a difference was told again");
    ensure!(fs::read(&handler)?.starts_with(b"disabled"), "it was changed without --force");
    fs::write(&handler, "-1")?;
    until("coming back again", || Ok(said(" installed ")? == 4))?;

    ensure!(running.0.try_wait()?.is_none(), "it has ended by itself");
    kill(Pid::from_raw(running.0.id().try_into()?), Signal::SIGTERM)?;
    until("the end", || Ok(running.0.try_wait()?.is_some()))?;
    let status = running.0.wait()?;
    ensure!(status.success(), "by SIGTERM it ended with {status}");
    ensure!(jar.text()? == before, "somebody else's handler was changed");
    let left: Vec<_> = fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect();
    ensure!(left == ["qemu-hppa", "qus-smoke-jar"], "what it was not asked for has gone, or: {left:?}");
    Ok(())
}

/// The first lines of a script: an instance of its own, the path of a handler in it, and a wait for that.
fn begin() -> String {
    let arch = FOREIGN[0];
    format!(
        r#"set -e
        mount -t proc proc /proc
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        handler={MOUNT_POINT}/qemu-{arch}
        comes() {{
            tries=0
            until test -e $handler; do
                tries=$((tries + 1))
                test $tries -lt 100 || exit 10
                sleep 0.1
            done
        }}"#
    )
}

/// The kernel gives process 1 no signal that it does not ask for.
fn first_process(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let (arch, qus, begin) = (FOREIGN[0], fixture.program(), begin());
    let script = format!(
        r#"{begin}
        for signal in TERM INT HUP QUIT; do
            unshare --mount --pid --fork --mount-proc "$0" install {arch} --watch=1 &
            container=$!
            comes
            echo -1 > $handler
            comes
            watched=$(cat /proc/$container/task/$container/children)
            kill -$signal $watched
            (sleep 20; kill -KILL $watched) &
            wait $container
            test ! -e $handler
        done
        echo gone each time"#
    );
    fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus}"))?.writes("gone each time\n")
}

/// Whoever read its messages has gone, as after `| head -1`, or the disk of a log is full.
fn unread(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.require_instances()?;
    let (arch, qus, begin) = (FOREIGN[0], fixture.program(), begin());
    let script = format!(
        r#"{begin}
        watch() {{
            "$@" &
            comes
            echo -1 > $handler
            comes
            kill -TERM $!
            wait $!
            test ! -e $handler || exit 11
        }}
        watch "$0" install {arch} --watch=1 2> /dev/full
        mkfifo "$1"
        sleep 0.2 < "$1" &
        watch "$0" install {arch} --watch=1 2> "$1"
        # Under nohup it stays when its terminal is closed.
        watch nohup "$0" install {arch} --watch=1 2> /dev/null > /dev/null
        nohup "$0" install {arch} --watch=1 2> /dev/null > /dev/null &
        comes
        kill -HUP $!
        sleep 0.3
        test -e $handler || exit 12
        kill -TERM $!
        wait $!
        echo gone each time"#
    );
    let pipe = fixture.path("unread");
    fixture.run(cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus} {pipe}"))?.writes("gone each time\n")
}

fn in_vain(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.qus(&["install", "aarch46", "--watch"])?.fails(1, &["not installed: aarch46"])?;
    let words = ["there is no directory /no/such/folder", "hint: "];
    fixture.qus(&["--mount", "/no/such/folder", "install", FOREIGN[0], "--watch"])?.fails(1, &words)
}

fn at_hand(fixture: &KernelFixture<'_>) -> Result<()> {
    let missing = ["no handler for ", FOREIGN[0], "hint: as root: `qus install"];
    fixture.qus(&["status", "all"])?.fails(1, &missing)?;
    fixture.qus(&["doctor", "all"])?.fails(1, &[" found\n"])?;
    fixture.install(&["all"])?;
    fixture.qus(&["status", "all"])?.succeeds()?;
    fixture.qus(&["doctor", "all"])?.succeeds()?;
    fixture.qus(&["remove", "sh4"])?.succeeds()?;
    fixture.qus(&["status", "all"])?.fails(1, &["no handler for sh4\n"])?;
    // An emulator that is not at hand is not missed.
    fixture.copy(&fixture.bundle.join("qemu-hppa"), "at-hand/qemu-hppa")?;
    let (qus, dir) = (fixture.program(), fixture.path("at-hand"));
    fixture.run(cmd!(sh(), "{qus} status all").env("QEMU_BIN_DIR", dir))?.succeeds().map(drop)
}
