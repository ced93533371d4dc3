//! Charts: turns the rows of a series into an SVG. It knows nothing of HTTP or NATS.
//!
//! plotters draws with fixed colours. Here it draws with stand-ins, which are then replaced by CSS
//! classes, so that one drawing serves both themes and a strict content security policy. The canvas
//! counts tenths of a pixel, because plotters' SVG has whole coordinates only and a line drawn in
//! whole pixels looks like a staircase when it is enlarged.

use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use time::{Month, OffsetDateTime, UtcOffset};
use wire::config::MEGABYTE;
use wire::stats::{Series, SeriesRow};

use crate::units;

/// Units of the drawing in one pixel of its natural size.
const TENTHS: i32 = 10;
const WIDTH: i32 = 560 * TENTHS;
const HEIGHT: i32 = 220 * TENTHS;
const LEFT: i32 = 56 * TENTHS;
const RIGHT: i32 = 16 * TENTHS;
const TOP: i32 = 8 * TENTHS;
const BOTTOM: i32 = 28 * TENTHS;
const DOT: i32 = 3 * TENTHS;
/// Rows further apart than this many steps have a gap between them: a window that starts a little
/// late is no gap, a missing one is.
const GAP_STEPS: f64 = 1.5;
/// The most gridlines above zero, and the most times below the axis: as many as fit at 390 pixels.
const MAX_Y_TICKS: f64 = 5.0;
const MAX_X_TICKS: f64 = 7.0;
/// Marks nearer to each other than this have one number for all of them, that of the first.
const MARK_SPACE: i32 = 14 * TENTHS;

/// A chart: a quantity over time.
#[derive(Debug, Clone, Copy)]
pub struct Chart {
    /// Its name in ids and classes. A headline figure of the same name may show the chart as a small line.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    unit: Unit,
    value: fn(&SeriesRow) -> Option<f64>,
    /// The most that the quantity may be, drawn as a line of its own.
    limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    name: &'static str,
    value: fn(&SeriesRow) -> f64,
}

/// The unit of a chart's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Whole things.
    Count,
    /// Things in a second.
    Rate,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    ByteRate,
    /// A part of a whole, 0 to 1.
    Ratio,
}

/// A row of [`Chart::ALL`].
const fn chart(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    value: fn(&SeriesRow) -> Option<f64>,
) -> Chart {
    Chart { name, title, unit, value, limit: None }
}

impl Chart {
    /// Every chart, in the order in which pages show them.
    pub const ALL: [Self; 8] = [
        chart("hit-ratio", "Hit ratio", Unit::Ratio, |row| ratio(row, row.counters.hit_count)),
        chart("miss-ratio", "Miss ratio", Unit::Ratio, |row| ratio(row, row.counters.miss_count)),
        chart("requests", "Requests per second", Unit::Rate, |row| rate(row, row.counters.request_count)),
        chart("near-hits", "Near hits per second", Unit::Rate, |row| rate(row, row.counters.near_hit_count)),
        chart("size", "Size against capacity", Unit::Bytes, |row| Some(row.cache_size as f64))
            .within("capacity", |row| row.capacity as f64),
        chart("items", "Items", Unit::Count, |row| Some(row.key_count as f64)),
        chart("evictions", "Evictions per second", Unit::Rate, |row| rate(row, row.counters.eviction_count)),
        chart("served", "Served from memory per second", Unit::ByteRate, |row| {
            rate(row, row.counters.served_bytes)
        }),
    ];

    const fn within(self, name: &'static str, value: fn(&SeriesRow) -> f64) -> Self {
        Self { limit: Some(Limit { name, value }), ..self }
    }
}

fn ratio(row: &SeriesRow, part: u64) -> Option<f64> {
    let total = row.counters.request_count;
    (total > 0).then(|| (part as f64 / total as f64).clamp(0.0, 1.0))
}

fn rate(row: &SeriesRow, count: u64) -> Option<f64> {
    (row.interval_ms > 0).then(|| count as f64 * 1000.0 / row.interval_ms as f64)
}

/// The position of a row in every chart of its series: for reading values off.
#[derive(Debug, Clone, Copy)]
pub struct Position<'a> {
    /// The distance from the left, in units of the drawing.
    pub x: i32,
    /// The row.
    pub row: &'a SeriesRow,
}

/// The rows of a series in the order in which charts show them.
pub fn positions(series: &Series) -> Vec<Position<'_>> {
    let timeline = Timeline::new(series);
    let half = timeline.step_ms / 2.0;
    timeline.rows.iter().map(|&(start, row)| Position { x: timeline.x(start + half), row }).collect()
}

