//! What stays: compose.yaml, daemonset.yaml and qus.service, each run as its text says.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde_json::{Value, json};

use crate::base::cache;
use crate::base::error::Skip;
use crate::check::schemas;
use crate::check::smoke::fixture::bench::FOREIGN;
use crate::check::smoke::fixture::dock::{Checks, Dock};
use crate::check::smoke::fixture::ended::Ended;
use crate::check::smoke::fixture::handlers::{all_stand, handlers, none_is_left, take_away};
use crate::check::smoke::fixture::process::until;
use crate::debian::distribution::Distribution;
use crate::debian::packages;

pub(super) fn run(checks: &mut Checks<'_>) -> Result<()> {
    checks.check("compose.yaml: up, healthy; what is taken away comes back; down", compose)?;
    checks.check("daemonset.yaml: its pod is ready; what is taken away makes it unready; SIGTERM", pod)?;
    checks.check("qus.service: ExecStart twice, ExecStop", unit)
}

/// The plugin. Fetched here alone, since whoever has images made needs none of its 60 MB.
fn plugin(dock: &Dock<'_>) -> Result<PathBuf> {
    let cx = dock.bench.cx;
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

fn compose(dock: &Dock<'_>) -> Result<()> {
    let plugin = plugin(dock).map_err(|error| Skip(format!("compose cannot be had: {error:#}")))?;
    let (client, image) = (dock.engine.client(), dock.full_image()?);
    let variables = client.variables(&dock.bench.cx.settings)?;
    let config = variables.iter().find(|(name, _)| *name == "DOCKER_CONFIG").context("it has a folder")?;
    let plugins = Path::new(&config.1).join("cli-plugins");
    fs::create_dir_all(&plugins)?;
    symlink(plugin, plugins.join("docker-compose"))?;
    let file = dock.bench.cx.paths.images().join("compose.yaml").to_string_lossy().into_owned();
    let unset = dock.docker(&["compose", "--file", &file, "up", "--detach"])?;
    unset.fails(15, &["set it to an image of qus"])?;

    let client = client.env("QUS_IMAGE", &image);
    let compose = |args: &[&str]| -> Result<Ended> {
        dock.bench.ends(client.cmd(&[&["compose", "--file", &file], args].concat()))
    };
    // The same, more often.
    let config: Value = serde_json::from_str(&compose(&["config", "--format", "json"])?.succeeds()?)?;
    let mut command = words(&config["services"]["qus"]["command"])?;
    let watch = command.iter_mut().find(|word| *word == "--watch").context("it does not watch")?;
    *watch = "--watch=1".to_owned();
    let often = json!({"services": {"qus": {"command": command, "healthcheck": {"interval": "1s"}}}});
    let faster = dock.path("faster.yaml").to_string_lossy().into_owned();
    fs::write(&faster, often.to_string())?;

    let works = || -> Result<()> {
        compose(&["--file", &faster, "up", "--detach", "--wait"])?.succeeds()?;
        all_stand(dock, "POCF")?;
        comes_back(dock)?;
        let listed = compose(&["ps", "--format", "{{.Health}}"])?;
        listed.writes("healthy\n")
    };
    let worked = works();
    let down = compose(&["down"])?;
    worked?;
    down.succeeds()?;
    none_is_left(dock)
}

fn comes_back(dock: &Dock<'_>) -> Result<()> {
    let before = handlers(dock)?;
    take_away(FOREIGN[0])?;
    ensure!(handlers(dock)?.len() + 1 == before.len(), "it was not taken away");
    until("coming back", || Ok(handlers(dock)? == before))
}

fn words(list: &Value) -> Result<Vec<String>> {
    let list = list.as_array().context("there is a list of words")?;
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A container that does not outlive its check.
struct Container<'a> {
    dock: &'a Dock<'a>,
    name: &'static str,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // It has gone, or it cannot be helped.
        let _ = self.dock.docker(&["rm", "--force", self.name]);
    }
}

/// What a node's container runtime makes of the pod.
fn pod(dock: &Dock<'_>) -> Result<()> {
    let documents = schemas::documents(dock.bench.cx, "daemonset.yaml")?;
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
    let image = dock.full_image()?;
    let mut run = vec!["run", "--detach", "--name=pod"];
    run.extend(options.iter().filter(|(set, _)| **set == true).map(|(_, option)| *option));
    run.push(&image);
    run.extend(args.iter().map(|arg| &**arg));
    let ready = || {
        let command: Vec<_> = ["exec", "pod"].into_iter().chain(probe.iter().map(|word| &**word)).collect();
        dock.docker(&command)
    };
    let container = Container { dock, name: "pod" };
    dock.docker(&run)?.succeeds()?;
    until("being ready", || Ok(ready()?.status == Some(0))).with_context(|| {
        let [probe, pod] = [ready(), dock.docker(&["logs", container.name])]
            .map(|ended| ended.map_or_else(|error| format!("{error:#}"), |ended| ended.stderr));
        format!("the probe says:\n{probe}the pod says:\n{pod}")
    })?;
    all_stand(dock, "POCF")?;
    take_away(FOREIGN[0])?;
    ready()?.fails(1, &[&format!("no handler for {}\n", FOREIGN[0])])?;
    dock.docker(&["stop", "--time", &patience, container.name])?.succeeds()?;
    dock.docker(&["inspect", "--format", "{{.State.ExitCode}}", container.name])?.writes("0\n")?;
    none_is_left(dock)
}

/// What systemd makes of the unit's lines.
fn unit(dock: &Dock<'_>) -> Result<()> {
    let image = dock.full_image()?;
    let unit = fs::read_to_string(dock.bench.cx.paths.images().join("qus.service"))?;
    let line = |name: &str| -> Result<Ended> {
        let line =
            unit.lines().find_map(|line| line.strip_prefix(name)).context("the unit has no such line")?;
        let line = line.replace("${QUS_IMAGE}", &image);
        let mut words = line.split(' ');
        ensure!(words.next() == Some("/usr/bin/docker"), "not a command of docker: {line}");
        dock.docker(&words.collect::<Vec<_>>())
    };
    line("ExecStart=")?.succeeds()?;
    all_stand(dock, "POCF")?;
    take_away(FOREIGN[0])?;
    line("ExecStart=")?.fails(0, &["installed", "unchanged"])?;
    all_stand(dock, "POCF")?;
    line("ExecStop=")?.succeeds()?;
    none_is_left(dock)
}
