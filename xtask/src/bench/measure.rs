//! The measuring itself: rounds in which each emulator runs the same workload once, so that all of them have the same
//! machine, and what it does besides falls on all.
//!
//! The times of a first round are not counted: it fills the page cache, and tells how much memory each takes. What an
//! emulator writes has to be what the others write, or it has not done the same work.

use std::path::PathBuf;

use anyhow::Result;
use qus_core::arch::Arch;

use crate::base::progress::{Bar, say};
use crate::bench::results::{Outcome, Row, Samples};
use crate::bench::session::{Place, Session};
use crate::bench::worker::{Ran, Request, Used};
use crate::bench::workloads::Workload;

/// The emulators of a guest, in the order of their labels; not every folder has one.
pub(super) struct Field<'a> {
    pub(super) guest: &'static Arch,
    pub(super) labels: &'a [String],
    pub(super) emulators: &'a [Option<PathBuf>],
    pub(super) place: &'a Place,
}

/// Runs the workloads under every emulator.
pub(super) fn measure(field: &Field<'_>, workloads: &[&Workload], rounds: u32) -> Result<Vec<Row>> {
    let start = |emulator: &Option<PathBuf>| {
        emulator.as_ref().map(|it| Session::start(field.guest, it, field.place)).transpose()
    };
    let mut sessions: Vec<_> = field.emulators.iter().map(start).collect::<Result<_>>()?;
    let mut bar = Bar::new(format!("{}: {} workloads", field.guest, workloads.len()));
    let (mut rows, all) = (Vec::new(), workloads.len() as u64 * u64::from(rounds + 1));
    for workload in workloads {
        let mut race = Race::new(workload, field, &sessions);
        for round in 0..=rounds {
            race.round(round as usize, &mut sessions);
            bar.set(rows.len() as u64 * u64::from(rounds + 1) + u64::from(round) + 1, all);
        }
        rows.push(race.row());
    }
    bar.finish();
    Ok(rows)
}

/// One workload under all emulators.
struct Race<'a> {
    workload: &'a Workload,
    field: &'a Field<'a>,
    outcomes: Vec<Outcome>,
    /// Who wrote first, and what.
    reference: Option<(&'a str, String)>,
}

impl<'a> Race<'a> {
    fn new(workload: &'a Workload, field: &'a Field<'a>, sessions: &[Option<Session>]) -> Self {
        let outcome = |session: &Option<Session>| match session {
            Some(_) => Outcome::Measured(Samples::default()),
            None => Outcome::Absent,
        };
        Self { workload, field, outcomes: sessions.iter().map(outcome).collect(), reference: None }
    }

    /// Runs it once under each; another begins each round, so that none always comes after the same one.
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
            let label = &self.field.labels[at];
            let used = ran.map_err(|error| format!("{error:#}")).and_then(|ran| self.accept(label, ran));
            match (used, &mut self.outcomes[at]) {
                (Ok(used), Outcome::Measured(samples)) if memory => samples.memory = used.memory,
                (Ok(used), Outcome::Measured(samples)) => samples.push(&used),
                (Ok(_), _) => {}
                (Err(why), outcome) => {
                    say(format_args!(
                        "FAILED: {} {} under {label}: {why}",
                        self.field.guest, self.workload.name
                    ));
                    *outcome = Outcome::Failed(why);
                }
            }
        }
    }

    /// What a run has used, or why it counts for nothing.
    fn accept(&mut self, label: &'a str, ran: Ran) -> Result<Used, String> {
        if ran.status != Some(self.workload.status) {
            return Err(ran.ending());
        }
        let (first, expected) = self.reference.get_or_insert_with(|| (label, ran.stdout.clone()));
        if *expected == ran.stdout {
            Ok(ran.used)
        } else if *first == label {
            Err("it writes something else each time".to_owned())
        } else {
            Err(format!("it writes something else than under {first}"))
        }
    }

    fn row(self) -> Row {
        let Workload { name, what, times, .. } = self.workload;
        Row { name: (*name).to_owned(), what: (*what).to_owned(), times: *times, outcomes: self.outcomes }
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
    fn other_output_is_a_failure() {
        let place = Place { root: PathBuf::new(), bench: PathBuf::new() };
        let guest = "aarch64".parse().unwrap();
        let field = Field { guest, labels: &[], emulators: &[], place: &place };
        let workload = WORKLOADS.iter().find(|workload| workload.status == 0).unwrap();
        let mut race = Race::new(workload, &field, &[]);
        let mut refused = |label, ran| race.accept(label, ran).err();
        assert_eq!(refused("a", ran(1, "half")).as_deref(), Some("exit status 1: no such thing"));
        // What failed is no reference.
        assert_eq!(refused("b", ran(0, "whole")), None);
        assert_eq!(refused("c", ran(0, "whole")), None);
        assert_eq!(refused("c", ran(0, "half")).as_deref(), Some("it writes something else than under b"));
        assert_eq!(refused("b", ran(0, "half")).as_deref(), Some("it writes something else each time"));
    }
}
