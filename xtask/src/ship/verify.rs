//! `cargo xtask release --verify`: builds a release again, and compares files and images.

mod comparison;
mod images;
mod rebuild;
pub(crate) mod released;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use qus_core::hint::hinted;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::output::out;
use crate::base::{files, lock};
use crate::ship::verify::comparison::Comparison;
use crate::ship::verify::images::ReleasedImages;
use crate::ship::verify::rebuild::Rebuild;
use crate::ship::verify::released::Origin;

/// Builds a release again from its commit and the packages that it keeps, and compares all files, and the images in a
/// repository.
///
/// # Errors
/// A file differs from its checksum, cannot be built, or is built differently.
pub(crate) fn verify(cx: &Context, dir: &Path, images: Option<&str>) -> Result<()> {
    let listed = released::check_files(dir)?;
    let origin = Origin::read(dir)?;
    let _lock = lock::lock(cx.paths.out())?;
    let work = cx.paths.out().join("verify");
    files::recreate_dir(&work)?;
    let rebuild = Rebuild::new(cx, &work, &origin);
    let images = images.map(|repo| ReleasedImages::find(&rebuild, dir, repo)).transpose()?;
    let rebuilt = rebuild.run(dir)?;
    let mut compared = comparison::compare_files(dir, &rebuilt, &listed)?;
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
