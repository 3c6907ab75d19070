//! `cargo xtask release --publish`: publishes the directory of a release on the forge.
//!
//! Nothing is public before all files have been uploaded and read back. Each step first looks at what exists, so that
//! the same command finishes an interrupted one, and repeats nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::digest::Sha256;
use qus_core::hint::{WithHint as _, hinted};
use serde::Deserialize;
use xshell::cmd;

use crate::base::exec::{self, InDir, Invocation, sh};
use crate::base::files::{self, Scratch};
use crate::base::progress::Bar;
use crate::ship::verify::released::{self, NOTES};

/// A release that is published.
pub(super) struct Publication<'a> {
    /// The command line client of the forge.
    pub(super) gh: PathBuf,
    /// The checkout.
    pub(super) root: &'a Path,
    /// The directory of the release.
    pub(super) dir: &'a Path,
    /// As in `10.2.2-1`.
    pub(super) release: String,
    pub(super) commit: &'a str,
}

/// A release of the forge, as `gh release view --json` prints it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfForge {
    is_draft: bool,
    assets: Vec<Asset>,
}

#[derive(Deserialize)]
struct Asset {
    name: String,
    /// In bytes.
    size: u64,
}

impl Publication<'_> {
    /// Publishes the files, and the images with `push_images` when the files are uploaded. Returns whether anything was
    /// left to do.
    ///
    /// # Errors
    /// The forge has other files or another tag, or a program fails; nothing is public then that was not before, except
    /// for images.
    pub(super) fn run(&self, push_images: impl FnOnce() -> Result<()>) -> Result<bool> {
        let files = self.files()?;
        let is_tagged = self.is_tagged()?;
        let existing = self.find()?;
        let is_public = existing.as_ref().is_some_and(|existing| !existing.is_draft);
        let mut uploaded = BTreeMap::new();
        match existing {
            Some(existing) => {
                uploaded.extend(existing.assets.into_iter().map(|asset| (asset.name, asset.size)))
            }
            None => self.create_draft()?,
        }
        if !is_public {
            self.upload(&files, &uploaded)?;
        }
        self.read_back(&files)?;
        if is_public {
            return Ok(false);
        }
        push_images()?;
        if !is_tagged {
            self.push_tag()?;
        }
        let tag = self.tag();
        self.gh(&["release", "edit", &tag, "--draft=false"])?;
        Ok(true)
    }

    fn tag(&self) -> String {
        format!("v{}", self.release)
    }

    /// The files that can be downloaded, with their checksums.
    fn files(&self) -> Result<BTreeMap<String, Sha256>> {
        let _bar = Bar::new("verifying the release");
        released::check_files(self.dir)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != NOTES {
                let sha256 = files::sha256(&self.dir.join(&name))?;
                files.insert(name, sha256);
            }
        }
        Ok(files)
    }

    /// Runs the client of the forge in the checkout, from which it knows the repository.
    fn gh(&self, args: &[&str]) -> Result<String> {
        let gh = &self.gh;
        self.read(cmd!(sh(), "{gh} {args...}").in_dir(self.root))
    }

    fn read(&self, command: Invocation<'_>) -> Result<String> {
        exec::read(command).hint(
            "when that is repaired, run the command again with --resume; `gh auth status` shows your rights",
        )
    }

    /// The release on the forge.
    fn find(&self) -> Result<Option<OfForge>> {
        let (gh, tag) = (&self.gh, self.tag());
        let view = cmd!(sh(), "{gh} release view {tag} --json isDraft,assets").in_dir(self.root);
        match self.read(view) {
            Ok(text) => {
                Ok(Some(serde_json::from_str(&text).context("gh printed something else than a release")?))
            }
            Err(error) if format!("{error:#}").contains("release not found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_draft(&self) -> Result<()> {
        let notes = self.dir.join(NOTES).display().to_string();
        let (tag, title) = (self.tag(), &self.release);
        let _bar = Bar::new("creating a draft");
        self.gh(&[
            "release",
            "create",
            &tag,
            "--draft",
            "--title",
            title,
            "--notes-file",
            &notes,
            "--target",
            self.commit,
        ])
        .map(drop)
    }

    /// Uploads files that the forge lacks. A file that was cut off has another size.
    fn upload(&self, files: &BTreeMap<String, Sha256>, uploaded: &BTreeMap<String, u64>) -> Result<()> {
        let mut bar = Bar::new(format!("uploading {} files", files.len()));
        let tag = self.tag();
        for (name, count) in files.keys().zip(1..) {
            let path = self.dir.join(name);
            if uploaded.get(name) != Some(&fs::metadata(&path)?.len()) {
                self.gh(&["release", "upload", &tag, &path.display().to_string(), "--clobber"])?;
            }
            bar.set(count, files.len() as u64);
        }
        bar.finish();
        Ok(())
    }

    /// Downloads all files, and compares them with those of the directory.
    fn read_back(&self, files: &BTreeMap<String, Sha256>) -> Result<()> {
        let _bar = Bar::new("reading the files back");
        let dir = Scratch::new(files::with_suffix(self.dir, "read"))?;
        let tag = self.tag();
        self.gh(&["release", "download", &tag, "--dir", &dir.path().display().to_string()])?;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir.path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            found.insert(name.clone(), files::sha256(&dir.path().join(&name))?);
        }
        let names = || files.keys().chain(found.keys());
        let Some(name) = names().find(|name| files.get(*name) != found.get(*name)) else { return Ok(()) };
        let what = match files.contains_key(name) {
            true => format!("the forge has another {name}"),
            false => format!("the forge has {name}, which is not of this release"),
        };
        Err(hinted(
            what,
            format!(
                "if {tag} is a draft, remove the file with `gh release delete-asset {tag} {name}`; a published release does not change: increase `revision` in sources.toml"
            ),
        ))
    }

    /// Whether the remote repository has the tag.
    ///
    /// # Errors
    /// The tag is at another commit, here or there.
    fn is_tagged(&self) -> Result<bool> {
        let (root, tag) = (self.root, self.tag());
        let (of_tag, peeled) = (format!("refs/tags/{tag}"), format!("refs/tags/{tag}^{{}}"));
        let commit = self.commit;
        let check = |found: &str, place: &str| match found == commit {
            true => Ok(()),
            false => Err(hinted(
                format!("the tag {tag} is at another commit in the {place} repository: {found}"),
                "a release does not change: increase `revision` in sources.toml",
            )),
        };
        // Prints nothing and fails if there is no such tag.
        if let Ok(found) = exec::read(cmd!(sh(), "git -C {root} rev-parse --verify --quiet {peeled}")) {
            check(&found, "local")?;
        }
        let listed = self.read(cmd!(sh(), "git -C {root} ls-remote origin {of_tag} {peeled}").into())?;
        // An annotated tag has a second line, with the commit.
        let Some(line) = listed.lines().last() else { return Ok(false) };
        check(line.split('\t').next().unwrap_or_default(), "remote")?;
        Ok(true)
    }

    /// Tags the commit. git signs the tag if `tag.gpgSign` is set.
    fn push_tag(&self) -> Result<()> {
        let (root, tag, commit) = (self.root, self.tag(), self.commit);
        let message = format!("qus {}", self.release);
        let exists = cmd!(sh(), "git -C {root} rev-parse --verify --quiet refs/tags/{tag}");
        if exec::read(exists).is_err() {
            let status = exec::interactive(cmd!(
                sh(),
                "git -C {root} tag --annotate {tag} {commit} --message {message}"
            ))?;
            ensure!(status.success(), "git cannot create the tag {tag}: it ended with {status}");
        }
        self.read(cmd!(sh(), "git -C {root} push --quiet origin refs/tags/{tag}").into()).map(drop)
    }
}

#[cfg(test)]
mod tests;
