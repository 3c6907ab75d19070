//! The arguments of `cargo xtask build-qemu`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use qus_core::arch::Arch;
use qus_core::bundle::Profile;

use crate::base::output::OutputArgs;
use crate::bundle::hosts::HostArgs;

/// Build static emulators from QEMU's source
///
/// The default targets are the architectures of Docker's official images except the host's own. Targets can be given by
/// the names that QEMU, Docker, Debian, GNU or uname use. The emulators, bundle.json and SHA256SUMS are written to
/// target/qus/bundle/HOST, and a table of the emulators to stdout. Nothing is installed, and root is not required. An
/// interrupted build resumes when the command is run again; emulators that are up to date are not rebuilt. With --json,
/// prints one object for each host.
#[derive(clap::Args)]
#[command(after_help = "Environment:
  QUS_SOURCE      archive of QEMU's source, or directory of archives, tried first
  CC              C compiler for this machine [default: cc]
  QUS_COMPILER_CACHE
                  compiler cache (ccache or sccache); configured with its own variables
  QUS_BUILDX_OPTIONS
                  additional options of `docker buildx build` for --builder, such as `--build-arg BASE=IMAGE`
  XDG_CACHE_HOME  directory that contains the cache qus/ [default: ~/.cache]")]
pub(crate) struct Args {
    /// Architectures to emulate
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    pub(crate) targets: Vec<&'static Arch>,
    /// Build all linux-user targets that the host can emulate
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) hosts: HostArgs,
    /// Channel (default, lts, edge) or version of QEMU [default: default, for 32-bit hosts lts]
    #[arg(long, value_name = "CHANNEL|VERSION")]
    pub(crate) qemu: Option<String>,
    /// Archive of QEMU's source, or directory of archives
    #[arg(long, value_name = "PATH")]
    pub(crate) source: Option<PathBuf>,
    /// Build profile: dev builds quickly, release uses profile-guided optimisation
    #[arg(long, value_parser = profile(), default_value = "dev")]
    pub(crate) profile: Profile,
    /// With --profile release: use the profile data in training.tar.zst of another bundle, to reproduce its emulators
    #[arg(long, value_name = "FILE", conflicts_with = "builder")]
    pub(crate) training: Option<PathBuf>,
    /// Use the packages in sysroot.tar.zst of another bundle, to reproduce its emulators; for its host
    #[arg(long, value_name = "FILE", conflicts_with = "builder")]
    pub(crate) sysroot: Option<PathBuf>,
    /// Omit a patch, or all patches of a purpose (repeatable)
    #[arg(long, value_name = "PATCH", conflicts_with = "builder")]
    pub(crate) without: Vec<String>,
    /// Accept only the pinned archive, not a newer patch level (implied by --profile release)
    #[arg(long)]
    pub(crate) locked: bool,
    /// Write the emulators to this directory instead of target/qus/bundle/HOST; for a single host
    #[arg(long, value_name = "DIR", conflicts_with = "builder")]
    pub(crate) into: Option<PathBuf>,
    /// Builder of buildx; its native nodes build their hosts, this machine builds all others
    #[arg(long, value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// Number of parallel compiler processes [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

fn profile() -> impl TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(["dev", "release"]).map(|name| match &*name {
        "release" => Profile::Release,
        _ => Profile::Dev,
    })
}
