//! The results of a run: all samples and the statistics over them. Table, page and plot are generated only from them, so
//! they can be generated again from the JSON.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::statistics::{Spread, geometric_mean, median};
use crate::bench::worker::Used;

/// Version of the JSON schema.
const SCHEMA: u32 = 1;

/// The time by which emulators are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Clock {
    /// Elapsed time, which is what people wait for
    Wall,
    /// CPU time, which other work on the machine affects less
    Cpu,
}

/// The top level of the JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    schema: u32,
    pub(super) machine: Machine,
    pub(super) clock: Clock,
    pub(super) rounds: u32,
    /// The bundle's come first; results of emulators are in this order.
    pub(super) emulators: Vec<EmulatorSet>,
    pub(super) guests: Vec<GuestResults>,
    /// Size of all emulators of the bundle together, if it is complete.
    pub(super) everything: Option<Size>,
    /// The day of the measurement, and the commit of this repository; old results have neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) date: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
}

/// The machine of the measurement.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    pub(super) host: String,
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) kernel: String,
}

/// The emulators of one directory or package.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmulatorSet {
    pub(super) label: String,
    pub(super) version: String,
}

/// The results of one guest architecture.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GuestResults {
    pub(super) guest: String,
    /// The system in its root filesystem, if it had one.
    pub(super) system: Option<String>,
    pub(super) workloads: Vec<WorkloadResult>,
    pub(super) instructions: Vec<Instructions>,
    pub(super) sizes: Vec<Option<Size>>,
}

/// The results of a workload under each emulator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadResult {
    pub(super) name: String,
    pub(super) what: String,
    /// Number of processes per sample.
    pub(super) times: u32,
    pub(super) outcomes: Vec<Outcome>,
}

/// The result of a workload under one emulator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Measured(Samples),
    /// The reason of the failure.
    Failed(String),
    /// There is no emulator of this guest.
    Absent,
}

/// One sample per round; times are in microseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Samples {
    pub(super) wall: Vec<u64>,
    pub(super) user: Vec<u64>,
    pub(super) system: Vec<u64>,
    pub(super) faults: Vec<u64>,
    /// Peak memory of a process in KiB.
    pub(super) memory: u64,
}

/// Instructions that each emulator executes for a program.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Instructions {
    pub(super) name: String,
    pub(super) counts: Vec<Count>,
}

/// The number of instructions under one emulator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Count {
    Counted(u64),
    /// The reason of the failure.
    Failed(String),
    /// There is no emulator of this guest.
    Absent,
}

/// Size of emulators in bytes, uncompressed and compressed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Size {
    pub(super) file: u64,
    pub(super) gzip: Option<u64>,
    pub(super) zstd: u64,
}

impl Results {
    pub(super) fn new(machine: Machine, clock: Clock, rounds: u32, emulators: Vec<EmulatorSet>) -> Self {
        let (guests, everything, date, commit) = Default::default();
        Self { schema: SCHEMA, machine, clock, rounds, emulators, guests, everything, date, commit }
    }

    /// Parses recorded results.
    pub(crate) fn read(json: &[u8]) -> Result<Self> {
        let results: Self = serde_json::from_slice(json).context("not results of `cargo xtask bench`")?;
        ensure!(results.schema == SCHEMA, "these results have another schema version; measure again");
        Ok(results)
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Counts the failed workloads, including those under callgrind.
    pub(super) fn failures(&self) -> usize {
        let outcomes = self.guests.iter().flat_map(|guest| &guest.workloads).flat_map(|row| &row.outcomes);
        let counts = self.guests.iter().flat_map(|guest| &guest.instructions).flat_map(|it| &it.counts);
        outcomes.filter(|outcome| matches!(outcome, Outcome::Failed(_))).count()
            + counts.filter(|count| matches!(count, Count::Failed(_))).count()
    }
}

impl GuestResults {
    /// Mean of an emulator's time relative to the bundle's, over all workloads that both completed.
    pub(super) fn mean(&self, clock: Clock, emulator: usize) -> Option<f64> {
        geometric_mean(self.workloads.iter().filter_map(|row| Some(row.ratio(clock, emulator)?.median)))
    }

    /// The same with the fastest other emulator of each workload.
    pub(super) fn mean_of_best(&self, clock: Clock) -> Option<f64> {
        geometric_mean(self.workloads.iter().filter_map(|row| Some(row.best(clock)?.1.median)))
    }

    pub(super) fn workload(&self, name: &str) -> Option<&WorkloadResult> {
        self.workloads.iter().find(|row| row.name == name)
    }
}

impl WorkloadResult {
    pub(super) fn samples(&self, emulator: usize) -> Option<&Samples> {
        match self.outcomes.get(emulator)? {
            Outcome::Measured(samples) => Some(samples),
            _ => None,
        }
    }

