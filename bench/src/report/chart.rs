//! Line charts as SVG, for a README on a light or a dark page: dark text on a white card.
//!
//! The canvas counts tenths of a pixel, because plotters' SVG has whole coordinates only. Lines are drawn
//! with stand-in colours, which then become a colour and, for the second kind of line, dashes.

use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

const TENTHS: i32 = 10;
const WIDTH: i32 = 720 * TENTHS;
const HEIGHT: i32 = 400 * TENTHS;
/// The title and the legend stand above the lines.
const TOP: i32 = 70 * TENTHS;
const LEFT: i32 = 70 * TENTHS;
/// The name of the value axis stands upright at the edge.
const EDGE: i32 = 10 * TENTHS;
const BOTTOM: i32 = 50 * TENTHS;
const RIGHT: i32 = 24 * TENTHS;
const GRID: RGBColor = RGBColor(0xe1, 0xe4, 0xe8);
const AXIS: RGBColor = RGBColor(0x57, 0x60, 0x6a);
const TEXT: RGBColor = RGBColor(0x1f, 0x23, 0x28);

/// The colours of those that appear in more than one chart, so that each is the same everywhere.
const COLOURS: [(&str, &str); 12] = [
    ("none", "#8c959f"),
    ("random", "#d97706"),
    ("lru", "#2563eb"),
    ("clock_pro", "#059669"),
    ("optimum (MIN)", "#1f2328"),
    ("bound (PFOO-L)", "#1f2328"),
    ("pixcache", "#2563eb"),
    ("varnish", "#d97706"),
    ("nginx", "#059669"),
    ("memcached", "#9333ea"),
    ("axum", "#8c959f"),
    ("echo", "#dc2626"),
];
/// The colours of all others, in the order in which they come.
const FURTHER: [&str; 8] =
    ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#8c959f", "#1f2328"];

/// The quantity on an axis, and its scale.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Axis {
    label: String,
    /// The base of its logarithm; 0 for a linear one.
    base: f64,
    /// Where a linear axis ends, if not at its highest value.
    end: Option<f64>,
}

impl Axis {
    /// From zero to the highest value.
    pub(crate) fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), base: 0.0, end: None }
    }

    /// From zero to `end`.
    pub(crate) fn up_to(label: impl Into<String>, end: f64) -> Self {
        Self { label: label.into(), base: 0.0, end: Some(end) }
    }

    /// Powers of two.
    pub(crate) fn log2(label: impl Into<String>) -> Self {
        Self { label: label.into(), base: 2.0, end: None }
    }

    /// Powers of ten.
    pub(crate) fn log10(label: impl Into<String>) -> Self {
        Self { label: label.into(), base: 10.0, end: None }
    }

    fn is_log(&self) -> bool {
        self.base > 0.0
    }

    fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let values: Vec<f64> = values.filter(|value| !self.is_log() || *value > 0.0).collect();
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        if !self.is_log() {
            let most = self.end.unwrap_or(if most > 0.0 { most } else { 1.0 });
            let step = round_step(most / 5.0);
            let ticks = (0..=6).map(|n| f64::from(n) * step).filter(|tick| *tick <= most * 1.0001);
            // The scale ends above the highest value: at the very edge half of its line would be cut off.
            return Scale { from: 0.0, to: most * 1.03, log: false, ticks: ticks.collect() };
        }
        let (least, most) = if values.is_empty() { (1.0, self.base) } else { (least, most) };
        let power = |value: f64, round: fn(f64) -> f64| round(value.log(self.base) + 1e-9);
        let (low, high) = if self.base == 2.0 {
            (least.log2(), most.log2())
        } else {
            (power(least, f64::floor), power(most, |power| (power - 2e-9).ceil()))
        };
        let high = if high - low < 1.0 { low + 1.0 } else { high };
        let first = (low - 1e-9).ceil() as i32;
        // Every power has its line as long as the names of all fit.
        let step = ((high - low) / 12.0).ceil().max(1.0) as usize;
        let ticks = (first..=(high + 1e-9).floor() as i32).step_by(step).map(|n| self.base.powi(n));
        let margin = if self.base == 2.0 { 0.02 * (high - low) } else { 0.0 };
        Scale {
            from: self.base.powf(low - margin),
            to: self.base.powf(high + margin),
            log: true,
            ticks: ticks.collect(),
        }
    }
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Solid,
    /// For a second figure of the same series, such as p99 beside p50.
    Dashed,
}

