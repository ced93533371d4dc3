//! A worker on a bus of its own, and somebody who asks it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser as _;
use memcache::Config;
use runtime::Bus;
use runtime::args::NatsArgs;
use runtime::bus::{Reply, RequestFailure, User};
use serde::de::DeserializeOwned;
use testkit::{NatsServer, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::inspect::{ClearReply, PutReply};
use wire::reply::Code;
use wire::{CacheStats, ConfigReply, Key, Lease, Meta, Tag, subject};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// A nats-server and somebody connected to it as a person with the CLI is, and as a gateway.
pub(crate) struct Scene {
    pub(crate) server: NatsServer,
    pub(crate) operator: Bus,
    pub(crate) gateway: Bus,
}

/// One life of a worker, in this process.
pub(crate) struct RunningWorker {
    shutdown: CancellationToken,
    run: JoinHandle<anyhow::Result<()>>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::on(NatsServer::start().await).await
    }

    pub(crate) async fn on(server: NatsServer) -> Self {
        let (operator, gateway) = (connect(&server, "operator").await, connect(&server, "gateway").await);
        Self { server, operator, gateway }
    }

    /// Starts a worker with further flags, and waits until it serves.
    pub(crate) async fn start_worker(&self, flags: &[&str]) -> RunningWorker {
        let worker = self.spawn_worker(flags);
        eventually("the worker serves", PATIENCE, async || {
            self.stats().await.is_some_and(|stats| stats.serving)
        })
        .await;
        worker
    }

    /// Starts a worker without waiting for it.
    pub(crate) fn spawn_worker(&self, flags: &[&str]) -> RunningWorker {
        let port = self.server.port().to_string();
        let mut arguments = vec!["memcache", "--nats-url", "", "--stats-interval", "100ms"];
        let password = self.server.password("memcache");
        for (flag, value) in [("--nats-port", &*port), ("--nats-password", password), ("--claim-ms", "1000")]
        {
            if !flags.contains(&flag) {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(flags);
        let config = Config::parse_from(arguments);
        let shutdown = CancellationToken::new();
        let run = tokio::spawn(memcache::run(config, shutdown.clone()));
        RunningWorker { shutdown, run }
    }

    pub(crate) async fn stats(&self) -> Option<CacheStats> {
        self.ask_json(subject::STATS, "").await.ok()
    }

    pub(crate) async fn ask(
        &self,
        subject: &str,
        payload: impl Into<Bytes>,
        meta: Option<&Meta>,
    ) -> Result<Reply, RequestFailure> {
        // A gateway is told at once that nobody serves. Older servers don't say that to another account.
        // And only a gateway is given the lease to fill after a miss.
        let is_gateway_s = subject == subject::STATS || subject.starts_with("cache.get.");
        let asker = if is_gateway_s { &self.gateway } else { &self.operator };
        asker.request(subject.to_owned(), meta, payload.into(), ANSWER).await
    }

    pub(crate) async fn ask_json<T: DeserializeOwned>(
        &self,
        subject: &str,
        payload: &str,
    ) -> Result<T, RequestFailure> {
        let reply = self.ask(subject, payload.to_owned(), None).await?;
        Ok(serde_json::from_slice(&reply.payload).expect("the answer has the form that wire gives it"))
    }

    pub(crate) async fn get(&self, name: &str) -> Got {
        self.get_holding(name, None).await
    }

    pub(crate) async fn get_holding(&self, name: &str, tag: Option<Tag>) -> Got {
        let meta = tag.map(|tag| Meta { tag: Some(tag), ..Meta::default() });
        match self.ask(&subject::get(&key(name).into()), Bytes::new(), meta.as_ref()).await {
            Ok(reply) if reply.meta.fresh => Got::Fresh,
            Ok(reply) => Got::Hit(reply),
            Err(RequestFailure::Refused(refused)) if refused.refusal.code == Code::NotFound => {
                Got::Miss(refused.meta.lease)
            }
            Err(other) => panic!("neither hit nor miss: {other}"),
        }
    }

    /// A put by request, without type, tag or lease.
    pub(crate) async fn put(&self, name: &str, image: &[u8]) -> Result<PutReply, RequestFailure> {
        let reply = self.ask(&subject::put(&key(name).into()), image.to_vec(), None).await?;
        Ok(serde_json::from_slice(&reply.payload).unwrap())
    }

    /// A fill as the gateway sends it.
    pub(crate) async fn fill(&self, name: &str, image: &[u8], lease: Lease) -> Result<(), RequestFailure> {
        let meta = Meta {
            content_type: Some(type_of(image).into()),
            tag: Some(tag_of(image)),
            modified_s: Some(1_700_000_000),
            lease: Some(lease),
            ..Meta::default()
        };
        self.ask(&subject::put(&key(name).into()), image.to_vec(), Some(&meta)).await.map(|_| ())
    }

    pub(crate) async fn lease(&self, name: &str) -> Lease {
        match self.get(name).await {
            Got::Miss(Some(lease)) => lease,
            other => panic!("a miss with a lease was expected, not {other:?}"),
        }
    }

    /// Changes the configuration, as [`Scene::change`] does.
    pub(crate) async fn configure(&self, change: &str) -> ConfigReply {
        self.change(subject::CONFIG_SET, change).await
    }

    /// Clears the cache, as [`Scene::change`] does.
    pub(crate) async fn clear(&self) -> ClearReply {
        self.change(subject::CLEAR, "").await
    }

    /// Asks for a change of the bucket until it is made. A server that has just started may take longer for its first
    /// write than the worker waits, and the worker then refuses the change.
    async fn change<T: DeserializeOwned>(&self, subject: &str, payload: &str) -> T {
        let start = Instant::now();
        loop {
            let asked =
                self.operator.request(subject.to_owned(), None, payload.to_owned().into(), PATIENCE).await;
            match asked {
                Ok(reply) => {
                    return serde_json::from_slice(&reply.payload)
                        .expect("the answer has the form that wire gives it");
                }
                Err(RequestFailure::Refused(refused))
                    if refused.refusal.code == Code::Unavailable
                        && refused.refusal.message.ends_with("nothing was changed")
                        && start.elapsed() < PATIENCE => {}
                Err(other) => panic!("the change is not made: {other}"),
            }
        }
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a test holds one at a time")]
pub(crate) enum Got {
    Hit(Reply),
    Fresh,
    Miss(Option<Lease>),
}

impl RunningWorker {
    /// Asks it to stop and waits for the end of `run`.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.run.await.expect("run does not panic")
    }

    /// Waits for an end that nobody asked for.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        self.run.await.expect("run does not panic")
    }
}

pub(crate) async fn connect(server: &NatsServer, user: &'static str) -> Bus {
    let args = NatsArgs { nats_url: None, nats_port: server.port() };
    Bus::connect(&args, User::asking(user), server.password(user), 1024, PATIENCE).await.unwrap()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// The type of an image by its bytes.
pub(crate) fn type_of(image: &[u8]) -> &'static str {
    sniff::sniff(image, sniff::Limits { max_pixels: u64::MAX }).unwrap().format.content_type()
}

pub(crate) fn tag_of(bytes: &[u8]) -> Tag {
    use sha2::Digest as _;
    Tag(sha2::Sha256::digest(bytes).into())
}

/// The code with which a request was refused.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, RequestFailure>) -> Code {
    match result {
        Err(RequestFailure::Refused(refused)) => {
            assert!(
                refused.refusal.message.len() > 10,
                "a refusal is a sentence: {}",
                refused.refusal.message
            );
            refused.refusal.code
        }
        other => panic!("a refusal was expected, not {other:?}"),
    }
}
