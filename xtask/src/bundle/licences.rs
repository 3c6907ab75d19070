//! Licence texts in a bundle, which go into tarballs and images.
//!
//! `licenses/emulators` and `licenses/program` have a directory for each part of the emulators and of `qus`, whose name ends
//! with its version. Debian's copyright files refer to texts in `/usr/share/common-licenses`, which are copied too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::base::tarball::TarballEntry;
use crate::base::{cache, files};

/// Where licences are in tarballs and, below `/usr`, in images.
pub(crate) const INSTALLED: &str = "share/licenses";

/// Debian's texts of licences that many packages have.
const COMMON: &str = "/usr/share/common-licenses";

/// What a bundle has licences of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Licensed {
    /// The emulators: QEMU and static libraries.
    Emulators,
    /// `qus`: its crates, Rust's library, and the C library.
    Program,
}

impl Licensed {
    fn name(self) -> &'static str {
        match self {
            Self::Emulators => "emulators",
            Self::Program => "program",
        }
    }

    /// The directory of its licences in a bundle.
    pub(crate) fn dir(self, bundle: &Path) -> PathBuf {
        bundle.join("licenses").join(self.name())
    }

    /// The paths of its licences, relative to their directory, sorted.
    fn files(self, bundle: &Path) -> Result<Vec<String>> {
        texts(&self.dir(bundle))
    }

    /// The command that writes its licences, if there are none.
    pub(crate) fn missing(self, bundle: &Path) -> Result<Option<&'static str>> {
        let command = match self {
            Self::Emulators => "build-qemu",
            Self::Program => "build-qus",
        };
        Ok(self.files(bundle)?.is_empty().then_some(command))
    }

    /// Its licences as entries of a tarball.
    ///
    /// # Errors
    /// There are none, or one cannot be read.
    pub(crate) fn entries(self, bundle: &Path) -> Result<Vec<TarballEntry>> {
        let dir = self.dir(bundle);
        if let Some(command) = self.missing(bundle)? {
            return Err(hinted(
                format!("there are no licence texts in {}", dir.display()),
                format!("run `cargo xtask {command}` again, on Debian or Ubuntu, whose packages have them"),
            ));
        }
        let entry = |path: &String| {
            Ok(TarballEntry::new(&dir, path, 0o644)?.with_path(&format!("{INSTALLED}/{path}")))
        };
        self.files(bundle)?.iter().map(entry).collect()
    }

    /// What it consists of.
    ///
    /// # Errors
    /// It has no licences.
    pub(crate) fn parts(self, bundle: &Path) -> Result<Vec<Part>> {
        let file = self.dir(bundle).join(PARTS);
        serde_json::from_slice(&fs::read(&file)?).with_context(|| format!("cannot parse {}", file.display()))
    }

    /// Copies its licences to where images have them.
    pub(crate) fn stage(self, bundle: &Path, root: &Path) -> Result<()> {
        let (dir, into) = (self.dir(bundle), root.join("usr").join(INSTALLED));
        for path in self.files(bundle)? {
            let to = into.join(&path);
            files::copy(&dir.join(&path), &to)?;
            fs::set_permissions(&to, Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// The hash of all its licences.
    pub(crate) fn sha256(self, bundle: &Path) -> Result<Sha256> {
        let dir = self.dir(bundle);
        let mut all = String::new();
        for path in self.files(bundle)? {
            all += &format!("{}  {path}\n", files::sha256(&dir.join(&path))?);
        }
        Ok(Sha256::of(all))
    }
}

/// The file with the parts, in the directory of their licences.
const PARTS: &str = "parts.json";

/// A part of the emulators or of `qus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its package URL, as in `pkg:cargo/clap@4.5.0`.
    pub(crate) purl: String,
    /// SPDX expression of its licence, where one is known.
    pub(crate) licence: Option<String>,
    /// Checksum of its archive, where one is known.
    pub(crate) sha256: Option<Sha256>,
}

/// Writes the list of parts, sorted.
pub(crate) fn write_parts(mut parts: Vec<Part>, into: &Path) -> Result<()> {
    parts.sort_by(|a, b| a.purl.cmp(&b.purl));
    files::write(&into.join(PARTS), &serde_json::to_vec_pretty(&parts)?)
}

/// The libraries that a compiler adds to every program.
pub(crate) const OF_COMPILER: [&str; 2] = ["libc.a", "libgcc.a"];

/// A Debian package whose files are linked.
pub(crate) struct LinkedPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Debian's name of the architecture.
    pub(crate) architecture: String,
    /// Checksum of the package, unless it is installed.
    pub(crate) sha256: Option<Sha256>,
    /// The root directory that it is unpacked in.
    pub(crate) root: PathBuf,
}

