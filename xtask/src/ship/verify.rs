//! `cargo xtask release --verify`: builds a release again, and compares files and images.

mod images;
mod rebuild;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::bundle::{Bundle, FILE};
use qus_core::digest::{self, Sha256};
use qus_core::hint::hinted;
use qus_core::release::ReleaseVersion;
use serde_json::Value;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::git::Checkout;
use crate::base::output::out;
use crate::base::{files, lock, tarball};
use crate::bundle::manifest;
use crate::ship::verify::images::ReleasedImages;
use crate::ship::verify::rebuild::Rebuild;

/// The file with the statement of what a release was built from.
pub(super) const PROVENANCE: &str = "provenance.intoto.json";

/// The file with the section of the changelog, which is not downloaded.
pub(super) const NOTES: &str = "NOTES.md";

/// The maximum size of an unpacked tarball in bytes.
const MAX_SIZE: u64 = 8 << 30;

/// Builds a release again from its commit and the packages that it keeps, and compares all files, and the images in a
/// repository.
///
/// # Errors
/// A file differs from its checksum, cannot be built, or is built differently.
pub(crate) fn verify(cx: &Context, dir: &Path, images: Option<&str>) -> Result<()> {
    let listed = check_files(dir)?;
    let origin = Origin::read(dir)?;
    let _lock = lock::lock(cx.paths.out())?;
    let work = cx.paths.out().join("verify");
    files::recreate_dir(&work)?;
    let rebuild = Rebuild::new(cx, &work, &origin);
    let images = images.map(|repo| ReleasedImages::find(&rebuild, dir, repo)).transpose()?;
    let rebuilt = rebuild.run(dir)?;
    let mut compared = compare_files(dir, &rebuilt, &listed)?;
    if let Some(images) = &images {
        images.compare(&rebuild, &mut compared)?;
    }
    drop(images);
    let Comparison { files, images, different } = compared;
    if different.is_empty() {
        files::remove_dir(&work)?;
        return out(&format!("equal: {files} files and {images} images of release {}\n", origin.release));
    }
    let mut text =
        format!("{} of {} are built differently", different.len(), different.len() + files + images);
    for (name, difference) in &different {
        let _ = write!(text, "\n  {name}: {difference}");
    }
    let pairs = different.iter().map(|(name, _)| (dir.join(name), rebuilt.join(name)));
    let first = pairs.into_iter().find(|(one, other)| one.exists() && other.exists());
    if let Some((one, other)) = first.filter(|_| is_installed("diffoscope")) {
        exec::interactive(cmd!(sh(), "diffoscope {one} {other}"))?;
    }
    let hint = format!("compare them with `diffoscope {} {}`", dir.display(), rebuilt.display());
    Err(hinted(text, hint))
}

/// How many files and images are equal, and the first difference of each that is not.
#[derive(Default)]
struct Comparison {
    files: usize,
    images: usize,
    different: Vec<(String, String)>,
}

fn compare_files(dir: &Path, rebuilt: &Path, listed: &[(String, Sha256)]) -> Result<Comparison> {
    let mut compared = Comparison::default();
    for (name, _) in check_files(rebuilt)? {
        if !dir.join(&name).exists() {
            compared.different.push((name, "the release lacks it".to_owned()));
        }
    }
    for (name, sha256) in listed {
        // What is not built: the statement of who built it where, and sources.
        if name == PROVENANCE || name.starts_with("qus-sources_") {
            continue;
        }
        let (one, other) = (dir.join(name), rebuilt.join(name));
        if !other.exists() {
            compared.different.push((name.clone(), "it was not built".to_owned()));
        } else if files::sha256(&other)? == *sha256 {
            compared.files += 1;
        } else {
            compared.different.push((name.clone(), first_difference(&one, &other)?));
        }
    }
    Ok(compared)
}

