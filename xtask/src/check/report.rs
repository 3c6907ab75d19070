//! Runs checks and reports their outcomes: passed, failed, or skipped with a reason.
//!
//! A skipped check has not passed. `--require` turns a skip into a failure, for machines that can run the check.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use qus_core::hint;
use qus_core::terminal::decorate;
use qus_core::text::{Show, lines};
use serde::{Deserialize, Serialize};

use crate::base::error::Skip;
use crate::base::files;
use crate::base::output::NO_STDOUT;

/// The outcome of a check.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "why")]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

impl Outcome {
    /// Whether a check was skipped because this user is not root.
    fn needs_root(&self) -> bool {
        let texts = ["only root", "requires root", "require root"];
        matches!(self, Self::Skipped(why) if texts.iter().any(|text| why.contains(text)))
    }
}

#[derive(Debug, Serialize)]
struct Case {
    level: &'static str,
    name: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A case in the JSON of another process.
#[derive(Deserialize)]
struct OtherCase {
    name: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The outcomes of the checks that have run.
pub(crate) struct Report {
    title: &'static str,
    require: Vec<String>,
    /// Only checks whose names contain this text run.
    only: String,
    cases: Vec<Case>,
    lines: Box<dyn Write + Send>,
    /// The first error of writing a line; the checks continue.
    unwritable: Option<io::Error>,
}

/// Copies an error for another check; a [`Skip`] remains a [`Skip`].
pub(crate) fn copy_error(why: &Error) -> Error {
    match hint::find::<Skip>(why) {
        Some(Skip(why)) => Skip(why.clone()).into(),
        None => anyhow!("{why:#}"),
    }
}

/// An error with its causes and its hint.
fn with_hint(error: &Error) -> String {
    let hint = hint::of(error).map(|hint| format!(" (hint: {hint})"));
    format!("{error:#}{}", hint.unwrap_or_default())
}

impl Report {
    /// Creates an empty report. Skipped checks of the levels in `require`, or of all levels if it contains `all`, count
    /// as failures. A line for each check and the totals are written to standard output.
    pub(crate) fn new(title: &'static str, require: &[String]) -> Self {
        Self::to(Box::new(io::stdout()), title, require)
    }

    fn to(lines: Box<dyn Write + Send>, title: &'static str, require: &[String]) -> Self {
        Self {
            title,
            require: require.to_vec(),
            only: String::new(),
            cases: Vec::new(),
            lines,
            unwritable: None,
        }
    }

    /// Excludes checks whose names do not contain a text; they are not counted.
    pub(crate) fn only(self, text: &str) -> Self {
        Self { only: text.to_owned(), ..self }
    }

    /// The options of `cargo xtask smoke` with which another process runs the same checks.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec![format!("--only={}", self.only)];
        options.extend(self.require.iter().map(|required| format!("--require={required}")));
        options
    }

    /// Adds the outcomes of a level that another process has run, printed and written to a file.
    ///
    /// # Errors
    /// The process has not written them.
    pub(crate) fn merge(&mut self, level: &'static str, file: &Path) -> Result<()> {
        let json = fs_err::read(file)?;
        let cases: Vec<OtherCase> =
            serde_json::from_slice(&json).with_context(|| format!("the level {level} did not end"))?;
        self.cases.extend(cases.into_iter().map(|OtherCase { name, outcome }| Case { level, name, outcome }));
        Ok(())
    }

    /// Writes the outcomes for [`Self::merge`] of another process, which prints the totals.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn finish_part(self, file: Option<&Path>) -> Result<()> {
        let file = file.context("there is no file for the report")?;
        files::write(file, &serde_json::to_vec_pretty(&self.cases)?)?;
        self.unwritable.map_or(Ok(()), Err).context(NO_STDOUT)
    }

    /// Runs a check and prints its outcome.
    pub(crate) fn check(
        &mut self,
        level: &'static str,
        name: impl Into<String>,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let name = name.into();
        if !name.contains(&self.only) {
            return Ok(());
        }
        let required = self.require.iter().any(|required| required == level || required == "all");
        let outcome = match check() {
            Ok(()) => Outcome::Passed,
            Err(error) => match hint::find::<Skip>(&error) {
                Some(skip) if required => Outcome::Failed(format!("required, but skipped: {skip}")),
                Some(skip) => Outcome::Skipped(skip.to_string()),
                None => Outcome::Failed(with_hint(&error)),
            },
        };
        match &outcome {
            Outcome::Passed => self.print(&format!("passed   {level}  {name}\n")),
            Outcome::Failed(why) => self.print(&format!("FAILED   {level}  {name}: {why}\n")),
            // Printed at the end, because many are skipped for the same reason.
            Outcome::Skipped(_) => {}
        }
        self.cases.push(Case { level, name, outcome });
        Ok(())
    }

