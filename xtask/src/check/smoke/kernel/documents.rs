//! Runs the commands of the documents, each block on a machine of its own, and compares what they print.
//!
//! The machine is a user namespace with an instance of binfmt_misc and processes of its own. What a block writes to
//! /etc, /usr and its directory goes to an overlay and is discarded. The directory is a bundle with a program and a root
//! filesystem for arm64; `sudo` runs its arguments.

pub(crate) mod blocks;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Error, Result, bail, ensure};
use fs_err as fs;
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use self::blocks::{Block, blocks, documents};
use super::places::MACHINE;
use crate::base::error::Skip;
use crate::base::exec::sh;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};

/// Precedes the output of each command.
const SEPARATOR: &str = "@@ command\n";

/// Sets up the machine, and runs the script `$4` on it. Arguments: a directory, the bundle, a busybox for arm64.
fn machine() -> String {
    format!(
        r#"set -e
        mount -t tmpfs tmpfs "$1"
        overlay() {{
            mkdir -p "$2" "$1/up$3" "$1/work$3"
            mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/up$3,workdir=$1/work$3" "$4"
        }}
        overlay "$1" /etc /etc /etc
        overlay "$1" /usr /usr /usr
        mkdir -p "$1/qus" /usr/lib/systemd /usr/local/bin
        overlay "$1" "$2" /qus "$1/qus"
        : > /usr/lib/systemd/systemd-binfmt
        printf '#!/bin/sh\nexec "$@"\n' > /usr/local/bin/sudo
        chmod +x /usr/local/bin/sudo
        mount -t proc proc /proc
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        cd "$1/qus"
        cp "$3" busybox-arm64
        mkdir -p rootfs-arm64/bin rootfs-arm64/proc rootfs-arm64/dev
        cp "$3" rootfs-arm64/bin/busybox
        for applet in sh uname; do ln -s busybox "rootfs-arm64/bin/$applet"; done
        export PATH="$PWD:/usr/local/bin:$PATH" HOME="$1"
        exec timeout 120 sh -e -c "$4" 2>&1 < /dev/null"#
    )
}

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    let root = checks.cx.paths.root().to_owned();
    for path in documents(&root)? {
        let name = path.strip_prefix(&root)?.display();
        let parsed =
            blocks(&fs::read_to_string(&path)?).map_err(Error::msg).with_context(|| name.to_string())?;
        let run: Vec<_> = parsed.into_iter().filter(|block| block.not_run.is_none()).collect();
        if !run.is_empty() {
            checks.check(format!("documents: {name}: commands run and print what it shows"), |fixture| {
                run_blocks(fixture, &run)
            })?;
        }
    }
    Ok(())
}

fn run_blocks(fixture: &KernelFixture<'_>, blocks: &[Block]) -> Result<()> {
    require_instances()?;
    // An overlay cannot change files whose owner the namespace does not have.
    fixture.require_machine()?;
    if FOREIGN[0] != "aarch64" {
        bail!(Skip("documents describe a machine that does not run arm64 natively".to_owned()));
    }
    let dir = fixture.path("machine");
    fs::create_dir_all(&dir)?;
    let busybox = fixture.foreign("busybox")?;
    for block in blocks {
        run_block(fixture, block, &dir, &busybox).with_context(|| format!("line {}", block.line))?;
    }
    Ok(())
}

fn run_block(fixture: &KernelFixture<'_>, block: &Block, dir: &Path, busybox: &Path) -> Result<()> {
    let mut script = String::new();
    for command in &block.commands {
        let text = &command.script;
        let _ = match command.fails() {
            true => writeln!(script, "printf '{SEPARATOR}'\nif {text}; then echo it succeeds; exit 1; fi"),
            false => writeln!(script, "printf '{SEPARATOR}'\n{text}"),
        };
    }
    let (machine, bundle) = (machine(), &fixture.bundle);
    let ended = fixture
        .run(cmd!(sh(), "unshare {MACHINE...} sh -c {machine} sh {dir} {bundle} {busybox} {script}"))?;
    ensure!(ended.status == Some(0), "exit status {:?}: {}{}", ended.status, ended.stdout, ended.stderr);
    let printed = ended.stdout.split(SEPARATOR).skip(1);
    for (command, printed) in block.commands.iter().zip(printed) {
        if let Some(missing) = command.missing(printed) {
            bail!("`{}` does not print `{missing}` in this order, but:\n{printed}", command.script);
        }
    }
    Ok(())
}
