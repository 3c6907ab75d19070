//! Extended attributes of files, and where files have data.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek64};

/// An extended attribute.
pub(crate) struct Attribute {
    pub(crate) name: CString,
    pub(crate) value: Vec<u8>,
}

/// Reads all extended attributes of a file, not of what a link leads to.
pub(crate) fn read(path: &Path) -> Result<Vec<Attribute>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the kernel writes at most `length` bytes to `buffer`, which has as many.
    let list = sized(|buffer, length| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), length) });
    let names = match list {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        list => list.context("cannot list extended attributes")?,
    };
    let names = names.split_inclusive(|byte| *byte == 0).map(|name| {
        let name = CStr::from_bytes_with_nul(name)?.to_owned();
        let value = sized(|buffer, length| {
            // SAFETY: as above.
            unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), length) }
        });
        let value = value
            .with_context(|| format!("cannot read the extended attribute {}", name.to_string_lossy()))?;
        Ok(Attribute { name, value })
    });
    names.collect()
}

/// Sets an extended attribute.
pub(crate) fn set(path: &Path, attribute: &Attribute) -> Result<()> {
    let Attribute { name, value } = attribute;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the kernel reads two strings and `value.len()` bytes of `value`.
    let set = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(set)
        .with_context(|| format!("cannot set the extended attribute {}", name.to_string_lossy()))?;
    Ok(())
}

/// The result of a call that returns the needed length if it gets none.
fn sized(call: impl Fn(*mut u8, usize) -> isize) -> nix::Result<Vec<u8>> {
    let length = usize::try_from(Errno::result(call(std::ptr::null_mut(), 0))?).unwrap_or(0);
    let mut buffer = vec![0; length];
    let length = usize::try_from(Errno::result(call(buffer.as_mut_ptr(), length))?).unwrap_or(0);
    buffer.truncate(length);
    Ok(buffer)
}

/// The positions and lengths of the parts of a file that are no holes.
pub(crate) fn data(file: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    let (mut parts, mut position) = (Vec::new(), 0);
    while position < size {
        let start = match lseek64(file, position.try_into()?, Whence::SeekData) {
            Ok(start) => start,
            // Only a hole follows.
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL) => return Ok(vec![(0, size)]),
            Err(error) => return Err(error.into()),
        };
        let end = u64::try_from(lseek64(file, start, Whence::SeekHole)?)?.min(size);
        let start = u64::try_from(start)?;
        parts.push((start, end - start));
        position = end;
    }
    Ok(parts)
}
