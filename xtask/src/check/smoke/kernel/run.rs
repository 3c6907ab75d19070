//! Checks `qus run`: whom it changes, what the command sees, and what helps when it fails.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use qus_core::arch::Arch;
use qus_core::binfmt::MOUNT_POINT;
use qus_core::elf::{ElfImage, Segment};
use qus_core::{emulator, probe};
use xshell::{Cmd, cmd};

use crate::base::error::Skip;
use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, NOBODY, require_instances};
use crate::check::smoke::fixture::process::{BackgroundProcess, until};
use crate::check::smoke::fixture::tools;
use crate::check::smoke::kernel::places::MACHINE;
use crate::debian::guests;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("qus run as an unprivileged user does not change the host's handlers", ordinary_user)?;
    checks.check("qus run as root: files keep their owners", as_root)?;
    checks.check("qus run in a foreign root filesystem", foreign_root)?;
    checks.check("qus run --bind: links in the root filesystem stay in it", bind)?;
    checks.check("qus run where user namespaces are forbidden", forbidden)?;
    checks
        .check("qus run of a dynamic program without its loader: a hint instead of QEMU's message", loader)?;
    checks.check("qus run --force emulates what this machine runs natively", native)?;
    checks.check("qus run --strace, --cpu and --env", debugging)?;
    checks.check("qus run --gdb: gdb-multiarch stops an arm64 program at a breakpoint", gdb)
}

impl KernelFixture<'_> {
    /// `qus run` by an unprivileged user, from a directory that this user can read.
    fn run_as_nobody(&self, args: &[&str]) -> Result<Cmd<'_>> {
        let qus = self.unprivileged_dir()?.join("qus");
        Ok(cmd!(sh(), "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {qus} run {args...}"))
    }
}

fn ordinary_user(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
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
    fixture.require_users()?;
    require_instances()?;
    let qus = fixture.program();
    let busybox = fixture.copy(&fixture.foreign("busybox")?, "busybox")?;
    let file = fixture.path("owned");
    fs::write(&file, "")?;
    chown(&file, Some(1234), Some(4321))?;
    let arch = FOREIGN[0];
    let stat = cmd!(sh(), "{qus} run {arch} -- {busybox} stat -c %u:%g {file}");
    fixture.run(stat)?.writes("1234:4321\n")?;
    ensure!(fixture.handler_contents()?.is_empty(), "the host's handlers have changed");
    Ok(())
}

fn foreign_root(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
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
    require_instances()?;
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

fn bind(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (root, source) = (fixture.path("bind-root"), fixture.path("bind-source"));
    for dir in [&root.join("proc"), &root.join("inside"), &root.join("etc"), &source] {
        fs::create_dir_all(dir)?;
    }
    fixture.copy(&fixture.foreign("busybox")?, "bind-root/busybox")?;
    fs::write(source.join("file"), "bound\n")?;
    symlink("/etc", root.join("link"))?;
    let [root, source] = [root, source].map(|path| path.to_string_lossy().into_owned());
    let run = |bind: &str, args: &[&str]| {
        let options = ["--root", &root, "--bind", bind, FOREIGN[0], "--", "/busybox"];
        fixture.run(fixture.run_as_nobody(&[&options, args].concat())?)
    };
    run(&format!("{source}:/inside"), &["cat", "/inside/file"])?.writes("bound\n")?;
    // In the root filesystem of the host, the link leads to a directory that must not be used.
    run(&format!("{source}:/link"), &["ls", "/etc"])?.writes("file\n")?;
    let made = format!("hint: `mkdir -p {root}/missing`");
    run(&format!("{source}:/missing"), &["true"])?.exits(1, &["No such file or directory", &made])?;
    run("/no/such/file:/inside", &["true"])?.exits(2, &["/no/such/file: No such file or directory"])?;
    run(&format!("{source}:inside"), &["true"])?.exits(2, &["inside is not an absolute path"])?;
    // Nobody may read what root keeps from others.
    let secret = fixture.path("secret");
    fs::create_dir(&secret)?;
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o700))?;
    let ended = run(&format!("{}:/inside", secret.display()), &["ls", "/inside"])?;
    ensure!(ended.status == Some(1) && ended.stderr.contains("Permission denied"), "{}", ended.stderr);
    ensure!(fs::read_dir(Path::new(&root).join("inside"))?.next().is_none(), "the mount is visible outside");
    Ok(())
}

/// A program that has only a loader, which does not exist.
fn dynamic_program() -> Result<Vec<u8>> {
    const LOADER: &str = "/no/such/ld.so\0";
    let arch: &'static Arch = FOREIGN[0].parse()?;
    let interpreter = Segment { kind: Segment::INTERPRETER, flags: Segment::READ, ..Segment::default() };
    let load = Segment { kind: Segment::LOAD, flags: Segment::READ | Segment::EXECUTE, ..Segment::default() };
    let segments = [interpreter, load];
    let offset = ElfImage { segments: &segments, ..ElfImage::of(arch) }.headers_size();
    let size = LOADER.len() as u64;
    let (address, align) = (0x10_0000, 0x1_0000);
    let segments = [
        Segment { offset, address: address + offset, size, align: 1, ..interpreter },
        Segment { offset: 0, address, size: offset + size, align, ..load },
    ];
    let content = LOADER.as_bytes();
    Ok(ElfImage { entry: address, segments: &segments, content, ..ElfImage::of(arch) }.bytes())
}

