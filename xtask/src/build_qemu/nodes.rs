//! Hosts built by the nodes of a builder, each by a machine of its kind: `images/build.Dockerfile` runs this very
//! program there. What comes back is looked at as if it had been built here.

use std::env;
use std::fs;

use anyhow::{Context, Result, ensure};
use qus_core::arch::Host;
use xshell::Shell;

use super::wanted::Wanted;
use crate::bundle::Bundle;
use crate::engine::{Client, Engine};
use crate::paths::Paths;
use crate::progress::say;
use crate::source::Source;
use crate::{artefact, cache, exec};

/// A builder, and the platforms of its nodes.
pub(super) struct Nodes<'a> {
    name: &'a str,
    client: Client,
    platforms: Vec<String>,
}

impl<'a> Nodes<'a> {
    pub(super) fn of(sh: &Shell, paths: &Paths, name: &'a str) -> Result<Self> {
        let client = Engine::find(sh, paths, Some(name))?.client;
        let told = exec::read(client.cmd(sh, &["buildx", "inspect", "--bootstrap", name]))?;
        Ok(Self { name, client, platforms: platforms(&told) })
    }

    /// Whether a node is a machine of this kind.
    pub(super) fn have(&self, host: &Host) -> bool {
        let platform = format!("linux/{}", host.platform);
        let short = platform.trim_end_matches("/v8");
        // An Arm of 32 bits takes itself for the usual one.
        Host::of(host.arch()) == Some(host)
            && self.platforms.iter().any(|other| *other == platform || other == short)
    }

    /// Has a node make the bundle of a host, which replaces the one that is here.
    pub(super) fn build(&self, paths: &Paths, source: &Source, wanted: &Wanted<'_>) -> Result<Bundle> {
        let sh = Shell::new()?;
        let host = wanted.host;
        let archive = source.archive.parent().context("the archive lies in a folder")?;
        let made = paths.sent_by_node(host.name);
        cache::remove(&made)?;
        let targets: Vec<_> = wanted.targets.iter().map(|arch| arch.name).collect();
        let jobs = wanted.jobs.map(|jobs| format!("--jobs {jobs} ")).unwrap_or_default();
        let arguments =
            format!("{jobs}--qemu {} --profile {} {}", source.version, wanted.profile, targets.join(" "));
        let [platform, file, root] = [
            format!("linux/{}", host.platform),
            paths.images().join("build.Dockerfile").display().to_string(),
            paths.root().display().to_string(),
        ];
        let [host_arg, arguments, archive, output] = [
            format!("HOST={host}"),
            format!("ARGUMENTS={arguments}"),
            format!("source={}", archive.display()),
            format!("type=local,dest={}", made.display()),
        ];
        let options = env::var("QUS_BUILDX_OPTIONS").unwrap_or_default();
        let mut args =
            vec!["buildx", "build", "--builder", self.name, "--progress", "plain", "--platform", &platform];
        args.extend(["--file", &file, "--build-arg", &host_arg, "--build-arg", &arguments]);
        args.extend(["--build-context", &archive, "--output", &output, "--provenance", "false"]);
        args.extend(options.split_whitespace());
        args.push(&root);
        say(format_args!("building for {host} on a node of {} …", self.name));
        let log = paths.log(&format!("node-{host}"));
        exec::start_log(&log)?;
        exec::run(self.client.cmd(&sh, &args), &log, |_| {})?;

        let bundle = Bundle::read(&made)?.context("the node has sent no bundle")?;
        let recipe = &bundle.recipe;
        ensure!(
            recipe.host == host.name
                && recipe.qemu == source.version
                && recipe.source_sha256 == source.sha256,
            "the node has built QEMU {} for {}",
            recipe.qemu,
            recipe.host
        );
        for emulator in &bundle.emulators {
            let file = made.join(&emulator.file);
            artefact::verify(&file, host, &[paths.root()])?;
            ensure!(
                cache::sha256_file(&file)? == emulator.sha256,
                "{} is not what was built",
                file.display()
            );
        }
        let has = |name: &str| bundle.emulators.iter().any(|emulator| emulator.target == name);
        let lost: Vec<_> = targets.into_iter().filter(|target| !has(target)).collect();
        ensure!(lost.is_empty(), "the node has not sent {}", lost.join(", "));
        let dir = paths.bundle(host.name);
        cache::remove(&dir)?;
        fs::create_dir_all(dir.parent().context("a bundle lies in a folder")?)?;
        fs::rename(&made, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(bundle)
    }
}

/// The platforms that `docker buildx inspect` tells of all nodes; a star marks those that were given by hand.
fn platforms(told: &str) -> Vec<String> {
    let of_node = |line: &str| line.trim().strip_prefix("Platforms:").map(str::to_owned);
    let split =
        |list: String| list.split(',').map(|name| name.trim().trim_end_matches('*').to_owned()).collect();
    told.lines().filter_map(of_node).flat_map::<Vec<String>, _>(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_all_nodes() {
        let told = "Name:   farm\nDriver: remote\n\nNodes:\nName:      one\nPlatforms: linux/amd64*, linux/386\n\
            Name:      two\nPlatforms: linux/arm64*\n";
        assert_eq!(platforms(told), ["linux/amd64", "linux/386", "linux/arm64"]);
        let nodes = Nodes { name: "farm", client: Client::installed(), platforms: platforms(told) };
        let have: Vec<_> =
            qus_core::arch::HOSTS.iter().filter(|host| nodes.have(host)).map(|host| host.name).collect();
        assert_eq!(have, ["amd64", "arm64v8", "i386"]);
    }
}
