//! Where QEMU's source archive comes from: a given place, the cache, upstream, Debian, in that order.
//!
//! Each attempt is reported in one line. Wherever an archive comes from, it goes into the cache under
//! its hash, and is used only if that hash is pinned in `sources.toml`. The one exception is loud: when
//! Debian has replaced the pinned patch level by a newer one of the same series, that one is taken
//! with the hash of the archive's signed index, unless the caller has asked for exact pins.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fs_err as fs;
use qemu_src::{DebianArchive, Pin, Release, Upstream};
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::base::context::Context;
use crate::base::progress::{one_line, say};
use crate::base::{cache, files};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::qemu::download;

/// A verified archive in the cache.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) version: Version,
    pub(crate) sha256: Sha256,
    pub(crate) archive: PathBuf,
}

/// A place the user has named, an archive or a folder of archives.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    /// On the command line: if the archive is not there, that is an error.
    Argument(&'a Path),
    /// In the environment: if the archive is not there, other places are tried.
    Environment(&'a Path),
}

/// Gets the archive of a release, with `exact` only a pinned one.
///
/// # Errors
/// A wrong hash at the given place; otherwise only when no place has it.
pub(crate) fn resolve(
    cx: &Context,
    release: &Release,
    given: Option<Given<'_>>,
    exact: bool,
) -> Result<Source> {
    if let Some(given) = given {
        let (path, strict) = match given {
            Given::Argument(path) => (path, true),
            Given::Environment(path) => (path, false),
        };
        let found = if strict || path.exists() { from_given(cx, release, path, exact)? } else { None };
        match found {
            Some(source) => return Ok(source),
            None if strict => bail!("{}", not_given(release, path)),
            None => say(format_args!("source: {}", not_given(release, path))),
        }
    }
    if let Some(source) = from_cache(cx, release, exact)? {
        return Ok(source);
    }
    let version = &release.version;
    let mut failures = Vec::new();
    let mut attempt = |place: String, result: Result<Source>| match result {
        Ok(source) => {
            say(format_args!("source: QEMU {} from {place}", source.version));
            Some(source)
        }
        Err(error) => {
            let line = format!("{place}: {error:#}");
            say(format_args!("source: {}", line.lines().next().unwrap_or_default()));
            failures.push(line);
            None
        }
    };
    if let Some(upstream) = &release.upstream {
        let result = from_upstream(cx, release, upstream);
        if let Some(source) = attempt(upstream.url.clone(), result) {
            return Ok(source);
        }
    }
    if let Some(debian) = &release.debian {
        let result = from_debian(cx, release, debian, exact);
        if let Some(source) = attempt(format!("Debian {}", debian.suite), result) {
            return Ok(source);
        }
    }
    let files: Vec<_> = release.pins().map(|pin| pin.file.to_owned()).collect();
    Err(hinted(
        format_args!(
            "QEMU's source, version {version}, is not available from any location:\n  {}",
            failures.join("\n  ")
        ),
        format_args!(
            "connect this machine to the network, or fetch {} elsewhere and use --source PATH",
            files.join(" or ")
        ),
    ))
}

/// Where [`resolve`] would begin, for a plan: a verified archive is not needed for that.
pub(crate) fn is_cached(cx: &Context, release: &Release) -> bool {
    release.pins().any(|pin| cx.paths.download(&pin.sha256, pin.file).exists())
}

fn not_given(release: &Release, path: &Path) -> String {
    let files: Vec<_> = release.pins().map(|pin| pin.file.to_owned()).collect();
    format!(
        "{} has no {}, the source of QEMU {}",
        one_line(path.display()),
        files.join(" or "),
        release.version
    )
}

fn from_given(cx: &Context, release: &Release, path: &Path, exact: bool) -> Result<Option<Source>> {
    if path.is_dir() {
        for pin in release.pins() {
            let file = path.join(pin.file);
            if file.exists() {
                check_hash(&file, std::slice::from_ref(&pin))?;
                return keep(cx, release, &pin, &file).map(Some);
            }
        }
        return if exact { Ok(None) } else { given_substitute(cx, release, path) };
    }
    let pins: Vec<_> = release.pins().collect();
    let pin = check_hash(path, &pins)?;
    keep(cx, release, &pin, path).map(Some)
}

/// The file beside a substitute that says which one it is, for machines that are given the directory.
const SUBSTITUTE: &str = "substitute.json";

/// The substitute in a directory that another machine has downloaded and verified.
fn given_substitute(cx: &Context, release: &Release, dir: &Path) -> Result<Option<Source>> {
    let path = dir.join(SUBSTITUTE);
    if !path.exists() {
        return Ok(None);
    }
    let record: Record = serde_json::from_slice(&fs::read(&path)?)
        .with_context(|| format!("{} is damaged", one_line(path.display())))?;
    let plain = Path::new(&record.file).file_name() == Some(OsStr::new(&record.file));
    ensure!(plain, "{} names a file outside of its directory", one_line(path.display()));
    if !is_newer_patch_level(&record.version, &release.version) {
        return Ok(None);
    }
    let file = dir.join(&record.file);
    let archive = cx.paths.download(&record.sha256, &record.file);
    if !is_intact(&archive, record.sha256)? {
        check_hash(&file, &[record.pin()])?;
        files::copy_verified(&file, &archive, record.sha256)?;
    }
    warn_substitute(release, &record.version);
    Ok(Some(Source { version: record.version, sha256: record.sha256, archive }))
}

/// Whether a version is of the same series as another, and newer.
fn is_newer_patch_level(version: &Version, pinned: &Version) -> bool {
    (version.major, version.minor) == (pinned.major, pinned.minor) && version > pinned
}

/// The pin that a file has the hash of.
fn check_hash<'a>(file: &Path, pins: &[Pin<'a>]) -> Result<Pin<'a>> {
    let (size, most) = (files::open(file)?.metadata()?.len(), pins.iter().map(Pin::limit).max().unwrap_or(0));
    ensure!(size <= most, "{} has {size} bytes, and the source has at most {most}", one_line(file.display()));
    let got = files::sha256(file)?;
    match pins.iter().find(|pin| pin.sha256 == got) {
        Some(pin) => Ok(pin.clone()),
        None => {
            let expected: Vec<_> = pins
                .iter()
                .map(|pin| format!("\n  expected {} ({}, {})", pin.sha256, pin.origin, pin.file))
                .collect();
            bail!("{} has the wrong sha256:{}\n  got      {got}", one_line(file.display()), expected.concat())
        }
    }
}

