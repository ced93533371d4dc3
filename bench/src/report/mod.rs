//! The results of a command, for people (Markdown and SVG) and for programs (JSON), in one folder.

mod chart;
mod machine;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) use self::chart::{Axis, Chart, Line};
use self::machine::Machine;

/// Where a command's results go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Output {
    /// Where the results go: report.md, report.json and the charts; bench/results/COMMAND by default
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Output {
    /// The folder for the results of `command`.
    pub(crate) fn folder(&self, command: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("bench/results").join(command))
    }
}

/// The results of one run of a command, in the order in which they are shown.
#[derive(Debug)]
pub(crate) struct Report {
    command: &'static str,
    title: String,
    date: OffsetDateTime,
    seed: Option<u64>,
    machine: Machine,
    programs: Vec<(String, String)>,
    parts: Vec<Part>,
    data: Map<String, Value>,
}

#[derive(Debug)]
enum Part {
    Heading(String),
    Text(String),
    Table(Table),
    Chart(Chart),
}

impl Report {
    /// An empty report of `bench COMMAND`, on this machine and at this time.
    pub(crate) fn new(command: &'static str, title: impl Into<String>, seed: Option<u64>) -> Self {
        Self {
            command,
            title: title.into(),
            date: OffsetDateTime::now_utc(),
            seed,
            machine: Machine::this(),
            programs: Vec::new(),
            parts: Vec::new(),
            data: Map::new(),
        }
    }

    /// Names a program that took part, with the version that it reports when called with `flag`.
    pub(crate) fn program(&mut self, name: &str, program: impl AsRef<Path>, flag: &str) {
        let version = machine::version(program.as_ref(), flag);
        self.programs.push((name.to_owned(), version));
    }

    /// Names the services, whose binaries lie in `folder`, and the servers that they need.
    pub(crate) fn services(&mut self, folder: &Path) {
        for service in ["gateway", "memcache", "recorder"] {
            self.program(service, folder.join(service), "--version");
        }
        self.program("nats-server", "nats-server", "--version");
        self.program("MariaDB", "mariadbd", "--version");
    }

    /// Begins a section.
    pub(crate) fn heading(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Heading(text.into()));
    }

    /// Adds a paragraph of Markdown.
    pub(crate) fn text(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Text(text.into()));
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: Table) {
        self.parts.push(Part::Table(table));
    }

    /// Puts a table before everything else.
    pub(crate) fn summary(&mut self, table: Table) {
        self.parts.insert(0, Part::Table(table));
    }

    /// Adds a chart, which becomes a file of its own.
    pub(crate) fn chart(&mut self, chart: Chart) {
        self.parts.push(Part::Chart(chart));
    }

    /// Adds figures for programs only, such as each round's, under `name` in the JSON.
    pub(crate) fn data(&mut self, name: &str, data: impl Serialize) -> anyhow::Result<()> {
        self.data.insert(name.to_owned(), serde_json::to_value(data)?);
        Ok(())
    }

    /// Writes `report.md`, `report.json` and the charts into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        self.write_charts(folder, folder)
    }

    /// As [`Report::write`], with the charts in a folder of their own, which the Markdown of both finds
    /// relative to the repository's root when both lie in it.
    pub(crate) fn write_charts(&self, folder: &Path, charts: &Path) -> anyhow::Result<()> {
        for folder in [folder, charts] {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        for part in &self.parts {
            if let Part::Chart(chart) = part {
                let file = charts.join(chart.file_name());
                std::fs::write(&file, chart.draw()?).with_context(|| file.display().to_string())?;
            }
        }
        let links = if folder == charts { PathBuf::new() } else { way(folder, charts) };
        let markdown = self.to_markdown(&links);
        std::fs::write(folder.join("report.md"), markdown).with_context(|| folder.display().to_string())?;
        std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&self.to_json()?)? + "\n")?;
        println!("{}", folder.join("report.md").display());
        Ok(())
    }

    /// As Markdown, with the charts in the folder `charts`, seen from where the text lies.
    pub(crate) fn to_markdown(&self, charts: &Path) -> String {
        let mut text = format!("# {}\n\n", self.title);
        for (name, value) in self.header() {
            // Writing to a string never fails; two spaces at the end break the line.
            let _ = writeln!(text, "**{name}:** {value}  ");
        }
        for part in &self.parts {
            text.push('\n');
            let _ = match part {
                Part::Heading(heading) => writeln!(text, "## {heading}"),
                Part::Text(paragraph) => writeln!(text, "{paragraph}"),
                Part::Table(table) => write!(text, "{}", table.to_markdown()),
                Part::Chart(chart) => {
                    let file = charts.join(chart.file_name());
                    writeln!(text, "![{}]({})", chart.title(), file.display())
                }
            };
        }
        text
    }

    fn to_json(&self) -> anyhow::Result<Value> {
        let mut json = json!({
            "command": self.command_line(),
            "title": self.title,
            "date": self.date.format(&Rfc3339)?,
            "seed": self.seed,
            "machine": self.machine,
            "programs": self.programs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "tables": Map::new(),
            "charts": Map::new(),
            "data": self.data,
        });
        for part in &self.parts {
            match part {
                Part::Table(table) => json["tables"][&table.title] = table.to_json(),
                Part::Chart(chart) => json["charts"][chart.file_name()] = serde_json::to_value(chart)?,
                Part::Heading(_) | Part::Text(_) => {}
            }
        }
        Ok(json)
    }

    fn header(&self) -> Vec<(&str, String)> {
        let date = self.date.format(&Rfc3339).unwrap_or_default();
        let mut header = vec![
            ("Command", format!("`{}`", self.command_line())),
            (
                "Date",
                date.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ") + " UTC",
            ),
            ("Machine", self.machine.to_string()),
        ];
        if let Some(seed) = self.seed {
            header.push(("Seed", seed.to_string()));
        }
        if !self.programs.is_empty() {
            let programs = self.programs.iter().map(|(name, version)| format!("{name} {version}"));
            header.push(("Programs", programs.collect::<Vec<_>>().join("; ")));
        }
        header
    }

    /// The command that repeats the run. A test has no command line of `bench`.
    fn command_line(&self) -> String {
        let given: Vec<String> = std::env::args().skip(1).collect();
        match given.first() {
            Some(first) if first == self.command => format!("bench {}", given.join(" ")),
            _ => format!("bench {}", self.command),
        }
    }
}

