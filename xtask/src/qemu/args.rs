//! The arguments of `cargo xtask build-qemu`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use qus_core::arch::Arch;
use qus_core::bundle::Profile;

use crate::bundle::hosts::HostArgs;

/// Build static emulators from QEMU's source
///
/// Without targets: those of Docker's official images that the host is not. Targets may be spelt as
/// QEMU, Docker, Debian, GNU or uname spell them. The emulators, bundle.json and SHA256SUMS are left in
/// target/qus/bundle/HOST; a table of them goes to standard output. Nothing is installed and root is not
/// needed. Interrupted, the same command continues; repeated, it builds nothing.
#[derive(clap::Args)]
#[command(after_help = "Environment:
  QUS_SOURCE      an archive of QEMU or a folder of archives, tried first
  CC              C compiler instead of cc, for this machine
  QUS_COMPILER_CACHE
                  ccache or sccache, called before the compiler; their own variables name what machines share
  QUS_BUILDX_OPTIONS
                  further options of `docker buildx build` for --builder, as `--build-arg BASE=IMAGE`
  XDG_CACHE_HOME  where the cache qus/ lies, instead of ~/.cache")]
pub(crate) struct Args {
    /// Architectures to emulate
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    pub(crate) targets: Vec<&'static Arch>,
    /// All 33 linux-user targets
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) hosts: HostArgs,
    /// Channel (default, lts, edge) or version of QEMU [default: default, for 32-bit hosts lts]
    #[arg(long, value_name = "CHANNEL|VERSION")]
    pub(crate) qemu: Option<String>,
    /// An archive of QEMU's source or a folder of archives
    #[arg(long, value_name = "PATH")]
    pub(crate) source: Option<PathBuf>,
    /// dev is quick to build; release is for shipping: optimised by what training runs use
    #[arg(long, value_parser = profile(), default_value = "dev")]
    pub(crate) profile: Profile,
    /// Take the training.tar.zst of another release bundle instead of training, and make the same emulators
    #[arg(long, value_name = "FILE", conflicts_with = "builder")]
    pub(crate) training: Option<PathBuf>,
    /// Leave a patch out, to see what it is good for (repeatable)
    #[arg(long, value_name = "PATCH", conflicts_with = "builder")]
    pub(crate) without: Vec<String>,
    /// Accept the pinned archive only, not a newer patch level (implied by --profile release)
    #[arg(long)]
    pub(crate) locked: bool,
    /// Leave the emulators of the only host in this folder instead of target/qus/bundle/HOST
    #[arg(long, value_name = "DIR", conflicts_with = "builder")]
    pub(crate) into: Option<PathBuf>,
    /// Builder of buildx whose nodes build the hosts that they are; all others are built here
    #[arg(long, value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// How many compilers run at once [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    /// Print what would be done, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON instead of a table, an object for each host
    #[arg(long)]
    pub(crate) json: bool,
}

fn profile() -> impl TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(["dev", "release"]).map(|name| match &*name {
        "release" => Profile::Release,
        _ => Profile::Dev,
    })
}
