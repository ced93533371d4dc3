//! The results of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::check::Verdict;
use super::check::availability::Figures;
use super::history::{Did, Failure, Moment, Outcome, Record, seconds};
use super::plan::Plan;
use super::strike::Kind;
use super::watch::Sample;

/// How many violations of one promise are shown in full.
const SHOWN: usize = 10;

/// The results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The command that repeats the run.
    command: String,
    seed: u64,
    seconds: f64,
    /// Requests of the clients.
    requests: usize,
    /// The failures that clients met, and their numbers.
    failures: BTreeMap<String, usize>,
    /// Processors of the machine.
    processors: usize,
    promises: Vec<Verdict>,
    faults: BTreeMap<&'static str, Figures>,
    memory: Memory,
}

/// The memory of each process over time.
#[derive(Debug, Serialize)]
struct Memory {
    processes: Vec<&'static str>,
    /// The time of each sample in seconds, and the resident megabytes of each process that was there.
    samples: Vec<(f64, Vec<Option<u64>>)>,
}

impl Report {
    /// Puts it together.
    pub(crate) fn new(
        plan: &Plan,
        ended: Moment,
        records: &[Record],
        promises: Vec<Verdict>,
        figures: &BTreeMap<Kind, Figures>,
        samples: &[Sample],
    ) -> Self {
        let length = match plan.length {
            None => "--short".to_owned(),
            Some(length) => format!("--minutes {}", length.as_secs() / 60),
        };
        let processes = samples.first().into_iter().flat_map(|sample| &sample.resident).map(|one| one.0);
        let megabytes =
            |sample: &Sample| sample.resident.iter().map(|one| one.1.map(|bytes| bytes >> 20)).collect();
        Self {
            command: format!("target/release/bench faults --seed {} {length}", plan.seed),
            seed: plan.seed,
            seconds: seconds(ended),
            requests: records.len(),
            failures: failures(records),
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            promises,
            faults: Kind::ALL
                .iter()
                .filter_map(|kind| figures.get(kind).map(|figures| (kind.name(), figures.clone())))
                .collect(),
            memory: Memory {
                processes: processes.collect(),
                samples: samples.iter().map(|sample| (seconds(sample.at), megabytes(sample))).collect(),
            },
        }
    }

