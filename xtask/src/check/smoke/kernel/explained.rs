//! Checks that `explain`, `install`, `status`, `probe` and `doctor` report the actual reason why a program does not run, or
//! runs without its privileges, and that the commands of their hints help.

use anyhow::Result;
use fs_err as fs;
use qus_core::binfmt::MOUNT_POINT;
use qus_core::probe;
use xshell::cmd;

use crate::base::exec::sh;
use crate::check::smoke::fixture::kernel::{KernelChecks, KernelFixture, require_instances};
use crate::check::smoke::kernel::places::MACHINE;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    for (name, script) in [
        ("explain: binfmt_misc switched off, and disabled handlers: the hints help", NOT_USED),
        ("install, status, probe and doctor where binfmt_misc is switched off: the hints help", SWITCHED_OFF),
        (
            "explain and doctor: setuid programs and file capabilities without flag C, or on nosuid",
            PRIVILEGES,
        ),
        ("explain: programs and scripts that are not executable, or on noexec: the hints help", ACCESS),
        ("explain: scripts whose interpreter is missing or foreign", SCRIPTS),
        (
            "explain and doctor: emulators that are missing, not executable or on noexec: the hints help",
            EMULATORS,
        ),
    ] {
        checks.check(name, |fixture| on_a_machine(fixture, script))?;
    }
    Ok(())
}

/// Runs a script in a user namespace with an instance of its own, in a directory with the probe of sh4 as `program`.
fn on_a_machine(fixture: &KernelFixture<'_>, script: &str) -> Result<()> {
    require_instances()?;
    let (qus, emulator, dir) =
        (fixture.program(), fixture.bundle.join("qemu-sh4"), fixture.path("explained"));
    let image = fixture.path("sh4-probe");
    fs::write(&image, probe::image("sh4".parse()?))?;
    fs::set_permissions(&image, fs::metadata(&qus)?.permissions())?;
    fs::create_dir_all(&dir)?;
    let (magic, mask, status) = (MAGIC, MASK, probe::STATUS);
    let script = format!(
        r#"set -e
        qus=$0 emulator=$1 image=$2 binfmt={MOUNT_POINT}
        PATH="${{qus%/*}}:$PATH"
        mount -t proc proc /proc
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        mount -t tmpfs none "$3"
        cd "$3"
        fail() {{ echo "$*" >&2; cat out >&2; exit 10; }}
        # A machine without handlers, on which binfmt_misc is switched on.
        fresh() {{
            for handler in $binfmt/*qemu-*; do test ! -e "$handler" || echo -1 > "$handler"; done
            echo 1 > $binfmt/status
            rm -f program
            cp "$image" program
        }}
        # Registers an interpreter with flags as another program would.
        foreign() {{ printf '%s' ':qemu-sh4:M::{magic}:{mask}:'"$1:$2" > $binfmt/register; }}
        # Whether a command prints a text.
        prints() {{
            text=$1; shift
            "$@" > out 2> errors || :
            grep -q -e "$text" out errors || fail "$* does not print: $text"
            cat errors >> out
        }}
        # Runs the first command of a hint in the output.
        repair() {{
            sed -n 's/^.*hint:* [^`]*`\([^`]*\)`.*/\1/p' out | head -n 1 > hint
            test -s hint || fail there is no hint
            sh hint > log 2>&1 || {{ cat log >&2; fail "the command fails: $(cat hint)"; }}
        }}
        runs() {{
            status=0
            "$@" > /dev/null 2>&1 || status=$?
            test $status = {status} || fail "$* ended with $status after: $(cat hint)"
        }}
        # `explain` reports a reason for a file, and does not any more after the hint, with which the file runs.
        helps() {{
            prints "$1" qus explain "$2"
            repair
            runs "$2"
            qus explain "$2" > out 2>&1 || fail "qus explain $2 fails after: $(cat hint)"
            ! grep -q -e "$1" out || fail "$1: after $(cat hint)"
        }}
        exec 3>&1 > /dev/null
        {script}
        echo all hints help >&3"#
    );
    let machine = cmd!(sh(), "unshare {MACHINE...} sh -c {script} {qus} {emulator} {image} {dir}");
    fixture.run(machine)?.writes("all hints help\n")
}

/// As QEMU's own script registers sh4.
const MAGIC: &str = r"\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x2a\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

