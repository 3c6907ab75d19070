//! Debian's archives, and substitutes for the pinned one.
//!
//! If Debian has replaced the pinned patch level with a newer one of the same series, the newer one is used with the
//! checksum of the archive's signed index and a warning, unless exact pins are required.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use fs_err as fs;
use qemu_src::{DebianArchive, Pin, Release};
use qus_core::digest::Sha256;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::base::context::Context;
use crate::base::progress::{one_line, say};
use crate::base::{cache, files};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::qemu::archive::{Source, is_intact, match_pin};

/// The record next to a substitute, for machines that receive the directory.
pub(super) const FILE: &str = "substitute.json";

/// The original archive of a source package in a signed index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    pub(super) version: Version,
    pub(super) debian_version: String,
    pub(crate) file: String,
    pub(super) sha256: Sha256,
    /// In bytes; records of older versions of xtask lack it.
    #[serde(default)]
    pub(super) size: Option<u64>,
}

impl SourceRecord {
    /// Whether the archive is in the directory that it is downloaded to.
    fn has_plain_name(&self) -> bool {
        Path::new(&self.file).file_name() == Some(OsStr::new(&self.file))
    }

    fn pin(&self) -> Pin<'_> {
        Pin { origin: "Debian", file: &self.file, sha256: self.sha256, size: self.size }
    }
}

/// The substitute in the cache.
pub(super) fn from_cache(cx: &Context, release: &Release) -> Result<Option<Source>> {
    let record_file = substitute_record(cx, release);
    if !record_file.exists() {
        return Ok(None);
    }
    let record =
        fs::read(&record_file).ok().and_then(|text| serde_json::from_slice::<SourceRecord>(&text).ok());
    let Some(record) = record else {
        cache::report_changed(&record_file);
        files::remove_any(&record_file)?;
        return Ok(None);
    };
    let archive = cx.paths.download(&record.sha256, &record.file);
    if !is_intact(&archive, record.sha256)? {
        return Ok(None);
    }
    warn_substitute(release, &record.version);
    Ok(Some(Source { version: record.version, sha256: record.sha256, archive }))
}

/// The substitute in a directory that another machine has downloaded and verified.
pub(super) fn from_dir(cx: &Context, release: &Release, dir: &Path) -> Result<Option<Source>> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let record: SourceRecord = serde_json::from_slice(&fs::read(&path)?)
        .with_context(|| format!("{} is damaged", one_line(path.display())))?;
    ensure!(record.has_plain_name(), "{} names a file outside of its directory", one_line(path.display()));
    if !is_newer_patch_level(&record.version, &release.version) {
        return Ok(None);
    }
    let file = dir.join(&record.file);
    let archive = cx.paths.download(&record.sha256, &record.file);
    if !is_intact(&archive, record.sha256)? {
        match_pin(&file, &[record.pin()])?;
        files::copy_verified(&file, &archive, record.sha256)?;
    }
    warn_substitute(release, &record.version);
    Ok(Some(Source { version: record.version, sha256: record.sha256, archive }))
}

/// Whether a version is a newer patch level of the pinned series.
fn is_newer_patch_level(version: &Version, pinned: &Version) -> bool {
    (version.major, version.minor) == (pinned.major, pinned.minor) && version > pinned
}

pub(super) fn from_debian(
    cx: &Context,
    release: &Release,
    debian: &DebianArchive,
    exact: bool,
) -> Result<Source> {
    let distribution = Distribution::detect()?.context("this machine has no apt")?;
    let log = cx.start_log("debian-source")?;
    say(format_args!("source: searching Debian {} …", debian.suite));
    let apt =
        Apt::source(&cx.paths.apt(&format!("source-{}", debian.suite)), &log, &distribution, &debian.suite)?;
    let candidates = candidates(&apt.source_records("qemu")?, debian, &release.version);
    let mut failure = if candidates.is_empty() {
        anyhow!("has neither {} nor a newer patch level of its series", debian.version)
    } else {
        anyhow!("does not have {}", debian.version)
    };
    for record in candidates {
        let pinned = record.sha256 == debian.sha256;
        if !pinned && exact {
            return Err(failure.context(format!(
                "only has {} instead of the pinned {}, which --locked and the release profile refuse",
                record.version, release.version
            )));
        }
        match download(cx, &apt, &record) {
            Ok(archive) => {
                if !pinned {
                    warn_substitute(release, &record.version);
                    files::write(&substitute_record(cx, release), &serde_json::to_vec_pretty(&record)?)?;
                }
                return Ok(Source { version: record.version, sha256: record.sha256, archive });
            }
            // An index may list archives that the mirror has already removed.
            Err(error) => failure = error.context(format!("cannot provide {}", record.debian_version)),
        }
    }
    Err(failure)
}

