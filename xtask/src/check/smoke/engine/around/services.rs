//! What stays: compose.yaml, daemonset.yaml and qus.service, each run as its text says.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde_json::{Value, json};

use crate::base::cache;
use crate::base::error::Skip;
use crate::check::schemas;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};
use crate::check::smoke::fixture::handlers::{
    check_all_registered, check_none_registered, handlers, unregister_externally,
};
use crate::check::smoke::fixture::kernel::FOREIGN;
use crate::check::smoke::fixture::process::until;
use crate::debian::distribution::Distribution;
use crate::debian::packages;

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("compose.yaml: up, healthy; re-registers handlers that disappear; down", compose)?;
    checks.check("daemonset.yaml: its pod is ready; a missing handler makes it unready; SIGTERM", pod)?;
    checks.check("qus.service: ExecStart twice, ExecStop", unit)
}

/// The plugin. Fetched here alone, since whoever has images made needs none of its 60 MB.
fn plugin(fixture: &EngineFixture<'_>) -> Result<PathBuf> {
    let cx = fixture.kernel.cx;
    let set = &cx.data.debian.packages.compose;
    let dir = cx.paths.rootfs(&format!("compose-{}", packages::id(set)));
    if !dir.exists() {
        let distribution = Distribution::detect()?.context("this machine has no apt")?;
        cache::publish(&dir, |partial| {
            packages::fetch(cx, &distribution, &set.from, None, "compose", partial, |apt, into| {
                apt.unpack(&set.packages, into).map(drop)
            })
        })?;
    }
    Ok(dir.join("usr/libexec/docker/cli-plugins/docker-compose"))
}

fn compose(fixture: &EngineFixture<'_>) -> Result<()> {
    let plugin = plugin(fixture).map_err(|error| Skip(format!("compose cannot be had: {error:#}")))?;
    let (client, image) = (fixture.engine.client(), fixture.full_image()?);
    let variables = client.variables(&fixture.kernel.cx.settings)?;
    let config = variables.iter().find(|(name, _)| *name == "DOCKER_CONFIG").context("it has a folder")?;
    let plugins = Path::new(&config.1).join("cli-plugins");
    fs::create_dir_all(&plugins)?;
    symlink(plugin, plugins.join("docker-compose"))?;
    let file = fixture.kernel.cx.paths.images().join("compose.yaml").to_string_lossy().into_owned();
    let unset = fixture.docker(&["compose", "--file", &file, "up", "--detach"])?;
    unset.fails(15, &["set it to an image of qus"])?;

    let client = client.env("QUS_IMAGE", &image);
    let compose = |args: &[&str]| -> Result<CommandOutput> {
        fixture.kernel.run(client.cmd(&[&["compose", "--file", &file], args].concat()))
    };
    // The same, more often.
    let config: Value = serde_json::from_str(&compose(&["config", "--format", "json"])?.succeeds()?)?;
    let mut command = words(&config["services"]["qus"]["command"])?;
    let watch = command.iter_mut().find(|word| *word == "--watch").context("it does not watch")?;
    *watch = "--watch=1".to_owned();
    let often = json!({"services": {"qus": {"command": command, "healthcheck": {"interval": "1s"}}}});
    let faster = fixture.path("faster.yaml").to_string_lossy().into_owned();
    fs::write(&faster, often.to_string())?;

    let works = || -> Result<()> {
        compose(&["--file", &faster, "up", "--detach", "--wait"])?.succeeds()?;
        check_all_registered(fixture, "POCF")?;
        comes_back(fixture)?;
        let listed = compose(&["ps", "--format", "{{.Health}}"])?;
        listed.writes("healthy\n")
    };
    let worked = works();
    let down = compose(&["down"])?;
    worked?;
    down.succeeds()?;
    check_none_registered(fixture)
}

fn comes_back(fixture: &EngineFixture<'_>) -> Result<()> {
    let before = handlers(fixture)?;
    unregister_externally(FOREIGN[0])?;
    ensure!(handlers(fixture)?.len() + 1 == before.len(), "it was not taken away");
    until("coming back", || Ok(handlers(fixture)? == before))
}

fn words(list: &Value) -> Result<Vec<String>> {
    let list = list.as_array().context("there is a list of words")?;
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A container that does not outlive its check.
struct Container<'a> {
    fixture: &'a EngineFixture<'a>,
    name: &'static str,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // It has gone, or it cannot be helped.
        let _ = self.fixture.docker(&["rm", "--force", self.name]);
    }
}

/// What a node's container runtime makes of the pod.
fn pod(fixture: &EngineFixture<'_>) -> Result<()> {
    let documents = schemas::documents(fixture.kernel.cx, "daemonset.yaml")?;
    let set = documents.iter().find(|document| document["kind"] == "DaemonSet").context("no DaemonSet")?;
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let (security, probe) = (&container["securityContext"], &container["readinessProbe"]["exec"]["command"]);
    let (args, probe) = (words(&container["args"])?, words(probe)?);
    let patience = pod["terminationGracePeriodSeconds"].to_string();
    let options = [
        (&security["privileged"], "--privileged"),
        (&security["readOnlyRootFilesystem"], "--read-only"),
        (&pod["hostPID"], "--pid=host"),
    ];
    let image = fixture.full_image()?;
    let mut run = vec!["run", "--detach", "--name=pod"];
    run.extend(options.iter().filter(|(set, _)| **set == true).map(|(_, option)| *option));
    run.push(&image);
    run.extend(args.iter().map(|arg| &**arg));
    let ready = || {
        let command: Vec<_> = ["exec", "pod"].into_iter().chain(probe.iter().map(|word| &**word)).collect();
        fixture.docker(&command)
    };
    let container = Container { fixture, name: "pod" };
    fixture.docker(&run)?.succeeds()?;
    until("being ready", || Ok(ready()?.status == Some(0))).with_context(|| {
        let [probe, pod] = [ready(), fixture.docker(&["logs", container.name])]
            .map(|ended| ended.map_or_else(|error| format!("{error:#}"), |ended| ended.stderr));
        format!("the probe says:\n{probe}the pod says:\n{pod}")
    })?;
    check_all_registered(fixture, "POCF")?;
    unregister_externally(FOREIGN[0])?;
    ready()?.fails(1, &[&format!("no handler for {}\n", FOREIGN[0])])?;
    fixture.docker(&["stop", "--time", &patience, container.name])?.succeeds()?;
    fixture.docker(&["inspect", "--format", "{{.State.ExitCode}}", container.name])?.writes("0\n")?;
    check_none_registered(fixture)
}

/// What systemd makes of the unit's lines.
fn unit(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = fixture.full_image()?;
    let unit = fs::read_to_string(fixture.kernel.cx.paths.images().join("qus.service"))?;
    let line = |name: &str| -> Result<CommandOutput> {
        let line =
            unit.lines().find_map(|line| line.strip_prefix(name)).context("the unit has no such line")?;
        let line = line.replace("${QUS_IMAGE}", &image);
        let mut words = line.split(' ');
        ensure!(words.next() == Some("/usr/bin/docker"), "not a command of docker: {line}");
        fixture.docker(&words.collect::<Vec<_>>())
    };
    line("ExecStart=")?.succeeds()?;
    check_all_registered(fixture, "POCF")?;
    unregister_externally(FOREIGN[0])?;
    line("ExecStart=")?.fails(0, &["installed", "unchanged"])?;
    check_all_registered(fixture, "POCF")?;
    line("ExecStop=")?.succeeds()?;
    check_none_registered(fixture)
}
