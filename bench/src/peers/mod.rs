//! `bench peers`: the same requests against pixcache and against others, side by side.

pub(crate) mod bare;
pub(crate) mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use clap::ValueEnum;
use testkit::database::Account;
use testkit::{Guardian, NatsServer};
use wire::Policy;

use crate::compare::{self, Contestant, Effort, Match, Measure};
use crate::load::http::{Http, Message};
use crate::load::{self, Choose, Load, Request, at_random, in_turn};
use crate::picture::picture;
use crate::report::{Output, Report, progress};
use crate::server::Server;
use crate::system::{Binaries, Setup, System, path_of};

use servers::Programs;

/// How many requests are in flight, but for uploads.
const CONNECTIONS: usize = 32;
const UPLOADS_IN_FLIGHT: usize = 16;

/// The sizes of the images, and of how many of them are read.
const SMALL: usize = 10_000;
const LARGE: usize = 279_000;
const UPLOAD: usize = 100_000;
const SMALL_KEYS: usize = 64;
const LARGE_KEYS: usize = 16;
const UPLOAD_KEYS: usize = 512;
/// Enough keys that each has left the cache, and its near lease has ended, before it is asked for again.
const MISSED_KEYS: usize = 20_000;

/// The capacities: one with room for every image that is to be hit, and one so small that every read is a miss.
const CAPACITY_MB: u64 = 64;
const MISSING_CAPACITY_MB: u64 = 1;

/// Under this load an answer of the worker may take longer than the 50 ms after which the shipped setting turns to
/// the origin, and that would be no hit.
const PATIENT_MS: &str = "1000";
/// More than all images that are hit.
const NEAR_MB: &str = "64";

const NAMES: [&str; 2] = ["pixcache", "pixcache, near cache off"];
const BARE: &str = "bare axum handler";

/// The arguments of `bench peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    effort: Effort,
    /// Only this work; may be given several times
    #[arg(long, value_name = "WORK")]
    only: Vec<Work>,
    /// Decides which keys are asked for
    #[arg(long, default_value_t = 5)]
    seed: u64,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    output: Output,
}

/// The works that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// A hit of 10 kB
    Hit10k,
    /// A hit of 279 kB
    Hit279k,
    /// A hit of 10 kB that crosses the bus
    Far10k,
    /// A hit of 279 kB that crosses the bus
    Far279k,
    /// A hit of 10 kB as base64 in JSON
    Base64,
    /// A miss of 10 kB
    Miss,
    /// An upload of 100 kB
    Upload,
    /// How long hits take under half the highest load
    P99,
}

/// Measures, and writes the report.
///
/// # Errors
/// When something is not there or fails.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let wanted: Vec<Work> = match &arguments.only[..] {
        [] => Work::value_variants().to_vec(),
        only => only.to_vec(),
    };
    let stage = Stage::build(arguments, &programs).await?;
    let settings = stage.settings();
    println!("{settings}");
    let mut matches = Vec::new();
    for work in wanted {
        let held = stage.hold(work).await?;
        println!("{}", held.summary());
        matches.push(held);
    }
    let mut report = Report::new("peers", "pixcache and its peers", Some(arguments.seed));
    for (name, program, flag) in [
        ("Varnish", &programs.varnish, "-V"),
        ("nginx", &programs.nginx, "-v"),
        ("memcached", &programs.memcached, "-V"),
        ("pixcache", &stage.binaries.join("gateway"), "--version"),
        ("nats-server", &PathBuf::from("nats-server"), "--version"),
        ("MariaDB", &PathBuf::from("mariadbd"), "--version"),
    ] {
        report.program(name, program, flag);
    }
    report.text(format!(
        "{} rounds of {} s each; in each round every one has its turn, beginning with another one each time. \
         Load, servers and bus share the cores. Each ratio is that of two turns of one round.",
        arguments.effort.rounds, arguments.effort.seconds
    ));
    compare::report(&mut report, &matches)?;
    report.heading("Settings");
    report.text(format!("```\n{}```", settings));
    report.write(&arguments.output.folder("peers"))
}

/// An image under its key.
type Image = (String, Bytes);

/// A system and its peers, all of which hold the same images.
struct Stage<'a> {
    arguments: &'a Arguments,
    binaries: PathBuf,
    system: System,
    /// That of the bare responder: with the same nats.conf, so that the bus costs the same.
    _nats: NatsServer,
    _echo: Server,
    nginx: Server,
    nginx_cache: u16,
    varnish: Server,
    memcached: Server,
    before_memcached: Server,
    memory: Server,
    before_bus: Server,
    origin: Server,
    small: Vec<Image>,
    large: Vec<Image>,
    /// Its folder holds the images for the peers. It goes last.
    _folder: Guardian,
}

