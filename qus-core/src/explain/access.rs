//! What a file's mode and its mount allow: executing it, and the privileges that it has set.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, faccessat};

use crate::mount::point;
use crate::syscall::attribute;
use crate::text::Show;

/// A file that the kernel was asked to execute.
pub(super) struct Access<'a> {
    path: &'a Path,
    mode: u32,
    mount: FsFlags,
}

impl<'a> Access<'a> {
    pub(super) fn of(path: &'a Path, file: &File) -> Self {
        Self {
            path,
            mode: file.metadata().map_or(0, |metadata| metadata.permissions().mode()),
            mount: fstatvfs(file).map_or(FsFlags::empty(), |fs| fs.flags()),
        }
    }

    /// Why the kernel does not execute it, and a hint.
    pub(super) fn obstacles(&self) -> Option<(String, String)> {
        let (mut reasons, mut commands) = (Vec::new(), Vec::new());
        if self.mode & 0o111 == 0 {
            reasons.push("it is not executable".to_owned());
            commands.push(format!("chmod +x {}", self.path.quoted()));
        }
        let is_noexec = self.mount.contains(FsFlags::ST_NOEXEC);
        if is_noexec {
            reasons.push("it is on a file system that is mounted noexec".to_owned());
            commands.push(point::remount(self.path, "exec"));
        }
        if reasons.is_empty() {
            faccessat(AT_FDCWD, self.path, AccessFlags::X_OK, AtFlags::AT_EACCESS).err()?;
            reasons.push(format!("its mode {:04o} does not let you execute it", self.mode & 0o7777));
            commands.push(format!("chmod a+x {}", self.path.quoted()));
        }
        let as_root = if is_noexec { "as root " } else { "" };
        Some((reasons.join(", and "), format!("{as_root}`{}`", commands.join(" && "))))
    }

    /// What gives it other privileges than those of the user who starts it.
    pub(super) fn privileges(&self) -> Option<&'static str> {
        // Without execution by the group, the bit has another meaning.
        let is_setgid = self.mode & 0o2010 == 0o2010;
        match self.mode & 0o4000 != 0 {
            true if is_setgid => Some("it is a setuid and setgid program"),
            true => Some("it is a setuid program"),
            false if is_setgid => Some("it is a setgid program"),
            false => attribute(self.path, c"security.capability").ok().map(|_| "it has file capabilities"),
        }
    }

    /// The command that lets its privileges have an effect, if its mount prevents that.
    pub(super) fn without_nosuid(&self) -> Option<String> {
        self.mount.contains(FsFlags::ST_NOSUID).then(|| point::remount(self.path, "suid"))
    }
}
