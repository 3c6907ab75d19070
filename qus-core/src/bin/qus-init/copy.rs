//! Copies a root file system: into a tar archive, or to another disk.

use std::fs::{File, Permissions};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use qus_core::machine::{Copy, Event, Target};

use crate::archive::Archive;
use crate::port::Ports;
use crate::tree::{Copier, Node};
use crate::{attributes, disk, root, tree};

/// Data is copied in blocks of this size, and none is written for a block of zeros.
const BLOCK: usize = 4096;

/// Copies what the host asks for.
pub(crate) fn run(copy: &Copy, ports: Ports) -> Result<Event> {
    let dir = root::mount_as_is(&copy.root)?;
    let dir = Path::new(&dir);
    match copy.target {
        Target::Archive => {
            let mut archive = Archive::new(BufWriter::with_capacity(256 << 10, ports.output), ports.error);
            tree::copy(dir, &mut archive)?;
            let (output, error) = archive.finish()?;
            Ok(Event::Copied { output, error })
        }
        Target::Disk => {
            let mut target = Disk { root: disk::mount_target()?, dirs: Vec::new() };
            tree::copy(dir, &mut target)?;
            target.finish()?;
            disk::finish_target()?;
            Ok(Event::Copied { output: 0, error: 0 })
        }
    }
}

/// A mounted file system.
struct Disk {
    root: &'static Path,
    /// Directories and their times, which change when files are added.
    dirs: Vec<(PathBuf, [TimeSpec; 2])>,
}

impl Copier for Disk {
    fn add(&mut self, node: &Node<'_>) -> Result<()> {
        let Node { metadata, attributes, .. } = node;
        let target = self.root.join(node.path);
        if let Some(same) = node.same {
            return Ok(std::fs::hard_link(self.root.join(same), target)?);
        }
        let kind = metadata.file_type();
        if kind.is_dir() {
            match std::fs::create_dir(&target) {
                // The root directory.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => created?,
            }
        } else if kind.is_symlink() {
            symlink(std::fs::read_link(node.source)?, &target)?;
        } else if kind.is_file() {
            copy_contents(node, &target)?;
        } else {
            let flag = if kind.is_char_device() {
                SFlag::S_IFCHR
            } else if kind.is_block_device() {
                SFlag::S_IFBLK
            } else if kind.is_fifo() {
                SFlag::S_IFIFO
            } else {
                SFlag::S_IFSOCK
            };
            mknod(&target, flag, Mode::empty(), metadata.rdev())?;
        }
        // In this order: the owner's change removes capabilities and setuid, and the mode's changes access lists.
        lchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
        if !kind.is_symlink() {
            std::fs::set_permissions(&target, Permissions::from_mode(metadata.mode() & 0o7777))?;
        }
        attributes.iter().try_for_each(|attribute| attributes::set(&target, attribute))?;
        // The types are smaller on machines with 32 bits, which no host asks to copy.
        let time = |seconds: i64, nanoseconds: i64| TimeSpec::new(seconds as _, nanoseconds as _);
        let times =
            [time(metadata.atime(), metadata.atime_nsec()), time(metadata.mtime(), metadata.mtime_nsec())];
        if kind.is_dir() {
            self.dirs.push((target, times));
            return Ok(());
        }
        set_times(&target, &times)
    }
}

impl Disk {
    fn finish(self) -> Result<()> {
        self.dirs.iter().rev().try_for_each(|(dir, times)| set_times(dir, times))
    }
}

fn set_times(path: &Path, [accessed, modified]: &[TimeSpec; 2]) -> Result<()> {
    utimensat(AT_FDCWD, path, accessed, modified, UtimensatFlags::NoFollowSymlink)
        .context("cannot set the time")
}

/// Copies what a regular file contains, and leaves holes.
fn copy_contents(node: &Node<'_>, target: &Path) -> Result<()> {
    let mut from = File::open(node.source)?;
    let mut to = File::create_new(target)?;
    let size = node.metadata.size();
    let mut block = vec![0; BLOCK];
    for (start, length) in attributes::data(&from, size)? {
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        let mut left = length;
        while left > 0 {
            let part = &mut block[..usize::try_from(left.min(BLOCK as u64))?];
            from.read_exact(part)?;
            if part.iter().all(|byte| *byte == 0) {
                to.seek_relative(part.len().try_into()?)?;
            } else {
                to.write_all(part)?;
            }
            left -= part.len() as u64;
        }
    }
    Ok(to.set_len(size)?)
}
