//! The mount that a file is on.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::text::Show;

/// The command that gives the mount of a file an option, and no other mount of its file system.
pub(crate) fn remount(path: &Path, option: &str) -> String {
    format!("mount -o remount,bind,{option} {}", of(path).quoted())
}

/// The mount point of the mount that a file is on.
fn of(path: &Path) -> PathBuf {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    find(&fs::read("/proc/self/mountinfo").unwrap_or_default(), &path)
}

/// As [`of`], for a path without links and a text of the form of `/proc/self/mountinfo`.
fn find(mountinfo: &[u8], path: &Path) -> PathBuf {
    let points = mountinfo.split(|&byte| byte == b'\n').filter_map(|line| {
        let point = line.split(|&byte| byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(unescape(point))))
    });
    // The last of those that are equally long covers the others.
    points
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.components().count())
        .unwrap_or_else(|| "/".into())
}

/// Spaces and other characters are shown as a backslash and three octal digits.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    while let Some((&first, rest)) = field.split_first() {
        let digits =
            rest.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                field = &rest[3..];
            }
            None => {
                bytes.push(first);
                field = rest;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_is_found() {
        let lines = ["/", "/home", r"/home/a\040b", "/home/a", "garbage\\"];
        let text: String = lines.map(|point| format!("22 27 0:21 / {point} rw - tmpfs none rw\n")).concat();
        let find = |path: &str| find(text.as_bytes(), Path::new(path));
        assert_eq!(find("/usr/bin/x"), Path::new("/"));
        assert_eq!(find("/home/x"), Path::new("/home"));
        assert_eq!(find("/home/a b/x"), Path::new("/home/a b"));
        assert_eq!(super::find(b"", Path::new("/x")), Path::new("/"));
    }
}
