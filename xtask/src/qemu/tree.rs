//! Unpacks a source archive and applies the patches that its version needs.
//!
//! The tree gets its final name only when it is complete; the name contains a hash of the archive and the patches, and
//! the tree is verified with checksums before use. An archive is refused if it has paths or links outside of its root,
//! is damaged or too large, or is not QEMU of the expected version.

use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use lzma_rust2::XzReader;
use qemu_src::Patch;
use qus_core::digest::HashingReader;
use semver::Version;
use xshell::cmd;

use crate::base::cache;
use crate::base::context::Context;
use crate::base::exec::{self, InDir, sh};
use crate::base::files::{self, Scratch};
use crate::base::progress::{Bar, one_line};
use crate::base::tarball::Limited;
use crate::qemu::archive::Source;

/// The unpacked and patched source tree, created if it does not exist.
pub(crate) fn prepare(cx: &Context, source: &Source, patches: &[&Patch]) -> Result<PathBuf> {
    let inputs = patches.iter().fold(source.sha256.to_string(), |inputs, patch| inputs + &patch.text);
    let id = files::short_id(inputs);
    let tree = cx.paths.source_tree(&source.version, &id);
    cache::ensure(&tree, |partial| {
        let mut bar = Bar::new(format!("unpacking QEMU {}", source.version));
        let archive = &source.archive;
        // The file may have changed since it was verified, so it is hashed again while it is unpacked.
        let file = files::open(archive)?;
        let size = file.metadata()?.len();
        let mut file = HashingReader::new(WatchedFile { file, size, read: 0, bar: &mut bar });
        unpack(XzReader::new(BufReader::new(&mut file), true), partial)
            .with_context(|| format!("cannot unpack {}", archive.display()))?;
        io::copy(&mut file, &mut io::sink())?;
        ensure!(file.finish() == source.sha256, "{} changed while it was unpacked", archive.display());
        check_version(partial, &source.version)?;
        // Meson creates this file in the source tree, where an additional file would not match the checksums.
        let lock = partial.join("subprojects/.wraplock");
        if lock.parent().is_some_and(Path::exists) {
            fs::write(lock, "")?;
        }
        patches.iter().try_for_each(|patch| apply(partial, patch, &source.version))
    })?;
    Ok(tree)
}

/// The patches that do not apply to a source, and why. Each is applied after those before it that do.
pub(crate) fn failing(cx: &Context, source: &Source, patches: &[&Patch]) -> Result<Vec<(String, String)>> {
    let plain = prepare(cx, source, &[])?;
    let dir = Scratch::new(files::with_suffix(&plain, "trial"))?;
    let copy = dir.path().join("qemu");
    exec::read(cmd!(sh(), "cp --recursive --reflink=auto {plain} {copy}"))?;
    let mut failing = Vec::new();
    for patch in patches {
        if let Err(error) = apply(&copy, patch, &source.version) {
            let error = error.to_string();
            let why = error
                .lines()
                .skip(1)
                .map(str::trim)
                .find(|line| line.contains("failed") || line.contains("No such"));
            failing.push((patch.name.clone(), why.unwrap_or(&error).to_owned()));
        }
    }
    Ok(failing)
}

/// A file whose reading is shown as progress.
struct WatchedFile<'a> {
    file: std::fs::File,
    size: u64,
    read: u64,
    bar: &'a mut Bar,
}

impl Read for WatchedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        self.bar.set(self.read, self.size);
        Ok(count)
    }
}

/// Limits far above any QEMU source. They bound the time, memory and disk space that a malicious archive can use.
struct Limits {
    depth: usize,
    /// The length of a path in bytes.
    path: usize,
    entries: usize,
    /// The size of the unpacked archive.
    bytes: u64,
}

const LIMITS: Limits = Limits { depth: 32, path: 1024, entries: 300_000, bytes: 4 << 30 };

/// Unpacks the contents of an archive's only top-level directory into `into`.
pub(crate) fn unpack(reader: impl Read, into: &Path) -> Result<()> {
    unpack_within(reader, into, &LIMITS)
}

