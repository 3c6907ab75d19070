//! Hosts built by the nodes of a builder, each by a machine of its kind: `images/build.Dockerfile` runs this very
//! program there. What comes back is looked at as if it had been built here.

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{Arch, Host};
use qus_core::bundle::Bundle;

use crate::base::context::Context;
use crate::base::progress::say;
use crate::base::{exec, files, parallel};
use crate::bundle::artefact;
use crate::bundle::manifest;
use crate::engine::client::Client;
use crate::engine::find::Engine;
use crate::qemu::archive::Source;
use crate::qemu::args::Args;
use crate::qemu::build::{self, Session};
use crate::qemu::request::Request;

/// A builder, and the platforms of its nodes.
struct Nodes<'a> {
    name: &'a str,
    client: Client,
    platforms: Vec<String>,
}

/// `cargo xtask build-qemu`: nodes of a builder, if one is named, build the hosts that they are; all others are built
/// here.
pub(crate) fn build_qemu(cx: &Context, args: &Args) -> Result<()> {
    match &args.builder {
        Some(builder) if !args.dry_run => on_nodes(cx, args, builder),
        _ => build::run(cx, args),
    }
}

fn on_nodes(cx: &Context, args: &Args, builder: &str) -> Result<()> {
    let requests = Request::all(cx, args)?;
    let session = Session::start(cx, args)?;
    let nodes = Nodes::of(cx, builder)?;
    let (native, here): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| nodes.have(request.host));
    let sourced: Vec<_> =
        native.iter().map(|request| Ok((session.source(request)?, request))).collect::<Result<_>>()?;
    let bundles = parallel::each(&sourced, |(source, request)| nodes.build(cx, source, request))?;
    for (request, bundle) in native.iter().zip(bundles) {
        session.print_built_elsewhere(request, bundle)?;
    }
    session.build(&here)
}

impl<'a> Nodes<'a> {
    fn of(cx: &Context, name: &'a str) -> Result<Self> {
        let client = Engine::find(cx, Some(name))?.client;
        let told = exec::read(client.cmd(&["buildx", "inspect", "--bootstrap", name]))?;
        Ok(Self { name, client, platforms: platforms(&told) })
    }

    /// Whether a node is a machine of this kind.
    fn have(&self, host: &Host) -> bool {
        let platform = format!("linux/{}", host.platform);
        let short = platform.trim_end_matches("/v8");
        // An Arm of 32 bits takes itself for the usual one.
        Host::of(host.arch) == Some(host)
            && self.platforms.iter().any(|other| *other == platform || other == short)
    }

    /// Has a node make the bundle of a host, which replaces the one that is here.
    fn build(&self, cx: &Context, source: &Source, request: &Request<'_>) -> Result<Bundle> {
        let host = request.host;
        let archive = source.archive.parent().context("the archive lies in a folder")?;
        let made = cx.paths.sent_by_node(host);
        files::remove(&made)?;
        let arguments = arguments(request).join(" ");
        let [platform, file, root] = [
            format!("linux/{}", host.platform),
            cx.paths.images().join("build.Dockerfile").display().to_string(),
            cx.paths.root().display().to_string(),
        ];
        let [host_arg, arguments, archive, output] = [
            format!("HOST={host}"),
            format!("ARGUMENTS={arguments}"),
            format!("source={}", archive.display()),
            format!("type=local,dest={}", made.display()),
        ];
        let mut args =
            vec!["buildx", "build", "--builder", self.name, "--progress", "plain", "--platform", &platform];
        args.extend(["--file", &file, "--build-arg", &host_arg, "--build-arg", &arguments]);
        args.extend(["--build-context", &archive, "--output", &output, "--provenance", "false"]);
        args.extend(cx.settings.buildx_options.iter().map(String::as_str));
        args.push(&root);
        say(format_args!("building for {host} on a node of {} …", self.name));
        let log = cx.start_log(&format!("node-{host}"))?;
        exec::run(self.client.cmd(&args), &log, |_| {})?;

        let bundle = manifest::read(&made)?.context("the node has sent no bundle")?;
        let recipe = &bundle.recipe;
        ensure!(
            recipe.host == host && recipe.qemu == source.version && recipe.source_sha256 == source.sha256,
            "the node has built QEMU {} for {}",
            recipe.qemu,
            recipe.host
        );
        for emulator in &bundle.emulators {
            let file = made.join(&emulator.file);
            artefact::verify(&file, host, &[cx.paths.root()])?;
            ensure!(files::sha256(&file)? == emulator.sha256, "{} is not what was built", file.display());
        }
        let has = |target: &Arch| bundle.emulators.iter().any(|emulator| emulator.target == target);
        let lost = request.targets.iter().filter(|target| !has(target));
        let lost: Vec<_> = lost.map(|target| target.name).collect();
        ensure!(lost.is_empty(), "the node has not sent {}", lost.join(", "));
        let dir = cx.paths.bundle(host);
        files::remove(&dir)?;
        fs::create_dir_all(dir.parent().context("a bundle lies in a folder")?)?;
        fs::rename(&made, &dir)?;
        Ok(bundle)
    }
}

/// What a node is asked to build. The version is the one of `sources.toml` also where the source is a newer patch level:
/// that comes with its description, and a node knows no other versions.
fn arguments(request: &Request<'_>) -> Vec<String> {
    let jobs = request.jobs.map(|jobs| ["--jobs".to_owned(), jobs.to_string()]);
    let what = ["--qemu", &request.release.version.to_string(), "--profile", &request.profile.to_string()];
    let targets = request.targets.iter().map(|arch| arch.name);
    jobs.into_iter().flatten().chain(what.into_iter().chain(targets).map(str::to_owned)).collect()
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
    use clap::{Args as _, Command, FromArgMatches};

    #[test]
    fn a_node_takes_its_arguments() {
        let cx = &Context::new().unwrap();
        let parse = |args: Vec<String>| {
            let command = Args::augment_args(Command::new("build-qemu").no_binary_name(true));
            Args::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
        };
        let given = ["--jobs", "3", "--qemu", "lts", "arm", "s390x"].map(str::to_owned);
        let asked = Request::all(cx, &parse(given.into())).unwrap().remove(0);
        let there = Request::all(cx, &parse(arguments(&asked))).unwrap().remove(0);
        assert_eq!(there.release.version, asked.release.version);
        assert_eq!((there.targets, there.jobs), (asked.targets, Some(3)));
    }

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
