//! `.rpm`: two tables of tags, one with checksums of the other, and a compressed cpio archive of the files.
//!
//! The numbers of tags, types and flags are those of `rpmtag.h` and `rpmds.h`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::digest::Sha256;

use super::package::{Package, URL};
use crate::base::tarball::{TarballEntry, compress};
use crate::bundle::licences;

/// Directories that belong to the distribution.
const STANDARD: [&str; 11] = [
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/binfmt.d",
    "usr/libexec",
    "usr/share",
    "usr/share/bash-completion",
    "usr/share/bash-completion/completions",
    "usr/share/licenses",
    "usr/share/man",
    "usr/share/man/man1",
];

/// The flag of a file with a licence.
const LICENCE: u32 = 1 << 7;

/// The number of the algorithm.
const SHA256: u32 = 8;

/// Flags of a dependency: `=`, and `<=` of what rpm itself can do.
const EQUAL: u32 = 1 << 3;
const OF_RPM: u32 = 1 << 24 | EQUAL | 1 << 1;

/// Flags of the dependency on a shell: an interpreter, after installing and before removing.
const OF_SCRIPTS: u32 = 1 << 8 | 1 << 10 | 1 << 11;

/// What rpm must be able to do to read the package.
const ABILITIES: [(&str, &str); 4] = [
    ("rpmlib(CompressedFileNames)", "3.0.4-1"),
    ("rpmlib(FileDigests)", "4.6.0-1"),
    ("rpmlib(PayloadFilesHavePrefix)", "4.0-1"),
    ("rpmlib(PayloadIsZstd)", "5.4.18-1"),
];

impl Package {
    /// Adds licences where Fedora has them, and directories that are the package's own.
    pub(super) fn for_fedora(mut self, texts: &[TarballEntry]) -> Self {
        let (from, to) = (licences::INSTALLED, format!("usr/share/licenses/{}", self.about.name));
        self.entries.extend(texts.iter().map(|entry| entry.with_path(&entry.path.replacen(from, &to, 1))));
        self.with_directories(|path| !STANDARD.contains(&path))
    }