/// Copies a checked archive into the cache, unless it is there, unchanged.
fn keep(cx: &Context, release: &Release, pin: &Pin<'_>, file: &Path) -> Result<Source> {
    let archive = cx.paths.download(&pin.sha256, pin.file);
    if !is_intact(&archive, pin.sha256)? {
        say(format_args!("source: QEMU {} from {}", release.version, one_line(file.display())));
        files::copy_verified(file, &archive, pin.sha256)?;
    }
    Ok(Source { version: release.version.clone(), sha256: pin.sha256, archive })
}

fn from_cache(cx: &Context, release: &Release, exact: bool) -> Result<Option<Source>> {
    for pin in release.pins() {
        let archive = cx.paths.download(&pin.sha256, pin.file);
        if is_intact(&archive, pin.sha256)? {
            return Ok(Some(Source { version: release.version.clone(), sha256: pin.sha256, archive }));
        }
    }
    let note = substitute_note(cx, release);
    if exact || !note.exists() {
        return Ok(None);
    }
    let record = fs::read(&note).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
    let Some(record) = record else {
        cache::report_changed(&note);
        files::discard(&note)?;
        return Ok(None);
    };
    let archive = cx.paths.download(&record.sha256, &record.file);
    if !is_intact(&archive, record.sha256)? {
        return Ok(None);
    }
    warn_substitute(release, &record.version);
    Ok(Some(Source { version: record.version, sha256: record.sha256, archive }))
}