/// plotters refused to draw.
#[derive(Debug, thiserror::Error)]
#[error("the chart {} could not be drawn", chart.name)]
pub struct ChartError {
    chart: Chart,
    source: DrawingError,
}

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

/// The meaning of a stand-in colour while plotters draws; in the SVG it becomes a class.
#[derive(Clone, Copy)]
enum Ink {
    Grid,
    Axis,
    Label,
    Area,
    Line,
    Limit,
    Dot,
    Gap,
    Note,
    Mark,
    Number,
}

impl Ink {
    const ALL: [Self; 11] = [
        Self::Grid,
        Self::Axis,
        Self::Label,
        Self::Area,
        Self::Line,
        Self::Limit,
        Self::Dot,
        Self::Gap,
        Self::Note,
        Self::Mark,
        Self::Number,
    ];

    fn class(self) -> &'static str {
        match self {
            Self::Grid => "chart-grid",
            Self::Axis => "chart-axis",
            Self::Label => "chart-label",
            Self::Area => "chart-area",
            Self::Line => "chart-line",
            Self::Limit => "chart-limit",
            Self::Dot => "chart-dot",
            Self::Gap => "chart-gap",
            Self::Note => "chart-note",
            Self::Mark => "chart-mark",
            Self::Number => "chart-number",
        }
    }

    /// The stand-in: the last byte tells the inks apart.
    fn color(self) -> RGBColor {
        RGBColor(1, 2, self as u8)
    }

    fn stroke(self) -> ShapeStyle {
        self.color().stroke_width(1)
    }

    fn fill(self) -> ShapeStyle {
        self.color().filled()
    }

    fn text(self) -> TextStyle<'static> {
        ("sans-serif", 12 * TENTHS).into_font().color(&self.color())
    }

    /// Puts classes where the stand-ins are.
    fn replace_all(svg: &str) -> String {
        Self::ALL.into_iter().fold(svg.to_owned(), |svg, ink| {
            let hex = format!("#0102{:02X}", ink as u8);
            let class = format!("class=\"{}\"", ink.class());
            svg.replace(&format!("fill=\"{hex}\""), &class).replace(&format!("stroke=\"{hex}\""), &class)
        })
    }
}

/// An axis from zero to `end` with lines at exactly the given values. The axes of plotters choose their values by
/// themselves, and know neither powers of two nor the clock.
struct Axis {
    end: f64,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * (value / self.end).clamp(0.0, 1.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.end
    }
}

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
/// Points without a break between them: milliseconds since the range began, and the value.
type Line = Vec<(f64, f64)>;

