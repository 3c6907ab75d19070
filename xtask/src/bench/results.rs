//! What came of a run: every single sample, and what is read off them. Table, page and plot are made of nothing else,
//! so that they can be made again from the JSON.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::statistics::{Spread, geometric_mean, median};
use crate::bench::worker::Used;

/// Version of the form of the JSON.
const SCHEMA: u32 = 1;

/// By which time emulators are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Clock {
    /// What passed meanwhile: what people wait for
    Wall,
    /// What the processors spent, which other work on the machine disturbs less
    Cpu,
}

/// The JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    schema: u32,
    pub(super) machine: Machine,
    pub(super) clock: Clock,
    pub(super) rounds: u32,
    /// Ours first; everything else is in this order.
    pub(super) emulators: Vec<Contestant>,
    pub(super) guests: Vec<Guest>,
    /// All emulators of the bundle together, if it has all.
    pub(super) everything: Option<Size>,
}

/// Where it was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    pub(super) host: String,
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) kernel: String,
}

/// A folder of emulators.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contestant {
    pub(super) label: String,
    pub(super) version: String,
}

/// An architecture whose programs were run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guest {
    pub(super) guest: String,
    /// What its root folder is of, where there was one.
    pub(super) system: Option<String>,
    pub(super) workloads: Vec<Row>,
    pub(super) instructions: Vec<Instructions>,
    pub(super) sizes: Vec<Option<Size>>,
}

/// A workload under each emulator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) what: String,
    /// How many processes a sample is of.
    pub(super) times: u32,
    pub(super) outcomes: Vec<Outcome>,
}

/// What came of a workload under an emulator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Measured(Samples),
    /// Why it failed.
    Failed(String),
    /// The folder has no such emulator.
    Absent,
}

/// One number for each round; times in microseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Samples {
    pub(super) wall: Vec<u64>,
    pub(super) user: Vec<u64>,
    pub(super) system: Vec<u64>,
    pub(super) faults: Vec<u64>,
    /// The most memory that a process had, in KiB.
    pub(super) memory: u64,
}

/// Instructions that the emulators themselves take for a program.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Instructions {
    pub(super) name: String,
    pub(super) counts: Vec<Count>,
}

/// What came of counting under an emulator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Count {
    Counted(u64),
    /// Why it failed.
    Failed(String),
    /// The folder has no such emulator.
    Absent,
}

/// Of emulators, in bytes: as they are, and compressed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Size {
    pub(super) file: u64,
    pub(super) gzip: Option<u64>,
    pub(super) zstd: u64,
}

impl Results {
    pub(super) fn new(machine: Machine, clock: Clock, rounds: u32, emulators: Vec<Contestant>) -> Self {
        Self { schema: SCHEMA, machine, clock, rounds, emulators, guests: Vec::new(), everything: None }
    }

    /// Reads what was recorded.
    pub(crate) fn read(json: &[u8]) -> Result<Self> {
        let results: Self = serde_json::from_slice(json).context("these are no results of a bench")?;
        ensure!(results.schema == SCHEMA, "these are results in another form: measure again");
        Ok(results)
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// How many workloads have failed, under callgrind too.
    pub(super) fn failures(&self) -> usize {
        let outcomes = self.guests.iter().flat_map(|guest| &guest.workloads).flat_map(|row| &row.outcomes);
        let counts = self.guests.iter().flat_map(|guest| &guest.instructions).flat_map(|it| &it.counts);
        outcomes.filter(|outcome| matches!(outcome, Outcome::Failed(_))).count()
            + counts.filter(|count| matches!(count, Count::Failed(_))).count()
    }
}

impl Guest {
    /// How much longer an emulator takes than ours, over all workloads that both have done.
    pub(super) fn mean(&self, clock: Clock, emulator: usize) -> Option<f64> {
        geometric_mean(self.workloads.iter().filter_map(|row| Some(row.ratio(clock, emulator)?.median)))
    }

