//! The requested emulators, with all names resolved.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use qemu_src::{Patch, QemuSrc, Release};
use qus_core::arch::{Arch, Host};
use qus_core::bundle::Profile;
use qus_core::hint::WithHint;
use semver::Version;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::bundle::hosts;
use crate::qemu::args::Args;

/// The requested emulators of a host.
pub(crate) struct Request<'a> {
    data: &'a QemuSrc,
    pub(crate) release: &'a Release,
    pub(crate) host: &'static Host,
    pub(crate) targets: Vec<&'static Arch>,
    pub(crate) profile: Profile,
    /// Whether only the pinned source and packages with updates are accepted.
    pub(crate) exact: bool,
    pub(crate) jobs: Option<u32>,
    pub(crate) training: Option<PathBuf>,
    pub(crate) sysroot: Option<PathBuf>,
    /// Omitted patches, or purposes of patches.
    without: Vec<String>,
    into: Option<PathBuf>,
}

impl<'a> Request<'a> {
    /// Resolves the arguments for each of their hosts.
    pub(crate) fn resolve_all(cx: &'a Context, args: &Args) -> Result<Vec<Self>> {
        let hosts = args.hosts.supported()?;
        ensure!(
            args.training.is_none() || args.profile == Profile::Release,
            Usage("--training requires --profile release".to_owned())
        );
        hosts::check_single(&hosts, "--into", args.into.is_some())?;
        hosts::check_single(&hosts, "--sysroot", args.sysroot.is_some())?;
        let data = &cx.data;
        for name in &args.without {
            let known: Vec<_> = data.patches.iter().map(|patch| &*patch.name).collect();
            ensure!(
                known.iter().any(|patch| matches_patch(name, patch)),
                Usage(format!("unknown patch {name}; known patches: {}", known.join(", ")))
            );
        }
        hosts.into_iter().map(|host| Self::resolve(data, args, host)).collect()
    }

    fn resolve(data: &'a QemuSrc, args: &Args, host: &'static Host) -> Result<Self> {
        let release = release(data, args.qemu.as_deref(), host)?;
        host.check_emulates(&args.targets).map_err(|error| Usage(error.to_string()))?;
        let mut targets: Vec<_> = match (args.all, &*args.targets) {
            (true, _) => host.guests().collect(),
            (false, []) => host.container_set().collect(),
            (false, some) => some.to_vec(),
        };
        targets.sort_by_key(|arch| arch.name);
        targets.dedup();
        let profile = args.profile;
        Ok(Self {
            data,
            release,
            host,
            targets,
            profile,
            exact: args.locked || profile == Profile::Release,
            jobs: args.jobs,
            training: args.training.clone(),
            sysroot: args.sysroot.clone(),
            without: args.without.clone(),
            into: args.into.clone(),
        })
    }

    /// The patches for a version, in order.
    pub(crate) fn patches(&self, version: &Version) -> Vec<&'a Patch> {
        let is_omitted = |patch: &Patch| self.without.iter().any(|name| matches_patch(name, &patch.name));
        self.data.patches_for(version).filter(|patch| !is_omitted(patch)).collect()
    }

    /// The output directory.
    pub(crate) fn dir(&self, cx: &Context) -> PathBuf {
        self.into.clone().unwrap_or_else(|| cx.paths.bundle(self.host))
    }

    /// A request for this machine's emulator that runs programs of another host.
    pub(crate) fn for_runner(cx: &'a Context, arch: &'static Arch) -> Result<Self> {
        let host = hosts::own()?;
        let data = &cx.data;
        let release = release(data, None, host)?;
        Ok(Self {
            data,
            release,
            host,
            targets: vec![arch],
            profile: Profile::Dev,
            exact: false,
            jobs: None,
            training: None,
            sysroot: None,
            without: Vec::new(),
            into: None,
        })
    }
}

/// Whether a name is that of a patch, with or without its extension, or of its purpose.
fn matches_patch(name: &str, patch: &str) -> bool {
    let rest = patch.strip_prefix(name.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest == ".patch" || rest.starts_with('/'))
}

/// The release of a channel or version, or the default one for a host.
fn release<'a>(data: &'a QemuSrc, requested: Option<&str>, host: &Host) -> Result<&'a Release> {
    let narrow = &data.sources.narrow_hosts;
    let is_narrow = !host.arch.registers_64_bit;
    let release = data
        .release(requested.unwrap_or(if is_narrow { &narrow.channel } else { "default" }))
        .map_err(Usage)?;
    let version = &release.version;
    match is_narrow && !narrow.versions.matches(version) {
        true => Err(Usage(format!("QEMU {version} no longer supports 32-bit hosts such as {host}")))
            .hint(format!("use --qemu {}", narrow.channel)),
        false => Ok(release),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_matched_by_name_and_purpose() {
        let patch = "threads/0001-share.patch";
        for name in ["threads", "threads/", "threads/0001-share", "threads/0001-share.patch"] {
            assert!(matches_patch(name, patch), "{name}");
        }
        for name in ["thread", "threads/0001", "0001-share", ""] {
            assert!(!matches_patch(name, patch), "{name}");
        }
    }
}
