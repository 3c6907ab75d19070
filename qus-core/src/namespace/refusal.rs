//! Why user namespaces, or a binfmt_misc in them, are not available.

use std::fs;

use nix::errno::Errno;

/// The hint where user namespaces have no binfmt_misc.
const AS_ROOT: &str = "install handlers as root instead: `qus install all`";

/// Why user namespaces, or a binfmt_misc in them, are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    LimitIsZero,
    OnlyForRoot,
    NotSupported,
    TooMany,
    ContainerOrChroot,
    OldKernel,
    AppArmor,
    SecurityModule,
}

impl Refusal {
    pub(super) fn of_unshare(errno: Errno) -> Self {
        if has_value("/proc/sys/user/max_user_namespaces", "0") {
            Self::LimitIsZero
        } else if has_value("/proc/sys/kernel/unprivileged_userns_clone", "0") {
            Self::OnlyForRoot
        } else if errno == Errno::EINVAL {
            Self::NotSupported
        } else if errno == Errno::ENOSPC {
            Self::TooMany
        } else {
            Self::ContainerOrChroot
        }
    }

    pub(super) fn of_binfmt() -> Self {
        match kernel() {
            Some(version) if version < (6, 7) => Self::OldKernel,
            _ if has_value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") => Self::AppArmor,
            _ => Self::SecurityModule,
        }
    }

    /// The reason, to be printed after the kernel's answer.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::LimitIsZero | Self::OnlyForRoot => "",
            Self::NotSupported => " (the kernel has no user namespaces, or this process has several threads)",
            Self::TooMany => " (there are too many user namespaces, or they are nested too deeply)",
            Self::ContainerOrChroot => {
                " (forbidden by a container's seccomp profile or a security module, or this is a chroot)"
            }
            Self::OldKernel => " (before Linux 6.7 user namespaces have no binfmt_misc)",
            Self::AppArmor => " (AppArmor restricts user namespaces)",
            Self::SecurityModule => " (forbidden by a security module, or /proc is not fully visible)",
        }
    }

    pub(super) fn hint(self) -> Option<String> {
        Some(
            match self {
                Self::LimitIsZero => "as root: `sysctl user.max_user_namespaces=15000`",
                Self::OnlyForRoot => "as root: `sysctl kernel.unprivileged_userns_clone=1`",
                Self::NotSupported | Self::TooMany => return None,
                Self::ContainerOrChroot => {
                    "in a container, add `--security-opt seccomp=unconfined` to `docker run`; in a chroot, run it from \
                     outside"
                }
                Self::AppArmor => "as root: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
                Self::OldKernel | Self::SecurityModule => AS_ROOT,
            }
            .to_owned(),
        )
    }
}

/// Whether a file of `/proc/sys` has a value.
fn has_value(file: &str, value: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.trim() == value)
}

/// The kernel's version: major and minor number.
pub fn kernel() -> Option<(u32, u32)> {
    let release = nix::sys::utsname::uname().ok()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