    /// Whether every promise was kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.promises.iter().all(|verdict| verdict.violations.is_empty())
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// As Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let strikes: usize = self.faults.values().map(|figures| figures.strikes).sum();
        writeln!(text, "# A system under load, broken {strikes} times\n")?;
        writeln!(
            text,
            "`{}`: seed {}, {:.0} s, {} requests, on {} processors that the system shares with its clients.\n",
            self.command, self.seed, self.seconds, self.requests, self.processors
        )?;
        writeln!(text, "| promise | looked at | kept |\n|---|---|---|")?;
        for verdict in &self.promises {
            let kept = match verdict.violations.len() {
                0 => "yes".to_owned(),
                count => format!("**no: {count}**"),
            };
            writeln!(text, "| {} | {} | {kept} |", verdict.promise, verdict.looked_at)?;
        }
        for verdict in self.promises.iter().filter(|verdict| !verdict.violations.is_empty()) {
            writeln!(text, "\n## Not kept: {}\n", verdict.promise)?;
            for violation in verdict.violations.iter().take(SHOWN) {
                writeln!(text, "- {violation}")?;
            }
            if verdict.violations.len() > SHOWN {
                writeln!(text, "- and {} more", verdict.violations.len() - SHOWN)?;
            }
        }
        self.write_faults(text)?;
        self.write_failures(text)?;
        self.write_memory(text)
    }

    fn write_faults(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n## Each kind of fault\n\n\
             From the fault until all was well again. Reads are those through gateways that it did not strike \
             themselves; the longest gap is that between two successful reads of images that nobody changed \
             meanwhile, through the worse gateway. *Ready* is the longest time until every gateway found all \
             parts of the system, *recorded* until windows became rows, both counted from when what was taken \
             away was given back; for a worker that another one has to stand in for, from the fault itself.\n\n\
             | fault | times | reads | failed | changes | not acknowledged | longest gap | ready | recorded | \
             other worker serves |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for (name, figures) in Kind::ALL.iter().filter_map(|kind| self.faults.get_key_value(kind.name())) {
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                figures.strikes,
                figures.reads,
                figures.failed_reads,
                figures.changes,
                figures.failed_changes,
                time(figures.longest_gap_ms),
                time(figures.ready_ms),
                time(figures.recorded_ms),
                figures.takeover_ms.map(time).unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    fn write_failures(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## What clients were told instead\n\n| request | answer | times |\n|---|---|--:|")?;
        for (failure, count) in &self.failures {
            writeln!(text, "| {failure} | {count} |")?;
        }
        Ok(())
    }

    fn write_memory(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n## Memory\n\nResident megabytes of each process; nothing where it was just away.\n"
        )?;
        writeln!(text, "| time | {} |", self.memory.processes.join(" | "))?;
        writeln!(text, "|--:|{}", "--:|".repeat(self.memory.processes.len()))?;
        // One a minute, and more of a short run.
        let step = (self.memory.samples.len() / 12).clamp(1, 12);
        for (at, sample) in self.memory.samples.iter().skip(step - 1).step_by(step) {
            let cells = sample.iter().map(|megabytes| megabytes.map(|megabytes| megabytes.to_string()));
            let cells: Vec<String> = cells.map(Option::unwrap_or_default).collect();
            writeln!(text, "| {at:.0} s | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// Counts what failed, by what it was and what was said.
fn failures(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        let (request, failure) = match &record.did {
            Did::Read { seen: Err(failure), .. } => ("read", said(*failure)),
            Did::Listed { keys: Err(failure) } => ("list of keys", said(*failure)),
            Did::Wrote { image, outcome, .. } => {
                let Some(said) = not_acknowledged(*outcome) else { continue };
                (if image.is_some() { "upload" } else { "deletion" }, said)
            }
            Did::DeletedAll { outcome } => {
                let Some(said) = not_acknowledged(*outcome) else { continue };
                ("deletion of all", said)
            }
            Did::Read { .. } | Did::Listed { .. } => continue,
        };
        *counts.entry(format!("{request} | {failure}")).or_default() += 1;
    }
    counts
}

fn not_acknowledged(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Done { .. } => None,
        Outcome::StillTelling => Some("503, made, and the cache is still being told".to_owned()),
        Outcome::Unknown(failure) => Some(said(failure)),
        Outcome::NotSent => Some(said(Failure::NotSent)),
    }
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::NotSent => "none: nobody listened".to_owned(),
        Failure::Lost => "none: the connection was lost".to_owned(),
        Failure::Unanswered => "none within a minute".to_owned(),
        Failure::Status(status) => status.to_string(),
    }
}

/// Milliseconds, for people.
fn time(milliseconds: u64) -> String {
    match milliseconds {
        u64::MAX => "never".to_owned(),
        0..1000 => format!("{milliseconds} ms"),
        _ => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_not_kept() {
        let plan = Plan { seed: 7, length: None, kinds: Vec::new(), binaries: "x".into(), is_cluster: false };
        let verdict = |violations| Verdict { promise: "P", looked_at: "1 thing".into(), violations };
        let report = |violations| {
            let figures = BTreeMap::from([(Kind::NatsKilled, Figures::default())]);
            let sample = Sample { at: 0, resident: vec![("p", Some(5 << 20)), ("q", None)] };
            let did = Did::Wrote { key: 0, image: None, outcome: Outcome::StillTelling };
            let record = Record { is_probe: false, gateway: 0, start: 0, end: 1, did };
            Report::new(&plan, 1, &[record], vec![verdict(violations)], &figures, &[sample])
        };
        assert!(report(vec![]).is_kept() && report(vec![]).to_markdown().contains("| P | 1 thing | yes |"));
        let broken = report(vec!["it was not".into()]);
        assert!(!broken.is_kept() && broken.to_markdown().contains("- it was not"));
        assert!(broken.to_markdown().contains("| 0 s | 5 |  |"));
        assert!(broken.to_markdown().contains("| deletion | 503, made, and"));
        assert!(broken.to_json().is_ok_and(|json| json.contains("nats-server killed")));
    }
}
