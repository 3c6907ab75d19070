//! Builds hosts on the native nodes of a buildx builder.
//!
//! `images/build.Dockerfile` runs xtask on the node. Received bundles are verified like local ones.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::arch::{Arch, Host};
use qus_core::bundle::Bundle;

use crate::base::context::Context;
use crate::base::progress::Bar;
use crate::base::{exec, files, parallel};
use crate::bundle::{artefact, manifest};
use crate::engine::client::Client;
use crate::engine::find::Engine;
use crate::qemu::archive::Source;
use crate::qemu::args::Args;
use crate::qemu::build::{self, Session};
use crate::qemu::request::Request;

/// A builder and the platforms of its nodes.
struct Nodes<'a> {
    name: &'a str,
    client: Client,
    platforms: Vec<String>,
}

/// `cargo xtask build-qemu`: the nodes of a given builder build the hosts of their platforms; this machine builds all
/// others.
pub(crate) fn build_qemu(cx: &Context, args: &Args) -> Result<()> {
    match &args.builder {
        Some(builder) if !args.output.dry_run => build_on_nodes(cx, args, builder),
        _ => build::run(cx, args),
    }
}

fn build_on_nodes(cx: &Context, args: &Args, builder: &str) -> Result<()> {
    let requests = Request::resolve_all(cx, args)?;
    let session = Session::start(cx, args)?;
    let nodes = Nodes::inspect(cx, builder)?;
    let (native, local): (Vec<_>, Vec<_>) =
        requests.into_iter().partition(|request| nodes.support(request.host));
    let sourced: Vec<_> =
        native.iter().map(|request| Ok((session.source(request)?, request))).collect::<Result<_>>()?;
    let bundles = parallel::map(&sourced, |(source, request)| nodes.build(cx, source, request))?;
    for (request, bundle) in native.iter().zip(bundles) {
        session.print_built_on_node(request, bundle)?;
    }
    session.build(&local)
}

impl<'a> Nodes<'a> {
    fn inspect(cx: &Context, name: &'a str) -> Result<Self> {
        let client = Engine::find(cx, Some(name))?.client;
        let output = exec::read(client.cmd(&["buildx", "inspect", "--bootstrap", name]))?;
        Ok(Self { name, client, platforms: parse_platforms(&output) })
    }

    /// Whether a node is native to this host.
    fn support(&self, host: &Host) -> bool {
        let platform = format!("linux/{}", host.platform);
        let short = platform.trim_end_matches("/v8");
        // 32-bit Arm machines report arm32v7.
        Host::of(host.arch) == Some(host)
            && self.platforms.iter().any(|other| *other == platform || other == short)
    }

    /// Builds the bundle of a host on a node; the result replaces the local bundle.
    fn build(&self, cx: &Context, source: &Source, request: &Request<'_>) -> Result<Bundle> {
        let host = request.host;
        let archive = source.archive.parent().context("the archive has no parent directory")?;
        let received = cx.paths.sent_by_node(host);
        files::remove_dir(&received)?;
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
            format!("type=local,dest={}", received.display()),
        ];
        let mut args =
            vec!["buildx", "build", "--builder", self.name, "--progress", "plain", "--platform", &platform];
        args.extend(["--file", &file, "--build-arg", &host_arg, "--build-arg", &arguments]);
        args.extend(["--build-context", &archive, "--output", &output, "--provenance", "false"]);
        args.extend(cx.settings.buildx_options.iter().map(String::as_str));
        args.push(&root);
        let bar = Bar::new(format!("building for {host} on a node of {}", self.name));
        let log = cx.start_log(&format!("node-{host}"))?;
        exec::run(self.client.cmd(&args), &log, |line| bar.detail(line))?;
        drop(bar);
        let bundle = verify_received(cx, &received, source, request)?;
        let dir = cx.paths.bundle(host);
        files::remove_dir(&dir)?;
        fs::create_dir_all(dir.parent().context("the bundle has no parent directory")?)?;
        fs::rename(&received, &dir)?;
        Ok(bundle)
    }
}