#[derive(Debug, Serialize)]
struct Series {
    name: String,
    line: Line,
    points: Vec<(f64, f64)>,
}

/// A chart of lines.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    #[serde(skip)]
    name: String,
    title: String,
    x: Axis,
    y: Axis,
    /// The meanings of solid and dashed lines, if there are dashed ones.
    dashes: Option<(String, String)>,
    series: Vec<Series>,
}

impl Chart {
    /// A chart without lines; `name` is that of its file, without `.svg`.
    pub(crate) fn new(name: impl Into<String>, title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { name: name.into(), title: title.into(), x, y, dashes: None, series: Vec::new() }
    }

    /// The same chart, with the meanings of solid and dashed lines in its legend.
    pub(crate) fn with_dashes(self, solid: &str, dashed: &str) -> Self {
        Self { dashes: Some((solid.to_owned(), dashed.to_owned())), ..self }
    }

    /// Adds a line. Lines with the same name have the same colour.
    pub(crate) fn line(&mut self, name: impl Into<String>, line: Line, points: Vec<(f64, f64)>) {
        self.series.push(Series { name: name.into(), line, points });
    }

    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.svg", self.name)
    }

    /// Its title.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The text of an SVG.
    pub(crate) fn draw(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw_with_plotters(&mut svg).map_err(|error| anyhow::anyhow!("{}: {error}", self.name))?;
        for number in 0..self.series.len() as u8 {
            let (stand_in, series) = (stand_in(number), &self.series[usize::from(number)]);
            let hex = format!("#{:02X}{:02X}{:02X}", stand_in.0, stand_in.1, stand_in.2);
            let colour = self.colour(&series.name);
            let dashes = if series.line == Line::Dashed { " stroke-dasharray=\"50 40\"" } else { "" };
            svg = svg
                .replace(&format!("stroke=\"{hex}\""), &format!("stroke=\"{colour}\"{dashes}"))
                .replace(&format!("fill=\"{hex}\""), &format!("fill=\"{colour}\""));
        }
        // The element that plotters opens is as large as the canvas; this one has the size of a picture.
        let body = svg.split_once('>').map_or("", |(_, body)| body).replace(" opacity=\"1\"", "");
        let (width, height, title) = (WIDTH / TENTHS, HEIGHT / TENTHS, escaped(&self.title));
        Ok(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" stroke-linejoin=\"round\">\n<title>{title}</title>{body}"
        ))
    }

    fn draw_with_plotters(&self, svg: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (x, y) =
            (self.x.scale(points().map(|point| point.0)), self.y.scale(points().map(|point| point.1)));
        let root = SVGBackend::with_string(svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let size = |pixels: i32| ("sans-serif", pixels * TENTHS).into_font().color(&TEXT);
        root.draw(&Text::new(self.title.clone(), (EDGE + LEFT, 12 * TENTHS), size(17)))?;
        let mut plot = ChartBuilder::on(&root)
            .margin_top(TOP)
            .margin_right(RIGHT)
            .margin_left(EDGE)
            .margin_bottom(EDGE)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
            .build_cartesian_2d(x, y)?;
        plot.configure_mesh()
            .bold_line_style(GRID.stroke_width(TENTHS as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS.stroke_width(TENTHS as u32))
            .set_all_tick_mark_size(4 * TENTHS)
            .label_style(size(13))
            .axis_desc_style(size(13))
            .x_desc(self.x.label.clone())
            .y_desc(self.y.label.clone())
            .x_label_formatter(&|value| compact(*value))
            .y_label_formatter(&|value| compact(*value))
            .draw()?;
        for (number, series) in self.series.iter().enumerate() {
            draw_line(&mut plot, number as u8, series)?;
        }
        self.draw_legend(&root)?;
        root.present()
    }

    fn draw_legend(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        const Y: i32 = 50 * TENTHS;
        let text = ("sans-serif", 13 * TENTHS).into_font().color(&TEXT);
        let text = text.pos(Pos::new(HPos::Left, VPos::Center));
        let mut x = EDGE + LEFT;
        let mut entry = |name: &str, stroke: ShapeStyle| {
            root.draw(&PathElement::new([(x, Y), (x + 24 * TENTHS, Y)], stroke))?;
            root.draw(&Text::new(name.to_owned(), (x + 30 * TENTHS, Y), text.clone()))?;
            // The width of text is known to the reader's browser only.
            x += (46 + name.chars().count() as i32 * 8) * TENTHS;
            Ok(())
        };
        for (number, series) in self.series.iter().enumerate() {
            let is_first = self.series.iter().position(|other| other.name == series.name) == Some(number);
            if is_first {
                entry(&series.name, stand_in(number as u8).stroke_width(2 * TENTHS as u32))?;
            }
        }
        if let Some((solid, dashed)) = &self.dashes {
            entry(&format!("solid: {solid}, dashed: {dashed}"), TRANSPARENT.stroke_width(0))?;
        }
        Ok(())
    }

    fn colour(&self, name: &str) -> &'static str {
        if let Some((_, colour)) = COLOURS.iter().find(|(known, _)| *known == name) {
            return colour;
        }
        let mut names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        names.dedup();
        let place = names.iter().position(|other| *other == name).unwrap_or_default();
        FURTHER[place % FURTHER.len()]
    }
}

