//! The throwaway engine: started, used, killed, and gone without a trace.

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
    checks.check("engine up, used manually, down: nothing is left", by_hand)?;
    checks.check("an engine that was killed: the next one cleans up", killed)?;
    checks.check("an engine ends if the process that uses it is killed", left_alone)
}

/// What of an engine could stay on the machine outside its folder.
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
    /// Looks around for what has to do with the engine of a target folder.
    fn look(target: &Path) -> Result<Self> {
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

fn by_hand(fixture: &EngineFixture<'_>) -> Result<()> {
    let target = fixture.path("hand");
    let engine =
        |command: &str| fixture.kernel.run(fixture.xtask_without_docker(&target, &["engine", command])?);
    let before = Traces::look(&target)?;
    engine("status")?
        .fails(1, &["no throwaway engine is running", "hint: to start one, run `cargo xtask engine up`"])?;
    let variables = engine("up")?.succeeds()?;
    ensure!(engine("up")?.succeeds()? == variables, "a second `up` has started another engine");
    ensure!(engine("env")?.succeeds()? == variables, "`env` prints something else than `up`");
    ensure!(engine("status")?.succeeds()?.contains("registry  localhost:"), "the registry is not named");
    // As the user of a shell would, and with a container that still runs at the end.
    fixture.busybox_image(&fixture.path("box"), &fixture.engine.busybox())?;
    let script = r#"set -e
        eval "$1"
        docker buildx build --quiet --tag "$QUS_REGISTRY/box" --push "$2"
        docker run --rm "$QUS_REGISTRY/box" /bin/busybox true
        docker run --detach "$QUS_REGISTRY/box" /bin/busybox sleep 600
        docker ps --quiet | wc --lines"#;
    let folder = fixture.path("box");
    let used = fixture.kernel.run(cmd!(sh(), "sh -c {script} sh {variables} {folder}"))?.succeeds()?;
    ensure!(used.ends_with("\n1\n"), "no container runs: {used}");
    let during = Traces::look(&target)?;
    ensure!(
        !during.processes.is_empty() && during.interfaces != before.interfaces,
        "this check would notice nothing"
    );
    engine("down")?.succeeds()?;
    let after = Traces::look(&target)?;
    ensure!(after == before, "left are {after:?}, before there were {before:?}");
    ensure!(!target.join("qus/engine/run").exists(), "its folder is left");
    engine("down")?.succeeds().map(drop)
}

fn killed(fixture: &EngineFixture<'_>) -> Result<()> {
    let target = fixture.path("killed");
    let engine =
        |command: &str| fixture.kernel.run(fixture.xtask_without_docker(&target, &["engine", command])?);
    let before = Traces::look(&target)?;
    engine("up")?.succeeds()?;
    let state = fs::read_to_string(target.join("qus/engine/run/engine.json"))?;
    let state: serde_json::Value = serde_json::from_str(&state)?;
    let process = state["process"].as_i64().context("the engine's process is not written down")?;
    kill(Pid::from_raw(process.try_into()?), Signal::SIGKILL)?;
    let first = Traces::look(&target)?.interfaces;
    ensure!(first != before.interfaces, "there is nothing to sweep up");
    wait("the engine does not end", || Ok(engine("status")?.status == Some(1)))?;
    engine("up")?.succeeds()?;
    engine("down")?.succeeds()?;
    let after = Traces::look(&target)?;
    ensure!(after == before, "left are {after:?}, before there were {before:?}");
    Ok(())
}

fn left_alone(fixture: &EngineFixture<'_>) -> Result<()> {
    let target = fixture.path("orphan");
    fixture.small_bundle(&target, &[FOREIGN[0]], None)?;
    let push = fixture.xtask_without_docker(
        &target,
        &["images", "--push", "--repo", &fixture.repo("orphan"), "--sbom", "none"],
    )?;
    let mut user = BackgroundProcess::start(fixture.path("orphan.log"), push)?;
    user.wait_for_output("using a throwaway engine")?;
    let serving = || -> Result<bool> {
        let processes = Traces::look(&target)?.processes;
        Ok(processes.iter().any(|command| command.contains("dockerd")))
    };
    ensure!(serving()?, "this check would notice nothing");
    user.signal(Signal::SIGKILL)?;
    user.child.wait()?;
    wait("the engine goes on", || Ok(!serving()?))?;
    // What it has left outside its namespaces.
    fixture.kernel.run(fixture.xtask_without_docker(&target, &["engine", "down"])?)?.succeeds().map(drop)
}
