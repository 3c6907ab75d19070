//! What is not pushed by mistake: emulators of the dev profile to the tags of a release, and hosts that have other guests
//! than the hosts with which they share indexes.

use std::collections::BTreeSet;

use anyhow::Result;
use qus_core::arch::{ARCHES, Arch, HOSTS, Host};
use qus_core::hint::hinted;

use crate::base::context::Context;
use crate::base::git::Checkout;
use crate::base::parallel;
use crate::base::progress::say;
use crate::ship::images::args::Args;
use crate::ship::images::plan::{GUESTS, ImageKind};
use crate::ship::images::registry::Registry;
use crate::ship::images::stage::Staged;
use crate::ship::releasable::{self, Fault, build_command};

/// The guests of a host.
pub(super) struct HostGuests {
    host: &'static Host,
    guests: Vec<&'static Arch>,
}

/// The bundles of a run, and what its arguments permit.
pub(super) struct Policy<'a> {
    pub(super) args: &'a Args,
    pub(super) staged: &'a [Staged],
}

impl Policy<'_> {
    /// Refuses to push what is no release to fixed and moving tags. For other tags, it is only noted.
    pub(super) fn check_releasable(&self, cx: &Context, checkout: &Checkout) -> Result<()> {
        let bundles: Vec<_> = self.staged.iter().map(|staged| &staged.bundle).collect();
        for Fault { what, hint } in releasable::faults(cx, &bundles, checkout)? {
            if !self.args.push || self.args.tag.is_some() || self.args.allow_dev {
                say(format_args!("note: {what}; for a release, {hint}"));
                continue;
            }
            return Err(hinted(
                format!("this is no release: {what}"),
                format!(
                    "{hint}; or push for a test to a tag of your own with --tag, or to these tags with --allow-dev"
                ),
            ));
        }
        Ok(())
    }

    /// Refuses to push hosts with different guests to common indexes. `others` are hosts that the repository has.
    pub(super) fn check_guests(&self, others: &[HostGuests]) -> Result<()> {
        let own = self.staged.iter().map(|it| HostGuests { host: it.host, guests: it.guests().collect() });
        let own: Vec<_> = own.collect();
        let all: Vec<&HostGuests> = own.iter().chain(others).collect();
        let missing: Vec<_> = missing_guests(&all);
        if missing.is_empty() {
            return Ok(());
        }
        let lines = missing.iter().map(|(host, guests)| format!("\n  {host} lacks {}", names(guests, ", ")));
        let what = format!("some hosts lack guests that others have:{}", lines.collect::<String>());
        if self.args.allow_partial {
            say(format_args!("warning: {what}"));
            return Ok(());
        }
        let built = |(host, _): &&(&Host, Vec<&'static Arch>)| self.staged.iter().any(|it| it.host == *host);
        let hint = match missing.iter().find(built) {
            Some((host, guests)) => {
                let staged = self.staged.iter().find(|staged| staged.host == *host);
                let recipe = staged.map(|staged| &staged.bundle.recipe);
                let command = recipe.map(|recipe| build_command(recipe, guests, recipe.profile));
                format!("run `{}`", command.unwrap_or_default())
            }
            None => format!("build them for {0}, and push {0} again with --force", missing[0].0),
        };
        Err(hinted(
            format!("{what}\nimages and indexes of these guests would not be for all hosts"),
            format!("{hint}; or add --allow-partial"),
        ))
    }
}

/// The guests that each host lacks, although another one has them and QEMU emulates them there. A host need not have an
/// emulator of its own architecture.
fn missing_guests(hosts: &[&HostGuests]) -> Vec<(&'static Host, Vec<&'static Arch>)> {
    let wanted: BTreeSet<_> = hosts.iter().flat_map(|of| &of.guests).map(|arch| arch.name).collect();
    let missing = |of: &&HostGuests| {
        let is_missing = |arch: &&Arch| {
            let needed = wanted.contains(arch.name) && of.host.can_emulate(arch) && **arch != *of.host.arch;
            needed && !of.guests.contains(arch)
        };
        (of.host, ARCHES.iter().filter(is_missing).collect::<Vec<_>>())
    };
    hosts.iter().map(missing).filter(|(_, guests)| !guests.is_empty()).collect()
}

fn names(guests: &[&'static Arch], separator: &str) -> String {
    guests.iter().map(|arch| arch.name).collect::<Vec<_>>().join(separator)
}

/// The guests of the hosts of a version that the repository has, except for the hosts of this run.
pub(super) fn find_other_hosts(
    registry: &Registry<'_>,
    own: &[Staged],
    version: &str,
) -> Result<Vec<HostGuests>> {
    let absent: Vec<&'static Host> =
        HOSTS.iter().filter(|host| !own.iter().any(|staged| staged.host == *host)).collect();
    let found = parallel::map(&absent, |host| {
        let full = registry.find(&ImageKind::Full.host_tag(host, version))?;
        let guests = full
            .as_ref()
            .and_then(|full| full.label(GUESTS))
            .map(|label| label.split(' ').filter_map(|name| name.parse().ok()).collect());
        Ok(guests.map(|guests| HostGuests { host, guests }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hosts that lack guests, and these, in one line each.
    fn missing(hosts: &[(&str, &str)]) -> Vec<String> {
        let parse = |(host, guests): &(&str, &str)| HostGuests {
            host: host.parse().unwrap(),
            guests: guests.split(' ').map(|name| name.parse().unwrap()).collect(),
        };
        let hosts: Vec<_> = hosts.iter().map(parse).collect();
        let missing = missing_guests(&hosts.iter().collect::<Vec<_>>());
        missing.iter().map(|(host, guests)| format!("{host}: {}", names(guests, " "))).collect()
    }

    #[test]
    fn hosts_must_have_the_same_guests() {
        assert_eq!(missing(&[("amd64", "arm s390x")]), [""; 0]);
        assert_eq!(missing(&[("amd64", "arm s390x"), ("ppc64le", "arm s390x")]), [""; 0]);
        assert_eq!(missing(&[("amd64", "arm s390x sh4"), ("ppc64le", "arm")]), ["ppc64le: s390x sh4"]);
        assert_eq!(missing(&[("amd64", "arm"), ("ppc64le", "sh4")]), ["amd64: sh4", "ppc64le: arm"]);
    }

    #[test]
    fn what_a_host_cannot_or_need_not_emulate_is_not_missing() {
        // The sets that build-qemu builds by default.
        let set = |name: &str| {
            let host: &Host = name.parse().unwrap();
            host.container_set().map(|arch| arch.name).collect::<Vec<_>>().join(" ")
        };
        let sets: Vec<_> = HOSTS.iter().map(|host| (host.name, set(host.name))).collect();
        assert_eq!(missing(&sets.iter().map(|(host, set)| (*host, &**set)).collect::<Vec<_>>()), [""; 0]);
        assert_eq!(missing(&[("amd64", "aarch64 arm i386"), ("arm32v7", "i386")]), [""; 0]);
        assert_eq!(
            missing(&[("amd64", "aarch64 arm i386"), ("arm32v7", "sh4")]),
            ["amd64: sh4", "arm32v7: i386"]
        );
    }
}
