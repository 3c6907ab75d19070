//! `cargo xtask bump`: finds newer versions of QEMU, tries the patches on them, and writes them to `sources.toml`.
//!
//! Versions come from the signed source indexes of Debian's suites. QEMU's own list of files names others; these are only
//! reported, because no hash of their archives is known.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qemu_src::{Patch, QemuSrc, Release};
use qus_core::table::Table;
use qus_core::terminal;
use semver::Version;
use serde::Serialize;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::files::{self, Scratch};
use crate::base::lock;
use crate::base::output::{out, out_json};
use crate::base::progress::{Bar, say};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::qemu::archive::Source;
use crate::qemu::substitute::{self, SourceRecord};
use crate::qemu::{download, tree};

/// The address of QEMU's list of files.
const UPSTREAM: &str = "https://download.qemu.org/";

/// Find newer versions of QEMU, and try the patches on them
///
/// For each channel of sources.toml, looks for a newer version: of the same series, or for `edge` of any. Downloads it from
/// Debian, whose signed index has its checksum, and applies all patches that are for the newest version that they know.
/// Prints what does not apply.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 if there is nothing newer, or it was written; 1 otherwise.")]
#[command(group = clap::ArgGroup::new("what").required(true).args(["check", "write"]))]
pub(crate) struct Args {
    /// Change nothing
    #[arg(long)]
    check: bool,
    /// Write the newer version of this channel to sources.toml; if there is none, increase its revision
    #[arg(long, value_name = "CHANNEL")]
    write: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What is known of a channel.
#[derive(Serialize)]
struct Channel<'a> {
    channel: &'a str,
    pinned: &'a Version,
    newer: Option<Newer>,
}

/// A newer version.
#[derive(Serialize)]
struct Newer {
    version: Version,
    suite: String,
    debian_version: String,
    /// None if its archive cannot be fetched.
    trial: Option<Trial>,
    #[serde(skip)]
    record: SourceRecord,
}

/// What became of the patches.
#[derive(Serialize)]
struct Trial {
    patches: usize,
    /// The patches that do not apply, and why.
    failed: Vec<(String, String)>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let written = args.write.as_deref().map(|name| cx.data.release(name).map_err(Usage)).transpose()?;
    let _locks = [lock::lock(cx.paths.cache())?, lock::lock(cx.paths.out())?];
    let records = find(cx)?;
    let releases = cx.data.sources.releases.iter();
    let wanted = releases.filter(|release| written.is_none_or(|wanted| wanted.version == release.version));
    let channels: Vec<_> = wanted.map(|release| channel(cx, release, &records)).collect::<Result<_>>()?;
    if args.json {
        out_json(&channels)?;
    } else {
        out(&table(&channels).fit(terminal::width(io::stdout())))?;
    }
    for (channel, newer) in channels.iter().filter_map(|it| Some((it.channel, it.newer.as_ref()?))) {
        for (patch, why) in newer.trial.iter().flat_map(|trial| &trial.failed) {
            say(format_args!("{channel}, QEMU {}: {patch}: {why}", newer.version));
        }
    }
    if args.check {
        report_upstream(cx);
        let newer = channels.iter().filter(|channel| channel.newer.is_some()).count();
        ensure!(
            newer == 0,
            "{newer} channels have a newer version; `cargo xtask bump --write CHANNEL` writes it"
        );
        return Ok(());
    }
    channels.iter().try_for_each(|channel| write(cx, channel))
}

/// The newest archives of all suites that sources.toml names, with their suites.
fn find(cx: &Context) -> Result<Vec<(String, SourceRecord)>> {
    let distribution = Distribution::detect()?.context("this machine has no apt, which finds versions")?;
    let debian = cx.data.sources.releases.iter().filter_map(|release| release.debian.as_ref());
    let suites: BTreeSet<&String> = debian.map(|debian| &debian.suite).collect();
    let mut found = Vec::new();
    for suite in suites {
        let _bar = Bar::new(format!("searching Debian {suite}"));
        let log = cx.start_log("bump")?;
        let apt = Apt::source(&cx.paths.apt(&format!("bump-{suite}")), &log, &distribution, suite)?;
        let records = substitute::records(&apt.source_records("qemu")?);
        found.extend(records.into_iter().map(|record| (suite.clone(), record)));
    }
    Ok(found)
}