impl Chart {
    /// The chart with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|chart| chart.name == name)
    }

    /// The name of the limit that the chart shows as well.
    pub fn limit_name(self) -> Option<&'static str> {
        self.limit.map(|limit| limit.name)
    }

    /// The value that one row stands for; none where there is nothing to tell, such as the hit ratio
    /// of a window without a request.
    pub fn value(self, row: &SeriesRow) -> Option<f64> {
        (self.value)(row)
    }

    /// A value as people read it, with its unit.
    pub fn shown(self, value: f64) -> String {
        match self.unit {
            Unit::Count => units::count(value as u64),
            Unit::Rate => format!("{}/s", units::compact(value)),
            Unit::Bytes => units::bytes(value as u64),
            Unit::ByteRate => format!("{}/s", units::bytes(value as u64)),
            Unit::Ratio => units::percent(value),
        }
    }

    /// Draws the chart of a series as the text of one `<svg>` element, for a page in which CSS gives
    /// the classes their colours. Times are written in the zone `offset`.
    ///
    /// Where nothing was recorded a band says so and the line is broken; a single value between two
    /// breaks is a dot. `marks` are moments to mark, in order: each is a vertical line with its number.
    ///
    /// # Errors
    /// [`ChartError`] if plotters cannot draw, which no rows are known to cause.
    pub fn draw(
        self,
        series: &Series,
        marks: &[OffsetDateTime],
        offset: UtcOffset,
    ) -> Result<String, ChartError> {
        let timeline = Timeline::new(series);
        let lines = timeline.lines(|row| self.value(row));
        let limit_lines = |limit: Limit| timeline.lines(|row| Some((limit.value)(row)));
        let limits = self.limit.map(limit_lines).unwrap_or_default();

        let mut drawing = String::new();
        self.draw_with_plotters(&mut drawing, &timeline, marks, &lines, &limits, offset)
            .map_err(|source| ChartError { chart: self, source })?;

        // The element that plotters opens has a fixed size; this one takes its container's width.
        let body = drawing.split_once('>').map_or("", |(_, body)| body);
        let body = Ink::replace_all(body).replace(" opacity=\"1\"", "");
        let Self { name, title, .. } = self;
        let description = self.description(&timeline, &lines, offset);
        Ok(format!(
            "<svg class=\"chart chart-{name}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"chart-{name}-title chart-{name}-description\">\n\
             <title id=\"chart-{name}-title\">{title}</title>\n\
             <desc id=\"chart-{name}-description\">{description}</desc>{body}"
        ))
    }

    fn draw_with_plotters(
        self,
        drawing: &mut String,
        timeline: &Timeline<'_>,
        marks: &[OffsetDateTime],
        lines: &[Line],
        limits: &[Line],
        offset: UtcOffset,
    ) -> Result<(), DrawingError> {
        let most = lines.iter().chain(limits).flatten().map(|(_, value)| *value).fold(0.0, f64::max);
        let (end, y_ticks) = self.unit.scale(most);
        let (x_ticks, x_step) = timeline.ticks(offset);
        let root = SVGBackend::with_string(drawing, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        let mut plot = ChartBuilder::on(&root)
            .margin_top(TOP)
            .margin_right(RIGHT)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
            .build_cartesian_2d(
                Axis { end: timeline.span_ms, ticks: x_ticks },
                Axis { end, ticks: y_ticks },
            )?;
        plot.configure_mesh()
            .disable_x_mesh()
            .bold_line_style(Ink::Grid.stroke())
            .light_line_style(TRANSPARENT)
            .axis_style(Ink::Axis.stroke())
            .set_all_tick_mark_size(4 * TENTHS)
            .label_style(Ink::Label.text())
            .x_label_formatter(&|ms| timeline.time_label(*ms, x_step, offset))
            .y_label_formatter(&|value| self.unit.tick(*value))
            .draw()?;
        for (from, to) in timeline.gaps() {
            plot.draw_series([Rectangle::new([(from, 0.0), (to, end)], Ink::Gap.fill())])?;
        }
        draw_lines(&mut plot, limits, Ink::Limit, None)?;
        draw_lines(&mut plot, lines, Ink::Line, Some(Ink::Area))?;
        let mut numbered_to = i32::MIN;
        for (at, mark) in marks.iter().enumerate() {
            let ms = (*mark - timeline.from).whole_milliseconds() as f64;
            if !(0.0..=timeline.span_ms).contains(&ms) {
                continue;
            }
            plot.draw_series(LineSeries::new([(ms, 0.0), (ms, end)], Ink::Mark.stroke()))?;
            let x = timeline.x(ms);
            if x >= numbered_to {
                // In the middle of its line's upper end, inside the canvas also at the two edges.
                let style = Ink::Number.text().pos(Pos::new(HPos::Center, VPos::Top));
                root.draw(&Text::new((at + 1).to_string(), (x, TOP), style))?;
                numbered_to = x + MARK_SPACE;
            }
        }
        if lines.is_empty() {
            let note = if timeline.rows.is_empty() {
                "Nothing was recorded in this time"
            } else {
                "No requests in this time, so there is no rate"
            };
            let style = Ink::Note.text().pos(Pos::new(HPos::Center, VPos::Center));
            root.draw(&Text::new(note, ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2), style))?;
        }
        root.present()?;
        Ok(())
    }
}

impl Unit {
    /// A value at the axis.
    fn tick(self, value: f64) -> String {
        match self {
            Self::Count | Self::Rate => units::compact(value),
            Self::Bytes | Self::ByteRate => units::bytes(value as u64),
            Self::Ratio => format!("{:.0}\u{a0}%", value * 100.0),
        }
    }

    /// The value axis for values up to `most`: where it ends, and the values with a gridline.
    fn scale(self, most: f64) -> (f64, Vec<f64>) {
        // An axis without any value still needs a sensible unit.
        let is_bytes = matches!(self, Self::Bytes | Self::ByteRate);
        let most = if is_bytes && most <= 0.0 { MEGABYTE as f64 } else { most };
        let step = match self {
            Self::Ratio => 0.25,
            Self::Count => round_step(most).max(1.0),
            Self::Rate => round_step(most),
            // Powers of two, as capacities are: 16 MB, 32 MB, 48 MB.
            Self::Bytes | Self::ByteRate => (most / MAX_Y_TICKS).max(1.0).log2().ceil().exp2(),
        };
        let most = if self == Self::Ratio { 1.0 } else { most.max(step) };
        // The highest value stays clear of the upper edge, where half of its line would be cut off.
        let end = most * 1.06;
        let ticks = (0..=MAX_Y_TICKS as u32 + 1).map(|n| f64::from(n) * step).filter(|tick| *tick <= end);
        (end, ticks.collect())
    }
}

