//! Builds the images of a release again, and compares them with those of a repository.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use xshell::cmd;

use crate::base::exec::sh;
use crate::engine::client::Client;
use crate::engine::throwaway::{Options, Throwaway};
use crate::ship::images::compare;
use crate::ship::verify::comparison::Comparison;
use crate::ship::verify::rebuild::Rebuild;
use crate::ship::verify::released::bundle_of;

/// The images of a release in a repository, and an engine with a registry for those that are built again.
pub(super) struct ReleasedImages<'a> {
    repo: &'a str,
    engine: Throwaway,
    client: Client,
    tags: BTreeMap<String, Vec<String>>,
}

impl<'a> ReleasedImages<'a> {
    /// # Errors
    /// An image is missing, or no engine can be started.
    pub(super) fn find(rebuild: &Rebuild<'_>, dir: &Path, repo: &'a str) -> Result<Self> {
        let release = &rebuild.origin.release;
        let hosts = rebuild.origin.hosts.iter().map(|host| {
            let bundle = bundle_of(dir, release, host)?;
            Ok((host.parse()?, bundle.emulators.iter().map(|emulator| emulator.target).collect()))
        });
        let hosts = hosts.collect::<Result<Vec<_>>>()?;
        let engine = Throwaway::start(rebuild.cx, &rebuild.work.join("engine/run"), &Options::default())?;
        let client = engine.client();
        let tags = compare::tags_by_commit(&client, repo, &release.to_string(), &hosts)?;
        Ok(Self { repo, engine, client, tags })
    }

    /// Builds the images from the bundles that were built again.
    pub(super) fn compare(&self, rebuild: &Rebuild<'_>, compared: &mut Comparison) -> Result<()> {
        let (hosts, qemu) = (rebuild.origin.hosts.join(","), rebuild.origin.release.qemu.to_string());
        for (commit, tags) in &self.tags {
            rebuild.checkout(commit)?;
            let repo = format!("{}/{commit}", self.engine.registry());
            let push = cmd!(
                sh(),
                "cargo xtask images --host {hosts} --qemu {qemu} --push --allow-dev --sbom none --repo {repo}"
            );
            let variables = self.client.variables(&rebuild.cx.settings)?;
            rebuild.xtask("building the images again", push, variables)?;
            for tag in tags {
                match compare::first_difference(&self.client, [self.repo, &repo], tag)? {
                    None => compared.images += 1,
                    Some(difference) => compared.different.push((format!("{}:{tag}", self.repo), difference)),
                }
            }
        }
        Ok(())
    }
}