impl LinkedPackage {
    /// The installed package that has a file.
    ///
    /// # Errors
    /// dpkg knows none, as on systems without it.
    pub(crate) fn of_file(file: &Path) -> Result<Self> {
        // On a system with merged directories, packages may name the path with or without /usr.
        let file = fs::canonicalize(file)?;
        let short = file.strip_prefix("/usr").map(|path| Path::new("/").join(path)).unwrap_or_default();
        let find = |path: &Path| exec::read(cmd!(sh(), "dpkg-query --search {path}"));
        let found = find(&file).or_else(|error| find(&short).map_err(|_| error))?;
        let name = found.split([':', ',']).next().unwrap_or_default().to_owned();
        let format = "--showformat=${Version} ${Architecture}\n";
        let line = exec::read(cmd!(sh(), "dpkg-query --show {format} {name}"))?;
        let line = line.lines().next().unwrap_or_default();
        let (version, architecture) = line.split_once(' ').context("dpkg-query prints no version")?;
        Ok(Self {
            name,
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            sha256: None,
            root: PathBuf::from("/"),
        })
    }

    /// Copies its licence, and describes it as a package of a distribution.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn copy(&self, distribution: &str, into: &Path) -> Result<Part> {
        let from = self.root.join("usr/share/doc").join(&self.name).join("copyright");
        let part = into.join(format!("{}-{}", self.name, self.version));
        fs::create_dir_all(&part)?;
        // It may be a link to that of another package.
        let text = fs::read(&from).with_context(|| format!("{} has no copyright file", self.name))?;
        files::write(&part.join("copyright"), &text)?;
        let Self { name, version, architecture, sha256, .. } = self;
        // Package URLs escape these characters of versions.
        let escaped = version.replace('+', "%2B").replace(':', "%3A");
        Ok(Part {
            name: name.clone(),
            version: version.clone(),
            purl: format!("pkg:deb/{distribution}/{name}@{escaped}?arch={architecture}"),
            licence: None,
            sha256: *sha256,
        })
    }
}

/// Replaces a directory of licences by a copy of another.
pub(crate) fn replace(into: &Path, from: &Path) -> Result<()> {
    fs::create_dir_all(into.parent().context("licences have no parent directory")?)?;
    cache::publish(into, |partial| {
        files::copy(&from.join(PARTS), &partial.join(PARTS))?;
        for path in texts(from)? {
            files::copy(&from.join(&path), &partial.join(&path))?;
        }
        Ok(())
    })
}

/// The paths of the texts in a directory of licences, as in `qemu-10.2.2/COPYING`, sorted; none if there is no directory.
fn texts(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in fs::read_dir(dir).into_iter().flatten() {
        let part = part?;
        if !part.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(part.path())? {
            let names = [part.file_name(), file?.file_name()];
            found.push(names.map(|name| name.to_string_lossy().into_owned()).join("/"));
        }
    }
    found.sort();
    Ok(found)
}

/// One text of many licences: each once, below those whose licence it is.
pub(crate) fn grouped(head: &str, licences: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut text = format!("{head}\n");
    for (licence, owners) in licences {
        let owners: Vec<_> = owners.iter().map(String::as_str).collect();
        text += &format!("\n{:-<78}\n{}\n\n{licence}\n", "", owners.join("\n"));
    }
    text
}

/// Copies the common licences that the files in `into` refer to.
pub(crate) fn copy_common(into: &Path) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for part in fs::read_dir(into)? {
        let text = fs::read_to_string(part?.path().join("copyright")).unwrap_or_default();
        wanted.extend(common_of(&text));
    }
    for name in &wanted {
        let text = fs::read(Path::new(COMMON).join(name))?;
        files::write(&into.join("common-licenses").join(name), &text)?;
    }
    Ok(())
}

/// The names of the common licences that a text refers to.
fn common_of(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let names = text.split("/usr/share/common-licenses/").skip(1).map(|rest| {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        rest[..end].trim_end_matches(['.', '-']).to_owned()
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// Copies files whose names begin like those of licences.
///
/// # Errors
/// There are none.
pub(crate) fn copy_from(dir: &Path, into: &Path) -> Result<()> {
    let names = names(dir)?;
    ensure!(!names.is_empty(), "there is no licence text in {}", dir.display());
    names.iter().try_for_each(|name| files::write(&into.join(name), &fs::read(dir.join(name))?))
}

/// The files in a directory whose names begin like those of licences, sorted.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    const BEGINNINGS: [&str; 5] = ["licen", "copying", "copyright", "notice", "unlicense"];
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let lower = name.to_lowercase();
        if entry.file_type()?.is_file() && BEGINNINGS.iter().any(|beginning| lower.starts_with(beginning)) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_common_licences_are_found() {
        let text = "see /usr/share/common-licenses/LGPL-2.1.\nand `/usr/share/common-licenses/GPL-3'; \
                    /usr/share/common-licenses/";
        assert_eq!(common_of(text).into_iter().collect::<Vec<_>>(), ["GPL-3", "LGPL-2.1"]);
    }

    #[test]
    fn a_bundle_without_licences_is_an_error() {
        let bundle = tempfile::tempdir().unwrap();
        let error = Licensed::Program.entries(bundle.path()).unwrap_err();
        let text = qus_core::hint::render(&error);
        assert!(text.contains("no licence texts in") && text.contains("`cargo xtask build-qus`"), "{text}");
        files::write(&Licensed::Program.dir(bundle.path()).join("a-1/LICENSE"), b"text").unwrap();
        let entries = Licensed::Program.entries(bundle.path()).unwrap();
        assert_eq!(entries[0].path, "share/licenses/a-1/LICENSE");
    }
}
