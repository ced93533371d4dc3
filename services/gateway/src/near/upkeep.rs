//! What keeps the near cache exact and counted: drops, renewals, reports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::bus::RequestFailure;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wire::near::{DropRequest, HitsReply, HitsReport};
use wire::{Meta, subject};

use super::{Copy, LONGEST_LEASE, Near};
use crate::cache::CacheClient;

/// How often hits are reported.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// How long one report waits for its answer; it is sent again.
const REPORT_LIMIT: Duration = Duration::from_millis(500);
/// Renewals on their way at once.
const RENEWALS_AT_ONCE: usize = 64;

/// Does it for one near cache.
#[derive(Debug)]
pub(crate) struct Upkeep {
    near: Arc<Near>,
    cache: CacheClient,
    reports: Mutex<Reports>,
}

/// Reports in the order of their numbers.
#[derive(Debug, Default)]
struct Reports {
    last: u64,
    unsent: VecDeque<HitsReport>,
}

impl Upkeep {
    /// For this near cache.
    pub(crate) fn new(near: Arc<Near>, cache: CacheClient) -> Self {
        Self { near, cache, reports: Mutex::default() }
    }

    /// Drops what the worker asks for, and acknowledges it, until the stop.
    ///
    /// # Errors
    /// When the subscription can't be made.
    pub(crate) async fn answer_drops(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let client = self.cache.bus().client();
        let mut requests = client.subscribe(subject::near_drop(self.near.holder())).await?;
        while let Some(Some(message)) = shutdown.run_until_cancelled(requests.next()).await {
            let request: DropRequest = serde_json::from_slice(&message.payload).unwrap_or_else(|error| {
                tracing::warn!(%error, "a drop can't be read: everything is dropped");
                DropRequest::default()
            });
            self.near.drop_copies(&request);
            let Some(reply) = message.reply else { continue };
            if let Err(error) = client.publish(reply, Bytes::new()).await {
                tracing::warn!(%error, "a drop was not acknowledged; the worker waits for the lease's end");
            }
        }
        Ok(())
    }

    /// Asks for more time for copies that are in use, until the stop.
    ///
    /// # Errors
    /// Never by itself.
    pub(crate) async fn renew(
        self: Arc<Self>,
        mut copies: mpsc::Receiver<Arc<Copy>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut renewals = JoinSet::new();
        while let Some(Some(copy)) = shutdown.run_until_cancelled(copies.recv()).await {
            while renewals.try_join_next().is_some() {}
            if renewals.len() >= RENEWALS_AT_ONCE {
                renewals.join_next().await;
            }
            let upkeep = self.clone();
            renewals.spawn(async move { upkeep.renew_one(&copy).await });
        }
        Ok(())
    }

    async fn renew_one(&self, copy: &Copy) {
        let asking = self.near.ask(&copy.key);
        let Some(tag) = asking.tag() else { return };
        let holder = Some(self.near.holder());
        let asked = Meta { tag: Some(tag), near: holder, renewal: true, ..Meta::default() };
        match self.cache.get(&copy.key).ask(Some(&asked), Bytes::new(), LONGEST_LEASE).await {
            Ok(reply) => {
                if let (true, Some(granted)) = (reply.meta.fresh, reply.meta.granted_ms) {
                    asking.renew(Duration::from_millis(granted));
                }
            }
            // Evicted there, or replaced: it is asked for again when its lease is over.
            Err(RequestFailure::Refused(_)) => {}
            Err(failure) => tracing::debug!(%failure, "a near lease was not renewed"),
        }
    }

    /// Reports hits until the stop.
    ///
    /// # Errors
    /// Never by itself.
    pub(crate) async fn report(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut is_failing = false;
        while shutdown.run_until_cancelled(sleep(REPORT_EVERY)).await.is_some() {
            match shutdown.run_until_cancelled(self.report_now()).await {
                None => break,
                Some(Ok(())) => is_failing = false,
                Some(Err(failure)) => {
                    if !is_failing {
                        tracing::warn!(%failure, "near hits can't be reported now");
                    }
                    is_failing = true;
                }
            }
        }
        Ok(())
    }

    /// Reports all hits up to now.
    ///
    /// # Errors
    /// What became of the first report that was not acknowledged; it and the later ones are kept.
    pub(crate) async fn report_now(&self) -> Result<(), RequestFailure> {
        let mut reports = self.reports.lock().await;
        for mut report in self.near.take_hits() {
            reports.last += 1;
            report.number = reports.last;
            reports.unsent.push_back(report);
        }
        while let Some(report) = reports.unsent.front() {
            let HitsReply { counted } = self.cache.report_hits(report, REPORT_LIMIT).await?;
            if !counted {
                tracing::debug!(number = report.number, "a report had been counted before");
            }
            reports.unsent.pop_front();
        }
        Ok(())
    }
}