fn unpack_within(reader: impl Read, into: &Path, limits: &Limits) -> Result<()> {
    let mut archive = tar::Archive::new(Limited::new(reader, limits.bytes));
    let mut top: Option<PathBuf> = None;
    for (count, entry) in archive.entries()?.enumerate() {
        ensure!(count < limits.entries, "the archive has more than {} entries", limits.entries);
        let mut entry = entry.map_err(explain_damage)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path()?.into_owned();
        let (length, depth) = (path.as_os_str().len(), path.components().count());
        ensure!(length <= limits.path, "the archive contains a path of {length} bytes");
        let shown = one_line(path.display());
        ensure!(depth <= limits.depth, "the path {shown} is {depth} directories deep");
        ensure!(is_inside(Path::new(""), &path), "the path {shown} is outside of the archive");
        let plain = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link();
        ensure!(plain, "the entry {shown} is neither a file, a directory nor a link");
        // Where a link is and leads to is then known from the paths alone.
        let follows_link = path.ancestors().skip(1).any(|dir| into.join(dir).is_symlink());
        ensure!(!follows_link, "the path {shown} leads through a symbolic link");
        if let Some(target) = entry.link_name()? {
            // Symbolic links are relative to their directory, hard links to the root of the archive.
            let from = if kind.is_symlink() { path.parent() } else { None };
            let inside = is_inside(from.unwrap_or(Path::new("")), &target)
                && (kind.is_symlink() || !into.join(&target).is_symlink());
            ensure!(
                inside,
                "the link {shown} -> {} leads outside of the archive",
                one_line(target.display())
            );
        }
        let Some(first @ Component::Normal(_)) = path.components().next() else {
            bail!("the path {shown} does not begin with a directory");
        };
        let first = PathBuf::from(first.as_os_str());
        let only = top.get_or_insert_with(|| first.clone());
        ensure!(
            *only == first,
            "the archive has more than one top-level directory: {} and {}",
            one_line(only.display()),
            one_line(first.display())
        );
        entry.unpack_in(into).map_err(explain_damage)?;
    }
    let top = into.join(top.context("the archive is empty")?);
    for entry in
        fs::read_dir(&top).with_context(|| format!("the archive has no directory {}", top.display()))?
    {
        let entry = entry?;
        fs::rename(entry.path(), into.join(entry.file_name()))?;
    }
    Ok(fs::remove_dir(&top)?)
}

/// Adds context to a read error that the archive causes, as opposed to a full disk.
fn explain_damage(error: io::Error) -> anyhow::Error {
    let archive = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other
    );
    let error = anyhow::Error::from(error);
    if archive { error.context("the archive is damaged or truncated") } else { error }
}

