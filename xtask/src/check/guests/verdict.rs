//! What is wrong with results, beside those of other emulators and of the last recording.

use qemu_src::{CellOutcome, GuestRun};

/// A sentence for each cell that fails, passes under another emulator only, or has passed before.
pub(super) fn faults(runs: &[GuestRun], ours: &str, recorded: &[GuestRun]) -> Vec<String> {
    let mut faults = Vec::new();
    for run in runs.iter().filter(|run| run.emulator == ours) {
        for cell in &run.cells {
            let (CellOutcome::Failed(why) | CellOutcome::Known(why)) = &cell.outcome else { continue };
            let has_passed = |other: &&GuestRun| {
                other.is_of(run) && other.outcome(&cell.name) == Some(&CellOutcome::Passed)
            };
            let fault = match runs.iter().find(has_passed) {
                Some(other) => format!("passes under {}", other.emulator),
                None if recorded.iter().any(|run| has_passed(&run)) => "has passed before".to_owned(),
                None if matches!(cell.outcome, CellOutcome::Known(_)) => continue,
                None => "fails".to_owned(),
            };
            faults.push(format!("{} in {} {fault}: {why}", cell.name, run.guest));
        }
    }
    faults
}

/// The recorded results with those of a new run, which replace cells of the same name.
pub(super) fn merged(mut recorded: Vec<GuestRun>, new: Vec<GuestRun>) -> Vec<GuestRun> {
    for mut run in new {
        match recorded.iter_mut().find(|old| old.is_of(&run)) {
            None => recorded.push(run),
            Some(old) => {
                let is_kept = |name: &str| run.outcome(name).is_none();
                let kept: Vec<_> = old.cells.iter().filter(|cell| is_kept(&cell.name)).cloned().collect();
                run.cells.extend(kept);
                *old = run;
            }
        }
    }
    recorded.sort_by(|one, other| (&one.guest, &one.suite).cmp(&(&other.guest, &other.suite)));
    recorded
}

#[cfg(test)]
mod tests {
    use super::*;
    use qemu_src::CellRun;

    fn run(emulator: &str, cells: &[(&str, CellOutcome)]) -> GuestRun {
        let cell = |(name, outcome): &(&str, CellOutcome)| CellRun {
            name: (*name).to_owned(),
            outcome: outcome.clone(),
            seconds: 1,
        };
        GuestRun {
            guest: "arm64".to_owned(),
            suite: "trixie".to_owned(),
            emulator: emulator.to_owned(),
            cells: cells.iter().map(cell).collect(),
        }
    }

    #[test]
    fn a_failure_is_weighed_by_what_else_passes() {
        let (failed, known) = (CellOutcome::Failed("x".to_owned()), CellOutcome::Known("y".to_owned()));
        let passed = CellOutcome::Passed;
        let faults = |ours: &CellOutcome, other: &CellOutcome, before: &CellOutcome| {
            let of = |name, outcome: &CellOutcome| run(name, &[("git", outcome.clone())]);
            super::faults(&[of("ours", ours), of("other", other)], "ours", &[of("ours", before)])
        };
        assert!(faults(&passed, &failed, &failed).is_empty());
        assert!(faults(&known, &failed, &failed).is_empty());
        assert_eq!(faults(&failed, &failed, &failed), ["git in arm64 fails: x"]);
        assert_eq!(faults(&known, &passed, &known), ["git in arm64 passes under other: y"]);
        assert_eq!(faults(&known, &failed, &passed), ["git in arm64 has passed before: y"]);
        let skipped = CellOutcome::Skipped("z".to_owned());
        assert!(faults(&skipped, &passed, &passed).is_empty());
    }

    #[test]
    fn new_results_replace_old_ones_of_the_same_cell() {
        let failed = CellOutcome::Failed("x".to_owned());
        let old = run("old", &[("git", failed.clone()), ("perl", CellOutcome::Passed)]);
        let merged = merged(vec![old], vec![run("new", &[("git", CellOutcome::Passed)])]);
        assert_eq!(merged.len(), 1);
        let other = GuestRun { suite: "bookworm".to_owned(), ..run("new", &[("git", failed)]) };
        let merged = super::merged(merged, vec![other]);
        assert_eq!(merged[0].suite, "bookworm", "another root filesystem has results of its own");
        let merged = &merged[1..];
        assert_eq!(merged[0].outcome("git"), Some(&CellOutcome::Passed));
        assert_eq!(merged[0].outcome("perl"), Some(&CellOutcome::Passed));
    }
}
