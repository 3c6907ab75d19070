//! `bundle.json`: which emulators a directory has, and everything they were built from.
//!
//! It lists inputs and results, and nothing that depends on when or where they were built, so that two builds are equal
//! byte for byte. `cargo xtask build-qemu` writes it, `qus` takes versions and the emulators' checksums from it.
//!
//! ```no_run
//! use qus_core::bundle::Bundle;
//!
//! # fn main() -> Result<(), qus_core::bundle::BundleError> {
//! if let Some(bundle) = Bundle::read("/usr/bin".as_ref())? {
//!     println!("QEMU {} for {}", bundle.recipe.qemu, bundle.recipe.host);
//!     print!("{}", bundle.sums());
//! }
//! # Ok(())
//! # }
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::arch::{Arch, Host};
use crate::binfmt::magic::Build;
use crate::digest::Sha256;
use crate::file;
use crate::release::ReleaseVersion;
use crate::text::Show;

/// The file's name.
pub const FILE: &str = "bundle.json";

/// The version of the file's form that is written and read.
pub const SCHEMA: u32 = 2;

/// The version of what [`Recipe::key`] hashes. It is separate from [`SCHEMA`], so that emulators in a cache remain valid
/// when only the form of the file changes.
const KEY: u32 = 1;

/// How emulators are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// For shipping: optimised with profile data.
    Release,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dev => "dev",
            Self::Release => "release",
        })
    }
}

/// Everything that decides the bytes of an emulator, except for its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// QEMU's version.
    pub qemu: Version,
    /// Checksum of QEMU's source archive.
    pub source_sha256: Sha256,
    /// The patches, in the order in which they were applied.
    pub patches: Vec<PatchId>,
    /// The host that the emulators run on.
    pub host: &'static Host,
    /// Whether they were built quickly or to be shipped.
    pub profile: Profile,
    /// Arguments of QEMU's configure.
    pub flags: Vec<String>,
    /// Checksum of the profile data for the compiler, if there was any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_data_sha256: Option<Sha256>,
    /// The compiler.
    pub toolchain: Toolchain,
    /// Name, version and checksum of each build dependency.
    pub dependencies: Vec<String>,
}

/// A patch that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchId {
    /// Its path below the directory of patches.
    pub name: String,
    /// Checksum of its text.
    pub sha256: Sha256,
}

impl PatchId {
    /// The directory that it is in, which says what it is for.
    pub fn purpose(&self) -> &str {
        self.name.split_once('/').map_or(&*self.name, |(purpose, _)| purpose)
    }
}

/// What identifies a toolchain, wherever it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// First line of the compiler's `--version`.
    pub cc: String,
    /// First line of the linker's `--version`.
    pub ld: String,
    /// Checksum of the static C library.
    pub libc_sha256: Sha256,
}

/// A finished emulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundledEmulator {
    /// What it emulates.
    pub target: &'static Arch,
    /// Its file's name.
    pub file: String,
    /// In bytes.
    pub size: u64,
    /// Checksum of the file.
    pub sha256: Sha256,
}

impl BundledEmulator {
    /// The first bytes of its checksum, which its handlers have.
    pub fn build(&self) -> Build {
        self.sha256.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// The content of `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    schema: u32,
    /// What the emulators were built from.
    #[serde(flatten)]
    pub recipe: Recipe,
    /// The release that the bundle was packed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseVersion>,
    /// In the order of their targets.
    pub emulators: Vec<BundledEmulator>,
}

/// Why a directory's `bundle.json` cannot be used.
#[derive(Debug)]
pub enum BundleError {
    /// It is there and cannot be read.
    Io(PathBuf, io::Error),
    /// It is empty, cut off or otherwise not what was written; the reader's message.
    Damaged(PathBuf, String),
    /// It was written by another version of qus: the version of its schema.
    OtherSchema(PathBuf, u32),
    /// It names this file, which is outside of its directory.
    Outside(PathBuf, String),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, _) => write!(f, "cannot read {}", path.shown()),
            Self::Damaged(path, why) => write!(f, "{} is damaged: {why}", path.shown()),
            Self::OtherSchema(path, schema) => {
                write!(f, "{} has schema {schema}, and this program reads schema {SCHEMA}", path.shown())
            }
            Self::Outside(path, name) => {
                write!(f, "{} names a file outside of its directory: {}", path.shown(), name.shown())
            }
        }
    }
}

