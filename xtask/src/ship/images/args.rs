//! The arguments of `cargo xtask images`.

use std::path::PathBuf;

use crate::base::output::OutputArgs;
use crate::bundle::hosts::HostArgs;

/// BuildKit's default scanner.
const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// Build container images, push them and merge them into indexes
///
/// Builds from the bundles in target/qus/bundle. Each host gets an image with the emulators (-pkg), one with the
/// program (-register), one with both, and a small one for each guest. One index for each of these covers all hosts,
/// including those that other machines have pushed. Pushed images are verified and run. Tags of a release, such as
/// 10.2.2-1, are never moved: one with the same content is unchanged, and one with other content requires --force. Others,
/// such as 10.2 and latest, move to newer releases. Uses Docker with buildx if it
/// is running, otherwise a throwaway engine (see `engine`).
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["push", "load", "dry_run"]))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) hosts: HostArgs,
    /// Repository, such as ghcr.io/example/qus
    #[arg(long, default_value = "qus")]
    pub(super) repo: String,
    /// Channel or version of QEMU of the release; 32-bit hosts may have an older version [default: the newest]
    #[arg(long, value_name = "CHANNEL|VERSION", conflicts_with = "tag")]
    pub(super) qemu: Option<String>,
    /// Push to this tag instead of those of a release; moving tags such as latest are not changed
    #[arg(long)]
    pub(super) tag: Option<String>,
    /// Push to the repository
    #[arg(long, requires = "repo")]
    pub(super) push: bool,
    /// Load this machine's images into the engine, under the tags of the indexes
    #[arg(long, conflicts_with = "push")]
    pub(super) load: bool,
    /// Builder of buildx [default: the selected one]
    #[arg(long)]
    pub(super) builder: Option<String>,
    /// Image that generates the SBOM; `none` for no SBOM
    #[arg(long, value_name = "IMAGE", default_value = SCANNER)]
    pub(super) sbom: String,
    /// Compress layers with gzip, for Docker before version 23; several times larger
    #[arg(long, requires = "tag")]
    pub(super) gzip: bool,
    /// Sign the images with this key of cosign, whose passphrase is asked for on a terminal (repeatable)
    #[arg(long, value_name = "FILE", requires = "push")]
    pub(super) sign: Vec<PathBuf>,
    /// Record the sizes, which `codegen` writes to the README
    #[arg(long, requires = "push", conflicts_with = "tag")]
    pub(super) record: bool,
    /// Push to the tags of a release what is none: emulators of the dev profile, uncommitted changes
    #[arg(long, requires = "push")]
    pub(super) allow_dev: bool,
    /// Push although other hosts have other guests, so that an index lacks some hosts
    #[arg(long, requires = "push")]
    pub(super) allow_partial: bool,
    /// Move tags that exist with other content, and moving tags that are at a newer release
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
