//! The tar archive of a layer, rewritten for mkfs.erofs.
//!
//! mkfs.erofs takes a header that it does not understand for the archive's end, and gives directories without an entry all
//! permissions. So it gets headers of one form only, and an entry for each directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::{Archive, Builder, EntryType, Header};

use crate::base::progress::one_line;
use crate::vm::pax;

/// Extended attributes begin so in pax headers.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// The key of a time that has more than whole seconds since 1970.
const TIME: &str = "mtime";

/// Copies an archive: the same files in the same order, then directories that others need.
///
/// # Errors
/// The archive is damaged, or has a path outside of it or a file of an unknown kind.
pub(crate) fn rewrite(from: impl Read, to: impl Write) -> Result<()> {
    let (from, headers) = pax::record(from);
    let mut archive = Archive::new(from);
    let mut builder = Builder::new(to);
    let (mut present, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for entry in archive.entries()? {
        let mut entry = entry.context("the archive is damaged")?;
        let kind = match entry.header().entry_type() {
            EntryType::XGlobalHeader => {
                headers.next_after(&mut entry)?;
                continue;
            }
            // The contents of a sparse file are read with their holes.
            EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
            kind => kind,
        };
        let mut extensions = headers.take().context("the archive is damaged")?;
        let named = |key: &str| extensions.iter().find(|(own, _)| own == key).map(|(_, value)| value.clone());
        let path = named("path").unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = inside(Path::new(OsStr::from_bytes(&path)))?;
        let link = named("linkpath").or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
        let mut header = header(entry.header(), kind, &extensions)
            .with_context(|| format!("the entry {} is damaged", one_line(path.display())))?;
        let exact = extensions.iter().find(|(key, _)| key == TIME).and_then(|(_, value)| exact_time(value));
        extensions.retain(|(key, _)| key.starts_with(ATTRIBUTE));
        extensions.extend(exact.map(|time| (TIME.to_owned(), time)));
        match kind {
            EntryType::Regular => header.set_size(entry.size()),
            EntryType::Link | EntryType::Symlink => {
                let link = link.context("a link has no target")?;
                if header.set_link_name_literal(&link).is_err() {
                    extensions.push(("linkpath".to_owned(), link));
                }
            }
            EntryType::Directory | EntryType::Fifo | EntryType::Char | EntryType::Block => {}
            other => bail!("the archive has a file of the unknown kind {other:?}"),
        }
        needed.extend(path.ancestors().skip(1).map(Path::to_owned));
        if kind == EntryType::Directory {
            present.insert(path.clone());
        }
        if !extensions.is_empty() {
            builder.append_pax_extensions(extensions.iter().map(|(key, value)| (&**key, &**value)))?;
        }
        // The root directory has no name, and sqfstar refuses `.`.
        let name = if path.as_os_str().is_empty() { Path::new("./") } else { &*path };
        // Others have no contents, whatever their headers say.
        let contents = if kind == EntryType::Regular { u64::MAX } else { 0 };
        builder.append_data(&mut header, name, entry.by_ref().take(contents))?;
        headers.next_after(&mut entry)?;
    }
    for path in needed.difference(&present) {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let name = if path.as_os_str().is_empty() { Path::new("./") } else { path };
        builder.append_data(&mut header, name, io::empty())?;
    }
    builder.finish()?;
    Ok(())
}

/// A path without `.`, and not outside of the archive.
fn inside(path: &Path) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the archive has the path {}, which is outside of it", one_line(path.display()))
            }
        }
    }
    Ok(inside)
}

/// A time in seconds as mkfs.erofs and sqfstar need it: with nine digits after the point, which are zeros before 1970. `None`
/// for a whole number since, which the header has.
fn exact_time(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_fraction = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = whole.parse().ok().filter(|_| is_fraction)?;
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let is_whole = fraction == "000000000";
    if whole.starts_with('-') {
        let seconds = seconds.saturating_sub((!is_whole).into());
        return Some(format!("{seconds}.000000000").into_bytes());
    }
    (!is_whole).then(|| format!("{seconds}.{fraction}").into_bytes())
}