fn draw_line(
    plot: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<Scale, Scale>>,
    number: u8,
    series: &Series,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let colour = stand_in(number);
    plot.draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2 * TENTHS as u32)))?;
    if series.line == Line::Solid {
        let dots = series.points.iter().map(|point| Circle::new(*point, 3 * TENTHS, colour.filled()));
        plot.draw_series(dots)?;
    }
    Ok(())
}

/// Tells the lines apart until they get their colours.
fn stand_in(number: u8) -> RGBColor {
    RGBColor(1, 2, number)
}

/// An axis with lines at exactly the values that were asked for.
struct Scale {
    from: f64,
    to: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let place = if self.log {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        low + (f64::from(high - low) * place.clamp(0.0, 1.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

/// The smallest of 1, 2, 5, 10, 20, … (and 0.5, 0.2, …) that is not less than `least`.
fn round_step(least: f64) -> f64 {
    let magnitude = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].into_iter().map(|factor| factor * magnitude);
    steps.into_iter().find(|step| *step >= least * 0.999).unwrap_or(10.0 * magnitude)
}

/// A value at an axis: 0.25, 512, 16k, 2M.
fn compact(value: f64) -> String {
    let digits = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        1e6.. => digits(value / 1e6) + "M",
        1e4.. => digits(value / 1e3) + "k",
        _ => digits(value),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn chart(x: Axis, y: Axis) -> Chart {
        Chart::new("c", "a < b", x, y)
    }

    #[test]
    fn each_series_has_its_colour_and_the_second_figure_is_dashed() {
        let mut chart = chart(Axis::log2("in flight"), Axis::log10("ms")).with_dashes("p50", "p99");
        for (name, line) in [("lru", Line::Solid), ("lru", Line::Dashed), ("other", Line::Solid)] {
            chart.line(name, line, vec![(1.0, 0.3), (2.0, 5.0), (256.0, 70.0)]);
        }
        let svg = chart.draw().unwrap();
        assert!(svg.contains("<title>a &lt; b</title>"));
        assert_eq!(svg.matches("stroke=\"#2563eb\" stroke-dasharray=").count(), 1);
        assert!(svg.contains("solid: p50, dashed: p99") && !svg.contains("#0102"), "{svg}");
        assert_eq!(svg.matches(">\nlru\n<").count(), 1, "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        let ticks = |axis: Axis, values: &[f64]| axis.scale(values.iter().copied()).ticks;
        assert_eq!(ticks(Axis::linear(""), &[930.0]), [0.0, 200.0, 400.0, 600.0, 800.0]);
        let shares = ticks(Axis::up_to("", 1.0), &[0.3]).into_iter().map(compact).collect::<Vec<_>>();
        assert_eq!(shares, ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(Axis::log2(""), &[1.0, 8.0]), [1.0, 2.0, 4.0, 8.0]);
        assert_eq!(ticks(Axis::log10(""), &[0.3, 70.0]), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!(["0.25", "9000", "16k", "2.5M"], [0.25, 9e3, 16e3, 25e5].map(compact));
    }

    proptest! {
        #[test]
        fn any_points_are_drawn(
            points in proptest::collection::vec((0.0..1e9f64, 0.0..1e9f64), 0..20),
            bases in proptest::array::uniform2(0usize..3),
        ) {
            let axis = |base: usize| [Axis::linear, Axis::log2, Axis::log10][base]("a");
            let mut chart = chart(axis(bases[0]), axis(bases[1]));
            chart.line("x", Line::Solid, points);
            let svg = chart.draw().unwrap();
            prop_assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
        }
    }
}
