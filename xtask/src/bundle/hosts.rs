//! The `--host` option.

use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use qus_core::arch::{HOSTS, Host, UnknownHost};
use qus_core::hint::hinted;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::bundle::manifest;

/// `--host`, in the same form for all commands.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct HostArgs {
    /// Hosts to use, such as amd64,arm64v8, or `all` [default: this machine]
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',')]
    names: Vec<HostName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostName {
    All,
    One(&'static Host),
}

impl FromStr for HostName {
    type Err = UnknownHost;

    fn from_str(name: &str) -> Result<Self, UnknownHost> {
        if name == "all" { Ok(Self::All) } else { name.parse().map(Self::One) }
    }
}

impl HostArgs {
    /// Whether the option is given.
    pub(crate) fn is_given(&self) -> bool {
        !self.names.is_empty()
    }

    /// The named hosts; `all` means all supported ones.
    ///
    /// # Errors
    /// No host is named, and this machine is not a supported host.
    pub(crate) fn supported(&self) -> Result<Vec<&'static Host>> {
        self.resolve(|| Ok(HOSTS.iter().collect()))
    }

    /// The named hosts; `all` means all hosts with a bundle.
    ///
    /// # Errors
    /// As [`Self::supported`], or `all` is named and no host has a bundle.
    pub(crate) fn built(&self, cx: &Context) -> Result<Vec<&'static Host>> {
        self.resolve(|| {
            let hosts: Vec<_> = built(cx).collect();
            if hosts.is_empty() {
                let hint = "to build one, run `cargo xtask build-qemu --all`";
                return Err(hinted("no host has a bundle", hint));
            }
            Ok(hosts)
        })
    }

    /// The named hosts without duplicates, or this machine.
    fn resolve(&self, all: impl FnOnce() -> Result<Vec<&'static Host>>) -> Result<Vec<&'static Host>> {
        let mut hosts = Vec::new();
        for name in &self.names {
            match name {
                HostName::All => return all(),
                HostName::One(host) if !hosts.contains(host) => hosts.push(*host),
                HostName::One(_) => {}
            }
        }
        if hosts.is_empty() {
            hosts.push(own()?);
        }
        Ok(hosts)
    }
}

/// Refuses an option for a single host beside several.
pub(crate) fn check_single(hosts: &[&Host], option: &str, is_given: bool) -> Result<()> {
    ensure!(!is_given || hosts.len() == 1, Usage(format!("{option} takes a single host")));
    Ok(())
}

/// The hosts with a bundle in this workspace.
pub(crate) fn built(cx: &Context) -> impl Iterator<Item = &'static Host> {
    // A damaged bundle is an error where it is used; one of another version of xtask has to be built again.
    HOSTS.iter().filter(|host| !matches!(manifest::read(&cx.paths.bundle(host)), Ok(None)))
}

/// This machine.
pub(crate) fn own() -> Result<&'static Host> {
    Host::current().context("this machine's architecture is not a supported host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved() {
        let named = |names: &[&str]| {
            let names = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
            anyhow::Ok(HostArgs { names }.supported()?)
        };
        assert_eq!(named(&[]).unwrap(), [own().unwrap()]);
        assert_eq!(named(&["armhf", "all"]).unwrap().len(), HOSTS.len());
        let hosts = named(&["arm64", "linux/arm64/v8", "armel"]).unwrap();
        assert_eq!(hosts.iter().map(|host| host.name).collect::<Vec<_>>(), ["arm64v8", "arm32v6"]);
        assert!(named(&["vax"]).is_err());
    }
}
