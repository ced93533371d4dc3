//! `import`: stores a folder of images through a gateway, each under its path as key.
//!
//! An image that is stored already is not sent again. So an import that was broken off is resumed by starting it
//! again: no state is kept beside the gateway's own. Every refused file is listed at the end, with the reason.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, IF_NONE_MATCH, RANGE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use runtime::args::whole;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sniff::{Limits, SniffError, Sniffer};
use tokio::time::sleep;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use wire::{Key, Tag};

/// The characters that may stand unescaped in a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How much of a file, in bytes, shows whether it is an image at all.
const FIRST_BYTES: u64 = 64 << 10;
/// How much of a file is read at once to hash it.
const CHUNK_BYTES: usize = 256 << 10;
/// How many images one question lists.
const PAGE: u32 = 1000;
/// How often a request is tried whose failure may pass by itself, and how long the first pause is.
const MOST_TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A gateway that has not answered for so long will not.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Stores a folder of images through a gateway, each under its path as key
#[derive(Debug, Parser)]
#[command(name = "import", version)]
struct Arguments {
    /// The folder; files and folders whose names begin with a dot are left out
    folder: PathBuf,
    /// The beginning of each key, as in "photos/"
    #[arg(long, default_value = "")]
    prefix: String,
    /// The gateway
    #[arg(long, value_name = "URL", env = "PIXCACHE_URL", default_value = "http://127.0.0.1:5000", value_parser = gateway_url)]
    url: Url,
    /// The gateway's admin token, if it has one
    #[arg(long, env = "ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true, default_value = "")]
    admin_token: String,
    /// How many images are on their way at once
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = whole::<u8>(1..=64))]
    in_flight: u8,
    /// Leave images alone that are stored under a key with other bytes than the file's
    #[arg(long)]
    keep: bool,
}

fn gateway_url(text: &str) -> Result<Url, String> {
    let url = text.parse().ok().filter(|url: &Url| ["http", "https"].contains(&url.scheme()));
    url.ok_or_else(|| {
        format!(
            "must be the URL of a gateway such as http://127.0.0.1:5000, got {}",
            wire::words::shown(text)
        )
    })
}

/// A file, and the key that it is to be stored under.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    /// The path below the folder, as people read it.
    name: String,
    size: u64,
    key: Key,
}

/// A file or folder that is not stored, and why.
#[derive(Debug)]
struct Refused {
    name: String,
    reason: String,
}

/// The outcome for a file that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Done {
    Stored,
    Replaced,
    /// The same bytes, because the store had lost its file.
    Restored,
    There,
    Kept,
    /// Its first bytes are those of no image: a text, a video, a sidecar file.
    NoImage,
}

/// An image that the gateway has under a key.
#[derive(Debug, Deserialize)]
struct Listed {
    key: String,
    size: u64,
    sha256: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    images: Vec<Listed>,
    next: Option<String>,
}

/// A failure as the gateway describes it.
#[derive(Debug, Deserialize)]
struct Failure {
    error: FailureDetail,
}