    /// Median time of one process in milliseconds.
    pub(super) fn milliseconds(&self, clock: Clock, emulator: usize) -> Option<f64> {
        Some(median(&self.samples(emulator)?.times(clock))? / f64::from(self.times) / 1e3)
    }

    /// An emulator's time relative to the bundle's.
    pub(super) fn ratio(&self, clock: Clock, emulator: usize) -> Option<Spread> {
        let times = |emulator| Some(self.samples(emulator)?.times(clock));
        Spread::of_ratios(&times(emulator)?, &times(0)?)
    }

    /// The fastest other emulator and its ratio.
    pub(super) fn best(&self, clock: Clock) -> Option<(usize, Spread)> {
        let others = (1..self.outcomes.len()).filter_map(|other| Some((other, self.ratio(clock, other)?)));
        others.min_by(|a, b| a.1.median.total_cmp(&b.1.median))
    }

    /// Page faults of one process.
    pub(super) fn faults(&self, emulator: usize) -> Option<f64> {
        Some(median(&self.samples(emulator)?.faults)? / f64::from(self.times))
    }
}

impl Samples {
    pub(super) fn push(&mut self, used: &Used) {
        self.wall.push(used.wall);
        self.user.push(used.user);
        self.system.push(used.system);
        self.faults.push(used.faults);
    }

    fn times(&self, clock: Clock) -> Vec<u64> {
        match clock {
            Clock::Wall => self.wall.clone(),
            Clock::Cpu => self.user.iter().zip(&self.system).map(|(user, system)| user + system).collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn samples(wall: &[u64]) -> Samples {
        let mut samples = Samples { memory: 9000, ..Samples::default() };
        for &wall in wall {
            let used = Used { wall, user: wall / 4, system: wall / 4, memory: 9000, faults: 500 };
            samples.push(&used);
        }
        samples
    }

    /// Two workloads under three emulators; the last emulator fails in the second workload.
    pub(crate) fn results() -> Results {
        let machine = Machine {
            host: "amd64".into(),
            processor: "A <fast> one".into(),
            processors: 2,
            kernel: "6.18".into(),
        };
        let emulator_set = |label: &str| EmulatorSet { label: label.into(), version: "1.2.3".into() };
        let emulators = ["ours", "old & good", "new"].map(emulator_set).into();
        let row = |name: &str, times, outcomes| WorkloadResult {
            name: name.into(),
            what: "what".into(),
            times,
            outcomes,
        };
        let measured = |wall: &[u64]| Outcome::Measured(samples(wall));
        let exit = [measured(&[100, 200]), measured(&[400, 800]), measured(&[200, 400])];
        let gcc = [measured(&[1000, 1000]), measured(&[1000, 2000]), Outcome::Failed("exit status 1".into())];
        let workloads = vec![row("exit", 10, exit.into()), row("gcc", 1, gcc.into())];
        let size = Size { file: 5_000_000, gzip: Some(2_000_000), zstd: 1_500_000 };
        let counts = vec![Count::Counted(1000), Count::Failed("exit status 255".into()), Count::Absent];
        let instructions = Instructions { name: "exit".into(), counts };
        let guest = GuestResults {
            guest: "aarch64".into(),
            system: Some("Debian GNU/Linux 13 (trixie)".into()),
            workloads,
            instructions: vec![instructions],
            sizes: vec![Some(size), Some(size), None],
        };
        Results { guests: vec![guest], ..Results::new(machine, Clock::Wall, 2, emulators) }
    }

    #[test]
    fn statistics_are_computed() {
        let results = results();
        let guest = &results.guests[0];
        let exit = guest.workload("exit").unwrap();
        assert_eq!(exit.milliseconds(Clock::Wall, 0), Some(0.015));
        assert_eq!(exit.ratio(Clock::Wall, 1).unwrap().median, 4.0);
        let (best, ratio) = exit.best(Clock::Wall).unwrap();
        assert_eq!((best, ratio.median), (2, 2.0));
        assert_eq!(exit.faults(0), Some(50.0));
        let gcc = guest.workload("gcc").unwrap();
        assert!(gcc.ratio(Clock::Wall, 2).is_none());
        assert_eq!(gcc.best(Clock::Wall).unwrap().0, 1);
        assert_eq!(guest.mean(Clock::Wall, 2), Some(2.0));
        assert!((guest.mean_of_best(Clock::Wall).unwrap() - 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(results.failures(), 2);
    }

    #[test]
    fn json_round_trips() {
        let json = results().json().unwrap();
        let again = Results::read(json.as_bytes()).unwrap();
        assert_eq!(again.json().unwrap(), json);
        assert!(Results::read(json.replace("\"schema\":1", "\"schema\":2").as_bytes()).is_err());
    }
}
