//! The emulators of a host as they are handed on: the files, `bundle.json` and `SHA256SUMS`.
//!
//! `bundle.json` says what went in and what came out, and nothing that depends on when or where, so
//! that two builds are equal byte for byte. How long an emulator took is therefore not in it but in the
//! cache's own record.

use crate::base::files;
use crate::base::progress::one_line;
use crate::qemu::toolchain::Toolchain;
use fs_err as fs;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qus_core::arch::Host;
use qus_core::hint::{WithHint, hinted};
use semver::Version;
use serde::{Deserialize, Serialize};

/// Version of the form of `bundle.json`.
const SCHEMA: u32 = 1;

/// Everything that decides what an emulator's bytes are, but its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub(crate) qemu: Version,
    pub(crate) source_sha256: String,
    pub(crate) patches: Vec<PatchId>,
    pub(crate) host: String,
    pub(crate) profile: String,
    pub(crate) flags: Vec<String>,
    /// Hash of the profile that the compiler was given, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) training_sha256: Option<String>,
    pub(crate) toolchain: Toolchain,
    /// Name, version and hash of the build dependencies.
    pub(crate) dependencies: Vec<String>,
}

/// A patch that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PatchId {
    pub(crate) name: String,
    pub(crate) sha256: String,
}

/// A finished emulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Emulator {
    pub(crate) target: String,
    pub(crate) file: String,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// The content of `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    schema: u32,
    #[serde(flatten)]
    pub(crate) recipe: Recipe,
    /// In the order of their targets.
    pub(crate) emulators: Vec<Emulator>,
}

impl Recipe {
    /// The name under which the cache keeps an emulator built by this recipe.
    pub(crate) fn key(&self, target: &str) -> Result<String> {
        Ok(files::sha256(&serde_json::to_vec(&(SCHEMA, self, target))?))
    }
}

impl Bundle {
    pub(crate) fn new(recipe: Recipe, mut emulators: Vec<Emulator>) -> Self {
        emulators.sort_by(|a, b| a.target.cmp(&b.target));
        Self { schema: SCHEMA, recipe, emulators }
    }

    /// Reads the bundle in a folder; `None` if there is none, or none in this form.
    ///
    /// # Errors
    /// `bundle.json` is empty, cut off or otherwise not what was written.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Form {
            schema: u32,
        }
        let path = dir.join("bundle.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let parsed = || -> serde_json::Result<Option<Self>> {
            match serde_json::from_slice::<Form>(&text)?.schema {
                SCHEMA => serde_json::from_slice(&text).map(Some),
                _ => Ok(None),
            }
        };
        let bundle = parsed()
            .with_context(|| format!("{} is damaged or cut off", path.display()))
            .hint(format!("to build it again, run `rm {0}` and `cargo xtask build-qemu`", path.display()))?;
        let names = bundle.iter().flat_map(|bundle| &bundle.emulators).map(|emulator| &emulator.file);
        for name in names {
            ensure!(
                Path::new(name).file_name() == Some(OsStr::new(name)),
                "{} names a file outside of its directory: {}",
                path.display(),
                one_line(name)
            );
        }
        Ok(bundle)
    }

    /// The same with one emulator.
    pub(crate) fn only(&self, target: &str) -> Self {
        let emulators = self.emulators.iter().filter(|emulator| emulator.target == target).cloned().collect();
        Self { schema: self.schema, recipe: self.recipe.clone(), emulators }
    }

    /// The text of `bundle.json`.
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("bundle.json")? + "\n")
    }

    /// Writes the two files that describe the emulators in `dir`, where they differ from what is there.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let sum = |emulator: &Emulator| format!("{}  {}\n", emulator.sha256, emulator.file);
        let sums: String = self.emulators.iter().map(sum).collect();
        for (name, text) in [("SHA256SUMS", sums), ("bundle.json", self.json()?)] {
            let path = dir.join(name);
            if fs::read_to_string(&path).is_ok_and(|old| old == text) {
                continue;
            }
            files::write(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// The bundle of a host, which has emulators.
///
/// # Errors
/// It was not built.
pub(crate) fn built(host: &Host, dir: &Path) -> Result<Bundle> {
    let bundle = Bundle::read(dir)?.filter(|bundle| !bundle.emulators.is_empty());
    bundle.ok_or_else(|| {
        hinted(
            format!("no emulators for {host} in {}", dir.display()),
            format!("to build them, run `cargo xtask build-qemu --all --host {host}`"),
        )
    })
}

/// Compares an emulator of a bundle with its record.
///
/// # Errors
/// It was changed, or is not there.
pub(crate) fn verify(host: &Host, dir: &Path, emulator: &Emulator) -> Result<()> {
    let file = dir.join(&emulator.file);
    if files::sha256_file(&file).is_ok_and(|sha256| sha256 == emulator.sha256) {
        return Ok(());
    }
    Err(hinted(
        format!("{} does not match bundle.json", file.display()),
        format!("to build it again, run `cargo xtask build-qemu {} --host {host}`", emulator.target),
    ))
}

/// That the bundle of a host lacks the program `qus`, or what belongs to it.
pub(crate) fn no_program(host: &Host, dir: &Path) -> anyhow::Error {
    hinted(
        format!("no finished qus for {host} in {}", dir.display()),
        format!("to build it, run `cargo xtask build-qus --host {host}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::hint;

    #[test]
    fn a_bundle_is_there_or_not_or_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            fs::write(dir.path().join("bundle.json"), text).unwrap();
            Bundle::read(dir.path())
        };
        assert_eq!(Bundle::read(dir.path()).unwrap(), None);
        assert_eq!(read(r#"{ "schema": 9999, "other": 1 }"#).unwrap(), None);
        for text in ["", "{", r#"{ "schema": 1, "qemu": "10.2.2", "#, r#"{ "schema": 1 }"#, "\0\0\0\0"] {
            let error = hint::render(&read(text).unwrap_err());
            assert!(
                error.contains("is damaged or cut off\n") && error.contains("`cargo xtask build-qemu`"),
                "{error}"
            );
        }
        let whole = r#"{ "schema": 1, "qemu": "10.2.2", "source_sha256": "", "patches": [], "host": "amd64",
            "profile": "dev", "flags": [], "toolchain": { "cc": "", "ld": "", "libc_sha256": "" }, "dependencies": [],
            "emulators": [{ "target": "arm", "file": "qemu-arm", "size": 1, "sha256": "" }] }"#;
        assert_eq!(read(whole).unwrap().unwrap().emulators[0].file, "qemu-arm");
        for name in ["../qemu-arm", "/etc/passwd", "a/../b", "..", ""] {
            let error = read(&whole.replace("qemu-arm", name)).unwrap_err().to_string();
            assert!(error.contains("names a file outside of its directory"), "{name}: {error}");
        }
    }
}
