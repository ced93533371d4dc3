//! `bench pictures`: the cost of a thumbnail, against `vipsthumbnail` and ImageMagick.
//!
//! Each thumbnail is made by a process of its own, which reads a file and writes one, on one thread. The time that the
//! same process takes for a picture of 16 × 16 pixels is taken off: what is left is the picture.

mod service;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use sniff::{Limits, Sniffer};
use thumbnail::Picture;
use wire::Variant;

use crate::process::peak_bytes;
use crate::report::{Cell, Output, Report, Table, progress};
use crate::system::Binaries;

const LIMITS: Limits = Limits { max_pixels: 1 << 32 };
/// The sizes of the pictures that are made, in pixels, and those of a quick run.
const SIZES: [(u32, u32); 4] = [(1200, 800), (2160, 1440), (4242, 2828), (6124, 4082)];
const QUICK: [(u32, u32); 1] = [(900, 600)];
/// How ImageMagick writes each kind of picture: the end of its name, and the arguments.
const KINDS: [(&str, &str, &[&str]); 6] = [
    ("JPEG", "jpg", &["-quality", "85", "-sampling-factor", "2x2"]),
    ("JPEG, progressive", "jpg", &["-quality", "85", "-sampling-factor", "2x2", "-interlace", "JPEG"]),
    ("WebP", "webp", &["-quality", "80"]),
    ("WebP, lossless", "webp", &["-define", "webp:lossless=true", "-define", "webp:method=1"]),
    ("PNG", "png", &[]),
    ("GIF", "gif", &[]),
];

/// The arguments of `bench pictures`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pictures, or folders of them, instead of those that are made of the sample photographs
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How often each thumbnail is made by each program, in turns; the median counts
    #[arg(long, default_value_t = 5, value_parser = runtime::args::whole::<u32>(1..=1000))]
    rounds: u32,
    /// The width of the thumbnails: 160, 320, 640 or 1280
    #[arg(long, default_value = "640", value_parser = Variant::of_width)]
    width: Variant,
    /// Small pictures, once each: shows that it works, in seconds
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    output: Output,
}

/// The arguments of a process that makes one thumbnail.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    from: PathBuf,
    to: PathBuf,
    width: u32,
}

/// Makes one thumbnail, and prints how many bytes the process had at most.
pub(crate) fn one(arguments: &One) -> anyhow::Result<()> {
    let bytes = std::fs::read(&arguments.from)?;
    let format = image_of(&bytes)?.format;
    let made = Picture::look(&bytes, format, LIMITS)?.rendition(arguments.width)?;
    std::fs::write(&arguments.to, made.map_or(bytes, |made| made.bytes))?;
    println!("{}", peak_bytes(std::process::id()).unwrap_or_default());
    Ok(())
}

fn image_of(bytes: &[u8]) -> anyhow::Result<sniff::Image> {
    let mut sniffer = Sniffer::new(LIMITS);
    sniffer.push(bytes)?;
    Ok(sniffer.finish()?)
}

/// A program that makes thumbnails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Pixcache,
    Vips,
    ImageMagick,
}

impl Maker {
    const ALL: [Self; 3] = [Self::Pixcache, Self::Vips, Self::ImageMagick];

    /// The command that makes `to` of `from`, in a size of so many pixels across and down.
    fn command(self, from: &Path, to: &Path, (width, height): (u32, u32)) -> anyhow::Result<Vec<OsString>> {
        let size = format!("{width}x{height}!");
        let width = width.to_string();
        let words: Vec<OsString> = match self {
            Self::Pixcache => {
                let bench = std::env::current_exe()?;
                vec![bench.into(), "thumbnail".into(), from.into(), to.into(), width.into()]
            }
            Self::Vips => {
                let mut output = to.as_os_str().to_owned();
                output.push("[Q=87]");
                vec!["vipsthumbnail".into(), "--size".into(), size.into(), "-o".into(), output, from.into()]
            }
            Self::ImageMagick => vec![
                "convert".into(),
                from.into(),
                "-thumbnail".into(),
                size.into(),
                "-quality".into(),
                "87".into(),
                to.into(),
            ],
        };
        Ok(words)
    }
}

