//! Invalid arguments of `bench`, and its plan.

use super::Xtask;
use serde_json::Value;

#[test]
fn invalid_arguments_are_refused() {
    let xtask = Xtask::new();
    let own = std::env::consts::ARCH;
    xtask.run(&["bench", own]).failed(2, &["is this machine's own architecture"]);
    xtask.run(&["bench", "aarch46"]).failed(2, &["did you mean aarch64"]);
    xtask.run(&["bench", "alpha"]).failed(2, &["does not support alpha", "--only probe"]);
    xtask.run(&["bench", "s390", "--only", "quake"]).failed(2, &["unknown architecture `s390`"]);
    xtask.run(&["bench", "--only", "quake"]).failed(2, &["no workload matches quake", "sqlite"]);
    xtask.run(&["bench", "--against", "deb:woody"]).failed(2, &["unknown suite `woody`", "trixie"]);
    xtask.run(&["bench", "--only", "probe", "--instructions"]).failed(2, &["--only excludes them"]);
    xtask.run(&["bench", "--rounds", "0"]).failed(2, &["0 is not in 1..=1000"]);
}

#[test]
fn a_missing_bundle_has_a_hint() {
    let ended = Xtask::new().run(&["bench", "armhf", "--only", "probe"]);
    ended.failed(1, &["there is no bundle", "cargo xtask build-qemu arm"]);
}

#[test]
fn the_plan_lists_downloads() {
    let plan = |args: &[&str]| -> Value {
        let ended = Xtask::new().run(&[&["bench", "--dry-run", "--json"], args].concat());
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    };
    let whole = plan(&["riscv64", "--against", "deb:sid"]);
    let downloads: Vec<_> = whole["downloads"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert!(downloads[0].contains("qemu-user of Debian sid"), "{downloads:?}");
    assert!(downloads[1].contains("riscv64"), "{downloads:?}");
    assert!(whole["workloads"].as_array().unwrap().len() > 10, "{whole}");
    assert_eq!(plan(&["alpha", "--only", "probe"])["downloads"], Value::Array(Vec::new()));
}