/// Reads and verifies the bundle that a node has sent.
fn verify_received(cx: &Context, dir: &Path, source: &Source, request: &Request<'_>) -> Result<Bundle> {
    let bundle = manifest::read(dir)?.context("the node sent no bundle")?;
    let recipe = &bundle.recipe;
    ensure!(
        recipe.host == request.host && recipe.qemu == source.version && recipe.source_sha256 == source.sha256,
        "the node built QEMU {} for {}, which was not requested",
        recipe.qemu,
        recipe.host
    );
    for emulator in &bundle.emulators {
        let file = dir.join(&emulator.file);
        artefact::verify(&file, request.host, &[cx.paths.root()])?;
        ensure!(files::sha256(&file)? == emulator.sha256, "{} does not match bundle.json", file.display());
    }
    let has = |target: &Arch| bundle.emulators.iter().any(|emulator| emulator.target == target);
    let missing = request.targets.iter().filter(|target| !has(target));
    let missing: Vec<_> = missing.map(|target| target.name).collect();
    ensure!(missing.is_empty(), "the node did not send {}", missing.join(", "));
    Ok(bundle)
}

/// The arguments of `build-qemu` on a node. The version is that of `sources.toml` even if the source is a newer patch
/// level: the source directory describes the substitute, and the node accepts only versions of `sources.toml`.
fn arguments(request: &Request<'_>) -> Vec<String> {
    let jobs = request.jobs.map(|jobs| ["--jobs".to_owned(), jobs.to_string()]);
    let what = ["--qemu", &request.release.version.to_string(), "--profile", &request.profile.to_string()];
    let locked = request.exact.then_some("--locked");
    let targets = request.targets.iter().map(|arch| arch.name);
    jobs.into_iter()
        .flatten()
        .chain(what.into_iter().chain(locked).chain(targets).map(str::to_owned))
        .collect()
}

/// Parses the platforms of all nodes from the output of `docker buildx inspect`; an asterisk marks those set manually.
fn parse_platforms(output: &str) -> Vec<String> {
    let of_node = |line: &str| line.trim().strip_prefix("Platforms:").map(str::to_owned);
    let split =
        |list: String| list.split(',').map(|name| name.trim().trim_end_matches('*').to_owned()).collect();
    output.lines().filter_map(of_node).flat_map::<Vec<String>, _>(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches};

    #[test]
    fn build_qemu_accepts_the_arguments_of_a_node() {
        let cx = &Context::new().unwrap();
        let parse = |args: Vec<String>| {
            let command = Args::augment_args(Command::new("build-qemu").no_binary_name(true));
            Args::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
        };
        let given = ["--jobs", "3", "--qemu", "lts", "--locked", "arm", "s390x"].map(str::to_owned);
        let local = Request::resolve_all(cx, &parse(given.into())).unwrap().remove(0);
        let remote = Request::resolve_all(cx, &parse(arguments(&local))).unwrap().remove(0);
        assert_eq!(remote.release.version, local.release.version);
        assert_eq!((remote.targets, remote.jobs, remote.exact), (local.targets, Some(3), true));
    }

    #[test]
    fn platforms_of_all_nodes() {
        let output = "Name:   farm\nDriver: remote\n\nNodes:\nName:      one\nPlatforms: linux/amd64*, linux/386\n\
            Name:      two\nPlatforms: linux/arm64*\n";
        assert_eq!(parse_platforms(output), ["linux/amd64", "linux/386", "linux/arm64"]);
        let nodes = Nodes { name: "farm", client: Client::installed(), platforms: parse_platforms(output) };
        let native: Vec<_> =
            qus_core::arch::HOSTS.iter().filter(|host| nodes.support(host)).map(|host| host.name).collect();
        assert_eq!(native, ["amd64", "arm64v8", "i386"]);
    }
}