/// Whether an archive is in the cache and has its hash; one that has not is reported and removed.
fn is_intact(archive: &Path, sha256: Sha256) -> Result<bool> {
    if files::sha256(archive).is_ok_and(|found| found == sha256) {
        return Ok(true);
    }
    if archive.exists() {
        cache::report_changed(archive);
        files::discard(archive)?;
    }
    Ok(false)
}

fn from_upstream(cx: &Context, release: &Release, upstream: &Upstream) -> Result<Source> {
    let pin =
        release.pins().find(|pin| pin.sha256 == upstream.sha256).context("a release has its own pins")?;
    let archive = cx.paths.download(&pin.sha256, pin.file);
    let partial = files::partial(&archive);
    let folder = archive.parent().context("a download lies in a folder")?;
    fs::create_dir_all(folder)?;
    // A run that was killed between download and check has left all of it.
    if !files::sha256(&partial).is_ok_and(|got| got == pin.sha256) {
        download::resume(&upstream.url, upstream.size, &partial, &cx.paths.log("download"))?;
    }
    if let Err(error) = check_hash(&partial, std::slice::from_ref(&pin)) {
        fs::remove_file(&partial)?;
        return Err(error);
    }
    files::rename(&partial, &archive).with_context(|| format!("cannot make {}", archive.display()))?;
    Ok(Source { version: release.version.clone(), sha256: pin.sha256, archive })
}

/// A source package's original archive, as a signed index names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: Version,
    debian_version: String,
    file: String,
    sha256: Sha256,
}

impl Record {
    fn pin(&self) -> Pin<'_> {
        Pin { origin: "Debian", file: &self.file, sha256: self.sha256, size: None }
    }
}

fn from_debian(cx: &Context, release: &Release, debian: &DebianArchive, exact: bool) -> Result<Source> {
    let distribution = Distribution::detect()?.context("this machine has no apt")?;
    let log = cx.start_log("debian-source")?;
    say(format_args!("source: looking in Debian {} …", debian.suite));
    let apt =
        Apt::source(&cx.paths.apt(&format!("source-{}", debian.suite)), &log, &distribution, &debian.suite)?;
    let candidates = candidates(&apt.source_records("qemu")?, debian, &release.version);
    let mut refused = if candidates.is_empty() {
        anyhow!("has neither {} nor a newer patch level of its series", debian.version)
    } else {
        anyhow!("does not have {}", debian.version)
    };
    for record in candidates {
        let pinned = record.sha256 == debian.sha256;
        if !pinned && exact {
            return Err(refused.context(format!(
                "only has {} instead of the pinned {}, which --locked and the release profile refuse",
                record.version, release.version
            )));
        }
        match download_record(cx, &apt, &record) {
            Ok(archive) => {
                if !pinned {
                    warn_substitute(release, &record.version);
                    files::write(&substitute_note(cx, release), &serde_json::to_vec_pretty(&record)?)?;
                }
                return Ok(Source { version: record.version, sha256: record.sha256, archive });
            }
            // An index may still name what the mirror has dropped.
            Err(error) => refused = error.context(format!("does not give {}", record.debian_version)),
        }
    }
    Err(refused)
}

fn download_record(cx: &Context, apt: &Apt, record: &Record) -> Result<PathBuf> {
    let archive = cx.paths.download(&record.sha256, &record.file);
    let folder = archive.parent().context("a download lies in a folder")?;
    cache::publish(folder, |partial| {
        apt.download_source("qemu", &record.debian_version, partial)?;
        check_hash(&partial.join(&record.file), &[record.pin()])?;
        files::write(&partial.join(SUBSTITUTE), &serde_json::to_vec_pretty(record)?)
    })?;
    Ok(archive)
}

fn substitute_note(cx: &Context, release: &Release) -> PathBuf {
    cx.paths.substitute(&release.version)
}