/// How `to` is reached from the folder `from`, both being relative to one place or both absolute.
fn way(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = from.components().skip(common).map(|_| "..");
    up.map(Path::new).chain(to.components().skip(common).map(|part| Path::new(part.as_os_str()))).collect()
}

/// A table. Columns of numbers are set to the right.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows. The unit of a number belongs into the name of its column.
    pub(crate) fn new<C: Into<String>>(
        title: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        Self { title: title.into(), columns, rows: Vec::new() }
    }

    /// Adds a row: a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As Markdown, below its title.
    pub(crate) fn to_markdown(&self) -> String {
        let is_number =
            |column: usize| self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number { .. })));
        let rule = (0..self.columns.len()).map(|column| if is_number(column) { "--:" } else { "---" });
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("**{}**\n\n", self.title);
        text += &line(self.columns.iter().map(|name| plain(name)).collect());
        text += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        for row in &self.rows {
            text += &line(row.iter().map(Cell::shown).collect());
        }
        text
    }

    fn to_json(&self) -> Value {
        let row = |row: &Vec<Cell>| -> Value {
            self.columns.iter().cloned().zip(row.iter().map(Cell::to_json)).collect::<Map<_, _>>().into()
        };
        self.rows.iter().map(row).collect()
    }
}

/// The content of one cell of a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// Words, or a range of numbers.
    Text(String),
    /// A number, shown with a fixed number of decimals.
    Number {
        /// The number, whole in the JSON.
        value: f64,
        /// How many digits after the point people see.
        decimals: usize,
    },
    /// Nothing was measured.
    Empty,
}

impl Cell {
    /// Words.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number, shown with this many decimals.
    pub(crate) fn number(value: f64, decimals: usize) -> Self {
        Self::Number { value, decimals }
    }

    /// A count.
    pub(crate) fn count(count: u64) -> Self {
        Self::number(count as f64, 0)
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => plain(text),
            Self::Number { value, decimals } if value.is_finite() => grouped(*value, *decimals),
            Self::Number { .. } | Self::Empty => String::new(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number { value, .. } => json!(value),
            Self::Empty => Value::Null,
        }
    }
}

/// A number with commas between thousands.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let digits = whole.trim_start_matches('-');
    let mut grouped = whole[..whole.len() - digits.len()].to_owned();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Text that does not end its cell.
fn plain(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A bar on a terminal, and nothing where there is none: `total` steps of `what`.
pub(crate) fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed} (still {eta})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = |value, decimals| grouped(value, decimals);
        assert_eq!(shown(0.0, 0), "0");
        assert_eq!(shown(999.0, 0), "999");
        assert_eq!(shown(1000.0, 0), "1,000");
        assert_eq!(shown(-1_234_567.891, 2), "-1,234,567.89");
        assert_eq!(shown(0.5, 1), "0.5");
    }

    #[test]
    fn a_report_is_one_folder_with_text_json_and_charts() {
        let mut report = Report::new("x", "Of x", Some(7));
        report.heading("One");
        let mut table = Table::new("Rates", ["what", "rate/s"]);
        table.row([Cell::text("a|b"), Cell::number(12_345.6, 1)]);
        table.row([Cell::text("c"), Cell::Empty]);
        report.table(table);
        report.chart(Chart::new("rates", "Rates", Axis::linear("x"), Axis::linear("y")));
        report.data("raw", [1, 2, 3]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (text, charts) = (folder.path().join("a/b"), folder.path().join("c"));
        report.write_charts(&text, &charts).unwrap();

        let markdown = std::fs::read_to_string(text.join("report.md")).unwrap();
        for part in
            ["# Of x", "**Seed:** 7", "| a\\|b | 12,345.6 |", "|---|--:|", "| c |  |", "](../../c/rates.svg)"]
        {
            assert!(markdown.contains(part), "{part}\n{markdown}");
        }
        let json: Value = serde_json::from_slice(&std::fs::read(text.join("report.json")).unwrap()).unwrap();
        assert_eq!(json["tables"]["Rates"][0], json!({"what": "a|b", "rate/s": 12_345.6}));
        assert_eq!(json["data"]["raw"], json!([1, 2, 3]));
        assert!(charts.join("rates.svg").is_file());
    }
}
