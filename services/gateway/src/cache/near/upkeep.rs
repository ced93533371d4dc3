//! The upkeep of the near cache, which keeps it exact and counted: drops, renewals, reports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::bus::RequestFailure;
use runtime::clock::Moment;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wire::near::{DropRequest, HitsReply, HitsReport, KeyHits, MOST_KEYS_REPORTED};
use wire::reply::Code;
use wire::{Holder, Meta, subject};

use super::{Copy, LONGEST_LEASE, Near};
use crate::cache::client::CacheClient;

/// How often hits are reported. If a gateway is killed, at most the hits of its last 250 ms are not counted, the
/// way of a report included.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long one report waits for its answer; it is sent again.
const REPORT_LIMIT: Duration = Duration::from_millis(500);
/// Renewals on their way at once.
const RENEWALS_AT_ONCE: usize = 64;

/// Keeps one near cache exact and counted.
#[derive(Debug)]
pub(crate) struct Upkeep {
    near: Arc<Near>,
    cache: CacheClient,
    reports: Mutex<Reports>,
}

/// Reports in the order of their numbers.
///
/// Each hit counts at most once. A report that was not answered is sent again to the same incarnation of the
/// worker, which knows it by its number. If that incarnation ends meanwhile, it is unknown whether the report was
/// counted, and the report is given up. If it had ended before the report was first sent, the next one counts it.
#[derive(Debug, Default)]
struct Reports {
    last: u64,
    /// The incarnation of the worker that answered last; empty at first, which is no worker's.
    to: String,
    waiting: VecDeque<HitsReport>,
    /// Since when the first one that waits may have been counted by `to`; none if it can't have been.
    in_doubt: Option<Moment>,
}

impl Upkeep {
    /// The upkeep of this near cache.
    pub(crate) fn new(near: Arc<Near>, cache: CacheClient) -> Self {
        Self { near, cache, reports: Mutex::default() }
    }

    /// Drops the copies that the worker names, and acknowledges it, until `shutdown`. That must come after everything
    /// else has stopped, because images are served from copies until then.
    ///
    /// # Errors
    /// When the subscription can't be made.
    pub(crate) async fn answer_drops(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let client = self.cache.bus().client();
        let mut requests = client.subscribe(subject::near_drop(self.near.holder())).await?;
        while let Some(Some(message)) = shutdown.run_until_cancelled(requests.next()).await {
            let request: DropRequest = serde_json::from_slice(&message.payload).unwrap_or_else(|error| {
                tracing::warn!(%error, "a near drop could not be read: all near copies were dropped");
                DropRequest::default()
            });
            self.near.drop_copies(&request);
            if request.key.is_none()
                && let Err(failure) = self.report_now().await
            {
                tracing::debug!(%failure, "the hits of what is dropped are reported later");
            }
            let Some(reply) = message.reply else { continue };
            if let Err(error) = client.publish(reply, Bytes::new()).await {
                tracing::warn!(%error, "a near drop could not be acknowledged: the worker waits for the end of its leases");
            }
        }
        Ok(())
    }

