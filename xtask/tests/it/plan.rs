//! The plan, and its use in the release workflow.

use super::{Xtask, workspace};
use serde_json::Value;
use std::fs;

fn jobs(args: &[&str]) -> Vec<Value> {
    let ended = Xtask::new().run(&[&["plan", "--json"], args].concat());
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let plan: Value = serde_json::from_str(&ended.stdout).unwrap();
    plan["jobs"].as_array().unwrap().clone()
}

#[test]
fn build_qemu_accepts_the_arguments_of_a_job() {
    let jobs = jobs(&["--host", "s390x,armel"]);
    assert_eq!(jobs.len(), 2);
    for job in &jobs {
        let build: Vec<_> =
            job["build"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let ended = Xtask::new().run(&[&build[..], &["--dry-run", "--json"]].concat());
        let planned: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(planned["host"], job["host"]);
        assert_eq!(planned["qemu"], job["qemu"]);
        assert_eq!(planned["targets"].as_array().unwrap().len() as u64, job["targets"].as_u64().unwrap());
        assert_eq!(planned["profile"], "release");
    }
}

#[test]
fn the_workflow_uses_existing_fields() {
    let workflow = fs::read_to_string(workspace().join(".github/workflows/release.yml")).unwrap();
    let job = &jobs(&[])[0];
    let fields: Vec<_> = workflow
        .match_indices("matrix.")
        .map(|(at, word)| {
            let rest = &workflow[at + word.len()..];
            rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap()
        })
        .collect();
    assert!(fields.len() > 3, "{fields:?}");
    for name in fields {
        assert!(job.get(name).is_some(), "a job has no {name}");
    }
}

#[test]
fn unknown_names_are_refused() {
    Xtask::new().run(&["plan", "--qemu", "9.9.9"]).failed(2, &["QEMU `9.9.9` is not in sources.toml"]);
    Xtask::new().run(&["plan", "--host", "vax"]).failed(2, &["unknown host `vax`"]);
}
