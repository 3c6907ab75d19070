//! Checks the GitHub action on a machine without docker, where it installs a release. The level `engine` checks it with docker.

use anyhow::Result;
use qus_core::arch::Arch;
use qus_core::binfmt::MOUNT_POINT;
use xshell::cmd;

use crate::base::exec::sh;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture, require_instances};
use crate::check::smoke::fixture::release;
use crate::check::smoke::fixture::tools;
use crate::check::smoke::kernel::places::MACHINE;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check(
        "the action without docker: installs a release, registers and reports handlers",
        without_docker,
    )
}

fn without_docker(fixture: &KernelFixture<'_>) -> Result<()> {
    require_instances()?;
    let (cx, arch): (_, &Arch) = (fixture.cx, FOREIGN[0].parse()?);
    release::pack(cx, arch, &fixture.path("releases"))?;
    let path = cx.settings.path_with(tools::zstd(cx)?.parent().map(Into::into))?;
    let (action, dir) = (cx.paths.images().join("action/install.sh"), fixture.dir.path());
    let script = format!(
        r#"set -e
        action=$0
        mount -t proc proc /proc
        mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
        mount -t tmpfs none /usr/local
        # A program that is not executable is not found.
        for docker in $(which -a docker); do mount --bind /dev/null "$docker"; done
        step() {{ : > output; env "$@"; }}
        export GITHUB_OUTPUT=output GITHUB_STEP_SUMMARY=summary QUS_FROM=$PWD/releases QUS_PLATFORMS=linux/{}

        step QUS_IMAGE=localhost:5000/qus:1.0.0-1 "$action" image
        grep -qx release=1.0.0-1 output
        for release in 1.0.0-1 latest; do
            step QUS_RELEASE=$release "$action" install 2> log || {{ cat log >&2; exit 1; }}
            cat log >&2
            grep -q '^platforms=.*linux/{}' output
            sed '1,/^status<<END/d; /^END$/d' output | grep -q '"/usr/local/libexec/qus/qemu-{arch}"'
            grep -qx '::group::Handlers' log
            grep -q '^qemu-{arch} ' summary
            grep -qx 'interpreter /usr/local/libexec/qus/qemu-{arch}' {MOUNT_POINT}/qemu-{arch}
        done
        qus probe {arch}
        step QUS_RELEASE=latest QUS_RESET=true "$action" install
        step QUS_RELEASE=3.0.0-1 "$action" install && exit 10
        test ! -s output"#,
        FOREIGN[1], FOREIGN[1]
    );
    let run = cmd!(sh(), "unshare {MACHINE...} --wd {dir} sh -c {script} {action}").env("PATH", path);
    fixture.run(run)?.exits(
        0,
        &[
            &format!("qemu-{arch} removed"),
            "::error title=qus::the installation failed%0Aerror: the release has no tarball for ",
        ],
    )
}