fn channel<'a>(
    cx: &Context,
    release: &'a Release,
    records: &[(String, SourceRecord)],
) -> Result<Channel<'a>> {
    let newest = newest(release, records.iter().map(|(_, record)| &record.version)).cloned();
    let found = newest.and_then(|newest| records.iter().find(|(_, record)| record.version == newest));
    let newer = found.map(|(suite, record)| {
        let tried = try_patches(cx, suite, record);
        if let Err(error) = &tried {
            say(format_args!(
                "warning: the patches are not tried: {error}; see {}",
                cx.paths.log("bump").display()
            ));
        }
        Newer {
            version: record.version.clone(),
            suite: suite.clone(),
            debian_version: record.debian_version.clone(),
            trial: tried.ok(),
            record: record.clone(),
        }
    });
    Ok(Channel { channel: &release.channel, pinned: &release.version, newer })
}

/// The newest version that a channel could have instead of its own.
fn newest<'a>(release: &Release, versions: impl Iterator<Item = &'a Version>) -> Option<&'a Version> {
    let own = &release.version;
    let fits = |version: &&Version| {
        let is_of_series = (version.major, version.minor) == (own.major, own.minor);
        *version > own && version.pre.is_empty() && (is_of_series || release.channel == "edge")
    };
    versions.filter(fits).max()
}

/// Applies the patches to a version.
fn try_patches(cx: &Context, suite: &str, record: &SourceRecord) -> Result<Trial> {
    let distribution = Distribution::detect()?.context("this machine has no apt")?;
    let log = cx.start_log("bump")?;
    let apt = Apt::source(&cx.paths.apt(&format!("bump-{suite}")), &log, &distribution, suite)?;
    let archive = substitute::download(cx, &apt, record)
        .with_context(|| format!("cannot fetch QEMU {} of Debian {suite}", record.version))?;
    let source = Source { version: record.version.clone(), sha256: record.sha256, archive };
    let patches = patches_for(&cx.data, &record.version);
    Ok(Trial { patches: patches.len(), failed: tree::failing(cx, &source, &patches)? })
}

/// The patches to try on a version: those of the pinned release of its series, else of each patch the form for the newest
/// release that has one.
fn patches_for<'a>(data: &'a QemuSrc, version: &Version) -> Vec<&'a Patch> {
    let mut releases: Vec<_> = data.sources.releases.iter().map(|release| &release.version).collect();
    releases.sort_by_key(|own| ((own.major, own.minor) != (version.major, version.minor), Reverse(*own)));
    let is_of_series =
        releases.first().is_some_and(|own| (own.major, own.minor) == (version.major, version.minor));
    let known = if is_of_series { &releases[..1] } else { &releases };
    let mut seen = BTreeSet::new();
    let mut chosen: Vec<&Patch> = Vec::new();
    for release in known {
        let new: Vec<_> = data.patches_for(release).filter(|patch| !seen.contains(patch.number())).collect();
        seen.extend(new.iter().map(|patch| patch.number()));
        chosen.extend(new);
    }
    // In the order of the data, which is that in which they are applied.
    data.patches.iter().filter(|patch| chosen.iter().any(|other| other.name == patch.name)).collect()
}