#[derive(Debug, Deserialize)]
struct FailureDetail {
    message: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(runtime::process::settings::<Arguments>("import")).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("import: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Where another part of the program has installed one already, that one will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let began = Instant::now();
    let mut refused = Vec::new();
    let found = walk(&arguments.folder, &arguments.prefix, &mut refused)?;
    let gateway = Gateway::new(&arguments)?;
    let stored = gateway.list(&arguments.prefix, &found).await?;

    let stop = CancellationToken::new();
    tokio::spawn(stop_at_interrupt(stop.clone()));
    let bar = progress(found.iter().map(|file| file.size).sum());
    let (total, gateway, stored) = (found.len(), Arc::new(gateway), Arc::new(stored));
    let mut counts: HashMap<Done, usize> = HashMap::new();
    let answers = stream::iter(found)
        .take_until(stop.clone().cancelled_owned())
        .map(|file| {
            let (gateway, stored, bar) = (gateway.clone(), stored.clone(), bar.clone());
            async move {
                let done = gateway.store(&file, stored.get(file.key.as_str())).await;
                bar.inc(file.size);
                (file.name, done)
            }
        })
        .buffer_unordered(arguments.in_flight.into());
    let mut answers = pin!(answers);
    while let Some((name, done)) = answers.next().await {
        match done {
            Ok(done) => *counts.entry(done).or_default() += 1,
            Err(reason) => refused.push(Refused { name, reason }),
        }
    }
    bar.finish_and_clear();

    let count = |done| counts.get(&done).copied().unwrap_or_default();
    let handled: usize = counts.values().sum();
    let mut summary = format!("{} stored", count(Done::Stored));
    for (done, words) in [
        (Done::Replaced, "replaced another image"),
        (Done::Restored, "restored, whose files were lost"),
        (Done::There, "were there already"),
        (Done::Kept, "kept as they were"),
        (Done::NoImage, "skipped as no image"),
    ] {
        if count(done) > 0 {
            let _ = write!(summary, ", {} {words}", count(done));
        }
    }
    println!("{summary}, {} refused, in {:.1} s.", refused.len(), began.elapsed().as_secs_f64());
    refused.sort_by(|one, other| one.name.cmp(&other.name));
    for Refused { name, reason } in &refused {
        eprintln!("refused {name}: {reason}");
    }
    Ok(if stop.is_cancelled() {
        eprintln!("Stopped with {} files left: the same command goes on.", total.saturating_sub(handled));
        ExitCode::from(130)
    } else if refused.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// At the first interrupt, the images on their way are finished; the second one stops at once.
async fn stop_at_interrupt(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("Stopping after the images on their way: press Ctrl-C again to stop at once.");
        stop.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    }
}

/// A bar on a terminal, and nothing elsewhere.
fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// Every file below `folder`, in order. A file that can't have a key, or can't be read, is added to `refused`.
///
/// # Errors
/// When the folder itself can't be read.
fn walk(folder: &Path, prefix: &str, refused: &mut Vec<Refused>) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    let mut is_first = true;
    while let Some((path, below)) = folders.pop() {
        let entries = std::fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) if is_first => bail!("{} {}", folder.display(), unreadable(&error)),
            Err(error) => {
                refused.push(Refused { name: below, reason: unreadable(&error) });
                continue;
            }
        };
        is_first = false;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let shown = format!("{below}{}", name.to_string_lossy());
            // A link to a file is that file; one to a folder could lead round in a circle.
            let kind = entry.file_type().and_then(|kind| Ok((kind, std::fs::metadata(entry.path())?)));
            let refusal = match kind {
                Ok((kind, _)) if kind.is_dir() => {
                    folders.push((entry.path(), format!("{shown}/")));
                    continue;
                }
                Ok((_, metadata)) if metadata.is_file() => {
                    let key = name.to_str().map(|_| Key::new(&format!("{prefix}{shown}")));
                    match key {
                        Some(Ok(key)) => {
                            found.push(Found { path: entry.path(), name: shown, size: metadata.len(), key });
                            continue;
                        }
                        Some(Err(error)) => error.to_string(),
                        None => "its name must be UTF-8, as keys are, got other bytes".to_owned(),
                    }
                }
                Ok((_, metadata)) if metadata.is_dir() => {
                    "it must be a file or a folder, got a link to a folder".to_owned()
                }
                Ok(_) => "it must be a file or a folder, got something else".to_owned(),
                Err(error) => unreadable(&error),
            };
            refused.push(Refused { name: shown, reason: refusal });
        }
    }
    Ok(found)
}

/// The gateway that images are stored through.
struct Gateway {
    client: Client,
    url: Url,
    admin_token: String,
    keep: bool,
    looked_at: AtomicU64,
    some_are_lost: AtomicBool,
}

/// How many of the images that are stored already are read, to find out whether their files are there.
const READ_FIRST: u64 = 16;