/// The cost of a process.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
struct Cost {
    /// Seconds of a processor, of the process and of the kernel for it.
    cpu_s: f64,
    wall_s: f64,
    /// The most memory, where the process says it.
    peak_bytes: u64,
}

/// Runs a command on one thread.
fn run_one(command: &[OsString]) -> anyhow::Result<Cost> {
    // The shell counts the time of its children to the millisecond.
    let script = r#"TIMEFORMAT="%U %S %R"; time "$0" "$@""#;
    let out = Command::new("bash")
        .args(["-c", script])
        .args(command)
        .env("LC_ALL", "C")
        .env("VIPS_CONCURRENCY", "1")
        .env("MAGICK_THREAD_LIMIT", "1")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    let program = command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    anyhow::ensure!(out.status.success(), "{program} has failed: {}", said.trim());
    let times = said.lines().last().unwrap_or_default().split(' ').map(str::parse::<f64>);
    let times = times.collect::<Result<Vec<_>, _>>().with_context(|| format!("{program}: {said}"))?;
    let &[user, system, wall_s] = &times[..] else { anyhow::bail!("{program}: {said}") };
    let peak_bytes = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or_default();
    Ok(Cost { cpu_s: user + system, wall_s, peak_bytes })
}

/// A picture to make a thumbnail of.
struct Input {
    kind: String,
    path: PathBuf,
    /// Pixels across and down.
    size: (u32, u32),
}

