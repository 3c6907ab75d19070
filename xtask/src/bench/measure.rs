//! Runs workloads in rounds. In each round every emulator runs the same workload once, so that other work on the machine
//! affects all of them.
//!
//! The first round of each workload is a warm-up, which fills the page cache and measures memory instead of time. All
//! warm-ups run first: from then on, the remaining time is known. All emulators must produce the same output, which shows
//! that they have done the same work.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use qus_core::arch::Arch;

use crate::base::progress::{Bar, say};
use crate::bench::results::{Outcome, Samples, WorkloadResult};
use crate::bench::session::{BenchRoot, Session};
use crate::bench::worker::{Ran, Request, Used};
use crate::bench::workloads::Workload;

/// The emulators of a guest, in the order of their labels; `None` for a set that has none.
pub(super) struct Setup<'a> {
    pub(super) guest: &'static Arch,
    pub(super) labels: &'a [String],
    pub(super) emulators: &'a [Option<PathBuf>],
    pub(super) bench_root: &'a BenchRoot,
}

/// Runs the workloads under every emulator. `following` is the number of guests that are measured after this one.
pub(super) fn measure(
    setup: &Setup<'_>,
    workloads: &[&Workload],
    rounds: u32,
    following: usize,
) -> Result<Vec<WorkloadResult>> {
    let start = |emulator: &Option<PathBuf>| {
        emulator.as_ref().map(|it| Session::start(setup.guest, it, setup.bench_root)).transpose()
    };
    let mut sessions: Vec<_> = setup.emulators.iter().map(start).collect::<Result<_>>()?;
    let noun = if workloads.len() == 1 { "workload" } else { "workloads" };
    let mut bar = Bar::new(format!("{}: {} {noun}", setup.guest, workloads.len()));
    let mut comparisons: Vec<_> =
        workloads.iter().map(|workload| Comparison::new(workload, setup, &sessions)).collect();
    let mut estimate = Estimate::new(workloads.len(), rounds + 1, following);
    let warm_ups = (0..workloads.len()).map(|index| (index, 0));
    let measured = (0..workloads.len()).flat_map(|index| (1..=rounds).map(move |round| (index, round)));
    let all = workloads.len() as u64 * u64::from(rounds + 1);
    for ((index, round), done) in warm_ups.chain(measured).zip(1..) {
        bar.detail(workloads[index].name);
        let start = Instant::now();
        comparisons[index].round(round as usize, &mut sessions);
        estimate.add(index, start.elapsed());
        bar.set_with(done, all, estimate.left());
    }
    bar.finish();
    Ok(comparisons.into_iter().map(Comparison::into_result).collect())
}

/// Estimates the remaining time from the rounds that have run.
struct Estimate {
    /// Of each workload, the time and the number of its rounds so far.
    so_far: Vec<(Duration, u32)>,
    /// The number of rounds of each workload.
    rounds: u32,
    /// The number of guests that are measured after this one; each takes about the same time.
    following: usize,
}

impl Estimate {
    fn new(workloads: usize, rounds: u32, following: usize) -> Self {
        Self { so_far: vec![(Duration::ZERO, 0); workloads], rounds, following }
    }

    /// Adds a round of a workload.
    fn add(&mut self, workload: usize, took: Duration) {
        let (time, count) = &mut self.so_far[workload];
        *time += took;
        *count += 1;
    }

    /// The remaining time; `None` until each workload has run once.
    fn left(&self) -> Option<Duration> {
        let mut left = Duration::ZERO;
        for (time, count) in &self.so_far {
            let round = time.checked_div(*count)?;
            left +=
                round * (self.rounds - count) + round * self.rounds * u32::try_from(self.following).ok()?;
        }
        Some(left)
    }
}

/// The comparison of all emulators in one workload.
struct Comparison<'a> {
    workload: &'a Workload,
    setup: &'a Setup<'a>,
    outcomes: Vec<Outcome>,
    /// Label of the first successful emulator, and the hash of its output.
    reference: Option<(&'a str, String)>,
}