impl<'a> Stage<'a> {
    async fn build(arguments: &'a Arguments, programs: &Programs) -> anyhow::Result<Self> {
        let mut setup = Setup::shipped(&arguments.binaries)?;
        setup.gateways = vec![
            vec![("NEAR_CACHE_MB", NEAR_MB.to_owned()), ("CACHE_BUDGET_MS", PATIENT_MS.to_owned())],
            vec![("NEAR_CACHE_MB", "0".to_owned()), ("CACHE_BUDGET_MS", PATIENT_MS.to_owned())],
        ];
        let system = System::start(&setup).await?;
        let folder = Guardian::new(|_| Command::new("true"));
        let images = |count, size, name: &str| -> Vec<Image> {
            (0..count).map(|number| (format!("{name}{number}"), picture(number as u64, size))).collect()
        };
        let small = images(SMALL_KEYS, SMALL, "small-");
        let large = images(LARGE_KEYS, LARGE, "large-");
        let www = folder.folder().join("www");
        std::fs::create_dir_all(www.join("images"))?;
        for (key, bytes) in small.iter().chain(&large) {
            std::fs::write(www.join("images").join(key), bytes)?;
        }
        system.store(small.iter().chain(&large).cloned()).await?;
        let keys: Vec<String> = small.iter().chain(&large).map(|(key, _)| key.clone()).collect();
        for port in &system.gateway_ports {
            system.warm(*port, &keys).await?;
        }

        let headers = folder.folder().join("headers");
        std::fs::write(&headers, hit_headers(&system, &small[0].0).await?)?;
        let headers = text(&headers)?;
        let held = text(&www.join("images"))?;
        let memory = Server::bare("memory", &["--headers", &headers, "--images", &held], &[]).await?;

        let memcached = Server::memcached(&programs.memcached).await?;
        bare::fill_memcached(memcached.port, &small).await?;
        bare::fill_memcached(memcached.port, &large).await?;
        let port = memcached.port.to_string();
        let before_memcached =
            Server::bare("memcached", &["--headers", &headers, "--memcached", &port], &[]).await?;

        let nats = NatsServer::start().await;
        let (url, worker) = (nats.url(), nats.password("memcache"));
        let echo = ["--url", &url, "--user", "memcache", "--images", &held, "--stored", "{}"];
        let echo = Server::bare_echo(&echo, &[("NATS_PASSWORD", worker)]).await?;
        let before_bus = ["--headers", &headers, "--url", &url, "--user", "gateway"];
        let before_bus =
            Server::bare("bus", &before_bus, &[("NATS_PASSWORD", nats.password("gateway"))]).await?;

        let database = system.database.url(Account::Gateway);
        let (files, uploads) = (text(&system.images())?, text(&folder.folder().join("uploads"))?);
        let origin = ["--headers", &headers, "--images", &files, "--uploads", &uploads];
        let origin = Server::bare("origin", &origin, &[("DATABASE_URL", &database)]).await?;

        let (nginx, nginx_cache) = Server::nginx(&programs.nginx, &www).await?;
        let varnish = Server::varnish(&programs.varnish, nginx.port).await?;
        let stage = Self {
            arguments,
            binaries: setup.binaries,
            system,
            _nats: nats,
            _echo: echo,
            nginx,
            nginx_cache,
            varnish,
            memcached,
            before_memcached,
            memory,
            before_bus,
            origin,
            small,
            large,
            _folder: folder,
        };
        stage.warm_peers(&keys).await?;
        Ok(stage)
    }