impl std::error::Error for BundleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

impl BundleError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let (Self::Io(path, _)
        | Self::Damaged(path, _)
        | Self::OtherSchema(path, _)
        | Self::Outside(path, _)) = self;
        Some(format!(
            "write it again with `cargo xtask build-qemu`, or use the emulators without it: `rm {}`",
            path.quoted()
        ))
    }
}

impl Recipe {
    /// The purposes of its patches, such as `compat`, and how many each has.
    pub fn series(&self) -> impl Iterator<Item = (&str, usize)> {
        let same = |one: &PatchId, other: &PatchId| one.purpose() == other.purpose();
        self.patches.chunk_by(same).map(|patches| (patches[0].purpose(), patches.len()))
    }

    /// The name under which a cache keeps the emulator of a target that was built by this recipe.
    pub fn key(&self, target: &Arch) -> Sha256 {
        Sha256::of(serde_json::to_vec(&(KEY, self, target)).expect("a recipe has no map and can be written"))
    }
}

impl Bundle {
    /// Describes emulators.
    pub fn new(recipe: Recipe, mut emulators: Vec<BundledEmulator>) -> Self {
        emulators.sort_by_key(|emulator| emulator.target.name);
        Self { schema: SCHEMA, recipe, release: None, emulators }
    }

