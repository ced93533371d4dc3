//! Some ways to do the same work, measured side by side: in alternating rounds, so that other work on the machine
//! affects all of them, and as ratios within each round.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::load::{Choose, Load, Target};
use crate::report::{Cell, Report, Table};

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Effort {
    /// How many rounds: in each, every contestant has one turn
    #[arg(long, default_value_t = 7, value_parser = runtime::args::whole::<u32>(1..=u32::MAX.into()))]
    pub(crate) rounds: u32,
    /// How long a turn is, in seconds; a quarter as long again is not counted before it
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.05..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "must be a number of seconds from 0.05 to 3600".to_owned())
}

impl Effort {
    /// The length of a turn.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The time before a turn, in which requests are sent but not counted.
    pub(crate) fn warmup(&self) -> Duration {
        self.length() / 4
    }
}

/// The figures of one turn of one contestant.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figure {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Half of the requests took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// 99 of 100 took no longer, in microseconds.
    pub(crate) p99_us: f64,
}

/// Does one turn.
type Turn<'a> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = anyhow::Result<Figure>> + 'a>> + 'a>;

/// One way to do the work.
pub(crate) struct Contestant<'a> {
    name: String,
    /// The target for its ratio to the first contestant, or of the first to it.
    target: Option<f64>,
    turn: Turn<'a>,
}

impl<'a> Contestant<'a> {
    /// The contestant that `load` is sent to: in a closed loop, or at `rate` requests a second.
    pub(crate) fn new<T: Target, C: Choose>(
        name: impl Into<String>,
        load: Load<T, C>,
        rate: Option<f64>,
    ) -> Self {
        let load = std::sync::Arc::new(load);
        let turn: Turn<'a> = Box::new(move || {
            let load = load.clone();
            Box::pin(async move {
                let outcome = match rate {
                    Some(rate) => load.open(rate).await?.sound()?,
                    None => load.closed().await?.sound()?,
                };
                let all = outcome.all();
                let us = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
                Ok(Figure { rate: outcome.rate(), p50_us: us(0.5), p99_us: us(0.99) })
            })
        });
        Self { name: name.into(), target: None, turn }
    }

    /// The same contestant, with a target for the ratio to it.
    pub(crate) fn with_target(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// One turn by itself.
    pub(crate) async fn measure(&self) -> anyhow::Result<Figure> {
        (self.turn)().await.with_context(|| self.name.clone())
    }
}

/// The figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// The rate: more is better.
    Rate,
    /// The 99th percentile: less is better.
    P99,
}

/// A work and its contestants, of which pixcache is the first.
#[derive(Debug, Serialize)]
pub(crate) struct Match {
    work: String,
    measure: Measure,
    results: Vec<Results>,
}

/// All rounds of one contestant.
#[derive(Debug, Serialize)]
struct Results {
    name: String,
    target: Option<f64>,
    rounds: Vec<Figure>,
}