impl Gateway {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut url = arguments.url.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let client = Client::builder().read_timeout(ANSWER_LIMIT).build().context("no HTTP client")?;
        let (admin_token, keep) = (arguments.admin_token.clone(), arguments.keep);
        let (looked_at, some_are_lost) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { client, url, admin_token, keep, looked_at, some_are_lost })
    }

    fn at(&self, path: &str) -> anyhow::Result<Url> {
        self.url.join(path).with_context(|| format!("{path} below {}", self.url))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        if self.admin_token.is_empty() { request } else { request.bearer_auth(&self.admin_token) }
    }

    /// The images that are stored under the keys of `found`.
    async fn list(&self, prefix: &str, found: &[Found]) -> anyhow::Result<HashMap<String, Listed>> {
        let wanted: std::collections::HashSet<&str> = found.iter().map(|file| file.key.as_str()).collect();
        let mut stored = HashMap::new();
        let mut after: Option<String> = None;
        loop {
            let mut url = self.at("api/images")?;
            url.query_pairs_mut().append_pair("prefix", prefix).append_pair("limit", &PAGE.to_string());
            if let Some(after) = &after {
                url.query_pairs_mut().append_pair("after", after);
            }
            let response =
                patiently(async || Ok(self.authorized(self.client.get(url.clone())).send().await?))
                    .await
                    .map_err(|reason| anyhow::anyhow!("{}: {reason}", self.url))?;
            let page: Page = serde_json::from_slice(
                &response.bytes().await.context("the list of stored images broke off: try again")?,
            )
            .context("the answer is not that of a gateway of pixcache: check --url (PIXCACHE_URL)")?;
            stored.extend(
                page.images
                    .into_iter()
                    .filter(|image| wanted.contains(image.key.as_str()))
                    .map(|image| (image.key.clone(), image)),
            );
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(stored),
            }
        }
    }

    /// Whether the stored image under the key of `file` can be read: its row may name a file that was lost. The first
    /// [`READ_FIRST`] are looked at, and all others once one could not be read: a look is a read by the gateway.
    async fn can_be_read(&self, file: &Found) -> Result<bool, String> {
        let is_first = self.looked_at.fetch_add(1, Ordering::Relaxed) < READ_FIRST;
        if !is_first && !self.some_are_lost.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let request = self.client.get(self.image_url(file)?).header(RANGE, "bytes=0-0");
        // A gateway that is away for a moment says nothing of the file, and its list has named the image.
        let response = self.authorized(request).send().await;
        let is_lost = response.is_ok_and(|response| response.status() == StatusCode::INTERNAL_SERVER_ERROR);
        self.some_are_lost.fetch_or(is_lost, Ordering::Relaxed);
        Ok(!is_lost)
    }

    fn image_url(&self, file: &Found) -> Result<Url, String> {
        let path = format!("images/{}", utf8_percent_encode(file.key.as_str(), UNRESERVED));
        self.at(&path).map_err(|error| format!("{error:#}"))
    }

    /// Stores a file, unless that is done already. The error is the reason of a refusal.
    async fn store(&self, file: &Found, stored: Option<&Listed>) -> Result<Done, String> {
        let mut is_lost = false;
        if let Some(stored) = stored {
            let is_same = stored.size == file.size && stored.sha256 == hash(file.path.clone()).await?;
            if is_same && self.can_be_read(file).await? {
                return Ok(Done::There);
            }
            if self.keep && !is_same {
                return Ok(Done::Kept);
            }
            is_lost = is_same;
        }
        if !is_image(file.path.clone()).await? {
            return Ok(Done::NoImage);
        }
        let url = self.image_url(file)?;
        let response = patiently(async || {
            // Opened anew for each try: the one before may have read a part of it.
            let opened = tokio::fs::File::open(&file.path).await?;
            let body = reqwest::Body::wrap_stream(ReaderStream::new(opened));
            let mut request = self.client.put(url.clone()).header(CONTENT_LENGTH, file.size).body(body);
            if self.keep && stored.is_none() {
                request = request.header(IF_NONE_MATCH, "*");
            }
            Ok(self.authorized(request).send().await?)
        })
        .await?;
        Ok(match response.status() {
            StatusCode::CREATED => Done::Stored,
            StatusCode::PRECONDITION_FAILED => Done::Kept,
            _ if is_lost => Done::Restored,
            _ => Done::Replaced,
        })
    }
}