const NOT_USED: &str = r#"
        fresh; qus install sh4; echo 0 > $binfmt/status; helps 'switched off' ./program
        fresh; echo 0 > $binfmt/status; helps 'switched off' ./program
        fresh; foreign "$emulator" F; echo 0 > $binfmt/status; helps 'switched off' ./program
        fresh; foreign "$emulator" PF; echo 0 > $binfmt/qemu-sh4; helps 'qemu-sh4 for it is disabled' ./program
        fresh; qus install sh4; echo 0 > $binfmt/qemu-sh4; helps 'is disabled' ./program
        fresh; foreign "$emulator" ''; echo 0 > $binfmt/qemu-sh4; echo 0 > $binfmt/status
        helps 'is disabled' ./program
        printf '#!%s/program\n' "$PWD" > script; chmod 755 script
        fresh; qus install sh4; echo 0 > $binfmt/status; helps 'switched off' ./script
        fresh; foreign "$emulator" F; echo 0 > $binfmt/qemu-sh4; helps 'is disabled' ./script
        # A handler for names of files.
        fresh; echo ':qemu-extension:E::sh4::/bin/false:' > $binfmt/register; echo data > a.sh4; chmod 755 a.sh4
        echo 0 > $binfmt/qemu-extension
        prints 'qemu-extension for it is disabled' qus explain a.sh4; repair
        prints 'runs       yes' qus explain a.sh4
        # The machine itself does not need it.
        echo 0 > $binfmt/status; prints 'runs       yes' qus explain /bin/true
        "#;

const SWITCHED_OFF: &str = r#"
        for options in '' --no-probe --force '--no-probe --force' --dry-run; do
            fresh; echo 0 > $binfmt/status
            qus install sh4 $options > out 2>&1 && fail install $options succeeds
            prints 'is switched off' qus install sh4 $options
            test ! -e $binfmt/qemu-sh4 || fail it was registered
            repair
            qus install sh4; runs ./program
        done
        echo 0 > $binfmt/status
        prints 'is switched off' qus status; repair; runs ./program
        echo 0 > $binfmt/status
        prints 'is switched off' qus status sh4; repair; runs ./program
        echo 0 > $binfmt/status; echo 0 > $binfmt/qemu-sh4
        qus status sh4 2>&1 | tail -n 1 > out; repair; runs ./program
        fresh; echo 0 > $binfmt/status; qus status sh4 2>&1 | tail -n 1 > out; repair; runs ./program
        fresh; qus install sh4; echo 0 > $binfmt/status
        prints 'is switched off' qus probe sh4; repair; qus probe sh4
        echo 0 > $binfmt/status
        prints 'is switched off' qus doctor sh4; repair; qus doctor sh4
        # Another program's handler is disabled: its name is taken.
        fresh; foreign "$emulator" PCF; echo 0 > $binfmt/qemu-sh4
        prints 'it is disabled' qus doctor sh4; repair; qus doctor sh4
        fresh; foreign "$emulator" PCF; echo 0 > $binfmt/qemu-sh4
        qus status sh4 > out 2>&1 && fail status succeeds
        repair; runs ./program
        fresh"#;

const PRIVILEGES: &str = r#"
        caps=0100000200040000000000000000000000000000
        with_capabilities() {
            python3 -c 'import os, sys; os.setxattr(sys.argv[1], "security.capability", bytes.fromhex(sys.argv[2]))' "$1" $caps
        }
        for flags in '' F PF OF; do
            fresh; foreign "$emulator" "$flags"; chmod 4755 program; helps 'a setuid program.*no flag C' ./program
        done
        fresh; qus install sh4 --no-credentials; chmod 4711 program; helps 'a setuid program.*no flag C' ./program
        fresh; qus install sh4 --no-credentials; chmod 2755 program; helps 'a setgid program.*no flag C' ./program
        fresh; foreign "$emulator" F; with_capabilities program; helps 'file capabilities.*no flag C' ./program
        # Neither is for execution.
        fresh; foreign "$emulator" F; chmod 2745 program
        qus explain program > out; ! grep -q 'flag C' out || fail no program of a group
        fresh; qus install sh4; chmod 4755 program
        qus explain program > out; ! grep -q 'privileges' out || fail it has its privileges
        mkdir nosuid; mount -t tmpfs -o nosuid none nosuid
        fresh; qus install sh4; cp program nosuid; chmod 4755 nosuid/program; helps 'mounted nosuid' nosuid/program
        # Both reasons, also for the machine's own programs.
        mount -o remount,bind,nosuid nosuid
        qus install sh4 --no-credentials --force
        prints 'no flag C' qus explain nosuid/program; helps 'mounted nosuid' nosuid/program
        mount -o remount,bind,nosuid nosuid
        cp /bin/true nosuid; chmod 4755 nosuid/true
        prints 'mounted nosuid' qus explain nosuid/true; repair
        qus explain nosuid/true > out; ! grep -q privileges out || fail "after $(cat hint)"
        cp /bin/true nosuid/capable; with_capabilities nosuid/capable; mount -o remount,bind,nosuid nosuid
        prints 'file capabilities.*mounted nosuid' qus explain nosuid/capable
        printf '#!/bin/sh\n' > script; chmod 4755 script
        prints 'ignores those of scripts' qus explain script
        for flags in F PF; do
            fresh; foreign "$emulator" $flags
            prints 'has no flag C' qus doctor sh4
            sed -n '/has no flag C/,$p' out > rest; mv rest out; repair
            qus doctor sh4 > out; ! grep -q 'flag C' out || fail "after $(cat hint)"
        done
        fresh"#;

