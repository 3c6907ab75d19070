//! Which file systems and namespaces the kernel has, and mounting.

use std::fs;
use std::path::Path;
use std::thread::Builder;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The namespaces that a kernel starts with have fixed numbers (`include/linux/nsfs.h`; that of the mount
/// namespace only in recent kernels).
const INITIAL: [(&str, u32); 3] = [("user", 0xefff_fffd), ("pid", 0xefff_fffc), ("mnt", 0xefff_fff8)];

/// Whether a namespace of this process is the one that the kernel started with; `None` if that cannot be determined.
///
/// ```
/// // In a rootless container.
/// if qus_core::mount::is_initial("user") == Some(false) {
///     println!("handlers registered here are not the host's");
/// }
/// ```
pub fn is_initial(kind: &str) -> Option<bool> {
    let (_, number) = INITIAL.iter().find(|(known, _)| *known == kind)?;
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(link.as_os_str() == &*format!("{kind}:[{number}]"))
}

/// Whether what is mounted in this mount namespace lasts as long as the machine runs.
pub(super) fn is_host_mount_namespace() -> bool {
    let same = |first: &Path| {
        let own = fs::read_link("/proc/self/ns/mnt");
        own.is_ok_and(|own| fs::read_link(first).is_ok_and(|first| first == own))
    };
    is_initial("mnt") == Some(true) || is_initial("pid") == Some(true) && same(Path::new("/proc/1/ns/mnt"))
}

/// Whether the kernel knows binfmt_misc now. If it is a module, mounting may load it.
pub fn is_supported() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("binfmt_misc"))
}

/// Mounts binfmt_misc, with the flags that systemd uses.
///
/// # Errors
/// The kernel's answer.
pub fn mount_at(root: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("binfmt_misc"), root, Some("binfmt_misc"), flags, None::<&str>)
}

/// Runs a function in a new mount namespace from which no mount propagates; in a thread, so that this process remains in
/// its own.
pub(super) fn in_private_mount_namespace<T: Send + 'static>(
    work: impl FnOnce() -> nix::Result<T> + Send + 'static,
) -> nix::Result<T> {
    in_thread(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        work()
    })
}

/// Runs a function in a thread, whose namespaces and root directory it can change.
pub(super) fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> nix::Result<T> + Send + 'static,
) -> nix::Result<T> {
    let thread = Builder::new().spawn(work).map_err(|_| Errno::EAGAIN)?;
    thread.join().map_err(|_| Errno::EAGAIN)?
}