    /// The same for the best of the others in each workload.
    pub(super) fn mean_of_best(&self, clock: Clock) -> Option<f64> {
        geometric_mean(self.workloads.iter().filter_map(|row| Some(row.best(clock)?.1.median)))
    }

    pub(super) fn row(&self, name: &str) -> Option<&Row> {
        self.workloads.iter().find(|row| row.name == name)
    }
}

impl Row {
    pub(super) fn samples(&self, emulator: usize) -> Option<&Samples> {
        match self.outcomes.get(emulator)? {
            Outcome::Measured(samples) => Some(samples),
            _ => None,
        }
    }

    /// What one process took, in milliseconds.
    pub(super) fn milliseconds(&self, clock: Clock, emulator: usize) -> Option<f64> {
        Some(median(&self.samples(emulator)?.times(clock))? / f64::from(self.times) / 1e3)
    }

    /// How many times longer an emulator takes than ours.
    pub(super) fn ratio(&self, clock: Clock, emulator: usize) -> Option<Spread> {
        let times = |emulator| Some(self.samples(emulator)?.times(clock));
        Spread::of_ratios(&times(emulator)?, &times(0)?)
    }

    /// The fastest of the others, and its ratio.
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

    /// Two workloads under three emulators; the last one has failed in the second.
    pub(crate) fn results() -> Results {
        let machine = Machine {
            host: "amd64".into(),
            processor: "A <fast> one".into(),
            processors: 2,
            kernel: "6.18".into(),
        };
        let contestant = |label: &str| Contestant { label: label.into(), version: "1.2.3".into() };
        let emulators = ["ours", "old & good", "new"].map(contestant).into();
        let row =
            |name: &str, times, outcomes| Row { name: name.into(), what: "what".into(), times, outcomes };
        let measured = |wall: &[u64]| Outcome::Measured(samples(wall));
        let exit = [measured(&[100, 200]), measured(&[400, 800]), measured(&[200, 400])];
        let gcc = [measured(&[1000, 1000]), measured(&[1000, 2000]), Outcome::Failed("exit status 1".into())];
        let workloads = vec![row("exit", 10, exit.into()), row("gcc", 1, gcc.into())];
        let size = Size { file: 5_000_000, gzip: Some(2_000_000), zstd: 1_500_000 };
        let counts = vec![Count::Counted(1000), Count::Failed("exit status 255".into()), Count::Absent];
        let instructions = Instructions { name: "exit".into(), counts };
        let guest = Guest {
            guest: "aarch64".into(),
            system: Some("Debian GNU/Linux 13 (trixie)".into()),
            workloads,
            instructions: vec![instructions],
            sizes: vec![Some(size), Some(size), None],
        };
        Results { guests: vec![guest], ..Results::new(machine, Clock::Wall, 2, emulators) }
    }

    #[test]
    fn what_is_read_off() {
        let results = results();
        let guest = &results.guests[0];
        let exit = guest.row("exit").unwrap();
        assert_eq!(exit.milliseconds(Clock::Wall, 0), Some(0.015));
        assert_eq!(exit.ratio(Clock::Wall, 1).unwrap().median, 4.0);
        let (best, ratio) = exit.best(Clock::Wall).unwrap();
        assert_eq!((best, ratio.median), (2, 2.0));
        assert_eq!(exit.faults(0), Some(50.0));
        let gcc = guest.row("gcc").unwrap();
        assert!(gcc.ratio(Clock::Wall, 2).is_none());
        assert_eq!(gcc.best(Clock::Wall).unwrap().0, 1);
        assert_eq!(guest.mean(Clock::Wall, 2), Some(2.0));
        assert!((guest.mean_of_best(Clock::Wall).unwrap() - 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(results.failures(), 2);
    }

    #[test]
    fn the_json_has_all_of_it() {
        let json = results().json().unwrap();
        let again = Results::read(json.as_bytes()).unwrap();
        assert_eq!(again.json().unwrap(), json);
        assert!(Results::read(json.replace("\"schema\":1", "\"schema\":2").as_bytes()).is_err());
    }
}
