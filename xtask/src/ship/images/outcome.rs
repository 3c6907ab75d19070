//! What became of the tags of a run.

use anyhow::Result;
use qus_core::table::Table;
use serde::Serialize;

use crate::base::output::out;
use crate::base::progress::say;

/// What became of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TagState {
    Pushed,
    Unchanged,
    Loaded,
}

/// A tag in the report.
#[derive(Debug, Serialize)]
pub(super) struct TagOutcome {
    pub(super) tag: String,
    pub(super) digest: Option<String>,
    pub(super) platforms: Vec<String>,
    /// What there is to pull, in bytes; of an index, for each platform.
    pub(super) sizes: Vec<u64>,
    pub(super) state: TagState,
}

/// Prints them.
pub(super) fn print(repo: &str, outcomes: &[TagOutcome], json: bool) -> Result<()> {
    if json {
        return out(&(serde_json::to_string_pretty(outcomes)? + "\n"));
    }
    let mut table = Table::new(["tag", "platforms", "to pull", "state", "digest"]);
    for outcome in outcomes {
        let sizes: Vec<_> =
            outcome.sizes.iter().map(|size| format!("{:.2} MB", *size as f64 / 1e6)).collect();
        let state = format!("{:?}", outcome.state).to_lowercase();
        table.row([
            outcome.tag.clone(),
            outcome.platforms.join(" "),
            sizes.join(" "),
            state,
            outcome.digest.clone().unwrap_or_default(),
        ]);
    }
    out(&table.to_string())?;
    say(format_args!("{} tags of {repo}", outcomes.len()));
    Ok(())
}