/// A header with the same owner, mode, time and device numbers. pax headers have numbers that are too large for it.
fn header(old: &Header, kind: EntryType, extensions: &[(String, Vec<u8>)]) -> Result<Header> {
    let extension = |name: &str| extensions.iter().find(|(key, _)| key == name);
    let number = |name: &str, old: io::Result<u64>, bytes: &[u8]| -> Result<u64> {
        if let Some((_, value)) = extension(name) {
            let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
            return OsStr::from_bytes(whole)
                .to_str()
                .and_then(|text| if text.starts_with('-') { Some(0) } else { text.parse().ok() })
                .context(format!("{name} is no number"));
        }
        // Some archives leave numbers out.
        if bytes.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { Ok(old?) }
    };
    let fields = old.as_old();
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(u32::try_from(number("mode", old.mode().map(u64::from), &fields.mode)?)? & 0o7777);
    header.set_uid(number("uid", old.uid(), &fields.uid)?);
    header.set_gid(number("gid", old.gid(), &fields.gid)?);
    header.set_mtime(number("mtime", old.mtime(), &fields.mtime)?);
    header.set_size(0);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        let (major, minor) = (old.device_major()?, old.device_minor()?);
        ensure!(major.is_some() && minor.is_some(), "the device has no number");
        header.set_device_major(major.unwrap_or_default())?;
        header.set_device_minor(minor.unwrap_or_default())?;
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(0);
        header
    }

    /// Path, kind, mode, owner, target and contents.
    fn listed(archive: &[u8]) -> Vec<(String, EntryType, u32, u64, Option<PathBuf>, String)> {
        let mut archive = Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(std::borrow::Cow::into_owned);
            (path, header.entry_type(), header.mode().unwrap(), header.uid().unwrap(), link, text)
        });
        entries.collect()
    }

    #[test]
    fn everything_is_kept_and_directories_are_added() {
        let mut builder = Builder::new(Vec::new());
        let long = "x".repeat(150);
        builder
            .append_pax_extensions([("SCHILY.xattr.user.a", &b"b\0c"[..]), ("uid", b"3000000000")])
            .unwrap();
        let mut file = entry(EntryType::Regular, 0o4755);
        file.set_size(4);
        builder.append_data(&mut file, "./a/b", &b"text"[..]).unwrap();
        let mut link = entry(EntryType::Symlink, 0o777);
        builder.append_link(&mut link, "a/link", &long).unwrap();
        let mut hard = entry(EntryType::Link, 0o644);
        builder.append_link(&mut hard, &long, "a/b").unwrap();
        let mut device = entry(EntryType::Char, 0o600);
        device.set_device_major(5).unwrap();
        device.set_device_minor(1).unwrap();
        builder.append_data(&mut device, "dev/console", io::empty()).unwrap();
        builder.append_data(&mut entry(EntryType::Directory, 0o700), "a", io::empty()).unwrap();
        let archive = builder.into_inner().unwrap();
        let mut rewritten = Vec::new();
        rewrite(&*archive, &mut rewritten).unwrap();
        let directory =
            |path: &str, mode| (path.to_owned(), EntryType::Directory, mode, 0, None, String::new());
        let expected = [
            ("a/b".to_owned(), EntryType::Regular, 0o4755, 3_000_000_000, None, "text".to_owned()),
            ("a/link".to_owned(), EntryType::Symlink, 0o777, 0, Some(long.clone().into()), String::new()),
            (long, EntryType::Link, 0o644, 0, Some("a/b".into()), String::new()),
            ("dev/console".to_owned(), EntryType::Char, 0o600, 0, None, String::new()),
            directory("a", 0o700),
            directory("./", 0o755),
            directory("dev", 0o755),
        ];
        let found = listed(&rewritten);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(
                (found.0.trim_end_matches('/'), &found.1, &found.2, &found.3, &found.4, &found.5),
                (
                    expected.0.trim_end_matches('/'),
                    &expected.1,
                    &expected.2,
                    &expected.3,
                    &expected.4,
                    &expected.5
                )
            );
        }
        let mut archive = Archive::new(&*rewritten);
        let mut first = archive.entries().unwrap().next().unwrap().unwrap();
        let attributes: Vec<_> = first.pax_extensions().unwrap().unwrap().map(Result::unwrap).collect();
        let attribute = (attributes[0].key().unwrap(), attributes[0].value_bytes());
        assert_eq!(attribute, ("SCHILY.xattr.user.a", &b"b\0c"[..]));
    }

    #[test]
    fn times_have_all_digits() {
        let time = |given: &str| exact_time(given.as_bytes()).map(|time| String::from_utf8(time).unwrap());
        assert_eq!(time("1700000000.5").as_deref(), Some("1700000000.500000000"));
        assert_eq!(time("1.1234567899").as_deref(), Some("1.123456789"));
        assert_eq!(time("-5").as_deref(), Some("-5.000000000"));
        // The second before, because there is no way to write the rest.
        assert_eq!(time("-5.5").as_deref(), Some("-6.000000000"));
        assert_eq!(time("-0.5").as_deref(), Some("-1.000000000"));
        for none in ["1700000000", "1.0", "1.x", "", "x"] {
            assert_eq!(time(none), None);
        }
    }

    #[test]
    fn damaged_archives_are_refused() {
        let rewritten = |archive: &[u8]| rewrite(archive, io::sink()).unwrap_err();
        let mut builder = Builder::new(Vec::new());
        let mut header = entry(EntryType::Regular, 0o644);
        header.as_old_mut().name[..4].copy_from_slice(b"../a");
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        assert!(rewritten(&builder.into_inner().unwrap()).to_string().contains("outside of it"));
        assert_eq!(rewritten(&[b'x'; 1024]).to_string(), "the archive is damaged");
    }
}
