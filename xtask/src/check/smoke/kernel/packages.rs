//! Checks the packages for distributions with the distributions' programs: what they find wrong, installing, the handlers
//! that are registered then, and removing.

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{Arch, Host};
use qus_core::binfmt::MOUNT_POINT;
use qus_core::release::ReleaseVersion;

use crate::bundle::manifest;
use crate::check::smoke::fixture::kernel::{FOREIGN, KernelChecks, KernelFixture};
use crate::ship::packages;

/// The commit's time in the packages.
const EPOCH: u64 = 1_700_000_000;

pub(super) fn run(checks: &mut KernelChecks<'_>) -> Result<()> {
    checks.check("packages: lintian finds no error; dpkg and rpm install and remove them", |fixture| {
        fixture.packages_work()
    })
}

impl KernelFixture<'_> {
    fn packages_work(&self) -> Result<()> {
        let (host, arch): (_, &Arch) =
            (Host::current().context("qus does not support this host")?, FOREIGN[0].parse()?);
        let built = manifest::built(host, &self.bundle)?.only(arch);
        let built = built.released("1.0.0-1".parse::<ReleaseVersion>()?);
        let root = self.root_filesystem("packages", &self.cx.data.debian.packages.packaging)?;
        let made = root.join("made");
        // Fedora has the last, and rpm leaves it.
        for dir in ["made", "var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/share/licenses"] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::write(root.join("var/lib/dpkg/status"), "")?;
        let planned = packages::plan(&built, &self.bundle, EPOCH)?;
        ensure!(planned.len() == 4, "{} packages are planned", planned.len());
        for package in &planned {
            packages::write(package, &made)?;
        }
        let script = format!(
            r#"
            deb=$(cd "$root" && ls made/*.deb) rpm=$(cd "$root" && ls made/*.rpm)
            inside lintian --no-cfg --allow-root --profile debian --fail-on error --tag-display-limit 0 $deb
            files() {{ (cd "$root" && find usr etc | sort); }}
            # A file and a handler of others, which stay.
            touch "$root/usr/lib/binfmt.d/other.conf"
            printf ':other:E::other::/bin/true:' > {MOUNT_POINT}/register
            before=$(files)
            mkdir -p "$root/run/systemd/system"
            path={MOUNT_POINT}/qemu-{arch} off=$root/etc/binfmt.d/qus-{arch}.conf
            # The arguments install the packages, or install them again.
            works() {{
                inside "$@"
                inside qus --version
                inside qus status {arch}
                $qus probe {arch}
                grep -qx 'interpreter /usr/libexec/qus/qemu-{arch}' $path
                ln -s /dev/null "$off"
                inside "$@"
                test -e $path || exit 10
                $qus remove {arch}
                inside "$@"
                test ! -e $path || exit 11
                rm "$off"
                inside "$@"
            }}
            is_gone() {{
                test ! -e $path
                files > "$root/made/after"
                echo "$before" | diff - "$root/made/after"
            }}
            works dpkg --install $deb
            inside dpkg --remove qus qus-user-static
            is_gone
            inside rpm --checksig $rpm
            works rpm --upgrade --force --nodeps $rpm
            inside rpm --verify --nodeps qus qus-user-static
            inside rpm --query --conflicts qus-user-static-1.0.0-1 | grep -qx qemu-user-binfmt
            inside rpm --erase --nodeps qus qus-user-static
            is_gone
            test -e {MOUNT_POINT}/other"#
        );
        self.on_a_machine(&root, &script)?.succeeds().map(drop)
    }
}
