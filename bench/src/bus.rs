//! `bench bus`: `cache.get` and `cache.put` through the worker against a bare responder on NATS.

use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use testkit::{Guardian, NatsServer};
use wire::inspect::PutReply;
use wire::subject;

use crate::compare::{self, Contestant, Effort, Match, Measure};
use crate::load::bus::{Bus, Message, Place};
use crate::load::{Choose, Load, Request, at_random};
use crate::picture::{SMALLEST, picture};
use crate::report::{Output, Report, progress};
use crate::server::Server;
use crate::system::{Binaries, Setup, System};

/// How many requests are in flight, all on one connection.
const IN_FLIGHT: usize = 64;
/// The sizes of the images, their names, and the least ratio of the rate of gets to the bare responder's.
/// The smallest image stands for values of 10 bytes, because no image is so small.
const SIZES: [(usize, &str, f64); 3] =
    [(SMALLEST, "smallest image", 0.85), (10_000, "10 kB", 0.9), (279_000, "279 kB", 0.9)];
/// How many images of each size.
const KEYS: usize = 16;
/// The user of the load: both servers allow it the requests that are measured.
const USER: &str = "gateway";

/// The arguments of `bench bus`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    effort: Effort,
    /// Decides which keys are asked for
    #[arg(long, default_value_t = 5)]
    seed: u64,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    output: Output,
}

/// Measures, and writes the report.
///
/// # Errors
/// When something is not there or fails.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let setup = Setup::shipped(&arguments.binaries)?;
    let system = System::start(&setup).await?;
    let folder = Guardian::new(|_| Command::new("true"));
    let mut images = Vec::new();
    for (size, _, _) in SIZES {
        for number in 0..KEYS {
            let (key, bytes) = (format!("bus-{size}-{number}"), picture(number as u64, size));
            std::fs::write(folder.folder().join(&key), &bytes)?;
            images.push((size, key, bytes));
        }
    }
    // The worker's answer, so that the bare one is as long.
    let mut stored = Bytes::new();
    let asker = system.nats.connect(USER).await;
    for (_, key, bytes) in &images {
        stored = asker.request(format!("cache.put.{key}"), bytes.clone()).await?.payload;
        let reply: PutReply = serde_json::from_slice(&stored).context("a put is not stored")?;
        anyhow::ensure!(reply.stored, "a put is not stored");
    }
    let nats = NatsServer::start().await;
    let held = folder.folder().to_str().context("temporary folders have plain names")?.to_owned();
    let (url, stored) = (nats.url(), String::from_utf8(stored.into())?);
    let echo = ["--url", &url, "--user", "memcache", "--images", &held, "--stored", &stored];
    let _echo = Server::bare_echo(&echo, &[("NATS_PASSWORD", nats.password("memcache"))]).await?;
    wait_for_echo(&nats, &images[0].1).await?;

    let mut matches = Vec::new();
    for (size, name, target) in SIZES {
        let of_size = || images.iter().filter(|image| image.0 == size);
        let gets: Vec<Message> = of_size()
            .map(|(size, key, _)| Message {
                subject: format!("cache.get.{key}").into(),
                payload: Bytes::new(),
                answer_length: Some(*size),
            })
            .collect();
        let puts: Vec<Message> = of_size()
            .map(|(_, key, bytes)| Message {
                subject: format!("cache.put.{key}").into(),
                payload: bytes.clone(),
                answer_length: None,
            })
            .collect();
        for (verb, messages, target) in [("get", gets, Some(target)), ("put", puts, None)] {
            let load = |nats| load(arguments, Place::of(nats, USER), &messages);
            let echo = Contestant::new("bare responder", load(&nats), None);
            let contestants = [
                Contestant::new("worker", load(&system.nats), None),
                match target {
                    Some(target) => echo.with_target(target),
                    None => echo,
                },
            ];
            let bar = progress(u64::from(arguments.effort.rounds) * contestants.len() as u64, "");
            let work = format!("cache.{verb}, {name}");
            let held = Match::hold(work, Measure::Rate, &arguments.effort, &contestants, &bar).await;
            bar.finish_and_clear();
            let held = held?;
            println!("{}", held.summary());
            matches.push(held);
        }
    }
    let mut report = Report::new("bus", "The worker on the bus, and a bare responder", Some(arguments.seed));
    report.program("pixcache", setup.binaries.join("memcache"), "--version");
    report.program("nats-server", "nats-server", "--version");
    report.text(format!(
        "{} rounds of {} s each, in turn; {IN_FLIGHT} requests in flight on one connection. The bare responder is a subscription that \
         answers each request at once, on another nats-server with the same nats.conf: a get with the same bytes and no header, a put with \
         an answer as long as the worker's. Values of 10 bytes can be no images, so the smallest image, {SMALLEST} bytes, stands for them. A \
         put is looked at to its end and hashed by the worker; the bare responder does neither.",
        arguments.effort.rounds, arguments.effort.seconds
    ));
    compare::report(&mut report, &matches)?;
    report.write(&arguments.output.folder("bus"))
}

/// Waits until the responder has subscribed.
async fn wait_for_echo(nats: &NatsServer, key: &str) -> anyhow::Result<()> {
    let asker = nats.connect(USER).await;
    let answered = async {
        while asker
            .request(format!("{}{key}", subject::GET.trim_end_matches('>')), Bytes::new())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), answered)
        .await
        .context("the bare responder does not answer")
}

fn load(arguments: &Arguments, place: Place, messages: &[Message]) -> Load<Bus, impl Choose> {
    let requests = messages.iter().map(|message| Request { kind: 0, message: message.clone() }).collect();
    Load {
        place,
        requests: Arc::new(requests),
        choose: at_random(messages.len()),
        connections: IN_FLIGHT,
        threads: 1,
        seed: arguments.seed,
        warmup: arguments.effort.warmup(),
        length: arguments.effort.length(),
    }
}