fn loader(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let program = fixture.path("dynamic");
    fs::write(&program, dynamic_program()?)?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let shown = program.to_string_lossy().into_owned();
    let run = |args: &[&str]| fixture.run(fixture.run_as_nobody(args)?);
    let hint = format!("hint: `qus explain {shown}`");
    let missing = format!("cannot run {shown}: its loader /no/such/ld.so does not exist");
    let words = [&*missing, &hint, "--root DIR", "QEMU_LD_PREFIX"];
    run(&[FOREIGN[0], "--", &shown])?.exits(126, &words)?;
    let in_path = format!("PATH={}", fixture.dir.path().display());
    run(&["--env", &in_path, FOREIGN[0], "--", "dynamic"])?.exits(126, &words)?;
    let root = fixture.dir.path().to_string_lossy().into_owned();
    let words = [&*hint, &format!("/no/such/ld.so does not exist in {root}")];
    run(&["--root", &root, FOREIGN[0], "--", "/dynamic"])?.exits(126, &words)?;
    // The user has said where libraries are, so QEMU is to search there.
    let ended = run(&["--env", "QEMU_LD_PREFIX=/no/such", FOREIGN[0], "--", &shown])?;
    ensure!(ended.stderr.contains("Could not open '/no/such/ld.so'"), "{}", ended.stderr);
    Ok(())
}

fn native(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let guests = &fixture.cx.data.debian.guests;
    let mut native = guests.iter().filter(|guest| probe::is_native(guest.target));
    let guest = native
        .find(|guest| !emulator::is_own(guest.target))
        .ok_or_else(|| Skip("this machine runs natively only what it is itself".to_owned()))?;
    let busybox = guests::program(fixture.cx, guest, "busybox")?.to_string_lossy().into_owned();
    let machine = |args: &[&str]| fixture.qus(&[&["run"], args, &["--", &busybox, "uname", "-m"]].concat());
    machine(&["--force", guest.target.name])?.writes(&format!("{}\n", guest.machine))?;
    for args in [&[guest.target.name][..], &["--force", "all"]] {
        let printed = machine(args)?.stdout;
        ensure!(printed != format!("{}\n", guest.machine), "it is emulated with {args:?}");
    }
    machine(&["--force"])?.exits(2, &["<ARCH>"])
}

fn debugging(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let arch = FOREIGN[0];
    let busybox = fixture.unprivileged_dir()?.join("busybox").to_string_lossy().into_owned();
    let run = |args: &[&str]| fixture.run(fixture.run_as_nobody(args)?);
    run(&["--strace", arch, "--", &busybox, "true"])?.exits(0, &["exit_group(0)"])?;
    let logs = fixture.path("logs");
    fs::create_dir(&logs)?;
    let nobody = Some(NOBODY.parse()?);
    chown(&logs, nobody, nobody)?;
    let option = format!("--strace={}/log.%d", logs.display());
    let ended = run(&[&option, arch, "--", &busybox, "sh", "-c", &format!("{busybox} true; exit 0")])?;
    ensure!(ended.stderr.is_empty(), "system calls are printed in spite of the file: {}", ended.stderr);
    ended.succeeds()?;
    let logs: Vec<PathBuf> = fs::read_dir(&logs)?.map(|log| Ok(log?.path())).collect::<Result<_>>()?;
    ensure!(logs.len() == 2, "two processes wrote {logs:?}");
    for log in logs {
        ensure!(fs::read_to_string(&log)?.contains("exit_group(0)"), "{} is not complete", log.display());
    }
    run(&["--cpu", "no-such-cpu", arch, "--", &busybox, "true"])?.exits(1, &["no-such-cpu"])?;
    run(&["--cpu", "max", arch, "--", &busybox, "true"])?.writes("")?;
    let echo = "echo $QUS_SMOKE";
    run(&["--env", "QUS_SMOKE=a b=c", arch, "--", &busybox, "sh", "-c", echo])?.writes("a b=c\n")?;
    run(&["--env", "QUS_SMOKE", arch, "--", &busybox, "true"])?.exits(2, &["it is not NAME=VALUE"])
}

fn gdb(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    if FOREIGN[0] != "aarch64" {
        bail!(Skip("this machine runs arm64 programs without an emulator".to_owned()));
    }
    let gdb = tools::gdb(fixture.cx)?;
    let busybox = fixture.unprivileged_dir()?.join("busybox").to_string_lossy().into_owned();
    let dir = fixture.path("gdb");
    fs::create_dir(&dir)?;
    let nobody = Some(NOBODY.parse()?);
    chown(&dir, nobody, nobody)?;
    let socket = dir.join("socket").to_string_lossy().into_owned();
    let command = fixture.run_as_nobody(&["--gdb", &socket, FOREIGN[0], "--", &busybox, "true"])?;
    let mut program = BackgroundProcess::start(fixture.path("gdb-output"), command)?;
    program.wait_for_output("gdb; in another terminal: `")?;
    let output = fs::read_to_string(fixture.path("gdb-output"))?;
    let shown = output.split('`').nth(1).context("no command")?;
    let typed = format!("gdb-multiarch -ex 'target remote {socket}' {busybox}");
    ensure!(shown == typed, "the note names `{shown}` instead of `{typed}`");
    until("QEMU waits for gdb", || Ok(Path::new(&socket).exists()))?;
    // The program has no symbols: the breakpoint is at its second instruction.
    let commands = "-ex 'set $stop = $pc + 4' -ex 'break *$stop' -ex continue -ex 'print $pc == $stop' -ex delete \
                    -ex continue";
    let typed = format!("{shown} -batch -nx {commands}");
    let gdb = cmd!(sh(), "timeout 120 sh -c {typed}").envs(gdb);
    let printed = fixture.run(gdb)?.succeeds()?;
    for text in ["Breakpoint 1, ", "$1 = 1\n", "exited normally"] {
        ensure!(printed.contains(text), "gdb does not print `{text}`: {printed}");
    }
    until("the program exits", || Ok(program.child.try_wait()?.is_some()))
}