/// Measures, and writes the report.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (program, package) in [("vipsthumbnail", "libvips-tools"), ("convert", "imagemagick")] {
        let there = Command::new(program).arg("--version").output();
        there.with_context(|| format!("{program} is needed (package {package})"))?;
    }
    let inputs = if arguments.files.is_empty() {
        made(folder.path(), if arguments.quick { &QUICK } else { &SIZES })?
    } else {
        found(&arguments.files)?
    };
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let width = arguments.width.width();
    let bar = progress(inputs.len() as u64, "pictures");
    let mut report = Report::new("pictures", "Cost of a thumbnail", None);
    report.program("libvips", "vipsthumbnail", "--vips-version");
    report.program("ImageMagick", "convert", "--version");
    report.text(format!(
        "Thumbnails {width} pixels wide, each by a process of its own on one thread, {rounds} rounds in turns, medians; the time \
         that the process takes for a picture of 16 × 16 pixels is taken off. All write JPEGs of quality 87. Similarity (SSIM \
         of brightness) is that to the whole picture scaled by a Lanczos filter. Memory is the most that the process of pixcache \
         had, less that of the small picture.",
    ));
    let mut rows = Vec::new();
    for input in &inputs {
        rows.push(measured(input, folder.path(), width, rounds)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut columns = vec!["picture".to_owned(), "MP".to_owned()];
    for maker in ["pixcache", "vips", "ImageMagick"] {
        columns.extend([format!("{maker}, CPU ms/MP"), format!("{maker}, wall ms")]);
    }
    columns.extend(
        ["CPU to vips", "CPU to ImageMagick", "SSIM", "SSIM of vips", "memory (MB)"].map(str::to_owned),
    );
    let mut table = Table::new("Thumbnails", columns);
    let mut kinds: Vec<&str> = Vec::new();
    for row in &rows {
        if !kinds.contains(&&*row.kind) {
            kinds.push(&row.kind);
        }
        if arguments.files.is_empty() {
            table.row(row.cells());
        }
    }
    for kind in kinds {
        let of_kind: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
        if arguments.files.is_empty() && of_kind.len() == 1 {
            continue;
        }
        table.row(Row::together(&format!("{kind}: all {}", of_kind.len()), &of_kind).cells());
    }
    report.table(table);
    report.data("pictures", &rows)?;
    if arguments.files.is_empty() {
        let binaries = &arguments.binaries;
        service::measure(&mut report, binaries, folder.path(), rounds.min(3), arguments.quick).await?;
    }
    report.write(&arguments.output.folder("pictures"))
}

/// The figures of one picture, or of several together.
#[derive(Debug, Clone, serde::Serialize)]
struct Row {
    kind: String,
    megapixels: f64,
    /// In the order of [`Maker::ALL`].
    costs: [Cost; 3],
    similarity: f64,
    similarity_of_vips: f64,
}

impl Row {
    /// Sums of costs, and means of similarities.
    fn together(kind: &str, rows: &[&Self]) -> Self {
        let sum = |of: &dyn Fn(&Self) -> f64| rows.iter().map(|row| of(row)).sum::<f64>();
        let mean = |of: &dyn Fn(&Self) -> f64| sum(of) / rows.len().max(1) as f64;
        Self {
            kind: kind.to_owned(),
            megapixels: sum(&|row| row.megapixels),
            costs: std::array::from_fn(|at| Cost {
                cpu_s: sum(&|row| row.costs[at].cpu_s),
                wall_s: sum(&|row| row.costs[at].wall_s),
                peak_bytes: rows.iter().map(|row| row.costs[at].peak_bytes).max().unwrap_or_default(),
            }),
            similarity: mean(&|row| row.similarity),
            similarity_of_vips: mean(&|row| row.similarity_of_vips),
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = vec![Cell::text(&self.kind), Cell::number(self.megapixels, 1)];
        for cost in &self.costs {
            cells.push(Cell::number(cost.cpu_s * 1e3 / self.megapixels, 1));
            cells.push(Cell::number(cost.wall_s * 1e3, 0));
        }
        let [own, vips, magick] = self.costs.map(|cost| cost.cpu_s.max(0.001));
        cells.push(Cell::number(own / vips, 2));
        cells.push(Cell::number(own / magick, 2));
        cells.push(Cell::number(self.similarity, 3));
        cells.push(Cell::number(self.similarity_of_vips, 3));
        cells.push(Cell::number(self.costs[0].peak_bytes as f64 / 1e6, 0));
        cells
    }
}

fn measured(input: &Input, folder: &Path, width: u32, rounds: u32) -> anyhow::Result<Row> {
    let end = input.path.extension().unwrap_or_default();
    let small = folder.join("small").with_extension(end);
    convert(&["-size", "16x16", "xc:gray"], &small)?;
    let height =
        (u64::from(input.size.1) * u64::from(width) + u64::from(input.size.0) / 2) / u64::from(input.size.0);
    let size = (width, u32::try_from(height)?.max(1));
    let to = |maker: Maker| folder.join(format!("{maker:?}.jpg"));
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for _ in 0..rounds {
        for (maker, costs) in Maker::ALL.into_iter().zip(&mut costs) {
            let to = to(maker);
            let start = run_one(&maker.command(&small, &to, size)?)?;
            let all = run_one(&maker.command(&input.path, &to, size)?)?;
            costs.push(Cost {
                cpu_s: all.cpu_s - start.cpu_s,
                wall_s: all.wall_s - start.wall_s,
                peak_bytes: all.peak_bytes.saturating_sub(start.peak_bytes),
            });
        }
    }
    let median = |costs: &Vec<Cost>, of: &dyn Fn(&Cost) -> f64| {
        let mut all: Vec<f64> = costs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default().max(0.0)
    };
    let costs = costs.each_ref().map(|costs| Cost {
        cpu_s: median(costs, &|cost| cost.cpu_s),
        wall_s: median(costs, &|cost| cost.wall_s),
        peak_bytes: costs.iter().map(|cost| cost.peak_bytes).max().unwrap_or_default(),
    });
    let whole = folder.join("whole.png");
    let source = format!("{}[0]", input.path.display());
    convert(
        &[&source, "-auto-orient", "-filter", "Lanczos", "-resize", &format!("{}x{}!", size.0, size.1)],
        &whole,
    )?;
    Ok(Row {
        kind: input.kind.clone(),
        megapixels: f64::from(input.size.0) * f64::from(input.size.1) / 1e6,
        costs,
        similarity: similarity(&to(Maker::Pixcache), &whole, width as usize)?,
        similarity_of_vips: similarity(&to(Maker::Vips), &whole, width as usize)?,
    })
}

/// The structural similarity of two pictures' brightness, in windows of 8 × 8 pixels (Wang, Bovik, Sheikh, Simoncelli, 2004):
/// 1 if they are the same.
fn similarity(one: &Path, other: &Path, across: usize) -> anyhow::Result<f64> {
    const SIDE: usize = 8;
    // (0.01 × 255)² and (0.03 × 255)².
    const MEANS: f64 = 6.5025;
    const SPREADS: f64 = 58.5225;
    let (one, other) = (brightness(one)?, brightness(other)?);
    anyhow::ensure!(one.len() == other.len(), "thumbnails differ in size");
    let down = one.len() / across;
    let (mut sum, mut windows) = (0.0, 0_u32);
    for y in (0..=down.saturating_sub(SIDE)).step_by(2) {
        for x in (0..=across.saturating_sub(SIDE)).step_by(2) {
            let pixels =
                (y..down.min(y + SIDE)).flat_map(|y| (x..across.min(x + SIDE)).map(move |x| y * across + x));
            let (mut count, mut a, mut b, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
            for at in pixels {
                let (left, right) = (f64::from(one[at]), f64::from(other[at]));
                count += 1.0;
                a += left;
                b += right;
                aa += left * left;
                bb += right * right;
                ab += left * right;
            }
            let (a, b) = (a / count, b / count);
            let (left, right, both) = (aa / count - a * a, bb / count - b * b, ab / count - a * b);
            sum += (2.0 * a * b + MEANS) * (2.0 * both + SPREADS)
                / ((a * a + b * b + MEANS) * (left + right + SPREADS));
            windows += 1;
        }
    }
    Ok(sum / f64::from(windows.max(1)))
}

/// The brightness of a picture's pixels.
fn brightness(picture: &Path) -> anyhow::Result<Vec<u8>> {
    let grey = picture.with_extension("gray");
    convert(&[&picture.to_string_lossy(), "-colorspace", "gray", "-depth", "8"], &grey)?;
    Ok(std::fs::read(&grey)?)
}

fn convert(arguments: &[&str], to: &Path) -> anyhow::Result<()> {
    let out = Command::new("convert").args(arguments).arg(to).output()?;
    anyhow::ensure!(out.status.success(), "convert: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// ImageMagick's arguments for a view of a picture that is mirrored at its edges, from so many pixels right of its left edge.
fn view(width: u32, height: u32, from: usize) -> Vec<String> {
    let view = format!("distort:viewport={width}x{height}+{from}+0");
    ["-virtual-pixel", "mirror", "-define", &view, "-distort", "SRT", "0", "+repage"]
        .map(str::to_owned)
        .into()
}

/// Pictures of each kind and size, made of a sample photograph that is mirrored at its edges.
fn made(folder: &Path, sizes: &[(u32, u32)]) -> anyhow::Result<Vec<Input>> {
    let photograph = folder.join("photograph.jpg");
    std::fs::write(&photograph, testkit::samples::retina().bytes)?;
    let mut inputs = Vec::new();
    for (number, (kind, end, arguments)) in KINDS.into_iter().enumerate() {
        for &(width, height) in sizes {
            let path = folder.join(format!("{number}-{width}.{end}"));
            let photograph = photograph.to_string_lossy();
            let viewed = view(width, height, 0);
            let viewed: Vec<&str> = viewed.iter().map(String::as_str).collect();
            let all = [&[&*photograph][..], &viewed, &["-strip"], arguments].concat();
            convert(&all, &path)?;
            let image = looked_at(&path)?;
            anyhow::ensure!((image.width, image.height) == (width, height), "convert made another size");
            inputs.push(Input { kind: kind.to_owned(), path, size: (width, height) });
        }
    }
    Ok(inputs)
}

/// The pictures that are named, or lie in folders that are.
fn found(named: &[PathBuf]) -> anyhow::Result<Vec<Input>> {
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
                files.push(entry?.path());
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| {
            let image = looked_at(&path)?;
            Ok(Input { kind: image.format.to_string(), path, size: (image.width, image.height) })
        })
        .collect()
}

fn looked_at(path: &Path) -> anyhow::Result<sniff::Image> {
    let named = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(named)?;
    image_of(&bytes).with_context(named)
}