    /// What rpm knows of the package without its files.
    fn describe(&self, header: &mut Header) -> Result<()> {
        let about = self.about;
        let (version, release) = self.version.rsplit_once('-').context("the version has no revision")?;
        for (tag, text) in [
            (1000, about.name),
            (1001, version),
            (1002, release),
            (1014, about.licence),
            (1020, URL),
            (1021, "linux"),
            (1022, self.architecture),
            // A package without the name of its source is one of sources.
            (1044, &*format!("{}-{}.src.rpm", about.name, self.version)),
            (5062, "utf-8"),
        ] {
            header.text(tag, text);
        }
        header.texts(100, ["C"]);
        for (tag, text) in [(1004, about.summary), (1005, about.description), (1016, "Unspecified")] {
            header.add(tag, Kind::Translated, 1, terminated(text));
        }
        header.words(1006, [u32::try_from(self.epoch)?]);
        let mut required: Vec<_> = ABILITIES.map(|(name, version)| (name, OF_RPM, version)).into();
        if let Some(scripts) = &about.scripts {
            required.push(("/bin/sh", OF_SCRIPTS, ""));
            for (tag, program, script) in [(1024, 1086, scripts.installed), (1025, 1087, scripts.removed)] {
                header.text(tag, script);
                header.text(program, "/bin/sh");
            }
        }
        let named = |names: &[&'static str]| names.iter().map(|&name| (name, 0, "")).collect::<Vec<_>>();
        let mut provided = named(about.provides);
        provided.push((about.name, EQUAL, &*self.version));
        for ([names, flags, versions], relations) in [
            ([1049, 1048, 1050], required),
            ([1047, 1112, 1113], provided),
            ([1054, 1053, 1055], named(about.replaces)),
            ([5046, 5048, 5047], named(about.recommends)),
        ] {
            if !relations.is_empty() {
                header.texts(names, relations.iter().map(|(name, ..)| *name));
                header.words(flags, relations.iter().map(|(_, flags, _)| *flags));
                header.texts(versions, relations.iter().map(|(.., version)| *version));
            }
        }
        Ok(())
    }

    /// Adds the files to a header, and returns their archive.
    fn list(&self, header: &mut Header) -> Result<Vec<u8>> {
        let epoch = u32::try_from(self.epoch)?;
        let count = self.entries.len();
        let mut archive = Vec::new();
        let mut directories: Vec<String> = Vec::new();
        let (mut names, mut indexes, mut sizes, mut modes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut digests, mut targets, mut flags) = (Vec::new(), Vec::new(), Vec::new());
        for (number, entry) in (1..).zip(&self.entries) {
            let (directory, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            let directory = format!("/{directory}/");
            let known = directories.iter().position(|known| *known == directory);
            indexes.push(u32::try_from(known.unwrap_or(directories.len()))?);
            if known.is_none() {
                directories.push(directory);
            }
            names.push(name);
            let kind = match entry.target() {
                Some(_) => 0o120_000,
                None if entry.is_directory() => 0o040_000,
                None => 0o100_000,
            };
            let is_file = kind == 0o100_000;
            let (mode, bytes) = (kind | entry.mode, entry.bytes()?);
            modes.extend(u16::try_from(mode)?.to_be_bytes());
            sizes.push(u32::try_from(bytes.len())?);
            digests.push(if is_file { entry.sha256.to_string() } else { String::new() });
            targets.push(entry.target().unwrap_or_default());
            flags.push(if is_file && entry.path.starts_with("usr/share/licenses/") { LICENCE } else { 0 });
            append(&mut archive, number, mode, epoch, &format!("./{}", entry.path), &bytes)?;
        }
        append(&mut archive, 0, 0, 0, "TRAILER!!!", &[])?;
        let all = |value: u32| std::iter::repeat_n(value, count);
        header.words(1009, [sizes.iter().sum()]);
        header.words(1028, sizes);
        header.add(1030, Kind::Halves, count, modes);
        header.add(1033, Kind::Halves, count, vec![0; 2 * count]);
        header.words(1034, all(epoch));
        header.texts(1035, digests.iter().map(String::as_str));
        header.texts(1036, targets);
        header.words(1037, flags);
        for owner in [1039, 1040] {
            header.texts(owner, std::iter::repeat_n("root", count));
        }
        header.words(1045, all(u32::MAX));
        header.words(1095, all(1));
        header.words(1096, 1..=u32::try_from(count)?);
        header.texts(1097, std::iter::repeat_n("", count));
        header.words(1116, indexes);
        header.texts(1117, names);
        header.texts(1118, directories.iter().map(String::as_str));
        Ok(archive)
    }
}

/// Appends an entry to a cpio archive.
fn append(archive: &mut Vec<u8>, number: u32, mode: u32, time: u32, path: &str, bytes: &[u8]) -> Result<()> {
    let (size, length) = (u32::try_from(bytes.len())?, u32::try_from(path.len() + 1)?);
    archive.extend(b"070701");
    // Among them user, group and devices.
    for field in [number, mode, 0, 0, 1, time, size, 0, 0, 0, 0, length, 0] {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(terminated(path));
    pad(archive, 4);
    archive.extend(bytes);
    pad(archive, 4);
    Ok(())
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn terminated(text: &str) -> Vec<u8> {
    format!("{text}\0").into_bytes()
}

/// Types of values, with the numbers that they have in a header.
#[derive(Clone, Copy)]
enum Kind {
    Halves = 3,
    Words = 4,
    Text = 6,
    Bytes = 7,
    Texts = 8,
    Translated = 9,
}

/// A table of tags: type, number of values, and the values.
#[derive(Default)]
struct Header(BTreeMap<u32, (Kind, usize, Vec<u8>)>);

impl Header {
    fn add(&mut self, tag: u32, kind: Kind, count: usize, values: Vec<u8>) {
        self.0.insert(tag, (kind, count, values));
    }

    fn text(&mut self, tag: u32, text: &str) {
        self.add(tag, Kind::Text, 1, terminated(text));
    }

    fn texts<'a>(&mut self, tag: u32, texts: impl IntoIterator<Item = &'a str>) {
        let texts: Vec<_> = texts.into_iter().map(terminated).collect();
        self.add(tag, Kind::Texts, texts.len(), texts.concat());
    }

    fn words(&mut self, tag: u32, words: impl IntoIterator<Item = u32>) {
        let words: Vec<_> = words.into_iter().map(u32::to_be_bytes).collect();
        self.add(tag, Kind::Words, words.len(), words.concat());
    }

    /// The header in a file. The first tag, `region`, spans all others, which is what a signature covers.
    fn bytes(&self, region: u32) -> Result<Vec<u8>> {
        let index = |tag: u32, kind: Kind, offset: i32, count: usize| -> Result<Vec<u8>> {
            let (kind, count) = ((kind as u32).to_be_bytes(), u32::try_from(count)?.to_be_bytes());
            Ok([tag.to_be_bytes(), kind, offset.to_be_bytes(), count].concat())
        };
        let (mut indexes, mut values) = (Vec::new(), Vec::new());
        for (tag, (kind, count, bytes)) in &self.0 {
            match kind {
                Kind::Halves => pad(&mut values, 2),
                Kind::Words => pad(&mut values, 4),
                _ => {}
            }
            indexes.extend(index(*tag, *kind, i32::try_from(values.len())?, *count)?);
            values.extend(bytes);
        }
        let length = 16 * (self.0.len() + 1);
        let first = index(region, Kind::Bytes, i32::try_from(values.len())?, 16)?;
        values.extend(index(region, Kind::Bytes, -i32::try_from(length)?, 16)?);
        let sizes = [self.0.len() + 1, values.len()].map(|size| u32::try_from(size).map(u32::to_be_bytes));
        let [count, size] = sizes;
        let magic = [[0x8e, 0xad, 0xe8, 1], [0; 4], count?, size?].concat();
        Ok([magic, first, indexes, values].concat())
    }
}

pub(super) fn write(package: &Package, dir: &Path) -> Result<PathBuf> {
    let mut header = Header::default();
    package.describe(&mut header)?;
    let archive = package.list(&mut header)?;
    let payload = compress(&*archive, archive.len() as u64, Vec::new())?;
    for (tag, text) in [(1124, "cpio"), (1125, "zstd"), (1126, "19")] {
        header.text(tag, text);
    }
    header.texts(5092, [&*Sha256::of(&payload).to_string()]);
    header.words(5093, [SHA256]);
    header.words(5011, [SHA256]);
    let header = header.bytes(63)?;
    let mut signature = Header::default();
    signature.text(273, &Sha256::of(&header).to_string());
    signature.words(1000, [u32::try_from(header.len() + payload.len())?]);
    signature.words(1007, [u32::try_from(archive.len())?]);
    let mut signature = signature.bytes(62)?;
    pad(&mut signature, 8);
    let mut lead = [0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, 1].to_vec();
    lead.extend(package.file.bytes().take(65));
    lead.resize(76, 0);
    lead.extend([0, 1, 0, 5]);
    lead.resize(96, 0);
    let path = dir.join(&package.file);
    fs::write(&path, [lead, signature, header, payload].concat())?;
    Ok(path)
}
