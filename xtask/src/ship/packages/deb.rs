//! `.deb`: an archive of two tarballs, one with what dpkg reads and one with the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use lzma_rust2::{XzOptions, XzWriter};

use super::package::{Package, URL, gzip, maintainer};
use crate::base::tarball::{Tarball, TarballEntry};
use crate::bundle::licences::grouped;
use crate::ship::date::Date;

/// The compression level: that of dpkg-deb. Higher ones need 0.7 GB of memory for each package.
const PRESET: u32 = 6;

/// What lintian is not to report.
const OVERRIDES: &str = "\
# The licences of everything that is linked, verbatim, as their authors wrote them.
PACKAGE: copyright-file-contains-full-apache-2-license
PACKAGE: copyright-file-contains-full-gpl-license
# Static, so that programs run in root filesystems that have no libraries.
PACKAGE: statically-linked-binary *
";

impl Package {
    /// Adds the documents that Debian wants, and all directories.
    pub(super) fn for_debian(mut self, licences: &[TarballEntry]) -> Result<Self> {
        let name = self.about.name;
        let mut add = |path: &str, bytes| self.entries.push(TarballEntry::made(path, bytes));
        let doc = format!("usr/share/doc/{name}");
        add(&format!("{doc}/copyright"), copyright(name, licences)?.into_bytes());
        let changelog = format!(
            "{name} ({}) unstable; urgency=medium\n\n  * {URL}/releases describes all changes.\n\n -- {}  {}\n",
            self.version,
            maintainer(),
            Date::of(self.epoch).mail()
        );
        add(&format!("{doc}/changelog.Debian.gz"), gzip(changelog.as_bytes())?);
        let overrides = OVERRIDES.replace("PACKAGE", name);
        add(&format!("usr/share/lintian/overrides/{name}"), overrides.into_bytes());
        for entry in &mut self.entries {
            // Debian's zsh has another directory for packages.
            entry.path = entry.path.replace("zsh/site-functions", "zsh/vendor-completions");
        }
        Ok(self.with_directories(|_| true))
    }

    /// What dpkg reads.
    fn control(&self) -> Result<Vec<TarballEntry>> {
        let about = self.about;
        let mut size = 0;
        for entry in self.entries.iter() {
            size += entry.bytes()?.len().div_ceil(1024);
        }
        let mut control = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {size}\nSection: utils\n\
             Priority: optional\nMulti-Arch: foreign\nHomepage: {URL}\n",
            about.name,
            self.version,
            self.architecture,
            maintainer()
        );
        for (field, packages) in [
            ("Recommends", about.recommends),
            ("Conflicts", about.replaces),
            ("Replaces", about.replaces),
            ("Provides", about.provides),
        ] {
            if !packages.is_empty() {
                control += &format!("{field}: {}\n", packages.join(", "));
            }
        }
        control += &format!("Description: {}\n {}\n", about.summary, about.description.replace('\n', "\n "));
        let mut entries = vec![TarballEntry::made("control", control)];
        if let Some(scripts) = &about.scripts {
            for (name, text) in [("postinst", scripts.installed), ("prerm", scripts.removed)] {
                entries.push(TarballEntry::made(name, text).with_mode(0o755));
            }
        }
        Ok(entries)
    }
}

/// All licences in one file. The texts that Debian's own files refer to are on every Debian.
fn copyright(name: &str, licences: &[TarballEntry]) -> Result<String> {
    let mut texts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in licences.iter().filter(|entry| !entry.path.contains("/common-licenses/")) {
        let text = String::from_utf8_lossy(&entry.bytes()?).into_owned();
        texts.entry(text).or_default().insert(entry.path.clone());
    }
    let head = format!("{name} and its source come from {URL}. Its parts have these licences:");
    Ok(grouped(&head, &texts))
}

pub(super) fn write(package: &Package, dir: &Path) -> Result<PathBuf> {
    let compressed = |file: &str, entries| {
        // Debian has no packages that are compressed with zstd.
        let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(PRESET))?;
        Tarball::new(file.to_owned(), entries).dated(package.epoch).write_tar(&mut encoder)?;
        Ok::<_, anyhow::Error>(encoder.finish()?)
    };
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.xz", compressed("control.tar.xz", package.control()?)?),
        ("data.tar.xz", compressed(&package.file, package.entries.clone())?),
    ] {
        let (time, size) = (package.epoch, content.len());
        archive.extend(format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 100_644).bytes());
        archive.extend(content);
        if size % 2 == 1 {
            archive.push(b'\n');
        }
    }
    let path = dir.join(&package.file);
    fs::write(&path, archive)?;
    Ok(path)
}