/// Downloads an archive to the cache.
pub(super) fn download(cx: &Context, apt: &Apt, record: &SourceRecord) -> Result<PathBuf> {
    let archive = cx.paths.download(&record.sha256, &record.file);
    let dir = archive.parent().context("the archive has no parent directory")?;
    cache::publish(dir, |partial| {
        apt.download_source("qemu", &record.debian_version, partial)?;
        match_pin(&partial.join(&record.file), &[record.pin()])?;
        files::write(&partial.join(FILE), &serde_json::to_vec_pretty(record)?)
    })?;
    Ok(archive)
}

fn substitute_record(cx: &Context, release: &Release) -> PathBuf {
    cx.paths.substitute(&release.version)
}

fn warn_substitute(release: &Release, version: &Version) {
    say(format_args!(
        "warning: building QEMU {version} instead of {}: the pinned archive is not available, and this newer patch level is\n\
         signed by Debian; do not release it (--locked refuses it)",
        release.version
    ));
}

/// The pinned archive among the records of an index, followed by newer patch levels of its series, newest first.
fn candidates(records: &str, pinned: &DebianArchive, version: &Version) -> Vec<SourceRecord> {
    let is_pinned = |record: &SourceRecord| record.sha256 == pinned.sha256;
    let mut records = self::records(records);
    records.retain(|record| is_pinned(record) || is_newer_patch_level(&record.version, version));
    records.sort_by(|a, b| is_pinned(b).cmp(&is_pinned(a)).then(b.version.cmp(&a.version)));
    records
}

/// The records of an index, without those whose archive would be outside of the directory of its download.
pub(crate) fn records(index: &str) -> Vec<SourceRecord> {
    index.split("\n\n").filter_map(parse_record).filter(SourceRecord::has_plain_name).collect()
}

/// Parses a record; `None` if it has no original archive.
fn parse_record(text: &str) -> Option<SourceRecord> {
    let debian_version = text.lines().find_map(|line| line.strip_prefix("Version: "))?.to_owned();
    let without_epoch = debian_version.split_once(':').map_or(&*debian_version, |(_, rest)| rest);
    let upstream = without_epoch.split(['+', '-', '~']).next()?;
    let mut hashes = text.lines().skip_while(|line| !line.starts_with("Checksums-Sha256:")).skip(1);
    let fields = hashes.by_ref().take_while(|line| line.starts_with(' ')).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.last()?.contains(".orig.tar.").then_some(fields)
    })?;
    Some(SourceRecord {
        version: upstream.parse().ok()?,
        file: (*fields.last()?).to_owned(),
        sha256: fields.first()?.parse().ok()?,
        size: fields.get(1).and_then(|size| size.parse().ok()),
        debian_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(content: &str) -> Sha256 {
        Sha256::of(content)
    }

    fn index(versions: &[(&str, &str)]) -> String {
        let record = |(version, content): &(&str, &str)| {
            let sha256 = sum(content);
            format!(
                "Package: qemu\nVersion: {version}\nChecksums-Sha1:\n 0 1 q.orig.tar.xz\nChecksums-Sha256:\n \
                 ffff 2 q.dsc\n {sha256} 3 q.orig.tar.xz\nDirectory: pool\n"
            )
        };
        versions.iter().map(record).collect::<Vec<_>>().join("\n")
    }

    fn pinned() -> DebianArchive {
        DebianArchive {
            suite: "sid".into(),
            version: "1:10.2.2+ds-1".into(),
            file: "q.orig.tar.xz".into(),
            sha256: sum("aaaa"),
            size: 3,
            verified: String::new(),
        }
    }

    fn chosen(versions: &[(&str, &str)]) -> Vec<String> {
        let candidates = candidates(&index(versions), &pinned(), &Version::new(10, 2, 2));
        candidates.into_iter().map(|record| record.debian_version).collect()
    }

    #[test]
    fn the_pinned_archive_comes_before_newer_ones() {
        let versions = [("1:11.1.3+ds-1", "cccc"), ("1:10.2.4+ds-1", "bbbb"), ("1:10.2.2+ds-1", "aaaa")];
        assert_eq!(chosen(&versions), ["1:10.2.2+ds-1", "1:10.2.4+ds-1"]);
    }

    #[test]
    fn only_a_newer_patch_level_of_the_series_replaces_it() {
        let versions = [("1:10.2.1+ds-1", "1111"), ("1:10.2.3+ds-2", "3333"), ("1:10.2.4+ds-1", "4444")];
        assert_eq!(chosen(&versions), ["1:10.2.4+ds-1", "1:10.2.3+ds-2"]);
        assert!(chosen(&[("1:11.1.3+ds-1", "cccc"), ("1:10.0.13+ds-0+deb13u1", "dddd")]).is_empty());
        assert!(chosen(&[]).is_empty());
    }

    #[test]
    fn a_repacked_archive_with_the_pinned_version_is_refused() {
        assert!(chosen(&[("1:10.2.2+ds-1", "eeee")]).is_empty());
    }
}