/// Whether a path relative to the directory `from` is inside the archive. It goes up only at its beginning, because a
/// name may be that of a link.
fn is_inside(from: &Path, path: &Path) -> bool {
    let (mut depth, mut down) = (from.components().count(), false);
    for component in path.components() {
        match component {
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 1 && !down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

fn check_version(tree: &Path, version: &Version) -> Result<()> {
    let found = fs::read_to_string(tree.join("VERSION")).ok().filter(|_| tree.join("linux-user").is_dir());
    match found.as_deref().map(str::trim) {
        None => bail!("the archive is not QEMU's source"),
        Some(found) => ensure!(found == version.to_string(), "the archive is QEMU {found}, not {version}"),
    }
    Ok(())
}

/// Applies a patch completely or not at all.
fn apply(tree: &Path, patch: &Patch, version: &Version) -> Result<()> {
    let path = &patch.path;
    // The tree is inside the project's own repository, which git must not use.
    let git = cmd!(sh(), "git apply --whitespace=nowarn {path}")
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    let output = exec::output(git.in_dir(tree))?;
    // With a damaged binary part, git prints an error, leaves the part out, and succeeds.
    if !output.status.success() || !output.stderr.is_empty() {
        // `error: patch failed: FILE:LINE` identifies the hunk.
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} does not apply to QEMU {version}:\n  {}", patch.name, errors.trim().replace('\n', "\n  "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lzma_rust2::{XzOptions, XzWriter};
    use std::io::Write;

    /// A tar archive of regular files. Headers are written directly, because the library refuses invalid paths.
    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn link(path: &str, target: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_path(path).unwrap();
        header.set_link_name(target).unwrap();
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    fn unpacked(tar: &[u8]) -> (tempfile::TempDir, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("into")).unwrap();
        let result = unpack(tar, &dir.path().join("into"));
        (dir, result)
    }

    #[test]
    fn the_top_level_directory_is_stripped() {
        let (dir, result) =
            unpacked(&archive(&[("qemu-1/VERSION", "1.0.0\n"), ("qemu-1/linux-user/main.c", "")]));
        result.unwrap();
        let tree = dir.path().join("into");
        check_version(&tree, &Version::new(1, 0, 0)).unwrap();
        let error = check_version(&tree, &Version::new(1, 0, 1)).unwrap_err();
        assert_eq!(error.to_string(), "the archive is QEMU 1.0.0, not 1.0.1");
        assert!(!tree.join("qemu-1").exists());
    }

    #[test]
    fn an_archive_of_another_project_is_refused() {
        let (dir, result) = unpacked(&archive(&[("hello-1/README", "")]));
        result.unwrap();
        let error = check_version(&dir.path().join("into"), &Version::new(1, 0, 0)).unwrap_err();
        assert_eq!(error.to_string(), "the archive is not QEMU's source");
    }

    #[test]
    fn paths_outside_of_the_root_are_refused() {
        for path in ["/etc/qus-test", "q/../../qus-test", "../qus-test"] {
            let (dir, result) = unpacked(&archive(&[(path, "x")]));
            assert!(result.unwrap_err().to_string().contains("outside of the archive"), "{path}");
            assert!(!dir.path().join("qus-test").exists());
        }
        for target in ["/etc/passwd", "../../x", "../x"] {
            let (_dir, result) = unpacked(&link("q/link", target));
            assert!(result.unwrap_err().to_string().contains("outside of the archive"), "{target}");
        }
        let (_dir, result) = unpacked(&link("q/a/link", "../b"));
        result.unwrap();
    }

    #[test]
    fn archives_beyond_the_limits_are_refused_early() {
        let limits = Limits { depth: 4, path: 20, entries: 3, bytes: 8192 };
        let refused = |files: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            format!("{:#}", unpack_within(&*archive(files), dir.path(), &limits).unwrap_err())
        };
        assert_eq!(refused(&[("q/a/b/c/d", "")]), "the path q/a/b/c/d is 5 directories deep");
        assert_eq!(refused(&[("q/aaaaaaaaaaaaaaaaaaa", "")]), "the archive contains a path of 21 bytes");
        assert_eq!(
            refused(&[("q/a", ""), ("q/b", ""), ("q/c", ""), ("q/d", "")]),
            "the archive has more than 3 entries"
        );
        assert!(refused(&[("q/a", &"x".repeat(9000))]).contains("content is too large"));
        assert!(refused(&[("q/\u{1b}[2J\n/../..", "")]).contains("q/\\u{1b}[2J\\n/../.. is outside"));
        // Without the limit, 2,000 nested directories take minutes.
        let start = std::time::Instant::now();
        let deep = format!("q{}/f", "/d".repeat(2000));
        let mut builder = tar::Builder::new(Vec::new());
        for depth in (3..deep.len()).step_by(2) {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, &deep[..depth], io::empty()).unwrap();
        }
        let (_dir, result) = unpacked(&builder.into_inner().unwrap());
        assert!(result.unwrap_err().to_string().ends_with("directories deep"));
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "it took {:?}", start.elapsed());
    }

    #[test]
    fn devices_and_pipes_are_refused() {
        for kind in [tar::EntryType::Fifo, tar::EntryType::Char, tar::EntryType::Block] {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_path("q/special").unwrap();
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
            let (_dir, result) = unpacked(&builder.into_inner().unwrap());
            assert!(result.unwrap_err().to_string().contains("the entry q/special is neither"));
        }
    }

    #[test]
    fn a_truncated_archive_is_reported() {
        let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
        let noise: String = (0..20_000)
            .map(|n: u32| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
            .collect();
        encoder.write_all(&archive(&[("q/VERSION", &noise)])).unwrap();
        let whole = encoder.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(XzReader::new(&whole[..whole.len() / 2], true), dir.path()).unwrap_err();
        assert_eq!(error.to_string(), "the archive is damaged or truncated");
    }

    #[test]
    fn the_error_of_a_patch_contains_the_hunk() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("f"), "one\n").unwrap();
        let path = dir.path().join("p.patch");
        fs::write(&path, "why\n---\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-two\n+three\n").unwrap();
        let patch =
            Patch { name: "x/0001-p.patch".into(), versions: Default::default(), path, text: String::new() };
        let error = apply(&tree, &patch, &Version::new(10, 2, 2)).unwrap_err().to_string();
        assert!(error.starts_with("x/0001-p.patch does not apply to QEMU 10.2.2"), "{error}");
        assert!(error.contains("patch failed: f:1"), "{error}");
        fs::write(tree.join("f"), "two\n").unwrap();
        apply(&tree, &patch, &Version::new(10, 2, 2)).unwrap();
        assert_eq!(fs::read_to_string(tree.join("f")).unwrap(), "three\n");
        let binary = "diff --git a/b b/b\n\
            index 20b5be91886d0b6f26dc98a225c0dac05fe2c86e..88f37001cec36655decf891d4244853aaa51a00a 100644\n\
            GIT binary patch\nliteral 3\nKcmYdfNCp4_i2%g_\n\nliteral 3\nKcmYdfNCE%>hycU@\n";
        fs::write(&patch.path, format!("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-three\n+four\n{binary}")).unwrap();
        let error = apply(&tree, &patch, &Version::new(10, 2, 2)).unwrap_err().to_string();
        assert!(error.contains("corrupt binary patch"), "{error}");
    }
}