/// Sends a request until it is answered. After a failure that may pass by itself, it is tried again. A condition that
/// does not hold is an answer. The error is the reason of a refusal.
async fn patiently(send: impl AsyncFn() -> anyhow::Result<Response>) -> Result<Response, String> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    loop {
        let reason = match send().await {
            Ok(response)
                if response.status().is_success() || response.status() == StatusCode::PRECONDITION_FAILED =>
            {
                return Ok(response);
            }
            Ok(response) => {
                let status = response.status();
                let text = response.bytes().await.unwrap_or_default();
                let reason = serde_json::from_slice::<Failure>(&text).map_or_else(
                    |_| format!("the gateway has answered {status}"),
                    |failure| failure.error.message,
                );
                if ![StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
                    return Err(reason);
                }
                reason
            }
            Err(error) => unanswered(&error),
        };
        tries += 1;
        if tries == MOST_TRIES {
            return Err(format!("{reason} (after {MOST_TRIES} tries)"));
        }
        sleep(pause).await;
        pause *= 2;
    }
}

/// The reason why a request has no answer, and what helps.
fn unanswered(error: &anyhow::Error) -> String {
    let cause = error.root_cause();
    match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_connect() => {
            format!(
                "the gateway can't be reached ({cause}); start it with bin/run, or name another one with --url"
            )
        }
        Some(error) if error.is_timeout() => {
            format!("the gateway has not answered within {} s; its /readyz says why", ANSWER_LIMIT.as_secs())
        }
        Some(_) => format!("the gateway broke the request off ({cause}); its log says why"),
        None => match error.downcast_ref::<std::io::Error>() {
            Some(error) => unreadable(error),
            None => format!("{error:#}"),
        },
    }
}

/// Why a file or folder can't be read. The sentence goes on from its name.
fn unreadable(error: &std::io::Error) -> String {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "it is not there".to_owned(),
        std::io::ErrorKind::NotADirectory => "it is not a folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "its permissions do not allow it".to_owned(),
        _ => error.to_string(),
    };
    format!("can't be read: {reason}")
}

/// SHA-256 of a file, in hexadecimal.
async fn hash(path: PathBuf) -> Result<String, String> {
    in_thread(move || {
        let mut hasher = Sha256::new();
        let mut file = File::open(path)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(Tag(hasher.finalize().into()).to_string()),
                read => hasher.update(&chunk[..read]),
            }
        }
    })
    .await
}

/// Whether a file is an image by its first bytes, so that nothing is sent in vain. A broken image is refused.
async fn is_image(path: PathBuf) -> Result<bool, String> {
    let first = in_thread(move || {
        let mut first = Vec::new();
        File::open(path)?.take(FIRST_BYTES).read_to_end(&mut first)?;
        Ok(first)
    })
    .await?;
    // The gateway decides how many pixels are too many.
    let mut sniffer = Sniffer::new(Limits { max_pixels: u64::MAX });
    match sniffer.push(&first) {
        Ok(()) => Ok(true),
        Err(SniffError::Unsupported) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| unreadable(&error)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn files_are_found_with_their_paths_as_keys() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        std::fs::create_dir_all(at(".hidden")).unwrap();
        for name in ["z.png", "b/one two.png", "b/c/猫.png", ".hidden/no.png", "b/.no", &"n".repeat(250)] {
            std::fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink(at("z.png"), at("link.png")).unwrap();
        std::os::unix::fs::symlink(at("b"), at("round")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("broken")).unwrap();
        let mut refused = Vec::new();
        let found = walk(folder.path(), "photos/", &mut refused).unwrap();
        let mut keys: Vec<_> = found.iter().map(|file| (file.key.as_str(), file.size)).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                ("photos/b/c/猫.png", 11),
                ("photos/b/one two.png", 13),
                ("photos/link.png", 5),
                ("photos/z.png", 5)
            ]
        );
        let mut names: Vec<_> =
            refused.iter().map(|refused| refused.name.chars().take(6).collect::<String>()).collect();
        names.sort_unstable();
        assert_eq!(names, ["broken", "nnnnnn", "round"]);
        let missing = walk(&at("not there"), "", &mut refused).unwrap_err().to_string();
        assert!(missing.ends_with("not there can't be read: it is not there"), "{missing}");
        let file = walk(&at("z.png"), "", &mut refused).unwrap_err().to_string();
        assert!(file.ends_with("z.png can't be read: it is not a folder"), "{file}");
    }
}
