//! Hosts as they are named on the command line.

use anyhow::{Context as _, Result};
use qus_core::arch::{HOSTS, Host};

use crate::base::context::Context;
use crate::base::error::Usage;

/// The hosts of these names, each once; `all` stands for those that are given, no name for this machine.
pub(crate) fn named(
    names: &[String],
    all: impl FnOnce() -> Result<Vec<&'static Host>>,
) -> Result<Vec<&'static Host>> {
    if names.iter().any(|name| name == "all") {
        return all();
    }
    if names.is_empty() {
        return Ok(vec![own()?]);
    }
    let mut hosts = Vec::new();
    for name in names {
        let host: &'static Host = name.parse().map_err(|unknown| Usage(format!("{unknown}")))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// The hosts that have a bundle.
pub(crate) fn built(cx: &Context) -> impl Iterator<Item = &'static Host> {
    HOSTS.iter().filter(|host| cx.paths.bundle(host).join("bundle.json").exists())
}

/// This machine.
pub(crate) fn own() -> Result<&'static Host> {
    Host::current().context("qus builds nothing for this kind of machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved() {
        let named = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            named(&names, || Ok(HOSTS.iter().collect()))
        };
        assert_eq!(named(&[]).unwrap(), [own().unwrap()]);
        assert_eq!(named(&["armhf", "all"]).unwrap().len(), HOSTS.len());
        let hosts = named(&["arm64", "linux/arm64/v8", "armel"]).unwrap();
        assert_eq!(hosts.iter().map(|host| host.name).collect::<Vec<_>>(), ["arm64v8", "arm32v6"]);
        assert!(named(&["vax"]).unwrap_err().is::<Usage>());
    }
}
