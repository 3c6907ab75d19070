//! `pgo.toml`: the training workload of profile-guided optimisation, and whose profile data each target uses.

use qus_core::arch::Arch;
use serde::{Deserialize, Serialize};

use crate::by_arch::ByArch;

/// `pgo.toml`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pgo {
    /// The training workload: commands of busybox, in order.
    #[serde(rename = "run")]
    pub runs: Vec<WorkloadRun>,
    /// Targets that cannot run the workload, and the target with the same source whose profile data they use.
    pub profile_from: ByArch<&'static Arch>,
}

/// A command of busybox that every instrumented emulator runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadRun {
    /// Applet and arguments; `{tree}` is replaced by the directory of QEMU's source.
    pub args: Vec<String>,
    /// What it exercises.
    pub reason: String,
    /// The exit status that it must have.
    #[serde(default)]
    pub status: i32,
}

impl Pgo {
    /// `profiled`: the targets that run the workload.
    pub(crate) fn lint(&self, profiled: &[&Arch]) -> Vec<String> {
        let mut findings = Vec::new();
        for run in &self.runs {
            if run.args.is_empty() || run.reason.is_empty() {
                findings.push(format!("run {:?}: no command or no reason", run.args));
            }
        }
        for (target, from) in self.profile_from.iter() {
            if profiled.contains(&target) {
                findings.push(format!("profile-from: {target} has profile data of its own"));
            }
            if !profiled.contains(from) {
                findings.push(format!("profile-from: {from}, for {target}, has no profile data"));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_data_comes_from_targets_that_have_it() {
        let pgo: Pgo =
            toml::from_str("run = []\n[profile-from]\narm = 'armeb'\naarch64_be = 'aarch64'").unwrap();
        let profiled = ["arm", "aarch64"].map(|name| name.parse::<&Arch>().unwrap());
        let expected = [
            "profile-from: arm has profile data of its own",
            "profile-from: armeb, for arm, has no profile data",
        ];
        assert_eq!(pgo.lint(&profiled), expected);
    }
}