impl<'a> Comparison<'a> {
    fn new(workload: &'a Workload, setup: &'a Setup<'a>, sessions: &[Option<Session>]) -> Self {
        let outcome = |session: &Option<Session>| match session {
            Some(_) => Outcome::Measured(Samples::default()),
            None => Outcome::Absent,
        };
        Self { workload, setup, outcomes: sessions.iter().map(outcome).collect(), reference: None }
    }

    /// Runs the workload once under each emulator. The first emulator changes from round to round.
    fn round(&mut self, round: usize, sessions: &mut [Option<Session>]) {
        let count = sessions.len();
        for at in (0..count).map(|n| (n + round) % count) {
            let (Some(session), Outcome::Measured(_)) = (&mut sessions[at], &self.outcomes[at]) else {
                continue;
            };
            let Workload { argv, times, status, .. } = self.workload;
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            let memory = round == 0;
            let ran = session.run(&Request { argv, times: *times, status: *status, memory });
            let label = &self.setup.labels[at];
            let used = ran.map_err(|error| format!("{error:#}")).and_then(|ran| self.accept(label, ran));
            match (used, &mut self.outcomes[at]) {
                (Ok(used), Outcome::Measured(samples)) if memory => samples.memory = used.memory,
                (Ok(used), Outcome::Measured(samples)) => samples.push(&used),
                (Ok(_), _) => {}
                (Err(why), outcome) => {
                    say(format_args!(
                        "FAILED: {} {} under {label}: {why}",
                        self.setup.guest, self.workload.name
                    ));
                    *outcome = Outcome::Failed(why);
                }
            }
        }
    }

    /// Returns what a run used, or why it has failed.
    fn accept(&mut self, label: &'a str, ran: Ran) -> Result<Used, String> {
        if ran.status != Some(self.workload.status) {
            return Err(ran.describe_end());
        }
        let (first, expected) = self.reference.get_or_insert_with(|| (label, ran.stdout.clone()));
        if *expected == ran.stdout {
            Ok(ran.used)
        } else if *first == label {
            Err("its output differs between runs".to_owned())
        } else {
            Err(format!("its output differs from that under {first}"))
        }
    }

    fn into_result(self) -> WorkloadResult {
        let Workload { name, what, times, .. } = self.workload;
        WorkloadResult {
            name: (*name).to_owned(),
            what: (*what).to_owned(),
            times: *times,
            outcomes: self.outcomes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workloads::WORKLOADS;

    fn ran(status: i32, stdout: &str) -> Ran {
        let (stdout, stderr) = (stdout.to_owned(), "no such thing".to_owned());
        Ran { used: Used::default(), status: Some(status), signal: None, stdout, stderr }
    }

    #[test]
    fn the_remaining_time_is_known_after_the_warm_up() {
        let seconds = Duration::from_secs;
        let mut estimate = Estimate::new(2, 8, 0);
        estimate.add(0, seconds(1));
        assert_eq!(estimate.left(), None);
        estimate.add(1, seconds(100));
        assert_eq!(estimate.left(), Some(seconds(7 + 700)));
        // Short workloads run first, and do not make the estimate too low.
        (0..7).for_each(|_| estimate.add(0, seconds(1)));
        assert_eq!(estimate.left(), Some(seconds(700)));
        estimate.following = 2;
        assert_eq!(estimate.left(), Some(seconds(700 + 2 * 808)));
    }

    #[test]
    fn other_output_is_a_failure() {
        let bench_root = BenchRoot { root: PathBuf::new(), bench: PathBuf::new() };
        let guest = "aarch64".parse().unwrap();
        let setup = Setup { guest, labels: &[], emulators: &[], bench_root: &bench_root };
        let workload = WORKLOADS.iter().find(|workload| workload.status == 0).unwrap();
        let mut comparison = Comparison::new(workload, &setup, &[]);
        let mut refused = |label, ran| comparison.accept(label, ran).err();
        assert_eq!(refused("a", ran(1, "half")).as_deref(), Some("exit status 1: no such thing"));
        // The output of a failed run is not the reference.
        assert_eq!(refused("b", ran(0, "whole")), None);
        assert_eq!(refused("c", ran(0, "whole")), None);
        assert_eq!(refused("c", ran(0, "half")).as_deref(), Some("its output differs from that under b"));
        assert_eq!(refused("b", ran(0, "half")).as_deref(), Some("its output differs between runs"));
    }
}
