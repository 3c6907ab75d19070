//! `syscalls.toml`: system calls that emulated programs do not have, or have only in part.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `syscalls.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemCalls {
    /// System calls that are newer than the C libraries of the suites, with the number that most architectures share.
    pub newer: BTreeMap<String, u32>,
    /// The calls that are limited.
    pub limited: Vec<LimitedCalls>,
}

/// System calls with the same limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitedCalls {
    /// Their names, as in Linux's tables.
    pub names: Vec<String>,
    /// Whether they exist at all.
    pub state: CallState,
    /// What does not work, and why.
    pub reason: String,
}

/// How much of a system call there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// Some arguments are refused.
    Partial,
    /// It always fails, with an error that programs expect.
    Refused,
    /// It fails with `ENOSYS`.
    Absent,
}

impl SystemCalls {
    /// The names of all calls that fail with `ENOSYS`.
    pub fn absent(&self) -> impl Iterator<Item = &str> {
        let absent = self.limited.iter().filter(|limited| limited.state == CallState::Absent);
        absent.flat_map(|limited| limited.names.iter().map(String::as_str))
    }

    pub(crate) fn lint(&self) -> Vec<String> {
        let mut names: Vec<_> = self.limited.iter().flat_map(|limited| &limited.names).collect();
        names.sort();
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
        twice.map(|pair| format!("syscalls.toml: {} is listed twice", pair[0])).collect()
    }
}
