//! `cargo xtask images`: builds container images from bundles, pushes them, merges them into indexes, and verifies
//! them.
//!
//! Each image has a label with the hash of its inputs. A fixed tag whose content has the same inputs is not pushed again,
//! so that a second run changes nothing and an interrupted run resumes. A fixed tag with other content is not moved
//! without --force; moving tags never go back to an older release. `docker buildx bake` builds and pushes; `docker buildx imagetools` creates indexes.

pub(crate) mod args;
mod builder;
mod check;
pub(crate) mod compare;
mod fault;
mod index;
mod outcome;
pub(crate) mod plan;
mod policy;
mod push;
pub(crate) mod registry;
mod release;
pub(crate) mod sizes;
mod stage;
mod work;

use anyhow::{Result, ensure};

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::lock;
use crate::base::output::{out, out_json};
use crate::engine::find::Engine;
use crate::ship::images::args::Args;
use crate::ship::images::builder::{Builder, Destination};
use crate::ship::images::plan::{Image, ImageKind};
use crate::ship::images::policy::Policy;
use crate::ship::images::release::Release;
use crate::ship::images::stage::Staged;
use crate::ship::images::work::ImageRun;
use crate::ship::sign::Signer;

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    plan::check_repo(&args.repo)?;
    args.tag.as_deref().map_or(Ok(()), plan::check_tag)?;
    ensure!(
        !args.push || args.repo.contains('/'),
        Usage(format!(
            "`{}` has no registry: --push requires --repo, such as ghcr.io/example/qus",
            args.repo
        ))
    );
    let signers = args.sign.iter().map(|key| Signer::for_images(key)).collect::<Result<Vec<_>>>()?;
    let hosts = args.hosts.built(cx)?;
    let mut staged = hosts.iter().map(|&host| Staged::inspect(cx, host)).collect::<Result<Vec<_>>>()?;
    let release = Release::new(cx, &mut staged, args.qemu.as_deref(), args.tag.as_deref())?;
    let policy = Policy { args, staged: &staged };
    policy.check_releasable(cx, &release.checkout)?;
    if args.push {
        policy.check_guests(&[])?;
    }
    let images = release.images(cx, &hosts, &staged)?;
    let kinds: Vec<ImageKind> = plan::kinds(&images);
    if args.output.dry_run {
        return print_plan(&release, &images, &kinds, args);
    }
    let _lock = lock::lock(cx.paths.out())?;
    staged.iter().try_for_each(|staged| staged.copy_files(cx, release.epoch))?;
    let engine = Engine::find(cx, args.builder.as_deref())?;
    let client = engine.client.clone().env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    let builder = Builder::inspect(&client, args.builder.as_deref())?;
    let work = ImageRun { cx, args, release: &release, policy: &policy, client: &client, builder: &builder };
    let outcomes = if args.push { work.push(&images, &kinds)? } else { work.load(&images)? };
    let references = outcome::references(&args.repo, &outcomes);
    signers.iter().try_for_each(|signer| signer.sign_images(&client, &references))?;
    if args.record {
        sizes::record(cx, &release.qemu, &outcomes)?;
    }
    outcome::print(&args.repo, &outcomes, args.output.json)
}

/// Prints the images that are built. With --load, these are only this machine's.
fn print_plan(release: &Release, images: &[Image], kinds: &[ImageKind], args: &Args) -> Result<()> {
    let repo = &args.repo;
    let (images, destination) = match args.load {
        true => (push::loadable(images)?, Destination::Engine),
        false => (images.iter().collect(), Destination::Registry),
    };
    let tags = |image: &Image| match destination {
        Destination::Engine => push::loaded_tags(repo, release, image),
        Destination::Registry => vec![format!("{repo}:{}", image.tag)],
    };
    if args.output.json {
        return out_json(&plan::bake(&images, tags, &destination.output(false, args.gzip), &[], true));
    }
    let mut text = format!("images of QEMU {} for {repo}\n", release.qemu);
    if destination == Destination::Engine {
        for image in images {
            text += &format!("load   {}  linux/{}\n", tags(image).join("  "), image.host.platform);
        }
        return out(&text);
    }
    for image in images {
        text += &format!("image  {}  linux/{}\n", image.tag, image.host.platform);
    }
    for &kind in kinds {
        let tags = [vec![kind.tag(&release.version)], release.moving_tags(kind)].concat();
        text += &format!("index  {}\n", tags.join("  "));
    }
    out(&text)
}
