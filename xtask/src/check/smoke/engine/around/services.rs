//! Checks compose.yaml, daemonset.yaml and qus.service by running the commands that they contain.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
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
    checks.check("qus.service: ExecStart twice, ExecStop", systemd_unit)
}

/// Fetches the compose plugin, which is not part of throwaway engines because it has 60 MB.
fn compose_plugin(fixture: &EngineFixture<'_>) -> Result<PathBuf> {
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
    let plugin =
        compose_plugin(fixture).map_err(|error| Skip(format!("cannot fetch docker compose: {error:#}")))?;
    let (client, image) = (fixture.engine.client(), fixture.full_image()?);
    let variables = client.variables(&fixture.kernel.cx.settings)?;
    let config_dir = variables.iter().find(|(name, _)| *name == "DOCKER_CONFIG");
    let (_, config_dir) = config_dir.context("the engine's client has no DOCKER_CONFIG")?;
    let plugins = Path::new(config_dir).join("cli-plugins");
    fs::create_dir_all(&plugins)?;
    symlink(plugin, plugins.join("docker-compose"))?;
    let file = fixture.kernel.cx.paths.images().join("compose.yaml").to_string_lossy().into_owned();
    let default = fixture.docker(&["compose", "--file", &file, "config", "--images"])?.succeeds()?;
    let version = fixture.kernel.cx.data.release("default").map_err(Error::msg)?.release_version();
    ensure!(default.trim().ends_with(&format!("/qus:{version}")), "without QUS_IMAGE it uses {default}");

    let client = client.env("QUS_IMAGE", &image);
    let compose = |args: &[&str]| -> Result<CommandOutput> {
        fixture.kernel.run(client.cmd(&[&["compose", "--file", &file], args].concat()))
    };
    // Short intervals, so that the check does not wait long.
    let config: Value = serde_json::from_str(&compose(&["config", "--format", "json"])?.succeeds()?)?;
    ensure!(config["services"]["qus"]["image"] == *image, "QUS_IMAGE has no effect: {config}");
    let mut command = strings(&config["services"]["qus"]["command"])?;
    let watch = command.iter_mut().find(|word| *word == "--watch").context("the command has no --watch")?;
    *watch = "--watch=1".to_owned();
    let overrides = json!({"services": {"qus": {"command": command, "healthcheck": {"interval": "1s"}}}});
    let faster = fixture.path("faster.yaml").to_string_lossy().into_owned();
    fs::write(&faster, overrides.to_string())?;

    let check_running = || -> Result<()> {
        compose(&["--file", &faster, "up", "--detach", "--wait"])?.succeeds()?;
        check_all_registered(fixture, "POCF")?;
        check_reregistered(fixture)?;
        compose(&["ps", "--format", "{{.Health}}"])?.writes("healthy\n")
    };
    let checked = check_running();
    let down = compose(&["down"])?;
    checked?;
    down.succeeds()?;
    check_none_registered(fixture)
}

/// Asserts that a handler that another program unregisters is registered again.
fn check_reregistered(fixture: &EngineFixture<'_>) -> Result<()> {
    let before = handlers(fixture)?;
    unregister_externally(FOREIGN[0])?;
    ensure!(handlers(fixture)?.len() + 1 == before.len(), "the handler was not unregistered");
    until("the handler is re-registered", || Ok(handlers(fixture)? == before))
}

fn strings(list: &Value) -> Result<Vec<String>> {
    let list = list.as_array().context("not a list of strings")?;
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A container. It is removed when dropped.
struct Container<'a> {
    fixture: &'a EngineFixture<'a>,
    name: &'static str,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.fixture.docker(&["rm", "--force", self.name]);
    }
}

/// Runs the pod's container with the options that a node's container runtime would use.
fn pod(fixture: &EngineFixture<'_>) -> Result<()> {
    let documents = schemas::documents(fixture.kernel.cx, "daemonset.yaml")?;
    let daemonset = documents.iter().find(|document| document["kind"] == "DaemonSet");
    let pod = &daemonset.context("no DaemonSet")?["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let (security, probe) = (&container["securityContext"], &container["readinessProbe"]["exec"]["command"]);
    let (args, probe) = (strings(&container["args"])?, strings(probe)?);
    let grace_period = pod["terminationGracePeriodSeconds"].to_string();
    let options = [
        (&security["privileged"], "--privileged"),
        (&security["readOnlyRootFilesystem"], "--read-only"),
        (&pod["hostPID"], "--pid=host"),
    ];
    let image = fixture.full_image()?;
    let mut run = vec!["run", "--detach", "--name=pod"];
    run.extend(options.iter().filter(|(value, _)| **value == true).map(|(_, option)| *option));
    run.push(&image);
    run.extend(args.iter().map(|arg| &**arg));
    let ready = || {
        let command: Vec<_> = ["exec", "pod"].into_iter().chain(probe.iter().map(|word| &**word)).collect();
        fixture.docker(&command)
    };
    let container = Container { fixture, name: "pod" };
    fixture.docker(&run)?.succeeds()?;
    until("the pod is ready", || Ok(ready()?.status == Some(0))).with_context(|| {
        let [probe, pod] = [ready(), fixture.docker(&["logs", container.name])]
            .map(|output| output.map_or_else(|error| format!("{error:#}"), |output| output.stderr));
        format!("stderr of the probe:\n{probe}stderr of the pod:\n{pod}")
    })?;
    check_all_registered(fixture, "POCF")?;
    unregister_externally(FOREIGN[0])?;
    ready()?.exits(1, &[&format!("no handler for {}\n", FOREIGN[0])])?;
    fixture.docker(&["stop", "--time", &grace_period, container.name])?.succeeds()?;
    fixture.docker(&["inspect", "--format", "{{.State.ExitCode}}", container.name])?.writes("0\n")?;
    check_none_registered(fixture)
}

/// Runs the unit's commands as systemd would.
fn systemd_unit(fixture: &EngineFixture<'_>) -> Result<()> {
    let image = fixture.full_image()?;
    let unit = fs::read_to_string(fixture.kernel.cx.paths.images().join("qus.service"))?;
    let line = |name: &str| -> Result<CommandOutput> {
        let line = unit.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("the unit has no {name}"))?.replace("${QUS_IMAGE}", &image);
        let mut words = line.split(' ');
        ensure!(words.next() == Some("/usr/bin/docker"), "not a docker command: {line}");
        fixture.docker(&words.collect::<Vec<_>>())
    };
    line("ExecStart=")?.succeeds()?;
    check_all_registered(fixture, "POCF")?;
    unregister_externally(FOREIGN[0])?;
    line("ExecStart=")?.exits(0, &["installed", "unchanged"])?;
    check_all_registered(fixture, "POCF")?;
    line("ExecStop=")?.succeeds()?;
    check_none_registered(fixture)
}