    /// Fills the caches among the peers with the images that they will be asked for, and checks that they hold them.
    async fn warm_peers(&self, keys: &[String]) -> anyhow::Result<()> {
        for port in [self.varnish.port, self.nginx_cache] {
            self.system.warm(port, keys).await?;
        }
        for key in keys {
            let message = Message::get(&path_of(key));
            let answer = self.system.ask(self.varnish.port, &message).await?;
            let header = |name: &str| {
                answer
                    .headers
                    .iter()
                    .find(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            };
            // The second number is that of the request that brought it.
            anyhow::ensure!(
                header("X-Varnish").is_some_and(|value| value.contains(' ')),
                "Varnish does not hold {key}"
            );
            self.system
                .ask(self.nginx_cache, &message.saying("X-Cache", "HIT"))
                .await
                .context("nginx does not cache")?;
        }
        Ok(())
    }

    fn settings(&self) -> String {
        format!(
            "pixcache: gateways with NEAR_CACHE_MB={NEAR_MB} and NEAR_CACHE_MB=0, both with CACHE_BUDGET_MS={PATIENT_MS}; a cache of \
             {CAPACITY_MB} MB (for misses {MISSING_CAPACITY_MB} MB, and {MISSED_KEYS} keys in turn)\n\
             MariaDB: {}\n\
             bare peers: hyper and axum, {} threads, mimalloc, with the headers that pixcache sends with a hit; the one before the bus \
             asks a bare subscriber on another nats-server with the same nats.conf\n\
             {}\nnginx.conf:\n{}\n{}",
            crate::system::MARIADB.join(" "),
            load::threads(),
            self.memcached.settings,
            self.nginx.settings,
            self.varnish.settings,
        )
    }

    async fn hold(&self, work: Work) -> anyhow::Result<Match> {
        match work {
            Work::Hit10k => {
                let others = [Some(1.6), None, None, None, Some(0.9)];
                self.hold_hits("hit, 10 kB", &self.small, others).await
            }
            Work::Hit279k => {
                let others = [Some(1.0), None, None, None, Some(0.95)];
                self.hold_hits("hit, 279 kB", &self.large, others).await
            }
            Work::Far10k => self.hold_far_hits("hit without the near cache, 10 kB", &self.small, 0.93).await,
            Work::Far279k => self.hold_far_hits("hit without the near cache, 279 kB", &self.large, 5.0).await,
            Work::Base64 => self.hold_base64().await,
            Work::Miss => self.hold_misses().await,
            Work::Upload => self.hold_uploads().await,
            Work::P99 => self.hold_p99().await,
        }
    }

    /// Compares hits. An image that was just warmed stays a hit, because all of them have room.
    async fn hold_hits(
        &self,
        work: &str,
        images: &[Image],
        targets: [Option<f64>; 5],
    ) -> anyhow::Result<Match> {
        let (near, others) = (
            self.system.gateway_ports[0],
            [
                ("Varnish", self.varnish.port),
                ("nginx, static files", self.nginx.port),
                ("nginx, proxy_cache", self.nginx_cache),
                ("memcached behind a bare axum handler", self.before_memcached.port),
                (BARE, self.memory.port),
            ],
        );
        let mut contestants = vec![Contestant::new(NAMES[0], self.reads(near, images, true), None)];
        for ((name, port), target) in others.into_iter().zip(targets) {
            let other = Contestant::new(name, self.reads(port, images, false), None);
            contestants.push(match target {
                Some(target) => other.with_target(target),
                None => other,
            });
        }
        self.alternate(work, Measure::Rate, &contestants).await
    }

    async fn hold_far_hits(&self, work: &str, images: &[Image], target: f64) -> anyhow::Result<Match> {
        let far = self.reads(self.system.gateway_ports[1], images, true);
        let bare = self.reads(self.before_bus.port, images, false);
        let contestants = [
            Contestant::new(NAMES[1], far, None),
            Contestant::new("bare axum handler, NATS, bare responder", bare, None).with_target(target),
        ];
        self.alternate(work, Measure::Rate, &contestants).await
    }

    async fn hold_base64(&self) -> anyhow::Result<Match> {
        let near = self.system.gateway_ports[0];
        let messages = self.small.iter().map(|(key, bytes)| {
            let content = BASE64_STANDARD.encode(bytes);
            let answer = format!(r#"{{"success":"true","key":"{key}","content":"{content}"}}"#);
            Message::new("POST", &format!("/api/key/{key}"), &[], Bytes::new()).answered_with(answer.into())
        });
        let encoded = self.load(near, messages.collect(), at_random(self.small.len()), CONNECTIONS);
        let contestants = [
            Contestant::new("pixcache, POST /api/key", encoded, None),
            Contestant::new("pixcache, GET /images", self.reads(near, &self.small, true), None)
                .with_target(0.6),
        ];
        self.alternate("hit as base64, 10 kB", Measure::Rate, &contestants).await
    }

    async fn hold_misses(&self) -> anyhow::Result<Match> {
        let keys: Vec<String> = (0..MISSED_KEYS).map(|number| format!("missed-{number}")).collect();
        let images: Vec<Image> = keys
            .iter()
            .enumerate()
            .map(|(number, key)| (key.clone(), picture(1_000_000 + number as u64, SMALL)))
            .collect();
        self.system.seed(&keys, MISSED_KEYS, |number| images[number].1.clone()).await?;
        self.system.configure(MISSING_CAPACITY_MB, Policy::Lru).await?;
        let read = |port, header: Option<&'static str>| {
            let messages = images.iter().map(|(key, bytes)| {
                let message = Message::get(&path_of(key)).answered_with(bytes.clone());
                match header {
                    Some(value) => message.saying("Cache-Status", value),
                    None => message,
                }
            });
            self.load(port, messages.collect(), in_turn(images.len()), CONNECTIONS)
        };
        let missed = read(self.system.gateway_ports[0], Some("pixcache; fwd=miss"));
        let contestants = [
            Contestant::new("pixcache", missed, None),
            Contestant::new("bare axum handler, SELECT and file", read(self.origin.port, None), None)
                .with_target(0.75),
        ];
        let held = self.alternate("miss, 10 kB", Measure::Rate, &contestants).await?;
        self.system.configure(CAPACITY_MB, Policy::Lru).await?;
        let keys: Vec<String> = self.small.iter().chain(&self.large).map(|(key, _)| key.clone()).collect();
        for port in &self.system.gateway_ports {
            self.system.warm(*port, &keys).await?;
        }
        Ok(held)
    }

    async fn hold_uploads(&self) -> anyhow::Result<Match> {
        let bytes = picture(2_000_000, UPLOAD);
        let put = |port, prefix: &str| {
            let messages = (0..UPLOAD_KEYS).map(|number| {
                Message::new("PUT", &format!("{prefix}-{number}"), &[], bytes.clone()).answered(200..=201)
            });
            self.load(port, messages.collect(), in_turn(UPLOAD_KEYS), UPLOADS_IN_FLIGHT)
        };
        let bare = self.origin.port;
        let contestants = [
            Contestant::new("pixcache", put(self.system.gateway_ports[0], "/images/uploaded"), None),
            Contestant::new("bare axum handler, file, fsync and row", put(bare, "/images/stored"), None)
                .with_target(0.8),
            Contestant::new(
                "bare axum handler, file, fsync, SHA-256 and the five statements",
                put(bare, "/noted/noted"),
                None,
            ),
        ];
        self.alternate("upload, 100 kB", Measure::Rate, &contestants).await
    }

    /// Compares the p99 at half the highest load: that which pixcache can handle in a closed loop at this time.
    async fn hold_p99(&self) -> anyhow::Result<Match> {
        let near = self.system.gateway_ports[0];
        let most = Contestant::new(NAMES[0], self.reads(near, &self.small, true), None).measure().await?.rate;
        let rate = (most / 2.0).round();
        // One thread is enough for half the load, and leaves the servers more of the machine.
        let read = |port, is_ours| Load { threads: 1, ..self.reads(port, &self.small, is_ours) };
        let contestants = [
            Contestant::new(NAMES[0], read(near, true), Some(rate)),
            Contestant::new(BARE, read(self.memory.port, false), Some(rate)).with_target(1.5),
        ];
        let work = format!("hit, 10 kB, {rate}/s in an open loop");
        self.alternate(&work, Measure::P99, &contestants).await
    }

    async fn alternate(
        &self,
        work: &str,
        measure: Measure,
        contestants: &[Contestant<'_>],
    ) -> anyhow::Result<Match> {
        let turns = u64::from(self.arguments.effort.rounds) * contestants.len() as u64;
        let bar = progress(turns, "");
        let held = Match::hold(work, measure, &self.arguments.effort, contestants, &bar).await;
        bar.finish_and_clear();
        held
    }

    /// Reads of any of these images.
    fn reads(&self, port: u16, images: &[Image], is_ours: bool) -> Load<Http, impl Choose> {
        let messages = images.iter().map(|(key, bytes)| {
            let message = Message::get(&path_of(key)).answered_with(bytes.clone());
            if is_ours { message.saying("Cache-Status", "pixcache; hit") } else { message }
        });
        self.load(port, messages.collect(), at_random(images.len()), CONNECTIONS)
    }

    fn load<C: Choose>(
        &self,
        port: u16,
        messages: Vec<Message>,
        choose: C,
        connections: usize,
    ) -> Load<Http, C> {
        let requests = messages.into_iter().map(|message| Request { kind: 0, message }).collect();
        Load {
            place: port,
            requests: Arc::new(requests),
            choose,
            connections,
            threads: load::threads(),
            seed: self.arguments.seed,
            warmup: self.arguments.effort.warmup(),
            length: self.arguments.effort.length(),
        }
    }
}

/// The headers of a near hit, a line each, but for those that an HTTP server adds by itself.
async fn hit_headers(system: &System, key: &str) -> anyhow::Result<String> {
    let message = Message::get(&path_of(key)).saying("Cache-Status", "pixcache; hit; detail=near");
    let answer = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            // The first hit brings the near copy.
            match system.ask(system.gateway_ports[0], &message).await {
                Ok(answer) => return answer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let answer = answer.await.context("the gateway does not answer from its near cache")?;
    let by_itself = ["date", "content-length", "connection"];
    let lines = answer
        .headers
        .iter()
        .filter(|(name, _)| !by_itself.iter().any(|other| name.eq_ignore_ascii_case(other)));
    Ok(lines.map(|(name, value)| format!("{name}: {value}\n")).collect())
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("temporary folders have plain names")?.to_owned())
}
