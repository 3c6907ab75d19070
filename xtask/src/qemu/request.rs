//! What was asked for, with all names resolved.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use qemu_src::{Patch, QemuSrc, Release};
use qus_core::arch::{Arch, HOSTS, Host};
use qus_core::bundle::Profile;
use qus_core::hint::WithHint;
use semver::Version;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::bundle::hosts;
use crate::qemu::args::Args;

/// The emulators of a host.
pub(crate) struct Request<'a> {
    data: &'a QemuSrc,
    pub(crate) release: &'a Release,
    pub(crate) host: &'static Host,
    pub(crate) targets: Vec<&'static Arch>,
    pub(crate) profile: Profile,
    pub(crate) exact: bool,
    pub(crate) jobs: Option<u32>,
    pub(crate) training: Option<PathBuf>,
    /// Patches, or their purposes, that are left out.
    without: Vec<String>,
    into: Option<PathBuf>,
}

impl<'a> Request<'a> {
    /// What the arguments mean for each of the hosts they name.
    pub(crate) fn all(cx: &'a Context, args: &Args) -> Result<Vec<Self>> {
        let hosts = args.hosts.resolve(|| Ok(HOSTS.iter().collect()))?;
        ensure!(
            args.into.is_none() || hosts.len() == 1,
            Usage("--into names one folder, and there is more than one host".to_owned())
        );
        let data = &cx.data;
        for name in &args.without {
            let known: Vec<_> = data.patches.iter().map(|patch| &*patch.name).collect();
            ensure!(
                known.iter().any(|patch| is_meant(name, patch)),
                Usage(format!("there is no patch {name}, but {}", known.join(", ")))
            );
        }
        hosts.into_iter().map(|host| Self::of(data, args, host)).collect()
    }

    fn of(data: &'a QemuSrc, args: &Args, host: &'static Host) -> Result<Self> {
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
            without: args.without.clone(),
            into: args.into.clone(),
        })
    }

    /// The patches for a version, in order.
    pub(crate) fn patches(&self, version: &Version) -> Vec<&'a Patch> {
        let is_left_out = |patch: &Patch| self.without.iter().any(|name| is_meant(name, &patch.name));
        self.data
            .patches
            .iter()
            .filter(|patch| patch.versions.matches(version) && !is_left_out(patch))
            .collect()
    }

    /// Where the emulators are left.
    pub(crate) fn dir(&self, cx: &Context) -> PathBuf {
        self.into.clone().unwrap_or_else(|| cx.paths.bundle(self.host))
    }

    /// This machine's emulator of a host, which runs what is built for the host.
    pub(crate) fn to_run(cx: &'a Context, arch: &'static Arch) -> Result<Self> {
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
            without: Vec::new(),
            into: None,
        })
    }
}

/// Whether a name is that of a patch, with or without its ending, or of a purpose.
fn is_meant(name: &str, patch: &str) -> bool {
    let rest = patch.strip_prefix(name.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest == ".patch" || rest.starts_with('/'))
}

/// The release of a channel or version, or the one that is usual for a host.
fn release<'a>(data: &'a QemuSrc, asked: Option<&str>, host: &Host) -> Result<&'a Release> {
    let narrow = &data.sources.narrow_hosts;
    let is_narrow = !host.arch.registers_64_bit;
    let release =
        data.release(asked.unwrap_or(if is_narrow { &narrow.channel } else { "default" })).map_err(Usage)?;
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
    fn a_patch_or_a_purpose_is_meant() {
        let patch = "threads/0001-share.patch";
        for name in ["threads", "threads/", "threads/0001-share", "threads/0001-share.patch"] {
            assert!(is_meant(name, patch), "{name}");
        }
        for name in ["thread", "threads/0001", "0001-share", ""] {
            assert!(!is_meant(name, patch), "{name}");
        }
    }
}