impl Chart {
    /// The content of the drawing in words, for people who cannot see it.
    fn description(self, timeline: &Timeline<'_>, lines: &[Line], offset: UtcOffset) -> String {
        let zone = units::zone(offset);
        let range = match (timeline.moment(0.0, offset), timeline.moment(timeline.span_ms, offset)) {
            (Some(from), Some(to)) => format!("From {} to {} {zone}", full_time(from), full_time(to)),
            _ => format!("Times in {zone}"),
        };
        let values = || lines.iter().flatten().map(|(_, value)| *value);
        match values().next_back() {
            None => format!("{range}: no values."),
            Some(last) => format!(
                "{range}: lowest {}, highest {}, last {}.",
                self.shown(values().fold(f64::INFINITY, f64::min)),
                self.shown(values().fold(0.0, f64::max)),
                self.shown(last)
            ),
        }
    }
}

/// A small line without axes, to stand beside a figure that is given in words.
///
/// # Errors
/// [`ChartError`] as [`Chart::draw`].
pub fn sparkline(chart: Chart, series: &Series) -> Result<String, ChartError> {
    const WIDTH: i32 = 200 * TENTHS;
    const HEIGHT: i32 = 32 * TENTHS;
    let timeline = Timeline::new(series);
    let mut lines = timeline.lines(|row| chart.value(row));
    // The page stretches the drawing, which would distort a circle. So a single point is a line of no length with round
    // ends.
    lines.iter_mut().filter(|line| line.len() == 1).for_each(|line| line.extend_from_within(..));
    let most = lines.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut drawing = String::new();
    let draw = |drawing: &mut String| {
        let root = SVGBackend::with_string(drawing, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        let mut plot = ChartBuilder::on(&root).margin(2 * TENTHS).build_cartesian_2d(
            Axis { end: timeline.span_ms, ticks: Vec::new() },
            Axis { end: chart.unit.scale(most).0, ticks: Vec::new() },
        )?;
        draw_lines(&mut plot, &lines, Ink::Line, Some(Ink::Area))?;
        root.present()
    };
    draw(&mut drawing).map_err(|source| ChartError { chart, source })?;
    let body = drawing.split_once('>').map_or("", |(_, body)| body);
    let body = Ink::replace_all(body).replace(" opacity=\"1\"", "");
    let name = chart.name;
    Ok(format!(
        "<svg class=\"chart sparkline chart-{name}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{body}"
    ))
}

/// Draws each unbroken stretch: a filled area down to zero, a line, or a dot for a single point.
fn draw_lines(
    plot: &mut Plot<'_, '_>,
    lines: &[Line],
    ink: Ink,
    area: Option<Ink>,
) -> Result<(), DrawingError> {
    for line in lines {
        match line.as_slice() {
            [] => {}
            [point] => {
                plot.draw_series([Circle::new(*point, DOT, Ink::Dot.fill())])?;
            }
            [first, .., last] => {
                if let Some(area) = area {
                    let outline = line.iter().copied().chain([(last.0, 0.0), (first.0, 0.0)]);
                    plot.draw_series([Polygon::new(outline.collect::<Vec<_>>(), area.fill())])?;
                }
                plot.draw_series(LineSeries::new(line.iter().copied(), ink.stroke()))?;
            }
        }
    }
    Ok(())
}

/// The rows of a series in order, placed on the axis of time.
struct Timeline<'a> {
    from: OffsetDateTime,
    span_ms: f64,
    step_ms: f64,
    /// Rows that overlap the range, with the milliseconds from its beginning to theirs.
    rows: Vec<(f64, &'a SeriesRow)>,
}

impl<'a> Timeline<'a> {
    fn new(series: &'a Series) -> Self {
        let since_from = |time: OffsetDateTime| (time - series.from).whole_milliseconds() as f64;
        let span_ms = since_from(series.to).max(1.0);
        let step_ms = (series.step_ms as f64).max(1.0);
        let mut rows: Vec<_> = series
            .rows
            .iter()
            .map(|row| (since_from(row.interval_start), row))
            .filter(|(start, _)| *start > -step_ms && *start < span_ms)
            .collect();
        rows.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Self { from: series.from, span_ms, step_ms, rows }
    }

    /// The distance from the left of a chart, so many milliseconds after the beginning.
    fn x(&self, ms: f64) -> i32 {
        LEFT + (f64::from(WIDTH - LEFT - RIGHT) * (ms / self.span_ms).clamp(0.0, 1.0)).round() as i32
    }

    /// The unbroken stretches of a value: broken where it is absent, and where rows are missing.
    /// A value stands at the middle of its interval.
    fn lines(&self, value: impl Fn(&SeriesRow) -> Option<f64>) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        let mut previous = None;
        for &(start, row) in &self.rows {
            let Some(value) = value(row) else {
                previous = None;
                continue;
            };
            let point = ((start + self.step_ms / 2.0).clamp(0.0, self.span_ms), value);
            match (previous, lines.last_mut()) {
                (Some(previous), Some(line)) if start - previous <= self.step_ms * GAP_STEPS => {
                    line.push(point)
                }
                _ => lines.push(vec![point]),
            }
            previous = Some(start);
        }
        lines
    }

    /// The stretches in which nothing was recorded, those at the two ends included.
    fn gaps(&self) -> Vec<(f64, f64)> {
        let mut gaps = Vec::new();
        let mut covered = 0.0;
        let ends = std::iter::once(self.span_ms);
        for start in self.rows.iter().map(|(start, _)| *start).chain(ends) {
            // Half a step of delay is no gap. The window that is still being counted is not missing
            // either: at the end of the range a whole step more is expected to be absent.
            let patience = if start >= self.span_ms { GAP_STEPS } else { GAP_STEPS - 1.0 };
            if start - covered > self.step_ms * patience {
                gaps.push((covered, start));
            }
            covered = (start + self.step_ms).max(covered);
        }
        gaps
    }

    /// The time so many milliseconds after the beginning, if the calendar has it.
    fn moment(&self, ms: f64, offset: UtcOffset) -> Option<OffsetDateTime> {
        self.from.checked_add(time::Duration::checked_seconds_f64(ms / 1000.0)?)?.checked_to_offset(offset)
    }

    /// Round times in the zone, as milliseconds since the beginning, and the step between them.
    fn ticks(&self, offset: UtcOffset) -> (Vec<f64>, f64) {
        const S: f64 = 1000.0;
        const M: f64 = 60.0 * S;
        const H: f64 = 60.0 * M;
        const D: f64 = 24.0 * H;
        const STEPS: [f64; 22] = [
            S,
            2.0 * S,
            5.0 * S,
            10.0 * S,
            15.0 * S,
            30.0 * S,
            M,
            2.0 * M,
            5.0 * M,
            10.0 * M,
            15.0 * M,
            30.0 * M,
            H,
            2.0 * H,
            4.0 * H,
            6.0 * H,
            12.0 * H,
            D,
            2.0 * D,
            7.0 * D,
            14.0 * D,
            30.0 * D,
        ];
        let least = self.span_ms / MAX_X_TICKS;
        let step = STEPS.into_iter().find(|step| *step >= least).unwrap_or_else(|| (least / D).ceil() * D);
        let local_ms = self.from.unix_timestamp_nanos() as f64 / 1e6 + f64::from(offset.whole_seconds()) * S;
        let first = (local_ms / step).ceil() * step - local_ms;
        let ticks = (0..=MAX_X_TICKS as u32).map(|n| first + f64::from(n) * step);
        (ticks.filter(|tick| (0.0..=self.span_ms).contains(tick)).collect(), step)
    }

    /// A time below the axis: to the second, to the minute, or the day, as the step between two needs.
    fn time_label(&self, ms: f64, step: f64, offset: UtcOffset) -> String {
        let Some(time) = self.moment(ms.round(), offset) else { return String::new() };
        let midnight = time.hour() == 0 && time.minute() == 0;
        if step >= 86_400_000.0 || (midnight && step >= 3_600_000.0) {
            format!("{} {}", time.day(), month(time.month()))
        } else if step < 60_000.0 {
            format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
        } else {
            format!("{:02}:{:02}", time.hour(), time.minute())
        }
    }
}