fn warn_substitute(release: &Release, version: &Version) {
    say(format_args!(
        "WARNING: building QEMU {version} instead of {}: the pinned archive cannot be had, and this newer patch\n\
         WARNING: level is signed by Debian. Do not release it; --locked refuses it.",
        release.version
    ));
}

/// The pinned archive among the records of an index, then later patch levels of its series, the newest
/// first.
fn candidates(records: &str, pinned: &DebianArchive, version: &Version) -> Vec<Record> {
    let is_pinned = |record: &Record| record.sha256 == pinned.sha256;
    let mut records: Vec<Record> = records.split("\n\n").filter_map(record).collect();
    records.retain(|record| is_pinned(record) || is_newer_patch_level(&record.version, version));
    records.sort_by(|a, b| is_pinned(b).cmp(&is_pinned(a)).then(b.version.cmp(&a.version)));
    records
}

/// One record; `None` if it is not one of a source package with an original archive.
fn record(text: &str) -> Option<Record> {
    let debian_version = text.lines().find_map(|line| line.strip_prefix("Version: "))?.to_owned();
    let without_epoch = debian_version.split_once(':').map_or(&*debian_version, |(_, rest)| rest);
    let upstream = without_epoch.split(['+', '-', '~']).next()?;
    let mut hashes = text.lines().skip_while(|line| !line.starts_with("Checksums-Sha256:")).skip(1);
    let fields = hashes.by_ref().take_while(|line| line.starts_with(' ')).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.last()?.contains(".orig.tar.").then_some(fields)
    })?;
    Some(Record {
        version: upstream.parse().ok()?,
        file: (*fields.last()?).to_owned(),
        sha256: fields.first()?.parse().ok()?,
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
    fn a_repacked_archive_under_the_pinned_version_is_not_taken() {
        assert!(chosen(&[("1:10.2.2+ds-1", "eeee")]).is_empty());
    }

    /// A machine that is given the directory of a substitute, as a node of a builder is, takes it.
    #[test]
    fn a_substitute_is_taken_from_a_directory_that_describes_it() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cx = &Context::with_cache(cache.path()).unwrap();
        let release = cx.data.release("default").unwrap();
        let mut newer = release.version.clone();
        newer.patch += 7;
        let describe = |version: &Version, file: &str| {
            let record = Record {
                version: version.clone(),
                debian_version: "1".to_owned(),
                file: file.to_owned(),
                sha256: sum("source"),
            };
            fs::write(dir.path().join(SUBSTITUTE), serde_json::to_vec(&record).unwrap()).unwrap();
        };
        let resolve = |exact| super::resolve(cx, release, Some(Given::Argument(dir.path())), exact);
        fs::write(dir.path().join("q.tar.xz"), "source").unwrap();
        describe(&newer, "q.tar.xz");
        let source = resolve(false).unwrap();
        assert_eq!((source.version, source.sha256), (newer.clone(), sum("source")));
        assert_eq!(fs::read(source.archive).unwrap(), b"source");
        assert!(resolve(true).is_err(), "a release takes no substitute");

        describe(&Version::new(release.version.major + 1, 0, 0), "q.tar.xz");
        assert!(resolve(false).is_err(), "another series");
        describe(&newer, "../q.tar.xz");
        assert!(resolve(false).unwrap_err().to_string().contains("outside of its directory"));
        describe(&newer, "q.tar.xz");
        files::remove(cache.path()).unwrap();
        fs::write(dir.path().join("q.tar.xz"), "other").unwrap();
        assert!(resolve(false).unwrap_err().to_string().contains("wrong sha256"));
    }

    #[test]
    fn a_wrong_hash_prints_both() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pin = Pin { origin: "upstream", file: "qemu.tar.xz", sha256: sum("aaaa"), size: None };
        let error = check_hash(file.path(), &[pin]).unwrap_err().to_string();
        assert!(error.contains(&format!("expected {} (upstream, qemu.tar.xz)", sum("aaaa"))), "{error}");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(error.contains(&format!("got      {empty}")), "{error}");
    }
}