    /// Renews the leases of copies that are in use, until the stop.
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
        let asking = self.near.ask(&copy.item);
        let Some(tag) = asking.tag() else { return };
        let holder = Some(self.near.holder());
        let asked = Meta { tag: Some(tag), near: holder, renewal: true, ..Meta::default() };
        match self.cache.get(&copy.item).ask(Some(&asked), Bytes::new(), LONGEST_LEASE).await {
            Ok(reply) => {
                if let (true, Some(granted)) = (reply.meta.fresh, reply.meta.granted_ms) {
                    asking.renew(Duration::from_millis(granted));
                }
            }
            // The worker has evicted or replaced the image: it is asked for again when its lease is over.
            Err(RequestFailure::Refused(_)) => {}
            Err(failure) => tracing::debug!(%failure, "a near lease was not renewed"),
        }
    }

    /// Reports hits until the stop, and once more at the stop.
    ///
    /// # Errors
    /// Never by itself.
    pub(crate) async fn report(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            let is_over = shutdown.run_until_cancelled(ticks.tick()).await.is_none();
            match self.report_now().await {
                Ok(()) => is_failing = false,
                Err(failure) => {
                    if !is_failing {
                        tracing::warn!(%failure, "near hits could not be reported to the worker: they are kept and reported later");
                    }
                    is_failing = true;
                }
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Reports all hits up to now.
    ///
    /// # Errors
    /// The failure of the first report that was not acknowledged; it and the later ones are kept.
    pub(crate) async fn report_now(&self) -> Result<(), RequestFailure> {
        let mut reports = self.reports.lock().await;
        reports.add(self.near.holder(), &self.near.take_hits());
        while !reports.waiting.is_empty() {
            self.send_first(&mut reports).await?;
        }
        Ok(())
    }

    async fn send_first(&self, reports: &mut Reports) -> Result<(), RequestFailure> {
        if !self.cache.bus().is_connected() {
            return Err(RequestFailure::Disconnected);
        }
        let Some(report) = reports.waiting.front_mut() else { return Ok(()) };
        report.to.clone_from(&reports.to);
        // From now on the report may be counted, even if this task stops waiting for the answer.
        let was_in_doubt = reports.in_doubt;
        if !reports.to.is_empty() {
            reports.in_doubt.get_or_insert_with(Moment::now);
        }
        let answer = self.cache.report_hits(report, REPORT_LIMIT).await;
        match &answer {
            Ok(reply) => reports.answered(reply, was_in_doubt),
            // No worker received it.
            Err(RequestFailure::NoResponders(_)) => reports.in_doubt = was_in_doubt,
            Err(RequestFailure::Refused(refused)) if refused.refusal.code == Code::Unavailable => {
                reports.in_doubt = was_in_doubt;
            }
            // It would be refused again and again, and the reports behind it would wait for ever.
            Err(RequestFailure::Refused(_) | RequestFailure::TooLarge(_)) => reports.give_up(),
            Err(_) => {}
        }
        answer.map(|_| ())
    }
}

impl Reports {
    fn add(&mut self, holder: Holder, hits: &[KeyHits]) {
        for hits in hits.chunks(MOST_KEYS_REPORTED) {
            self.last += 1;
            let (number, to, hits) = (self.last, String::new(), hits.to_vec());
            self.waiting.push_back(HitsReport { holder, number, to, hits });
        }
    }

    /// Notes the answer to the first report, and since when that report was in doubt before it was sent.
    fn answered(&mut self, reply: &HitsReply, was_in_doubt: Option<Moment>) {
        if reply.by == self.to {
            // It was counted, now or before.
            self.waiting.pop_front();
        } else {
            self.to.clone_from(&reply.by);
            let uptime = Duration::from_millis(reply.uptime_ms);
            if was_in_doubt.is_some_and(|since| since.elapsed() > uptime) {
                self.give_up();
            }
        }
        self.in_doubt = None;
    }

    /// Forgets the first report.
    fn give_up(&mut self) {
        let hits =
            self.waiting.pop_front().map_or(0, |report| report.hits.iter().map(|hits| hits.count).sum());
        self.in_doubt = None;
        tracing::warn!(
            hits,
            "near hits were reported without an acknowledgement: the statistics may lack them"
        );
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn reports(counts: &[u64]) -> Reports {
        let mut reports = Reports { to: "one".into(), ..Reports::default() };
        for count in counts {
            let hits =
                KeyHits { key: wire::Key::new("cat").unwrap(), variant: None, count: *count, bytes: 0 };
            reports.add(Holder(1), &[hits]);
        }
        reports
    }

    fn numbers(reports: &Reports) -> Vec<u64> {
        reports.waiting.iter().map(|report| report.number).collect()
    }

    fn by(incarnation: &str, uptime_ms: u64) -> HitsReply {
        HitsReply { counted: true, by: incarnation.into(), uptime_ms }
    }

    #[test]
    fn a_report_that_was_counted_is_done_whether_now_or_before() {
        let mut reports = reports(&[1, 2]);
        reports.answered(&by("one", 0), None);
        assert_eq!(numbers(&reports), [2]);
        reports.in_doubt = Some(Moment::now());
        reports.answered(&by("one", 0), reports.in_doubt);
        assert_eq!((numbers(&reports), reports.in_doubt), (vec![], None));
    }

    #[test]
    fn only_what_a_worker_that_is_gone_may_have_counted_is_given_up() {
        let mut reports = reports(&[1, 2]);
        reports.answered(&by("other", 0), None);
        assert_eq!((numbers(&reports), &*reports.to), (vec![1, 2], "other"));
        let sent = Some(Moment::now());
        // By the time that it was first sent to another one, this one had begun.
        reports.answered(&by("third", 60_000), sent);
        assert_eq!((numbers(&reports), &*reports.to), (vec![1, 2], "third"));
        std::thread::sleep(Duration::from_millis(1));
        reports.answered(&by("fourth", 0), sent);
        assert_eq!((numbers(&reports), &*reports.to, reports.in_doubt), (vec![2], "fourth", None));
    }

    #[test]
    fn many_keys_are_several_reports() {
        let mut reports = Reports::default();
        let hits = KeyHits { key: wire::Key::new("cat").unwrap(), variant: None, count: 1, bytes: 0 };
        reports.add(Holder(1), &vec![hits; MOST_KEYS_REPORTED + 1]);
        let sizes: Vec<usize> = reports.waiting.iter().map(|report| report.hits.len()).collect();
        assert_eq!((sizes, numbers(&reports)), (vec![MOST_KEYS_REPORTED, 1], vec![1, 2]));
        reports.add(Holder(1), &[]);
        assert_eq!(numbers(&reports), [1, 2]);
    }
}