/// Verifies the files of a release against its checksums, and returns these.
///
/// # Errors
/// A file is missing, differs, or is not listed.
pub(crate) fn check_files(dir: &Path) -> Result<Vec<(String, Sha256)>> {
    let sums = dir.join(manifest::SUMS);
    let text = fs::read_to_string(&sums)?;
    let listed = digest::parse_list(&text).with_context(|| format!("{} is damaged", sums.display()))?;
    for (sha256, name) in &listed {
        let file = dir.join(name);
        ensure!(files::sha256(&file)? == *sha256, "{} does not match its checksum", file.display());
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_listed = listed.iter().any(|(_, listed)| *listed == name);
        // A signature begins with the name of what is signed.
        let is_other = name == NOTES || name.starts_with(manifest::SUMS);
        ensure!(is_listed || is_other, "{} has no checksum in {}", dir.join(name).display(), manifest::SUMS);
    }
    Ok(listed.into_iter().map(|(sha256, name)| (name.to_owned(), sha256)).collect())
}

/// The name that a file of a host's bundle, such as `sysroot.tar.zst`, has in a release.
pub(super) fn packed_name(file: &str, release: &ReleaseVersion, host: &str) -> String {
    let (name, extension) = file.split_once('.').unwrap_or((file, ""));
    format!("qus-{name}_{release}_{host}.{extension}")
}

/// What a release was built from, as its provenance states it.
struct Origin {
    release: ReleaseVersion,
    hosts: Vec<String>,
    commit: String,
    /// Address of the repository.
    repository: Option<String>,
}

impl Origin {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(PROVENANCE);
        let statement: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let built = &statement["predicate"]["buildDefinition"];
        let (parameters, source) = (&built["externalParameters"], &built["resolvedDependencies"][0]);
        let parsed = || {
            Some(Self {
                release: parameters["release"].as_str()?.parse().ok()?,
                hosts: serde_json::from_value(parameters["hosts"].clone()).ok()?,
                commit: source["digest"]["gitCommit"].as_str()?.to_owned(),
                repository: source["uri"]
                    .as_str()
                    .and_then(|uri| uri.strip_prefix("git+"))
                    .map(str::to_owned),
            })
        };
        let origin = parsed().with_context(|| format!("{} names no commit", path.display()))?;
        ensure!(
            origin.commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "the release was made from a checkout with changes: {}",
            origin.commit
        );
        Ok(origin)
    }
}

/// Verifies that the release in a directory is that of the checkout.
///
/// # Errors
/// It was made from another commit, or from changes.
pub(super) fn check_commit(dir: &Path, checkout: &Checkout) -> Result<()> {
    let origin = Origin::read(dir)?;
    ensure!(
        checkout.commit.as_deref() == Some(&*origin.commit),
        hinted(
            format!("the release in {} was made from commit {}", dir.display(), origin.commit),
            "leave out --resume to assemble it again"
        )
    );
    Ok(())
}

/// The description of a host's bundle in a release.
fn bundle_of(dir: &Path, release: &ReleaseVersion, host: &str) -> Result<Bundle> {
    let file = dir.join(format!("qus-bundle_{release}_{host}.tar.zst"));
    let mut bundle = None;
    for_each_entry(&file, |path, _, content| {
        if path.file_name().is_some_and(|name| name == FILE) {
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            bundle = Some(Bundle::parse(path, &text)?);
        }
        Ok(())
    })?;
    bundle.with_context(|| format!("{} has no {FILE}", file.display()))
}

/// The first difference between two files of a release.
fn first_difference(one: &Path, other: &Path) -> Result<String> {
    if one.extension().is_none_or(|extension| extension != "zst") {
        return Ok("the content differs".to_owned());
    }
    let (one, other) = (content(one)?, content(other)?);
    for (path, found) in &one {
        match other.get(path) {
            None => return Ok(format!("{path} is missing")),
            Some(other) if other != found => return Ok(format!("{path} differs")),
            Some(_) => {}
        }
    }
    let more = other.keys().find(|path| !one.contains_key(*path));
    Ok(more.map_or_else(|| "it is packed differently".to_owned(), |path| format!("{path} is new")))
}

