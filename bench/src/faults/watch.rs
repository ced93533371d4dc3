//! Observers: they note which worker says that it serves, and how much memory each process has.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::history::Moment;
use super::load;
use super::system::System;

/// How often the workers are asked.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// How often the memory of the processes is measured.
const WEIGH_EVERY: Duration = Duration::from_secs(5);
/// An answer may be this late: that of a worker that was stopped comes when it is resumed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most questions that may be open. So many come together only while no worker answers.
const MOST_OPEN: usize = 400;

/// A reply in which a worker said that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    /// When it was asked.
    pub(crate) start: Moment,
    /// When its answer was there.
    pub(crate) end: Moment,
    /// Its name.
    pub(crate) worker: String,
    /// This life of it.
    pub(crate) incarnation: String,
}

/// The memory of each process at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Moment,
    pub(crate) resident: Vec<(&'static str, Option<u64>)>,
}

/// Observes until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    sights: Mutex<Vec<Sight>>,
    samples: Mutex<Vec<Sample>>,
}

/// The part of `cache.stats` that matters here.
#[derive(Debug, Deserialize)]
struct Stats {
    worker: String,
    incarnation: String,
    serving: bool,
}

impl Watch {
    /// Begins to observe.
    pub(crate) async fn start(system: &Arc<System>, shared: &Arc<load::Shared>) -> Self {
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(ask_workers(system.bus("operator").await, Arc::clone(shared), Arc::clone(&seen)));
        tasks.spawn(weigh(Arc::clone(system), Arc::clone(shared), Arc::clone(&seen)));
        Self { seen, _tasks: tasks }
    }

    /// The workers that said that they serve, and when.
    pub(crate) fn sights(&self) -> Vec<Sight> {
        self.seen.sights.lock().clone()
    }

    /// How much memory there was.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.seen.samples.lock().clone()
    }

    /// The last one that said it serves.
    pub(crate) fn owner(&self) -> Option<Sight> {
        self.seen.sights.lock().iter().max_by_key(|sight| sight.start).cloned()
    }

    /// The first one of another life than `former` that was asked after `from` and said that it serves.
    pub(crate) fn successor(&self, former: Option<&str>, from: Moment) -> Option<Sight> {
        let sights = self.seen.sights.lock();
        let others =
            sights.iter().filter(|sight| sight.start >= from && former != Some(sight.incarnation.as_str()));
        others.min_by_key(|sight| sight.end).cloned()
    }
}

async fn ask_workers(bus: async_nats::Client, shared: Arc<load::Shared>, seen: Arc<Seen>) {
    let mut open = JoinSet::new();
    loop {
        sleep(ASK_EVERY).await;
        while open.try_join_next().is_some() {}
        let is_connected = bus.connection_state() == async_nats::connection::State::Connected;
        if !is_connected || open.len() >= MOST_OPEN {
            continue;
        }
        let (bus, shared, seen) = (bus.clone(), Arc::clone(&shared), Arc::clone(&seen));
        open.spawn(async move {
            let start = shared.history.now();
            let request = async_nats::Request::new().timeout(Some(PATIENCE));
            // No worker serves: that shows in the absence of sights.
            let Ok(Ok(reply)) = timeout(PATIENCE, bus.send_request(wire::subject::STATS, request)).await
            else {
                return;
            };
            let end = shared.history.now();
            if let Ok(Stats { worker, incarnation, serving: true }) = serde_json::from_slice(&reply.payload) {
                seen.sights.lock().push(Sight { start, end, worker, incarnation });
            }
        });
    }
}

async fn weigh(system: Arc<System>, shared: Arc<load::Shared>, seen: Arc<Seen>) {
    loop {
        sleep(WEIGH_EVERY).await;
        let sample = Sample { at: shared.history.now(), resident: system.resident() };
        seen.samples.lock().push(sample);
    }
}
