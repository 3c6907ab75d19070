//! Patches to QEMU and the header that each must have.
//!
//! A patch is one concern in one file, `patches/<purpose>/NNNN-name.patch`, applied with `git apply`. Everything about
//! it is in this file, so that a new patch touches no other. Its header is that of a mail, ready to be sent upstream:
//!
//! ```text
//! Subject: [PATCH] one line
//! Upstream: an address | not submitted | inappropriate, with the reason
//! License: GPL-2.0-or-later
//! Versions: the versions of QEMU that it applies to, as Cargo writes requirements
//!
//! Why, in at least a sentence.
//!
//! Signed-off-by: name <address>
//! ---
//! ```
//!
//! Patches are applied in the order of their names, those of `compat` after all others. If versions of QEMU need different
//! variants of a patch, each variant is a file with the same number; their `Versions` must not overlap.

use std::fs;
use std::path::{Path, PathBuf};

use semver::VersionReq;

use crate::error::DataError;
use crate::source::Release;

/// A patch and the versions that need it.
#[derive(Debug)]
pub struct Patch {
    /// Path below `patches`.
    pub name: String,
    /// Versions of QEMU that it is applied to.
    pub versions: VersionReq,
    /// Where it is.
    pub path: PathBuf,
    /// The whole file.
    pub text: String,
}

/// The fields that a header may have besides `Versions`.
const FIELDS: [&str; 5] = ["From", "Date", "Subject", "Upstream", "License"];

const BAD_NAME: &str = "is not called <purpose>/NNNN-name.patch";

/// The purpose whose patches are applied last, because they build on those of other purposes.
const LAST: &str = "compat/";

/// Reads all patches below a directory, in the order in which they are applied.
pub(crate) fn load(dir: &Path) -> Result<Vec<Patch>, DataError> {
    let mut patches = Vec::new();
    for (path, purpose) in entries(dir)? {
        if path.is_dir() {
            for (path, file) in entries(&path)? {
                patches.push(read(format!("{purpose}/{file}"), path)?);
            }
        } else if purpose.ends_with(".patch") {
            return Err(DataError { path, what: BAD_NAME.to_owned() });
        }
    }
    let order = |patch: &Patch| (patch.name.starts_with(LAST), patch.name.clone());
    patches.sort_by_key(order);
    Ok(patches)
}

/// The paths and names in a directory.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, String)>, DataError> {
    let failed = |error: std::io::Error| DataError { path: dir.to_owned(), what: error.to_string() };
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.map_err(failed)?;
        Ok((entry.path(), entry.file_name().to_string_lossy().into_owned()))
    };
    fs::read_dir(dir).map_err(failed)?.map(entry).collect()
}

fn read(name: String, path: PathBuf) -> Result<Patch, DataError> {
    let parsed = match name.split_once('/') {
        Some((_, file)) if is_numbered(file) => fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| versions(&text).map(|versions| (text, versions))),
        _ => Err(BAD_NAME.to_owned()),
    };
    match parsed {
        Ok((text, versions)) => Ok(Patch { name, versions, path, text }),
        Err(what) => Err(DataError { path, what }),
    }
}

fn is_numbered(file: &str) -> bool {
    let stem = file.strip_suffix(".patch").and_then(|stem| stem.split_once('-'));
    stem.is_some_and(|(number, name)| {
        number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()
    })
}

/// The value of `Versions` in a patch's header. Unknown fields are errors.
fn versions(text: &str) -> Result<VersionReq, String> {
    let header = text.split_once("\n\n").map_or(text, |(header, _)| header);
    let mut seen = Vec::new();
    let mut versions = None;
    // A line that begins with a space continues the one before.
    for line in header.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let (field, value) =
            line.split_once(": ").ok_or_else(|| format!("its header has the line `{line}`"))?;
        match field {
            "Versions" => {
                let parsed = value.parse::<VersionReq>();
                versions = Some(parsed.map_err(|error| format!("`Versions: {value}`: {error}"))?);
            }
            _ if FIELDS.contains(&field) => {}
            _ => return Err(format!("its header has the unknown field `{field}:`")),
        }
        if seen.contains(&field) {
            return Err(format!("its header has `{field}:` twice"));
        }
        seen.push(field);
    }
    versions.ok_or_else(|| "its header has no `Versions:`".to_owned())
}

/// Findings about each patch, and about patches that exclude each other.
pub(crate) fn lint(patches: &[Patch], releases: &[Release]) -> Vec<String> {
    let mut findings: Vec<_> = patches.iter().flat_map(Patch::lint).collect();
    for (index, patch) in patches.iter().enumerate() {
        let applies = |release: &&Release| patch.versions.matches(&release.version);
        if !releases.iter().any(|release| applies(&release)) {
            findings.push(format!("{} applies to no release", patch.name));
        }
        for other in patches[..index].iter().filter(|other| other.number() == patch.number()) {
            for release in
                releases.iter().filter(applies).filter(|release| other.versions.matches(&release.version))
            {
                findings.push(format!("{} and {} both apply to {}", other.name, patch.name, release.version));
            }
        }
    }
    findings
}

impl Patch {
    /// The directory that it is in: what it is for.
    pub fn purpose(&self) -> &str {
        self.name.split_once('/').map_or("", |(purpose, _)| purpose)
    }

    /// Its purpose and number, which variants of one patch for different versions share.
    pub fn number(&self) -> &str {
        let file = self.name.find('/').map_or(0, |slash| slash + 1);
        let end = self.name[file..].find('-').map_or(self.name.len(), |dash| file + dash);
        &self.name[..end]
    }

