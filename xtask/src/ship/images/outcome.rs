//! The results of a run for its tags.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use anyhow::Result;
use qus_core::table::Table;
use qus_core::terminal;
use serde::Serialize;

use crate::base::output::{out, out_json};
use crate::base::progress::say;

/// The state of a tag after the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TagState {
    Pushed,
    Unchanged,
    /// A moving tag that is at a newer release.
    Newer,
    Loaded,
}

impl fmt::Display for TagState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pushed => "pushed",
            Self::Unchanged => "unchanged",
            Self::Newer => "newer",
            Self::Loaded => "loaded",
        })
    }
}

/// The result for a tag.
#[derive(Debug, Serialize)]
pub(super) struct TagOutcome {
    pub(super) tag: String,
    pub(super) digest: Option<String>,
    pub(super) platforms: Vec<String>,
    /// Download size in bytes; for an index, one for each platform.
    pub(super) sizes: Vec<u64>,
    pub(super) state: TagState,
}

/// References by digest to what this run pushed, or found unchanged, once each.
pub(super) fn references(repo: &str, outcomes: &[TagOutcome]) -> Vec<String> {
    let own = outcomes.iter().filter(|outcome| outcome.state != TagState::Newer);
    let digests: BTreeSet<_> = own.filter_map(|outcome| outcome.digest.as_ref()).collect();
    digests.into_iter().map(|digest| format!("{repo}@{digest}")).collect()
}

/// Prints the results as a table or as JSON.
pub(super) fn print(repo: &str, outcomes: &[TagOutcome], json: bool) -> Result<()> {
    let newer = outcomes.iter().filter(|outcome| outcome.state == TagState::Newer).count();
    if newer > 0 {
        say(format_args!(
            "note: {newer} tags are at a newer release and stay there; --force moves them back"
        ));
    }
    if json {
        return out_json(&outcomes);
    }
    let mut table = Table::new(["tag", "platforms", "to pull", "state", "digest"]);
    for outcome in outcomes {
        let sizes: Vec<_> =
            outcome.sizes.iter().map(|size| format!("{:.2} MB", *size as f64 / 1e6)).collect();
        table.row([
            outcome.tag.clone(),
            outcome.platforms.join(" "),
            sizes.join(" "),
            outcome.state.to_string(),
            outcome.digest.clone().unwrap_or_default(),
        ]);
    }
    out(&table.fit(terminal::width(io::stdout())))?;
    say(format_args!("{} tags of {repo}", outcomes.len()));
    Ok(())
}
