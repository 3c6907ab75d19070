//! What keeps bundles from being a release.

use anyhow::Result;
use qus_core::arch::Arch;
use qus_core::bundle::{Bundle, Profile, Recipe};

use crate::base::context::Context;
use crate::base::git::Checkout;
use crate::bundle::licences::Licensed;
use crate::bundle::manifest;
use crate::ship::version;

/// Something that a release must not have.
#[derive(Debug)]
pub(crate) struct Fault {
    /// A sentence without its end.
    pub(crate) what: String,
    /// What to do, as the end of a sentence.
    pub(crate) hint: String,
}

/// The faults of bundles and of the checkout.
pub(crate) fn faults(cx: &Context, bundles: &[&Bundle], checkout: &Checkout) -> Result<Vec<Fault>> {
    let faults =
        [dev_profile(bundles), other_inputs(cx, bundles), no_licences(cx, bundles)?, unclean(checkout)];
    Ok(faults.into_iter().flatten().collect())
}

fn dev_profile(bundles: &[&Bundle]) -> Option<Fault> {
    let is_dev = |bundle: &&&Bundle| bundle.recipe.profile == Profile::Dev;
    let dev: Vec<&Bundle> = bundles.iter().filter(is_dev).copied().collect();
    let hosts: Vec<_> = dev.iter().map(|bundle| bundle.recipe.host.name).collect();
    let build = build_command(&dev.first()?.recipe, &guests(dev[0]), Profile::Release);
    Some(Fault {
        what: format!("the emulators for {} were built with the dev profile", hosts.join(", ")),
        hint: format!("run `{build}`"),
    })
}

/// Emulators that have another source or other patches than those of the checkout.
fn other_inputs(cx: &Context, bundles: &[&Bundle]) -> Option<Fault> {
    let (bundle, other) = bundles
        .iter()
        .find_map(|bundle| Some((bundle, version::differing_input(&cx.data, &bundle.recipe)?)))?;
    let build = build_command(&bundle.recipe, &guests(bundle), bundle.recipe.profile);
    Some(Fault {
        what: format!("the emulators for {} have {other} than this checkout", bundle.recipe.host),
        hint: format!("run `{build}`"),
    })
}

fn no_licences(cx: &Context, bundles: &[&Bundle]) -> Result<Option<Fault>> {
    for bundle in bundles {
        let host = bundle.recipe.host;
        let dir = cx.paths.bundle(host);
        for of in [Licensed::Program, Licensed::Emulators] {
            if let Some(command) = of.missing(&dir)? {
                return Ok(Some(Fault {
                    what: format!("the bundle of {host} has no licence texts"),
                    hint: format!(
                        "run `cargo xtask {command} --host {host}` on Debian or Ubuntu, whose packages have them"
                    ),
                }));
            }
        }
    }
    Ok(None)
}

/// A checkout by whose commit the content could not be found.
fn unclean(checkout: &Checkout) -> Option<Fault> {
    let what = match checkout.commit {
        None => "git knows no commit of this directory",
        Some(_) if checkout.changed => "there are changes that are not committed",
        Some(_) => return None,
    };
    Some(Fault { what: what.to_owned(), hint: "use a clean checkout".to_owned() })
}

fn guests(bundle: &Bundle) -> Vec<&'static Arch> {
    bundle.emulators.iter().map(|emulator| emulator.target).collect()
}

/// The command that adds emulators to the bundle of a recipe, or builds it with another profile.
pub(crate) fn build_command(recipe: &Recipe, guests: &[&'static Arch], profile: Profile) -> String {
    let (host, qemu) = (recipe.host, &recipe.qemu);
    let guests = if guests.len() == host.guests().count() {
        "--all".to_owned()
    } else {
        guests.iter().map(|arch| arch.name).collect::<Vec<_>>().join(" ")
    };
    let profile = manifest::profile_option(profile);
    format!("cargo xtask build-qemu {guests} --host {host} --qemu {qemu}{profile}")
}
