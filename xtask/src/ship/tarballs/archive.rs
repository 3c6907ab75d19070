//! One tarball: the files in it, and nothing of when, where and by whom it was packed.
//!
//! Entries are sorted and have neither time nor owner, so that equal files make equal tarballs. Folders are
//! not among them: tar makes what it needs.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use qus_core::arch::Host;
use serde::Serialize;
use xshell::cmd;

use crate::base::cache;
use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::debian::apt;
use crate::debian::distribution::Distribution;

/// How tarballs are compressed. A window of 128 MiB is the largest that zstd unpacks without being asked to.
pub(crate) const ZSTD: [&str; 4] = ["--quiet", "-19", "--long=27", "--threads=0"];

/// The program that compresses: the installed one, or that of the distribution's package, unpacked into the
/// cache.
///
/// # Errors
/// Neither is to be had.
pub(crate) fn zstd(cx: &Context) -> Result<PathBuf> {
    if is_installed("zstd") {
        return Ok("zstd".into());
    }
    // The crate of that name would come with its licence, BSD, which .cargo/deny.toml does not accept.
    let remedy = "this machine lacks zstd, which compresses the tarballs\nremedy: install the distribution's package zstd";
    let distribution = Distribution::detect()?.context(remedy)?;
    Ok(apt::ensure_program(cx, &distribution, "zstd").context(remedy)?.join("usr/bin/zstd"))
}

/// A tarball to be made.
#[derive(Serialize)]
pub(crate) struct Tarball {
    pub(crate) file: String,
    pub(super) entries: Vec<Entry>,
}

/// A file in a tarball.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// Its path there.
    pub(super) path: String,
    mode: u32,
    pub(super) sha256: String,
    #[serde(skip)]
    from: PathBuf,
}

impl Entry {
    /// A file of a bundle.
    pub(super) fn new(bundle: &Path, path: &str, mode: u32) -> Result<Self> {
        let from = bundle.join(path);
        Ok(Self { path: path.to_owned(), mode, sha256: cache::sha256_file(&from)?, from })
    }

    /// The same file at another place.
    pub(super) fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }
}

impl Tarball {
    /// Of files in a folder, by their names.
    pub(crate) fn of(file: &str, dir: &Path, names: &[String]) -> Result<Self> {
        let entries = names.iter().map(|name| Entry::new(dir, name, 0o644)).collect::<Result<_>>()?;
        Ok(Self { file: file.to_owned(), entries })
    }

    pub(super) fn new(name: &str, host: &Host, mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { file: format!("{name}_{host}.tar.zst"), entries }
    }

    /// Makes it in a folder that is not yet published, and returns its path.
    pub(crate) fn write(&self, zstd: &Path, log: &Path, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(&self.file);
        // Of a file, unlike of a pipe, zstd knows the size, and asks for no larger window than that.
        // Its mode becomes the tarball's.
        let readable = Permissions::from_mode(0o644);
        let tar = tempfile::Builder::new()
            .permissions(readable)
            .tempfile_in(dir)
            .context("cannot write the tarball")?;
        self.tar(BufWriter::new(&tar)).with_context(|| format!("cannot pack {}", self.file))?;
        let from = tar.path();
        exec::run(cmd!(sh(), "{zstd} {ZSTD...} {from} -o {path}"), log, |_| {})?;
        Ok(path)
    }

    /// Its content before it is compressed.
    pub(super) fn tar(&self, to: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(to);
        for entry in &self.entries {
            let from = &entry.from;
            let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
            let mut header = tar::Header::new_ustar();
            header.set_mode(entry.mode);
            header.set_size(file.metadata()?.len());
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, &entry.path, file)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}
