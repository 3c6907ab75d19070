//! Checks that a throwaway engine leaves nothing on the machine when it is stopped or killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};
use crate::check::smoke::fixture::kernel::FOREIGN;
use crate::check::smoke::fixture::process::{BackgroundProcess, wait};
use crate::engine::engine_dir::engine_id;

pub(super) fn run(checks: &mut EngineChecks<'_>) -> Result<()> {
    checks.check("engine up, used manually, down: nothing is left", used_manually)?;
    checks.check("an engine that was killed: the next one cleans up", engine_killed)?;
    checks.check("an engine stops if the process that uses it is killed", user_killed)
}

/// What an engine could leave on the machine outside its directory.
#[derive(Debug, PartialEq)]
struct Traces {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<PathBuf>,
    groups: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    firewall: String,
}

impl Traces {
    /// Finds everything that belongs to the engine of a target directory.
    fn find(target: &Path) -> Result<Self> {
        let mark = format!("/{}", engine_id(&target.join("qus/engine/run")));
        let marked = |path: &PathBuf| path.to_string_lossy().ends_with(&mark);
        let dir = target.to_string_lossy();
        let of_dir = |text: &str| text.contains(&*dir);
        let command = |entry: PathBuf| fs::read(entry.join("cmdline")).ok();
        let processes = list("/proc")
            .into_iter()
            .filter_map(command)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups =
            list("/sys/fs/cgroup").into_iter().flat_map(|group| [vec![group.clone()], list(group)].concat());
        let mut firewall = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        for program in
            ["iptables-save", "ip6tables-save", "nft"].into_iter().filter(|program| is_installed(program))
        {
            let args: &[&str] = if program == "nft" { &["list", "ruleset"] } else { &[] };
            firewall += &exec::read(cmd!(sh(), "{program} {args...}"))?;
        }
        Ok(Self {
            processes: processes.filter(|text| of_dir(text)).collect(),
            mounts: mounts.lines().filter(|line| of_dir(line)).map(str::to_owned).collect(),
            interfaces: list("/sys/class/net").into_iter().filter(marked).collect(),
            groups: groups.filter(marked).collect(),
            files: [
                "/etc",
                "/etc/docker",
                "/opt",
                "/opt/containerd",
                "/run",
                "/run/containerd",
                "/run/docker",
            ]
            .into_iter()
            .flat_map(list)
            .collect(),
            firewall,
        })
    }
}

fn list(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir.as_ref()).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn used_manually(fixture: &EngineFixture<'_>) -> Result<()> {
    let target = fixture.path("manual");
    let engine =
        |command: &str| fixture.kernel.run(fixture.xtask_without_docker(&target, &["engine", command])?);
    let before = Traces::find(&target)?;
    engine("status")?
        .exits(1, &["no throwaway engine is running", "hint: to start one, run `cargo xtask engine up`"])?;
    let variables = engine("up")?.succeeds()?;
    ensure!(engine("up")?.succeeds()? == variables, "the second `up` started another engine");
    ensure!(engine("env")?.succeeds()? == variables, "`env` and `up` print different variables");
    ensure!(
        engine("status")?.succeeds()?.contains("registry  localhost:"),
        "`status` does not print the registry"
    );
    // As in a user's shell. The last container still runs when the engine is stopped.
    fixture.busybox_image(&fixture.path("box"), &fixture.engine.busybox())?;
    let script = r#"set -e
        eval "$1"
        docker buildx build --quiet --tag "$QUS_REGISTRY/box" --push "$2"
        docker run --rm "$QUS_REGISTRY/box" /bin/busybox true
        docker run --detach "$QUS_REGISTRY/box" /bin/busybox sleep 600
        docker ps --quiet | wc --lines"#;
    let context = fixture.path("box");
    let output = fixture.kernel.run(cmd!(sh(), "sh -c {script} sh {variables} {context}"))?.succeeds()?;
    ensure!(output.ends_with("\n1\n"), "no container runs: {output}");
    let during = Traces::find(&target)?;
    ensure!(
        !during.processes.is_empty() && during.interfaces != before.interfaces,
        "the processes or interfaces of a running engine are not detected"
    );
    engine("down")?.succeeds()?;
    let after = Traces::find(&target)?;
    ensure!(after == before, "before: {before:?}; after: {after:?}");
    ensure!(!target.join("qus/engine/run").exists(), "the engine's directory is left");
    engine("down")?.succeeds().map(drop)
}

fn engine_killed(fixture: &EngineFixture<'_>) -> Result<()> {
    let target = fixture.path("killed");
    let engine =
        |command: &str| fixture.kernel.run(fixture.xtask_without_docker(&target, &["engine", command])?);
    let before = Traces::find(&target)?;
    engine("up")?.succeeds()?;
    let state = fs::read_to_string(target.join("qus/engine/run/engine.json"))?;
    let state: serde_json::Value = serde_json::from_str(&state)?;
    let process = state["process"].as_i64().context("engine.json has no process")?;
    kill(Pid::from_raw(process.try_into()?), Signal::SIGKILL)?;
    let interfaces = Traces::find(&target)?.interfaces;
    ensure!(interfaces != before.interfaces, "the killed engine left nothing to clean up");
    wait("the engine stops", || Ok(engine("status")?.status == Some(1)))?;
    engine("up")?.succeeds()?;
    engine("down")?.succeeds()?;
    let after = Traces::find(&target)?;
    ensure!(after == before, "before: {before:?}; after: {after:?}");
    Ok(())
}

fn user_killed(fixture: &EngineFixture<'_>) -> Result<()> {
    let target = fixture.path("orphan");
    fixture.small_bundle(&target, &[FOREIGN[0]], None)?;
    let push = fixture.xtask_without_docker(
        &target,
        &["images", "--push", "--allow-dev", "--repo", &fixture.repo("orphan"), "--sbom", "none"],
    )?;
    let mut user = BackgroundProcess::start(fixture.path("orphan.log"), push)?;
    user.wait_for_output("using a throwaway engine")?;
    let serving = || -> Result<bool> {
        let processes = Traces::find(&target)?.processes;
        Ok(processes.iter().any(|command| command.contains("dockerd")))
    };
    ensure!(serving()?, "the running dockerd is not detected");
    user.signal(Signal::SIGKILL)?;
    user.child.wait()?;
    wait("the engine stops", || Ok(!serving()?))?;
    // Removes what the engine left outside its namespaces.
    fixture.kernel.run(fixture.xtask_without_docker(&target, &["engine", "down"])?)?.succeeds().map(drop)
}