const ACCESS: &str = r#"
        mkdir 'no exec'; mount -t tmpfs -o noexec none 'no exec'
        noexec() { mount -o remount,bind,noexec 'no exec'; }
        fresh; qus install sh4
        cp program 'no exec'; helps 'mounted noexec' 'no exec/program'
        noexec; chmod 644 'no exec/program'; helps 'not executable, and .* noexec' 'no exec/program'
        noexec; ln -s 'no exec/program' link; helps 'mounted noexec' ./link
        chmod 600 program; helps 'is not executable' ./program
        printf '#!%s/program\n' "$PWD" > 'no exec/script'; chmod 755 'no exec/script'
        noexec; helps 'mounted noexec' 'no exec/script'
        # The machine's own programs too.
        noexec; cp /bin/true 'no exec'
        prints 'mounted noexec' qus explain 'no exec/true'
        prints 'runs       no' qus explain 'no exec/true'
        repair; 'no exec/true'
        # Without a handler, this is only one of two reasons.
        noexec; qus remove sh4
        prints 'no handler is registered' qus explain 'no exec/program'
        prints 'mounted noexec' qus explain 'no exec/program'
        fresh"#;

const SCRIPTS: &str = r#"
        script() { printf '#!%s\n' "$1" > script; chmod 755 script; }
        fresh
        script /no/such/interpreter; prints 'its interpreter /no/such/interpreter does not run' qus explain script
        prints 'cannot be read: No such file' qus explain script
        script "$PWD/program"; helps "no handler is registered" ./script
        fresh; qus install sh4; chmod 644 program; helps 'is not executable' ./script
        fresh; script "$PWD/program"; prints "qus run sh4 -- ./script" qus explain script
        # Through another script.
        mv script inner; script "$PWD/inner"; helps 'no handler is registered' ./script
        mkdir noexec; mount -t tmpfs -o noexec none noexec; cp program noexec; script "$PWD/noexec/program"
        helps 'mounted noexec' ./script
        script "$PWD/program"; sed -i 's/$/\r/' script; helps 'carriage return' ./script
        fresh"#;

const EMULATORS: &str = r#"
        mkdir noexec; mount -t tmpfs none noexec
        noexec() { mount -o remount,bind,noexec noexec; }
        copy() { rm -f "$1"; cp "$emulator" "$1"; }
        for command in 'qus explain ./program' 'qus doctor sh4'; do
            fresh; copy copied; foreign "$PWD/copied" PC; rm copied
            prints 'there is no .*copied\|copied of .* does not exist' $command; repair; runs ./program; $command
            fresh; copy copied; foreign "$PWD/copied" PC; chmod 644 copied
            prints 'copied .*is not executable' $command; repair; runs ./program; $command
            fresh; copy copied; foreign "$PWD/copied" PC; rm copied; mkdir copied
            prints 'copied .*is not a regular file' $command; repair; runs ./program; $command
            rmdir copied
            fresh; copy noexec/copied; foreign "$PWD/noexec/copied" PC; noexec
            prints 'copied .*mounted noexec' $command; repair; runs ./program; $command
        done
        # With the flag F the kernel holds the file open.
        fresh; copy copied; foreign "$PWD/copied" PCF; rm copied; runs ./program
        qus explain ./program; qus doctor sh4
        fresh; copy copied; foreign "$PWD/copied" PCF; chmod 644 copied; runs ./program
        qus explain ./program; qus doctor sh4
        # It cannot map a file from noexec nevertheless.
        for command in 'qus explain ./program' 'qus doctor sh4'; do
            fresh; copy noexec/copied; foreign "$PWD/noexec/copied" PCF; noexec
            prints 'copied .*mounted noexec' $command; repair; runs ./program; $command
        done
        # In a script, and with a name that is not qus's.
        fresh; copy copied; foreign "$PWD/copied" PC; rm copied
        printf '#!%s/program\n' "$PWD" > script; chmod 755 script; helps 'does not exist' ./script
        fresh"#;