    /// What its header lacks; empty when all is well.
    fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let (message, diff) = self.text.split_once("\n---\n").unwrap_or((&self.text, ""));
        if !diff.contains("--- a/") || !diff.contains("+++ b/") {
            findings.push("has no difference after a line `---`".to_owned());
        }
        let (header, body) = message.split_once("\n\n").unwrap_or((message, ""));
        for field in ["Subject: [PATCH] ", "Upstream: ", "License: GPL-2.0-or-later"] {
            if !header.lines().any(|line| line.starts_with(field)) {
                findings.push(format!("its header has no `{}`", field.trim_end()));
            }
        }
        let why = body.lines().filter(|line| !line.is_empty() && !line.starts_with("Signed-off-by: "));
        if why.count() == 0 {
            findings.push("gives no reason".to_owned());
        }
        if !body.lines().any(|line| line.starts_with("Signed-off-by: ")) {
            findings.push("is not signed off".to_owned());
        }
        findings.into_iter().map(|finding| format!("{} {finding}", self.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Subject: [PATCH] x\nUpstream: not submitted\nLicense: GPL-2.0-or-later\nVersions: >=10\n\n\
        Because.\n\nSigned-off-by: a <a@b>\n---\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n";

    /// Loads patches with these names and texts from a directory of their own.
    fn loaded(patches: &[(&str, &str)]) -> Result<Vec<Patch>, DataError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in patches {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        load(dir.path())
    }

    fn error(name: &str, text: &str) -> String {
        loaded(&[(name, text)]).unwrap_err().to_string()
    }

    fn releases(versions: &[&str]) -> Vec<Release> {
        let release = |version: &&str| Release {
            version: version.parse().unwrap(),
            channel: String::new(),
            revision: std::num::NonZeroU32::MIN,
            upstream: None,
            debian: None,
        };
        versions.iter().map(release).collect()
    }

    #[test]
    fn a_complete_header_passes() {
        let patches = loaded(&[("README.md", "text"), ("build/0001-x.patch", GOOD)]).unwrap();
        assert_eq!(patches[0].name, "build/0001-x.patch");
        assert!(patches[0].versions.matches(&"10.2.2".parse().unwrap()));
        assert_eq!(lint(&patches, &releases(&["10.2.2"])), Vec::<String>::new());
    }

    #[test]
    fn every_missing_part_is_named() {
        for (part, finding) in [
            ("Subject: [PATCH] x\n", "no `Subject: [PATCH]`"),
            ("Upstream: not submitted\n", "no `Upstream:`"),
            ("License: GPL-2.0-or-later\n", "no `License: GPL-2.0-or-later`"),
            ("Because.\n", "gives no reason"),
            ("Signed-off-by: a <a@b>\n", "is not signed off"),
            ("+++ b/f\n", "has no difference"),
        ] {
            let patches = loaded(&[("build/0001-x.patch", &GOOD.replace(part, ""))]).unwrap();
            let findings = lint(&patches, &releases(&["10.2.2"]));
            assert!(findings.iter().any(|line| line.contains(finding)), "{finding}: {findings:?}");
        }
    }

    #[test]
    fn a_wrong_header_or_name_is_an_error_with_the_path() {
        for (from, to, expected) in [
            ("Versions: >=10\n", "", "0001-x.patch: its header has no `Versions:`"),
            ("Versions: >=10", "Versions: ten", "0001-x.patch: `Versions: ten`: unexpected character"),
            (
                "Versions: >=10",
                "Versions: >=10\nVersions: <12",
                "0001-x.patch: its header has `Versions:` twice",
            ),
            ("Upstream:", "Upstreem:", "0001-x.patch: its header has the unknown field `Upstreem:`"),
            ("Versions:", "Versions", "0001-x.patch: its header has the line `Versions >=10`"),
        ] {
            let message = error("build/0001-x.patch", &GOOD.replace(from, to));
            assert!(message.contains(expected), "{expected}: {message}");
        }
        for name in ["0001-x.patch", "build/x.patch", "build/0001-x.patch.orig", "build/0001-.patch"] {
            assert!(error(name, GOOD).ends_with(&format!("{name}: {BAD_NAME}")), "{name}");
        }
    }

    #[test]
    fn patches_are_in_the_order_of_their_names() {
        let patches = loaded(&[
            ("compat/0001-e.patch", GOOD),
            ("late/0002-b.patch", GOOD),
            ("late/0001-a.patch", GOOD),
            ("early/0010-d.patch", GOOD),
            ("early/0002-c.patch", GOOD),
        ]);
        let names: Vec<_> = patches.unwrap().into_iter().map(|patch| patch.name).collect();
        let expected = ["early/0002-c", "early/0010-d", "late/0001-a", "late/0002-b", "compat/0001-e"];
        assert_eq!(names, expected.map(|name| format!("{name}.patch")));
    }

    #[test]
    fn variants_of_a_patch_exclude_each_other() {
        let (old, new) = (&GOOD.replace(">=10", "~10.0"), &GOOD.replace(">=10", ">=10.2"));
        let both = |old, new| {
            let patches = loaded(&[("build/0001-x-10.0.patch", old), ("build/0001-x.patch", new)]).unwrap();
            lint(&patches, &releases(&["10.0.13", "10.2.2"]))
        };
        assert_eq!(both(old, new), Vec::<String>::new());
        assert_eq!(both(old, GOOD), ["build/0001-x-10.0.patch and build/0001-x.patch both apply to 10.0.13"]);
        assert_eq!(
            both(&GOOD.replace(">=10", "<10"), GOOD),
            ["build/0001-x-10.0.patch applies to no release"]
        );
        let patches = loaded(&[("user-mode/0001-x.patch", GOOD), ("user-mode/0002-y.patch", GOOD)]).unwrap();
        assert_eq!(lint(&patches, &releases(&["10.2.2"])), Vec::<String>::new(), "a purpose may have a dash");
    }
}