fn table(channels: &[Channel<'_>]) -> Table {
    let mut table = Table::new(["channel", "pinned", "newer", "from", "patches"]);
    for Channel { channel, pinned, newer } in channels {
        let newer = newer.as_ref();
        table.row([
            (*channel).to_owned(),
            pinned.to_string(),
            newer.map_or("-".to_owned(), |newer| newer.version.to_string()),
            newer.map_or(String::new(), |newer| format!("Debian {}", newer.suite)),
            newer.map_or(String::new(), |newer| match &newer.trial {
                Some(Trial { patches, failed }) => format!("{} of {patches} apply", patches - failed.len()),
                None => "not tried".to_owned(),
            }),
        ]);
    }
    table
}

/// Says which newer versions QEMU itself has.
fn report_upstream(cx: &Context) {
    let listed = || -> Result<Vec<Version>> {
        let log = cx.start_log("bump")?;
        let dir = Scratch::new(files::with_suffix(&log, "index"))?;
        let file = dir.path().join("index");
        download::resume(UPSTREAM, Some(8 << 20), &file, &log)?;
        Ok(listed(&fs::read_to_string(file)?))
    };
    match listed() {
        Err(error) => {
            say(format_args!("note: {UPSTREAM} cannot be read, so only Debian was searched: {error:#}"));
        }
        Ok(versions) => {
            for release in &cx.data.sources.releases {
                if let Some(version) = newest(release, versions.iter()) {
                    say(format_args!("{UPSTREAM} has {version} for {}", release.channel));
                }
            }
        }
    }
}

/// The versions of the archives that a page links.
fn listed(page: &str) -> Vec<Version> {
    let names = page.split("qemu-").skip(1);
    names.filter_map(|rest| rest.split_once(".tar.xz")?.0.parse().ok()).collect()
}

/// Writes a newer version, or a higher revision, to sources.toml.
fn write(cx: &Context, channel: &Channel<'_>) -> Result<()> {
    let path = cx.paths.qemu_src().join("sources.toml");
    let text = fs::read_to_string(&path)?;
    let (changed, what) = match &channel.newer {
        Some(newer) => (replaced(&text, channel.pinned, newer)?, format!("QEMU {}", newer.version)),
        None => (revised(&text, channel.pinned)?, "a higher revision".to_owned()),
    };
    files::write(&path, changed.as_bytes())?;
    say(format_args!("wrote {what} for {} to {}; build and test it", channel.channel, path.display()));
    Ok(())
}

/// The range of a release's tables in sources.toml.
fn tables_of(text: &str, version: &Version) -> Result<std::ops::Range<usize>> {
    let start = text.find(&format!("[[release]]\nversion = \"{version}\"\n"));
    let start = start.with_context(|| format!("sources.toml has no table of {version} in the usual form"))?;
    let end = text[start + 1..].find("[[release]]").map_or(text.len(), |end| start + 1 + end);
    Ok(start..end)
}

/// The text with the next revision of a release.
fn revised(text: &str, version: &Version) -> Result<String> {
    let range = tables_of(text, version)?;
    let own = &text[range.clone()];
    let (before, rest) = own.split_once("revision = ").context("the release has no revision")?;
    let (revision, after) = rest.split_once('\n').context("the release has no revision")?;
    let next = revision.parse::<u32>()? + 1;
    Ok(format!("{}{before}revision = {next}\n{after}{}", &text[..range.start], &text[range.end..]))
}

/// The text with a newer version in place of a release, from Debian only.
fn replaced(text: &str, version: &Version, newer: &Newer) -> Result<String> {
    let range = tables_of(text, version)?;
    let own = &text[range.clone()];
    let channel =
        own.lines().find(|line| line.starts_with("channel = ")).context("the release has no channel")?;
    // Comments at the end belong to the next release.
    let tail: String = own
        .lines()
        .rev()
        .take_while(|line| line.is_empty() || line.starts_with('#'))
        .fold(String::new(), |tail, line| format!("{line}\n{tail}"));
    let SourceRecord { debian_version, file, sha256, size, .. } = &newer.record;
    let (suite, size) = (&newer.suite, size.context("the index has no size of the archive")?);
    let new = format!(
        "[[release]]\nversion = \"{}\"\n{channel}\nrevision = 1\n\n[release.debian]\nsuite = \"{suite}\"\n\
         version = \"{debian_version}\"\nfile = \"{file}\"\nsha256 = \"{sha256}\"\nsize = {size}\n\
         verified = \"the archive-signed source index of Debian {suite}\"\n",
        newer.version
    );
    Ok(format!("{}{new}{tail}{}", &text[..range.start], &text[range.end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::digest::Sha256;

    fn sources() -> String {
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-src/sources.toml")).unwrap()
    }

    #[test]
    fn a_channel_stays_in_its_series() {
        let data = Context::new().unwrap().data;
        let versions = ["9.2.4", "10.0.99", "10.2.98", "10.2.99", "10.2.99-rc1", "99.0.0", "99.1.0-rc0"];
        let versions: Vec<Version> = versions.iter().map(|version| version.parse().unwrap()).collect();
        let newest =
            |channel: &str| newest(data.release(channel).unwrap(), versions.iter()).unwrap().to_string();
        assert_eq!(newest("default"), "10.2.99");
        assert_eq!(newest("lts"), "10.0.99");
        assert_eq!(newest("edge"), "99.0.0");
        assert!(super::newest(data.release("default").unwrap(), versions[..2].iter()).is_none());
    }

    #[test]
    fn patches_are_those_of_the_nearest_release() {
        let data = Context::new().unwrap().data;
        let own = |version: &Version| -> Vec<&str> {
            data.patches_for(version).map(|patch| &*patch.name).collect()
        };
        let names = |version: &Version| -> Vec<&str> {
            patches_for(&data, version).iter().map(|patch| &*patch.name).collect()
        };
        for release in &data.sources.releases {
            let Version { major, minor, .. } = release.version;
            assert_eq!(names(&Version::new(major, minor, 99)), own(&release.version), "{}", release.version);
        }
        let unknown = names(&Version::new(99, 0, 0));
        let default = own(&data.release("default").unwrap().version);
        assert!(default.iter().all(|name| unknown.contains(name)), "{unknown:?}");
    }

    #[test]
    fn a_list_of_files_is_parsed() {
        let page =
            "<a href=\"qemu-10.2.2.tar.xz\">x</a> <a href=\"qemu-10.2.2.tar.xz.sig\">x</a> qemu-x.tar.xz";
        let versions: Vec<_> = listed(page).iter().map(Version::to_string).collect();
        assert_eq!(versions, ["10.2.2", "10.2.2"]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (data, text) = (Context::new().unwrap().data, sources());
        let parse = |text: &str| toml::from_str::<qemu_src::Sources>(text).unwrap();
        for release in &data.sources.releases {
            let revised = parse(&revised(&text, &release.version).unwrap());
            let own = revised.releases.iter().find(|other| other.version == release.version).unwrap();
            assert_eq!(own.revision.get(), release.revision.get() + 1);
            let version = Version::new(release.version.major, release.version.minor, 99);
            let record = SourceRecord {
                version: version.clone(),
                debian_version: "1:99+ds-1".to_owned(),
                file: "qemu_99+ds.orig.tar.xz".to_owned(),
                sha256: Sha256::of("x"),
                size: Some(5),
            };
            let newer = Newer {
                version: version.clone(),
                suite: "sid".to_owned(),
                debian_version: record.debian_version.clone(),
                trial: None,
                record,
            };
            let replaced = replaced(&text, &release.version, &newer).unwrap();
            assert_eq!(replaced.matches('#').count(), text.matches('#').count(), "a comment is lost");
            let written = parse(&replaced);
            assert_eq!(written.releases.len(), data.sources.releases.len());
            let own = written.releases.iter().find(|other| other.version == version).unwrap();
            assert_eq!((&own.channel, own.revision.get()), (&release.channel, 1));
        }
    }
}
