//! Compares the files of a release with those that were built again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Result;
use qus_core::digest::{self, Sha256};

use crate::base::files;
use crate::ship::verify::released::{self, PROVENANCE};

/// How many files and images are equal, and the first difference of each that is not.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) files: usize,
    pub(super) images: usize,
    pub(super) different: Vec<(String, String)>,
}

/// Compares the files of a release with those that were built again.
pub(super) fn compare_files(dir: &Path, rebuilt: &Path, listed: &[(String, Sha256)]) -> Result<Comparison> {
    let mut compared = Comparison::default();
    for (name, _) in released::check_files(rebuilt)? {
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
    released::for_each_entry(file, |path, mode, content| {
        let sha256 = digest::copy(content, &mut io::sink())?;
        all.insert(path.display().to_string(), (mode, sha256));
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tarball::{Tarball, TarballEntry};
    use crate::bundle::manifest;
    use crate::ship::tarballs::{self, PackedFile};
    use crate::ship::verify::released::{NOTES, check_files};
    use fs_err as fs;

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
}