impl Match {
    /// Lets `contestants` do `work` in alternating rounds; each round begins with another one.
    ///
    /// # Errors
    /// When a request fails: failing contestants are not compared.
    pub(crate) async fn hold(
        work: impl Into<String>,
        measure: Measure,
        effort: &Effort,
        contestants: &[Contestant<'_>],
        bar: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let work = work.into();
        let mut results: Vec<_> = contestants
            .iter()
            .map(|contestant| Results {
                name: contestant.name.clone(),
                target: contestant.target,
                rounds: Vec::new(),
            })
            .collect();
        for round in 0..effort.rounds as usize {
            for turn in 0..contestants.len() {
                let at = (round + turn) % contestants.len();
                bar.set_message(format!("{work}: {}", contestants[at].name));
                let figure = contestants[at].measure().await.with_context(|| work.clone())?;
                results[at].rounds.push(figure);
                bar.inc(1);
            }
        }
        Ok(Self { work, measure, results })
    }

    /// The result, with a line for each contestant but the first.
    pub(crate) fn summary(&self) -> String {
        let lines = self.results.iter().skip(1).map(|other| {
            let all = self.ratios(other);
            let (least, most) = ends(&all);
            format!("{}: {:.2} × {} ({least:.2}–{most:.2})", self.work, median(&all), other.name)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The ratios of the first contestant to another in each round, in order of their size.
    fn ratios(&self, other: &Results) -> Vec<f64> {
        let Some(first) = self.results.first() else { return Vec::new() };
        let of = |figure: &Figure| match self.measure {
            Measure::Rate => figure.rate,
            Measure::P99 => figure.p99_us,
        };
        sorted(first.rounds.iter().zip(&other.rounds).map(|(first, other)| of(first) / of(other)))
    }
}

/// The table of ratios, and that of what each contestant did.
pub(crate) fn report(report: &mut Report, matches: &[Match]) -> anyhow::Result<()> {
    let mut ratios = Table::new(
        "Ratios: median of the rounds, least and greatest",
        ["work", "to", "ratio", "least", "greatest", "to reach", "reached"],
    );
    let mut figures = Table::new(
        "Medians of the rounds",
        ["work", "by", "requests/s", "least", "greatest", "p50 µs", "p99 µs"],
    );
    for work in matches {
        for results in &work.results {
            let rates = sorted(results.rounds.iter().map(|figure| figure.rate));
            let p50 = sorted(results.rounds.iter().map(|figure| figure.p50_us));
            let p99 = sorted(results.rounds.iter().map(|figure| figure.p99_us));
            let (least, most) = ends(&rates);
            figures.row([
                Cell::text(&work.work),
                Cell::text(&results.name),
                Cell::number(median(&rates), 0),
                Cell::number(least, 0),
                Cell::number(most, 0),
                Cell::number(median(&p50), 0),
                Cell::number(median(&p99), 0),
            ]);
        }
        for other in work.results.iter().skip(1) {
            let all = work.ratios(other);
            let (least, most) = ends(&all);
            let reached = |target: f64| match work.measure {
                Measure::Rate => median(&all) >= target,
                Measure::P99 => median(&all) <= target,
            };
            let (sign, what) = match work.measure {
                Measure::Rate => ("≥", "rate"),
                Measure::P99 => ("≤", "p99"),
            };
            ratios.row([
                Cell::text(format!("{} ({what})", work.work)),
                Cell::text(&other.name),
                Cell::number(median(&all), 2),
                Cell::number(least, 2),
                Cell::number(most, 2),
                other.target.map_or(Cell::Empty, |target| Cell::text(format!("{sign} {target}"))),
                other
                    .target
                    .map_or(Cell::Empty, |target| Cell::text(if reached(target) { "yes" } else { "no" })),
            ]);
        }
    }
    report.table(ratios);
    report.table(figures);
    report.data("rounds", matches)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The median of sorted values: the one in the middle, or the mean of the two there.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

fn ends(sorted: &[f64]) -> (f64, f64) {
    (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[1.0, 5.0, 9.0]) - 5.0).abs() < 1e-9);
        assert!((median(&[1.0, 5.0, 9.0, 11.0]) - 7.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let figure = |rate| Figure { rate, p50_us: 1.0, p99_us: 2.0 * rate };
        let results = |name: &str, rates: [f64; 3]| Results {
            name: name.to_owned(),
            target: None,
            rounds: rates.map(figure).to_vec(),
        };
        // The machine is slower from round to round, for both.
        let (ours, other) = (results("ours", [90.0, 60.0, 30.0]), results("other", [45.0, 30.0, 15.0]));
        for measure in [Measure::Rate, Measure::P99] {
            let all = Match {
                work: String::new(),
                measure,
                results: vec![results("ours", [90.0, 60.0, 30.0]), results("other", [45.0, 30.0, 15.0])],
            };
            assert_eq!(all.ratios(&all.results[1]), [2.0, 2.0, 2.0]);
        }
        assert_eq!(ours.rounds.len(), other.rounds.len());
    }
}
