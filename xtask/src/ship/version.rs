//! The release that bundles are packed for.

use anyhow::{Context as _, Result};
use qemu_src::{QemuSrc, Release};
use qus_core::bundle::{Bundle, Recipe};
use qus_core::digest::Sha256;
use qus_core::hint::hinted;
use semver::Version;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::bundle::manifest;

/// QEMU's version in a release of these bundles: that of the channel or version `named`, else the newest that they have.
///
/// # Errors
/// A bundle has another version. Only 32-bit hosts may have an older one.
pub(crate) fn of_bundles<'a>(
    cx: &Context,
    bundles: impl Iterator<Item = &'a Bundle> + Clone,
    named: Option<&str>,
) -> Result<Version> {
    let recipes = bundles.map(|bundle| &bundle.recipe);
    let qemu = match named {
        Some(name) => cx.data.release(name).map_err(Usage)?.version.clone(),
        None => recipes.clone().map(|recipe| &recipe.qemu).max().context("no host is selected")?.clone(),
    };
    recipes.into_iter().try_for_each(|recipe| check(recipe, &qemu))?;
    Ok(qemu)
}

fn check(recipe: &Recipe, qemu: &Version) -> Result<()> {
    let narrow = !recipe.host.arch.registers_64_bit;
    if recipe.qemu == *qemu || narrow && recipe.qemu < *qemu {
        return Ok(());
    }
    let host = recipe.host;
    Err(hinted(
        format!("the bundle of {host} has QEMU {}, but the release has QEMU {qemu}", recipe.qemu),
        format!(
            "to build it, run `cargo xtask build-qemu --all --host {host} --qemu {qemu}{}`",
            manifest::profile_option(recipe.profile)
        ),
    ))
}

/// The release of a version of QEMU.
///
/// # Errors
/// `sources.toml` does not have it, such as a patch level that was built in place of another.
pub(crate) fn release<'a>(cx: &'a Context, qemu: &Version) -> Result<&'a Release> {
    cx.data.release(&qemu.to_string()).map_err(|error| {
        hinted(
            error,
            "add it to qemu-src/sources.toml, or build one of these with `cargo xtask build-qemu --qemu`",
        )
    })
}

/// What was built of another input than the data has: a source or patches.
pub(crate) fn differing_input(data: &QemuSrc, recipe: &Recipe) -> Option<&'static str> {
    let release = data.release(&recipe.qemu.to_string()).ok();
    let is_pinned = |release: &Release| release.pins().any(|pin| pin.sha256 == recipe.source_sha256);
    if !release.is_some_and(is_pinned) {
        return Some("another source of QEMU");
    }
    let applied = recipe.patches.iter().map(|patch| (&*patch.name, patch.sha256));
    let same =
        data.patches_for(&recipe.qemu).map(|patch| (&*patch.name, Sha256::of(&patch.text))).eq(applied);
    (!same).then_some("other patches")
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::bundle::{PatchId, Profile, Toolchain};

    #[test]
    fn inputs_of_another_checkout_are_named() {
        let data = Context::new().unwrap().data;
        let release = data.release("default").unwrap();
        let none = Sha256::of("");
        let mut recipe = Recipe {
            qemu: release.version.clone(),
            source_sha256: release.pins().next().unwrap().sha256,
            patches: data
                .patches_for(&release.version)
                .map(|patch| PatchId { name: patch.name.clone(), sha256: Sha256::of(&patch.text) })
                .collect(),
            host: "amd64".parse().unwrap(),
            profile: Profile::Release,
            flags: Vec::new(),
            profile_data_sha256: None,
            toolchain: Toolchain { cc: String::new(), ld: String::new(), libc_sha256: none },
            dependencies: Vec::new(),
        };
        assert_eq!(differing_input(&data, &recipe), None);
        recipe.patches[0].sha256 = none;
        assert_eq!(differing_input(&data, &recipe), Some("other patches"));
        recipe.patches.remove(0);
        assert_eq!(differing_input(&data, &recipe), Some("other patches"));
        recipe.source_sha256 = none;
        assert_eq!(differing_input(&data, &recipe), Some("another source of QEMU"));
        recipe.qemu = Version::new(1, 0, 0);
        assert_eq!(differing_input(&data, &recipe), Some("another source of QEMU"));
    }
}
