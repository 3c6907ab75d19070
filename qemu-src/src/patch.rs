//! Patches to QEMU and the header that each must have.
//!
//! A patch is one concern in one file, `patches/<purpose>/NNNN-name.patch`, applied with `git apply`.
//! Its header is that of a mail, ready to be sent upstream:
//!
//! ```text
//! Subject: [PATCH] one line
//! Upstream: an address | not submitted | inappropriate, with the reason
//! License: GPL-2.0-or-later
//!
//! Why, in at least a sentence.
//!
//! Signed-off-by: somebody
//! ---
//! ```

use std::path::{Path, PathBuf};

use semver::VersionReq;
use serde::Deserialize;

use crate::{Error, read};

/// A patch and the versions that need it.
#[derive(Debug)]
pub struct Patch {
    /// Path below `patches`, as the series names it.
    pub name: String,
    /// Versions of QEMU that it is applied to.
    pub versions: VersionReq,
    /// Where it is.
    pub path: PathBuf,
    /// The whole file.
    pub text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    #[serde(default, rename = "patch")]
    patches: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    versions: VersionReq,
}

/// Reads the series and all its patches.
pub(crate) fn load(dir: &Path) -> Result<Vec<Patch>, Error> {
    let series: Series = read(dir.join("series.toml"))?;
    let patch = |Entry { file: name, versions }| {
        let path = dir.join(&name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Patch { name, versions, path, text }),
            Err(error) => Err(Error { path, what: error.to_string() }),
        }
    };
    series.patches.into_iter().map(patch).collect()
}

impl Patch {
    /// What its name and header lack; empty when all is well.
    pub(crate) fn lint(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let file = self.name.rsplit('/').next().unwrap_or_default();
        let numbered = file.len() > 5
            && file.as_bytes()[..4].iter().all(u8::is_ascii_digit)
            && file.as_bytes()[4] == b'-'
            && file.ends_with(".patch");
        if !numbered || self.name.split('/').count() != 2 {
            findings.push("is not called <purpose>/NNNN-name.patch".to_owned());
        }
        let (message, diff) = self.text.split_once("\n---\n").unwrap_or((&self.text, ""));
        if !diff.contains("--- a/") || !diff.contains("+++ b/") {
            findings.push("has no difference behind a line `---`".to_owned());
        }
        let (header, body) = message.split_once("\n\n").unwrap_or((message, ""));
        for field in ["Subject: [PATCH] ", "Upstream: ", "License: GPL-2.0-or-later"] {
            if !header.lines().any(|line| line.starts_with(field)) {
                findings.push(format!("its header has no `{}`", field.trim_end()));
            }
        }
        let why = body.lines().filter(|line| !line.is_empty() && !line.starts_with("Signed-off-by: "));
        if why.count() == 0 {
            findings.push("does not say why".to_owned());
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

    fn patch(name: &str, text: &str) -> Patch {
        let versions = VersionReq::STAR;
        Patch { name: name.to_owned(), versions, path: PathBuf::new(), text: text.to_owned() }
    }

    const GOOD: &str = "Subject: [PATCH] x\nUpstream: not submitted\nLicense: GPL-2.0-or-later\n\n\
        Because.\n\nSigned-off-by: a <a@b>\n---\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n";

    #[test]
    fn a_complete_header_passes() {
        assert_eq!(patch("build/0001-x.patch", GOOD).lint(), Vec::<String>::new());
    }

    #[test]
    fn every_missing_part_is_named() {
        for (part, finding) in [
            ("Subject: [PATCH] x\n", "no `Subject: [PATCH]`"),
            ("Upstream: not submitted\n", "no `Upstream:`"),
            ("Because.\n", "does not say why"),
            ("Signed-off-by: a <a@b>\n", "is not signed off"),
            ("+++ b/f\n", "has no difference"),
        ] {
            let findings = patch("build/0001-x.patch", &GOOD.replace(part, "")).lint();
            assert!(findings.iter().any(|line| line.contains(finding)), "{finding}: {findings:?}");
        }
        assert_eq!(patch("x.patch", GOOD).lint().len(), 1);
    }

    #[test]
    fn a_patch_in_the_series_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let series = "[[patch]]\nfile = \"build/0001-x.patch\"\nversions = \">=10\"\n";
        std::fs::write(dir.path().join("series.toml"), series).unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("0001-x.patch: No such file"));
    }
}
