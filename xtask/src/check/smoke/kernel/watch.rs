//! Checks `qus install --watch`, and the commands that serve as readiness probes.

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
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};
use crate::check::smoke::fixture::process::until;
use crate::check::smoke::kernel::places::MACHINE;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("install --watch: re-registers handlers that disappear; SIGTERM removes them", watched)?;
    checks.check("install --watch as process 1 of a container", first_process)?;
    checks.check("install --watch continues if its messages cannot be written", unread)?;
    checks.check(
        "install --watch ends if a handler cannot be registered, and leaves nothing",
        nothing_to_watch,
    )?;
    checks.check("status all, doctor all: all available emulators", available_emulators)
}

/// A running `qus`, which does not outlive its check.
struct WatchProcess(Child);

impl Drop for WatchProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watched(fixture: &KernelFixture<'_>) -> Result<()> {
    let (arch, qus) = (FOREIGN[0], fixture.program());
    let jar = fixture.foreign_handler("qus-smoke-jar", ":qus-smoke-jar:E::qus-smoke-jar::/bin/true:")?;
    let before = jar.text()?;
    fixture.install(&["hppa"])?;
    let output = fixture.path("watch-output");
    let count = |word: &str| -> Result<usize> { Ok(fs::read_to_string(&output)?.matches(word).count()) };
    let command = cmd!(sh(), "{qus} install {arch} sh4 --watch=1");
    let mut running = WatchProcess(exec::spawn(command, File::create(&output)?)?);
    until("qus watches", || Ok(count("checking every 1 s")? == 1))?;

    let handler = fixture.binfmt.root().join(format!("qemu-{arch}"));
    let text = fs::read(&handler)?;
    fs::write(&handler, "-1")?;
    until("the handler is re-registered", || Ok(count(" installed ")? == 3))?;
    ensure!(fs::read(&handler)? == text, "the handler differs after re-registration");
    fixture.qus(&["probe", arch])?.succeeds()?;
    ensure!(count("qemu-sh4")? == 1, "an unchanged handler was reported again");

    // Like `install`, it leaves a handler that differs unchanged, and reports it once.
    let differs = "enabled: is false, should be true";
    fs::write(&handler, "0")?;
    until("the difference is reported", || Ok(count(differs)? == 1))?;
    sleep(Duration::from_millis(2500));
    ensure!(count(differs)? == 1, "the difference was reported again");
    ensure!(fs::read(&handler)?.starts_with(b"disabled"), "it was changed without --force");
    fs::write(&handler, "-1")?;
    until("the handler is re-registered again", || Ok(count(" installed ")? == 4))?;

    ensure!(running.0.try_wait()?.is_none(), "it ended without a signal");
    kill(Pid::from_raw(running.0.id().try_into()?), Signal::SIGTERM)?;
    until("qus has ended", || Ok(running.0.try_wait()?.is_some()))?;
    let status = running.0.wait()?;
    ensure!(status.success(), "after SIGTERM it ended with {status}");
    ensure!(jar.text()? == before, "a foreign handler was changed");
    let left: Vec<_> = fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect();
    ensure!(left == ["qemu-hppa", "qus-smoke-jar"], "the remaining handlers are {left:?}");
    Ok(())
}

/// The beginning of a script: mounts a separate instance, and defines the path of a handler and a function that waits for it.
fn script_preamble() -> String {
    let arch = FOREIGN[0];
    format!(
        r#"set -e
        mount -t proc proc /proc
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        handler={MOUNT_POINT}/qemu-{arch}
        wait_for_handler() {{
            tries=0
            until test -e $handler; do
                tries=$((tries + 1))
                test $tries -lt 100 || exit 10
                sleep 0.1
            done
        }}"#
    )
}

/// The kernel delivers to process 1 only signals for which it has a signal handler.
fn first_process(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus, begin) = (FOREIGN[0], fixture.program(), script_preamble());
    let script = format!(
        r#"{begin}
        for signal in TERM INT HUP QUIT; do
            unshare --mount --pid --fork --mount-proc "$0" install {arch} --watch=1 &
            container=$!
            wait_for_handler
            echo -1 > $handler
            wait_for_handler
            watched=$(cat /proc/$container/task/$container/children)
            kill -$signal $watched
            (sleep 20; kill -KILL $watched) &
            wait $container
            test ! -e $handler
        done
        echo gone each time"#
    );
    // These checks may themselves run under nohup.
    let run = cmd!(sh(), "env --default-signal=HUP unshare {MACHINE...} sh -c {script} {qus}");
    fixture.run(run)?.writes("gone each time\n")
}

/// The reader of the messages has ended, as with `| head -1`, or the disk of the log is full.
fn unread(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (arch, qus, begin) = (FOREIGN[0], fixture.program(), script_preamble());
    let script = format!(
        r#"{begin}
        watch() {{
            "$@" &
            wait_for_handler
            echo -1 > $handler
            wait_for_handler
            kill -TERM $!
            wait $!
            test ! -e $handler || exit 11
        }}
        watch "$0" install {arch} --watch=1 2> /dev/full
        mkfifo "$1"
        sleep 0.2 < "$1" &
        watch "$0" install {arch} --watch=1 2> "$1"
        # Under nohup it keeps running when its terminal is closed.
        watch nohup "$0" install {arch} --watch=1 2> /dev/null > /dev/null
        nohup "$0" install {arch} --watch=1 2> /dev/null > /dev/null &
        wait_for_handler
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

fn nothing_to_watch(fixture: &KernelFixture<'_>) -> Result<()> {
    fixture.qus(&["install", "aarch46", "--watch"])?.exits(1, &["not installed: aarch46"])?;
    // What was registered before remains.
    fixture.install(&["hppa"])?;
    let words = ["1 handler removed again", "not installed: aarch46"];
    fixture.qus(&["install", "sh4", "hppa", "aarch46", "--watch"])?.exits(1, &words)?;
    let left: Vec<_> = fixture.handler_contents()?.into_iter().map(|(name, _)| name).collect();
    ensure!(left == ["qemu-hppa"], "the remaining handlers are {left:?}");
    let words = ["there is no directory /no/such/directory", "hint: "];
    fixture.qus(&["--mount", "/no/such/directory", "install", FOREIGN[0], "--watch"])?.exits(1, &words)
}

fn available_emulators(fixture: &KernelFixture<'_>) -> Result<()> {
    let missing = ["no handler for ", FOREIGN[0], "hint: as root: `qus install"];
    fixture.qus(&["status", "all"])?.exits(1, &missing)?;
    fixture.qus(&["doctor", "all"])?.exits(1, &[" found\n"])?;
    fixture.install(&["all"])?;
    fixture.qus(&["status", "all"])?.succeeds()?;
    fixture.qus(&["doctor", "all"])?.succeeds()?;
    fixture.qus(&["remove", "sh4"])?.succeeds()?;
    fixture.qus(&["status", "all"])?.exits(1, &["no handler for sh4\n"])?;
    // A handler is not missing if its emulator is not available.
    fixture.copy(&fixture.bundle.join("qemu-hppa"), "at-hand/qemu-hppa")?;
    let (qus, dir) = (fixture.program(), fixture.path("at-hand"));
    fixture.run(cmd!(sh(), "{qus} status all").env("QEMU_BIN_DIR", dir))?.succeeds().map(drop)
}