fn full_time(time: OffsetDateTime) -> String {
    format!("{} {} {:02}:{:02}", time.day(), month(time.month()), time.hour(), time.minute())
}

fn month(month: Month) -> &'static str {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    NAMES[usize::from(u8::from(month)) - 1]
}

/// The smallest of 1, 2, 5, 10, 20, … (and 0.5, 0.2, …) that cuts `most` into few enough steps; 1 for nothing.
fn round_step(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let least = most / MAX_Y_TICKS;
    let magnitude = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * magnitude)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;
    use time::macros::{datetime, offset};
    use wire::Counters;

    const FROM: OffsetDateTime = datetime!(2026-01-02 10:00:00 UTC);

    fn row(at_s: i64) -> SeriesRow {
        SeriesRow {
            interval_start: FROM + time::Duration::seconds(at_s),
            interval_ms: 5000,
            worker: None,
            incarnation: None,
            sequence: None,
            window_count: 1,
            cache_size: 3 << 20,
            capacity: 64 << 20,
            key_count: 7,
            counters: Counters { request_count: 20, hit_count: 15, miss_count: 5, ..Counters::default() },
        }
    }

    /// Ten minutes with a row at each of these seconds.
    fn ten_minutes(at_s: impl IntoIterator<Item = i64>) -> Series {
        let to = FROM + time::Duration::minutes(10);
        Series { from: FROM, to, step_ms: 5000, rows: at_s.into_iter().map(row).collect() }
    }

    fn named(name: &str) -> Chart {
        Chart::named(name).unwrap()
    }

    fn draw(chart: Chart, series: &Series) -> String {
        chart.draw(series, &[], UtcOffset::UTC).unwrap()
    }

    fn number_of(svg: &str, class: &str) -> usize {
        svg.matches(&format!("class=\"{class}\"")).count()
    }

    /// The labels at the axes, in order.
    fn labels(svg: &str) -> Vec<String> {
        let texts = svg.split("<text ").skip(1);
        texts.map(|text| text.split(['>', '<']).nth(1).unwrap().trim().replace('\u{a0}', " ")).collect()
    }

    #[test]
    fn each_chart_has_a_name_of_its_own() {
        for chart in Chart::ALL {
            assert_eq!(named(chart.name).title, chart.title);
        }
    }

    #[test]
    fn rows_without_a_gap_are_one_line_and_one_area() {
        let svg = draw(named("items"), &ten_minutes((0..600).step_by(5)));
        let shapes = ["chart-line", "chart-area", "chart-dot", "chart-gap", "chart-limit", "chart-note"];
        assert_eq!(shapes.map(|class| number_of(&svg, class)), [1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_gap_breaks_the_line_and_a_band_shows_it() {
        let svg = draw(named("items"), &ten_minutes((0..600).step_by(5).filter(|s| !(200..300).contains(s))));
        assert_eq!(["chart-line", "chart-area", "chart-gap"].map(|class| number_of(&svg, class)), [2, 2, 1]);
    }

    #[test]
    fn one_missing_window_is_a_gap_and_a_late_one_is_not() {
        let svg = draw(named("items"), &ten_minutes((0..600).step_by(5).filter(|s| *s != 300)));
        assert_eq!(["chart-line", "chart-gap"].map(|class| number_of(&svg, class)), [2, 1]);
        let svg =
            draw(named("items"), &ten_minutes((0..600).step_by(5).map(|s| s + i64::from(s >= 300) * 2)));
        assert_eq!(["chart-line", "chart-gap"].map(|class| number_of(&svg, class)), [1, 0]);
    }

    #[test]
    fn time_before_the_first_and_after_the_last_row_is_a_gap() {
        let svg = draw(named("items"), &ten_minutes((300..400).step_by(5)));
        assert_eq!(["chart-line", "chart-gap"].map(|class| number_of(&svg, class)), [1, 2]);
    }

    #[test]
    fn a_single_row_is_a_dot() {
        let svg = draw(named("requests"), &ten_minutes([300]));
        assert_eq!(["chart-line", "chart-dot"].map(|class| number_of(&svg, class)), [0, 1]);
    }

    #[test]
    fn a_window_without_a_request_has_no_rate() {
        let mut series = ten_minutes((0..600).step_by(5));
        series.rows[60].counters = Counters::default();
        for chart in [named("hit-ratio"), named("miss-ratio")] {
            let svg = draw(chart, &series);
            // Broken, but not a gap: the window was recorded.
            assert_eq!(["chart-line", "chart-gap"].map(|class| number_of(&svg, class)), [2, 0]);
        }
        assert_eq!(number_of(&draw(named("requests"), &series), "chart-line"), 1);
    }

    #[test]
    fn without_values_the_chart_says_why() {
        let nothing = ten_minutes([]);
        for chart in Chart::ALL {
            let svg = draw(chart, &nothing);
            assert_eq!(["chart-note", "chart-gap"].map(|class| number_of(&svg, class)), [1, 1]);
            assert!(svg.contains("Nothing was recorded"));
        }
        let mut idle = ten_minutes((0..600).step_by(5));
        idle.rows.iter_mut().for_each(|row| row.counters = Counters::default());
        assert!(draw(named("hit-ratio"), &idle).contains("No requests"));
        assert_eq!(number_of(&draw(named("requests"), &idle), "chart-line"), 1, "none at all is a value");
    }

    #[test]
    fn axes_have_round_values_and_round_times() {
        let series = ten_minutes((0..600).step_by(5));
        let times = ["10:00", "10:02", "10:04", "10:06", "10:08", "10:10"];
        for (chart, values) in [
            (named("size"), vec!["0 B", "16 MB", "32 MB", "48 MB", "64 MB"]),
            (named("hit-ratio"), vec!["0 %", "25 %", "50 %", "75 %", "100 %"]),
            (named("items"), vec!["0", "2", "4", "6"]),
            (named("requests"), vec!["0", "1", "2", "3", "4"]),
        ] {
            assert_eq!(labels(&draw(chart, &series)), [&values[..], &times].concat(), "{}", chart.name);
        }
        let india = named("items").draw(&series, &[], offset!(+5:30)).unwrap();
        assert_eq!(labels(&india)[4..6], ["15:30", "15:32"]);
        assert!(india.contains("UTC+5:30"));
    }

    #[test]
    fn long_ranges_name_the_day() {
        let days = |days| Series { to: FROM + time::Duration::days(days), ..ten_minutes([]) };
        // Two labels at the value axis come before.
        let times = |series: Series| {
            labels(&draw(named("items"), &series))
                .into_iter()
                .skip(2)
                .filter(|label| label.len() < 10)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(days(1)), ["12:00", "16:00", "20:00", "3 Jan", "04:00", "08:00"]);
        assert_eq!(times(days(7)), ["3 Jan", "4 Jan", "5 Jan", "6 Jan", "7 Jan", "8 Jan", "9 Jan"]);
    }

    #[test]
    fn marks_are_numbered_lines_and_those_near_each_other_have_one_number() {
        let series = ten_minutes((0..600).step_by(5));
        let at = |s: i64| FROM + time::Duration::seconds(s);
        let marks = [at(-60), at(60), at(62), at(300), at(600), at(660)];
        let svg = named("items").draw(&series, &marks, UtcOffset::UTC).unwrap();
        assert_eq!(["chart-mark", "chart-number"].map(|class| number_of(&svg, class)), [4, 3]);
        let numbers: Vec<String> = labels(&svg).into_iter().skip(4 + 6).collect();
        assert_eq!(numbers, ["2", "4", "5"]);
    }

    #[test]
    fn positions_are_where_the_values_are_drawn() {
        let series = ten_minutes([0, 300]);
        let seen = positions(&series);
        assert_eq!(
            seen.iter().map(|position| position.row.interval_start).collect::<Vec<_>>(),
            [FROM, FROM + time::Duration::seconds(300)]
        );
        let svg = draw(named("items"), &series);
        for position in seen {
            assert!(svg.contains(&format!(" cx=\"{}\"", position.x)), "{} in {svg}", position.x);
        }
    }

    #[test]
    fn the_capacity_is_a_line_of_its_own() {
        assert_eq!(number_of(&draw(named("size"), &ten_minutes([0, 5, 10])), "chart-limit"), 1);
    }

    #[test]
    fn it_is_one_element_that_takes_its_colours_from_classes() {
        let series = ten_minutes([0, 5, 100, 300, 305]);
        for svg in Chart::ALL.map(|chart| draw(chart, &series)).into_iter().chain([sparkline(
            named("size"),
            &series,
        )
        .unwrap()])
        {
            assert!(svg.starts_with("<svg class=\"chart ") && svg.trim_end().ends_with("</svg>"));
            assert_eq!(svg.matches("<svg").count(), 1);
            assert!(!svg.contains("=\"#") && !svg.contains("style="), "{svg}");
        }
    }

    fn any_time() -> impl Strategy<Value = OffsetDateTime> {
        prop_oneof![
            // Near each other, as real rows are, and anywhere that a calendar has.
            4 => (-700_000i64..1_300_000).prop_map(|ms| FROM + time::Duration::milliseconds(ms)),
            1 => (-377_705_116_800i64..=253_402_300_799).prop_map(|s| OffsetDateTime::from_unix_timestamp(s).unwrap()),
        ]
    }

    fn any_row() -> impl Strategy<Value = SeriesRow> {
        (
            any_time(),
            any::<[u64; 5]>(),
            any::<[u64; Counters::NAMES.len()]>(),
            any::<u64>().prop_map(|n| n % 70),
        )
            .prop_map(
                |(
                    interval_start,
                    [interval_ms, window_count, cache_size, capacity, key_count],
                    counters,
                    shift,
                )| SeriesRow {
                    interval_start,
                    // Shifts give zeros and small numbers as often as enormous ones.
                    interval_ms: interval_ms.checked_shr(shift as u32).unwrap_or(0),
                    window_count,
                    cache_size: cache_size.checked_shr(shift as u32).unwrap_or(0),
                    capacity: capacity.checked_shr(shift as u32).unwrap_or(0),
                    key_count: key_count.checked_shr(shift as u32).unwrap_or(0),
                    counters: Counters::from_values(
                        counters.map(|n| n.checked_shr(shift as u32).unwrap_or(0)),
                    ),
                    ..row(0)
                },
            )
    }

    fn any_series() -> impl Strategy<Value = Series> {
        let step = prop_oneof![Just(0), Just(5000), any::<u64>()];
        (any_time(), any_time(), step, proptest::collection::vec(any_row(), 0..40))
            .prop_map(|(from, to, step_ms, rows)| Series { from, to, step_ms, rows })
    }

    /// Every number in a coordinate of the drawing.
    fn coordinates(svg: &str) -> Vec<i64> {
        let names = ["points", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"];
        let mut numbers = Vec::new();
        for name in names {
            for value in svg.split(&format!(" {name}=\"")).skip(1) {
                let value = value.split('"').next().unwrap();
                numbers.extend(
                    value.split([' ', ',']).filter(|n| !n.is_empty()).map(|n| n.parse::<i64>().unwrap()),
                );
            }
        }
        numbers
    }

    proptest! {
        #[test]
        fn any_rows_are_drawn_inside_the_canvas(
            series in any_series(),
            marks in proptest::collection::vec(any_time(), 0..12),
            hours in -23i8..=23,
        ) {
            let offset = UtcOffset::from_hms(hours, 0, 0).unwrap();
            for chart in Chart::ALL {
                let svg = chart.draw(&series, &marks, offset).unwrap();
                prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
                prop_assert!(coordinates(&svg).into_iter().all(|n| (0..=i64::from(WIDTH)).contains(&n)), "{}", svg);
                prop_assert!(labels(&svg).len() <= 15 + marks.len(), "{}", svg);
                let shown = marks.iter().filter(|mark| (series.from..=series.to).contains(*mark)).count();
                prop_assert_eq!(number_of(&svg, "chart-mark"), shown, "{}", svg);
                let svg = sparkline(chart, &series).unwrap();
                prop_assert!(coordinates(&svg).into_iter().all(|n| (0..=i64::from(WIDTH)).contains(&n)), "{}", svg);
            }
        }

        #[test]
        fn every_value_is_in_exactly_one_line(series in any_series()) {
            for chart in Chart::ALL {
                let timeline = Timeline::new(&series);
                let lines = timeline.lines(|row| chart.value(row));
                let values = timeline.rows.iter().filter(|(_, row)| chart.value(row).is_some()).count();
                prop_assert_eq!(lines.iter().map(Vec::len).sum::<usize>(), values);
                let svg = chart.draw(&series, &[], UtcOffset::UTC).unwrap();
                prop_assert_eq!(number_of(&svg, "chart-line"), lines.iter().filter(|line| line.len() > 1).count());
                let limits = if chart.name == "size" { timeline.lines(|row| Some(row.capacity as f64)) } else { vec![] };
                let dots = lines.iter().chain(&limits).filter(|line| line.len() == 1).count();
                prop_assert_eq!(number_of(&svg, "chart-dot"), dots);
            }
        }

        #[test]
        fn lines_break_exactly_where_windows_are_missing(present in proptest::collection::vec(any::<bool>(), 120)) {
            let seconds = present.iter().enumerate().filter(|(_, present)| **present).map(|(at, _)| at as i64 * 5);
            let series = ten_minutes(seconds);
            let stretches = present.split(|present| !present).filter(|stretch| !stretch.is_empty()).count();
            let timeline = Timeline::new(&series);
            prop_assert_eq!(timeline.lines(|row| named("items").value(row)).len(), stretches);
            // One band a hole; at the end of the range the window that is still being counted may be absent.
            let holes = present.split(|present| *present).filter(|hole| !hole.is_empty()).count();
            let unfinished = usize::from(!present[119] && present[118]);
            prop_assert_eq!(timeline.gaps().len(), holes - unfinished);
        }

        #[test]
        fn a_scale_holds_its_highest_value(most in prop_oneof![0.0..10.0f64, 0.0..2e19f64, 0.0..1e-6f64]) {
            for unit in [Unit::Count, Unit::Rate, Unit::Bytes, Unit::ByteRate] {
                let (end, ticks) = unit.scale(most);
                prop_assert!(end > most && end.is_finite());
                prop_assert!((2..=6).contains(&ticks.len()), "{:?}", ticks);
                prop_assert!(ticks.iter().all(|tick| (0.0..=end).contains(tick)));
            }
        }
    }
}