/// The mode and checksum of each file in a tarball.
fn content(file: &Path) -> Result<BTreeMap<String, (u32, Sha256)>> {
    let mut all = BTreeMap::new();
    for_each_entry(file, |path, mode, content| {
        let sha256 = digest::copy(content, &mut io::sink())?;
        all.insert(path.display().to_string(), (mode, sha256));
        Ok(())
    })?;
    Ok(all)
}

/// Reads a compressed tarball, file by file: path, mode and content.
fn for_each_entry(file: &Path, mut read: impl FnMut(&Path, u32, &mut dyn Read) -> Result<()>) -> Result<()> {
    let mut tar = tar::Archive::new(tarball::decompress(files::open(file)?, MAX_SIZE)?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let (path, mode) = (entry.path()?.into_owned(), entry.header().mode()?);
        read(&path, mode, &mut entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tarball::{Tarball, TarballEntry};
    use crate::ship::tarballs::{self, PackedFile};

    /// A release with two tarballs.
    fn release(dir: &Path, text: &str) -> Vec<String> {
        let entries = |name: &str| vec![TarballEntry::made("a/same", "same"), TarballEntry::made(name, text)];
        let tarballs = ["a/x", "b"]
            .map(|name| Tarball::new(format!("{}.tar.zst", name.replace('/', "-")), entries(name)));
        let mut packed = Vec::new();
        for tarball in tarballs {
            let path = tarball.write(dir).unwrap();
            let sha256 = files::sha256(&path).unwrap();
            packed.push(PackedFile { file: tarball.file, size: 0, sha256 });
        }
        fs::write(dir.join(manifest::SUMS), tarballs::sums(&packed)).unwrap();
        packed.into_iter().map(|packed| packed.file).collect()
    }

    #[test]
    fn a_changed_byte_of_any_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = release(dir.path(), "text");
        fs::write(dir.path().join(NOTES), "not listed").unwrap();
        assert_eq!(check_files(dir.path()).unwrap().len(), 2);
        names.push(manifest::SUMS.to_owned());
        for name in names {
            let path = dir.path().join(&name);
            let good = fs::read(&path).unwrap();
            for at in [0, good.len() / 2, good.len() - 2] {
                let mut bad = good.clone();
                bad[at] ^= 1;
                fs::write(&path, bad).unwrap();
                assert!(check_files(dir.path()).is_err(), "byte {at} of {name}");
            }
            fs::write(&path, &good[1..]).unwrap();
            assert!(check_files(dir.path()).is_err(), "the first byte of {name}");
            fs::write(&path, good).unwrap();
        }
        fs::write(dir.path().join("more"), "").unwrap();
        let error = check_files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("more has no checksum"), "{error}");
    }

    #[test]
    fn the_first_difference_is_named() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [one, same, other] = dirs.each_ref().map(|dir| dir.path());
        release(one, "text");
        release(same, "text");
        release(other, "text2");
        let difference =
            |name: &str, other: &Path| first_difference(&one.join(name), &other.join(name)).unwrap();
        assert_eq!(fs::read(one.join("b.tar.zst")).unwrap(), fs::read(same.join("b.tar.zst")).unwrap());
        assert_eq!(difference("a-x.tar.zst", other), "a/x differs");
        assert_eq!(difference("SHA256SUMS", other), "the content differs");
        assert_eq!(
            first_difference(&one.join("a-x.tar.zst"), &one.join("b.tar.zst")).unwrap(),
            "a/x is missing"
        );
    }

    #[test]
    fn a_release_of_changed_files_cannot_be_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let read = |commit: &str| {
            let text = format!(
                r#"{{"predicate":{{"buildDefinition":{{"externalParameters":{{"release":"10.2.2-1","hosts":["amd64"]}},
                "resolvedDependencies":[{{"digest":{{"gitCommit":"{commit}"}}}}]}}}}}}"#
            );
            fs::write(dir.path().join(PROVENANCE), text).unwrap();
            Origin::read(dir.path()).map(|origin| origin.commit)
        };
        assert_eq!(read("c0ffee").unwrap(), "c0ffee");
        assert!(read("c0ffee-changed").unwrap_err().to_string().contains("a checkout with changes"));
        assert!(read("--upload-pack=x").is_err());
    }
}