    /// How many checks of each level have such an outcome.
    fn count(&self, is: impl Fn(&Outcome) -> bool) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for case in self.cases.iter().filter(|case| is(&case.outcome)) {
            *counts.entry(case.level).or_default() += 1;
        }
        counts
    }

    /// The levels of which every check needs root, and how many each has.
    fn root_levels(&self) -> BTreeMap<&'static str, usize> {
        let (mut levels, all) = (self.count(Outcome::needs_root), self.count(|_| true));
        levels.retain(|level, count| all[level] == *count);
        levels
    }

    /// A line for each reason of skipped checks, and one for all that need root, with the command that runs them.
    fn skips(&self) -> String {
        let mut reasons: Vec<(&str, Vec<&Case>)> = Vec::new();
        for case in &self.cases {
            let Outcome::Skipped(why) = &case.outcome else { continue };
            if case.outcome.needs_root() {
                continue;
            }
            let why = why.lines().next().unwrap_or_default();
            match reasons.iter_mut().find(|(other, _)| *other == why) {
                Some((_, cases)) => cases.push(case),
                None => reasons.push((why, vec![case])),
            }
        }
        let mut text = String::new();
        for (why, cases) in reasons {
            let mut levels: Vec<_> = cases.iter().map(|case| case.level).collect();
            levels.dedup();
            let name = match &*cases {
                [case] => case.name.clone(),
                cases => format!("{} checks", cases.len()),
            };
            text += &format!("skipped  {}  {name}: {why}\n", levels.join(", "));
        }
        let need_root = self.count(Outcome::needs_root);
        if let (false, Ok(xtask)) = (need_root.is_empty(), std::env::current_exe()) {
            let whole = self.root_levels();
            let of_level = |(level, count): (&&str, &usize)| {
                format!("{}{count} of {level}", if whole.contains_key(level) { "all " } else { "" })
            };
            let counts: Vec<_> = need_root.iter().map(of_level).collect();
            let levels: Vec<_> = need_root.keys().copied().collect();
            text += &format!(
                "skipped  {}: they need root: `sudo --preserve-env=CARGO_TARGET_DIR {} smoke {}`\n",
                counts.join(", "),
                xtask.quoted(),
                levels.join(" ")
            );
        }
        text
    }

    /// Writes to standard output. A closed pipe is not an error.
    fn print(&mut self, text: &str) {
        let text = decorate(&lines(text), io::stdout());
        let written = self.lines.write_all(text.as_bytes()).and_then(|()| self.lines.flush());
        if let Err(error) = written {
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.unwritable.get_or_insert(error);
            }
        }
    }

    /// The outcome of a check that has run.
    pub(crate) fn outcome(&self, level: &str, name: &str) -> Option<&Outcome> {
        self.cases.iter().find(|case| case.level == level && case.name == name).map(|case| &case.outcome)
    }

    /// Writes the report as JSON to a file, and prints the totals.
    ///
    /// # Errors
    /// A check has failed, none has run, or the report cannot be written.
    pub(crate) fn finish(mut self, file: Option<&Path>) -> Result<()> {
        let count = |of: fn(&Outcome) -> bool| self.cases.iter().filter(|case| of(&case.outcome)).count();
        let passed = count(|outcome| *outcome == Outcome::Passed);
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        // A level that needs root as a whole is named, because its checks say nothing about this machine.
        let not_run = self.root_levels();
        let skipped = self.cases.len() - passed - failed - not_run.values().sum::<usize>();
        let not_run: Vec<_> =
            not_run.iter().map(|(level, checks)| format!("; not run: {level} ({checks} checks)")).collect();
        let not_run = not_run.concat();
        self.print(&self.skips());
        self.print(&format!(
            "{}: {passed} passed, {failed} failed, {skipped} skipped{not_run}\n",
            self.title
        ));
        if let Some(file) = file {
            files::write(file, &serde_json::to_vec_pretty(&self.cases)?)?;
        }
        self.unwritable.map_or(Ok(()), Err).context(NO_STDOUT)?;
        if failed > 0 {
            bail!("{failed} of {} checks failed", self.cases.len());
        }
        if passed == 0 {
            bail!("no check ran");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(require: &[&str]) -> Report {
        let require: Vec<_> = require.iter().map(|level| (*level).to_owned()).collect();
        Report::to(Box::new(io::sink()), "test", &require)
    }

    fn skip() -> Result<()> {
        Err(Skip("no engine".into()).into())
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let mut report = quiet(&[]);
        report.check("level", "a", skip).unwrap();
        assert_eq!(report.cases[0].outcome, Outcome::Skipped("no engine".into()));
        assert!(report.finish(None).is_err(), "no check has passed");
    }

    #[test]
    fn skips_are_summarised_by_reason() {
        let mut report = quiet(&[]);
        let skip = |why: &str| Err(Skip(why.to_owned()).into());
        for (level, name) in [("kernel", "a"), ("kernel", "b"), ("engine", "c")] {
            report.check(level, name, || skip("only root can register handlers")).unwrap();
        }
        report.check("kernel", "e", || Ok(())).unwrap();
        report.check("build", "d", || skip("curl is not installed\nmore")).unwrap();
        let text = report.skips();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "skipped  build  d: curl is not installed");
        assert!(
            lines[1].starts_with("skipped  all 1 of engine, 2 of kernel: they need root: `sudo "),
            "{text}"
        );
        assert!(lines[1].ends_with(" smoke engine kernel`"), "{text}");
        assert_eq!((lines.len(), quiet(&[]).skips()), (2, String::new()));
    }

    #[test]
    fn a_part_is_merged() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut report = quiet(&["level"]).only("text");
        assert_eq!(report.options(), ["--only=text", "--require=level"]);
        assert!(report.merge("level", file.path()).is_err(), "the other process has written nothing");
        let mut part = quiet(&[]);
        part.check("level", "a", || Ok(())).unwrap();
        part.check("level", "b", skip).unwrap();
        part.check("level", "c", || anyhow::bail!("broken")).unwrap();
        part.finish_part(Some(file.path())).unwrap();
        report.merge("level", file.path()).unwrap();
        assert_eq!(report.outcome("level", "b"), Some(&Outcome::Skipped("no engine".into())));
        assert_eq!(report.finish(None).unwrap_err().to_string(), "1 of 3 checks failed");
    }

    /// Standard output to which nothing can be written.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn checks_run_if_stdout_is_not_writable() {
        for (kind, fails) in [(io::ErrorKind::BrokenPipe, false), (io::ErrorKind::StorageFull, true)] {
            let mut report = Report::to(Box::new(Broken(kind)), "test", &[]);
            let mut count = 0;
            for name in ["a", "b"] {
                report
                    .check("level", name, || {
                        count += 1;
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(count, 2);
            assert_eq!(report.finish(None).is_err(), fails, "{kind}");
        }
    }

    #[test]
    fn a_required_skip_fails() {
        for required in ["level", "all"] {
            let mut report = quiet(&[required]);
            report.check("level", "a", skip).unwrap();
            report.check("level", "b", || Ok(())).unwrap();
            assert!(matches!(report.cases[0].outcome, Outcome::Failed(_)));
            assert_eq!(report.finish(None).unwrap_err().to_string(), "1 of 2 checks failed");
        }
    }

    #[test]
    fn a_failure_contains_causes_and_hint() {
        let mut report = quiet(&[]);
        let check = || Err(hint::hinted("no bundle", "run `cargo xtask build-qemu`").context("reading"));
        report.check("level", "a", check).unwrap();
        let expected = "reading: no bundle (hint: run `cargo xtask build-qemu`)";
        assert_eq!(report.cases[0].outcome, Outcome::Failed(expected.into()));
    }

    #[test]
    fn checks_with_other_names_do_not_run() {
        let mut report = quiet(&[]).only("busybox arm");
        report.check("level", "busybox armhf", || Ok(())).unwrap();
        report.check("level", "busybox i386", || panic!("it ran")).unwrap();
        assert_eq!(report.cases.len(), 1);
        assert!(quiet(&[]).only("none").finish(None).is_err(), "no check has run");
    }

    #[test]
    fn the_report_contains_every_outcome() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut report = quiet(&[]);
        report.check("level", "a", || Ok(())).unwrap();
        report.check("level", "b", skip).unwrap();
        report.finish(Some(file.path())).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs_err::read(file.path()).unwrap()).unwrap();
        assert_eq!(json[0]["outcome"], "passed");
        assert_eq!(json[1]["outcome"], "skipped");
        assert_eq!(json[1]["why"], "no engine");
    }
}