    /// Reads the bundle in a directory; `None` if there is no `bundle.json`.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn read(dir: &Path) -> Result<Option<Self>, BundleError> {
        let path = dir.join(FILE);
        match file::read(&path) {
            Ok(text) => Self::parse(&path, &text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // A pipe, a directory, a device: nothing that was written.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Err(BundleError::Damaged(path, error.to_string()))
            }
            Err(error) => Err(BundleError::Io(path, error)),
        }
    }

    /// Reads a text; the path is for errors.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Form {
            schema: u32,
        }
        #[derive(Deserialize)]
        struct Rest {
            #[serde(default)]
            release: Option<ReleaseVersion>,
            emulators: Vec<BundledEmulator>,
        }
        let damaged = |error: serde_json::Error| BundleError::Damaged(path.to_owned(), error.to_string());
        match serde_json::from_slice::<Form>(text).map_err(damaged)?.schema {
            SCHEMA => {}
            other => return Err(BundleError::OtherSchema(path.to_owned(), other)),
        }
        // Read a part at a time: a derived reader of the whole would make qus 10 KB larger.
        let recipe = serde_json::from_slice(text).map_err(damaged)?;
        let Rest { release, emulators } = serde_json::from_slice(text).map_err(damaged)?;
        let bundle = Self { schema: SCHEMA, recipe, release, emulators };
        let outside = |name: &&String| Path::new(name).file_name() != Some(OsStr::new(name));
        match bundle.emulators.iter().map(|emulator| &emulator.file).find(outside) {
            Some(name) => Err(BundleError::Outside(path.to_owned(), name.clone())),
            None => Ok(bundle),
        }
    }

    /// The same with the emulator of one target.
    pub fn only(&self, target: &Arch) -> Self {
        let of_target = |emulator: &&BundledEmulator| emulator.target == target;
        let emulators = self.emulators.iter().filter(of_target).cloned().collect();
        Self { emulators, ..self.clone() }
    }

    /// The same, packed for a release.
    pub fn released(self, release: ReleaseVersion) -> Self {
        Self { release: Some(release), ..self }
    }

    /// The version of its release, else of QEMU.
    pub fn version(&self) -> String {
        self.release.as_ref().map_or_else(|| self.recipe.qemu.to_string(), ReleaseVersion::to_string)
    }

    /// The emulator of a file name.
    pub fn emulator(&self, file: &str) -> Option<&BundledEmulator> {
        self.emulators.iter().find(|emulator| emulator.file == file)
    }

    /// The text of `bundle.json`.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a bundle has no map and can be written") + "\n"
    }

    /// The text of `SHA256SUMS`, which `sha256sum -c` reads.
    pub fn sums(&self) -> String {
        let sum = |emulator: &BundledEmulator| format!("{}  {}\n", emulator.sha256, emulator.file);
        self.emulators.iter().map(sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let recipe = Recipe {
            qemu: Version::new(10, 2, 2),
            source_sha256: Sha256::of("source"),
            patches: vec![PatchId { name: "build/0001-a.patch".into(), sha256: Sha256::of("patch") }],
            host: "amd64".parse().unwrap(),
            profile: Profile::Dev,
            flags: vec!["--static".into()],
            profile_data_sha256: None,
            toolchain: Toolchain { cc: "cc".into(), ld: "ld".into(), libc_sha256: Sha256::of("libc") },
            dependencies: vec!["glib".into()],
        };
        let emulator = |target: &str| BundledEmulator {
            target: target.parse().unwrap(),
            file: format!("qemu-{target}"),
            size: 1,
            sha256: Sha256::of(target),
        };
        Bundle::new(recipe, vec![emulator("sh4"), emulator("arm")])
    }

    #[test]
    fn a_bundle_is_there_or_not_or_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            Bundle::read(dir.path())
        };
        assert_eq!(Bundle::read(dir.path()).unwrap(), None);
        let whole = bundle().json();
        assert_eq!(read(&whole).unwrap(), Some(bundle()));
        for schema in ["1", "9999"] {
            let error = read(&format!(r#"{{ "schema": {schema}, "other": 1 }}"#)).unwrap_err();
            assert!(matches!(error, BundleError::OtherSchema(..)), "{error}");
        }
        let bad_sum = whole.replace(&Sha256::of("arm").to_string(), "00");
        let bad_target = whole.replace(r#""target": "arm""#, r#""target": "vax""#);
        let bad_version = whole.replace("10.2.2", "../../etc");
        for text in ["", "{", "[]", &whole[..whole.len() / 2], r#"{ "schema": 2 }"#, "{}", "\0\0"]
            .into_iter()
            .chain([&*bad_sum, &bad_target, &bad_version])
        {
            let error = read(text).unwrap_err();
            assert!(matches!(error, BundleError::Damaged(..)), "{text}: {error}");
            assert!(error.hint().unwrap().contains("`cargo xtask build-qemu`"));
        }
        for name in ["../qemu-arm", "/etc/passwd", "a/../b", "..", ""] {
            let error =
                read(&whole.replace(r#""file": "qemu-arm""#, &format!(r#""file": "{name}""#))).unwrap_err();
            assert!(matches!(error, BundleError::Outside(..)), "{name}: {error}");
        }
    }

    #[test]
    fn texts_and_parts() {
        let bundle = bundle();
        let sums: Vec<_> = ["arm", "sh4"].map(|name| format!("{}  qemu-{name}\n", Sha256::of(name))).into();
        assert_eq!(bundle.sums(), sums.concat(), "in the order of targets");
        let sh4 = bundle.only("sh4".parse().unwrap());
        assert_eq!(sh4.emulators, bundle.emulators[1..]);
        assert_eq!(bundle.emulator("qemu-sh4"), Some(&bundle.emulators[1]));
        assert_eq!(bundle.version(), "10.2.2");
        let released = bundle.clone().released("10.2.2-3".parse().unwrap());
        assert_eq!(released.version(), "10.2.2-3");
        assert_eq!(Bundle::parse(Path::new(""), released.json().as_bytes()).unwrap(), released);
        assert!(
            bundle.json().starts_with("{\n  \"schema\": 2,\n  \"qemu\": \"10.2.2\",\n"),
            "{}",
            bundle.json()
        );
        assert!(!bundle.json().contains("profile_data"), "what is not there is not written");
    }

    #[test]
    fn a_key_is_of_the_recipe_and_the_target() {
        let Bundle { recipe, .. } = bundle();
        let (arm, sh4) = ("arm".parse().unwrap(), "sh4".parse().unwrap());
        assert_eq!(recipe.key(arm), recipe.clone().key(arm));
        assert_ne!(recipe.key(arm), recipe.key(sh4));
        let profiled = Recipe { profile_data_sha256: Some(Sha256::of("data")), ..recipe.clone() };
        assert_ne!(recipe.key(arm), profiled.key(arm));
    }
}
