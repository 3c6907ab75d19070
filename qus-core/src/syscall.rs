//! The few system calls that neither std nor nix has.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::libc::{self, c_long};

/// Mounts a file system that needs no options, without attaching it to a directory (Linux 5.2). Closing the descriptor
/// unmounts it. Setuid bits, device files and execution are switched off.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn mount_unattached(kind: &CStr) -> nix::Result<OwnedFd> {
    // Of `linux/mount.h`.
    const FSOPEN_CLOEXEC: c_long = 1;
    const FSCONFIG_CMD_CREATE: c_long = 6;
    const FSMOUNT_CLOEXEC: c_long = 1;
    const MOUNT_ATTR_NOSUID: c_long = 2;
    const MOUNT_ATTR_NODEV: c_long = 4;
    const MOUNT_ATTR_NOEXEC: c_long = 8;
    // SAFETY: `kind` ends in a zero and outlives the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let (fd, none) = (c_long::from(context.as_raw_fd()), ptr::null::<u8>());
    // SAFETY: this command takes neither a key nor a value.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0 as c_long) };
    Errno::result(created)?;
    let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    // SAFETY: only numbers are passed.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) })
}

fn owned(returned: c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(returned)? as i32;
    // SAFETY: the kernel has just opened it for us, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The value of an extended attribute of at most 256 bytes.
///
/// # Errors
/// There is no such attribute, or it is longer.
pub(crate) fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = vec![0_u8; 256];
    // SAFETY: both names end in a zero, and the kernel writes at most as many bytes as there are.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(Errno::result(length)? as usize);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_kernels() {
        let error = mount_unattached(c"no-such-file-system").unwrap_err();
        assert!([Errno::ENODEV, Errno::EPERM, Errno::ENOSYS].contains(&error), "{error}");
        let error = attribute(Path::new("/no/such/file"), c"user.qus").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(attribute(Path::new("/"), c"user.qus").is_err());
    }
}
