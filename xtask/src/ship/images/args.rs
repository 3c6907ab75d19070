//! The arguments of `cargo xtask images`.

use crate::bundle::hosts::HostArgs;

/// What BuildKit itself takes.
const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// Build container images, push them and merge them into indexes
///
/// From the bundles in target/qus/bundle. For each host: emulators (-pkg), the program (-register), both, and
/// one small image for each guest; over all hosts one index for each of these, also over those that were pushed
/// before, by other machines. What was pushed is asked for again and run. Tags that name a version are never moved:
/// one that has the same content stays, for another --force is needed. Docker with buildx is used if it answers, else a
/// throwaway engine (see `engine`).
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["push", "load", "dry_run"]))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) hosts: HostArgs,
    /// Repository, as in ghcr.io/somebody/qus
    #[arg(long, default_value = "qus")]
    pub(super) repo: String,
    /// Channel or version of QEMU that tags name, where 32-bit hosts have an older one [default: the newest]
    #[arg(long, value_name = "CHANNEL|VERSION", conflicts_with = "tag")]
    pub(super) qemu: Option<String>,
    /// Used in tags instead of QEMU's version; latest and the like are left alone then
    #[arg(long)]
    pub(super) tag: Option<String>,
    /// Push to the repository
    #[arg(long, requires = "repo")]
    pub(super) push: bool,
    /// Load this machine's images into the engine, under the tags of the indexes
    #[arg(long, conflicts_with = "push")]
    pub(super) load: bool,
    /// Builder of buildx [default: the current one]
    #[arg(long)]
    pub(super) builder: Option<String>,
    /// Image that writes the SBOM; `none` for no SBOM
    #[arg(long, value_name = "IMAGE", default_value = SCANNER)]
    pub(super) sbom: String,
    /// Layers as gzip, for Docker before 23: several times the size, and only under a tag of its own
    #[arg(long, requires = "tag")]
    pub(super) gzip: bool,
    /// Keep the sizes for the README, which `codegen` writes them to
    #[arg(long, requires = "push")]
    pub(super) record: bool,
    /// Move tags that exist with another content
    #[arg(long)]
    pub(super) force: bool,
    /// Print what would be done, change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}
