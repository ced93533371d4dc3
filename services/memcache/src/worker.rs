//! One life of the worker: what its endpoints, its configuration and its windows share.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use runtime::clock::Moment;
use runtime::shelf::Shelf;
use runtime::{Bus, Buses};
use tokio_util::sync::CancellationToken;
use wire::near::HitsReport;
use wire::reply::{Code, Refusal};
use wire::{CacheStats, Holder, Item, Key, Lease, Meta, Refill, Tag};

use crate::claim::Claim;
use crate::holders::Drop;
use crate::memory;
use crate::store::{Entry, Insert, Lookup, Store};
use crate::watch::Watch;
use crate::window::WindowQueue;

/// How long the proof of a new connection may take before it is tried again.
const PROOF_TIME: Duration = Duration::from_secs(2);

/// How long a file stays after a gateway was told of it, and how many bytes such files may have.
const FILE_GRACE: Duration = Duration::from_millis(200);
const MOST_TOLD_BYTES: u64 = 16 << 20;

/// What an invalidation has done.
pub(crate) struct Invalidated {
    /// The entries that were resident, variants among them.
    pub(crate) removed: Vec<Arc<Entry>>,
    /// The holders of near leases that are to drop their copies.
    pub(crate) drop: Drop,
    /// The lease to fill the original anew.
    pub(crate) lease: Option<Lease>,
}

/// The state that the parts of one life of the worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its name in events and rows.
    pub(crate) name: String,
    /// This life of it: 16 hexadecimal digits, drawn with the claim.
    pub(crate) incarnation: String,
    /// When it began.
    pub(crate) started: Instant,
    /// The connection on which it answers.
    pub(crate) bus: Bus,
    /// The connection for messages that it sends unasked: JetStream, events, drops.
    pub(crate) own: Bus,
    /// The right to serve.
    pub(crate) claim: Claim,
    /// Key events, published while a watch is set.
    pub(crate) watch: Watch,
    /// Windows that wait for JetStream, those of earlier lives of this process among them.
    pub(crate) windows: Arc<WindowQueue>,
    /// The largest capacity that this machine allows, in megabytes.
    pub(crate) max_capacity_mb: u64,
    /// The most pixels that an image may have.
    pub(crate) max_pixels: u64,
    /// The revision of the configuration in force.
    pub(crate) revision: AtomicU64,
    /// The files that it shares with gateways on this machine.
    pub(crate) shelf: Option<Shelf>,
    /// The entries whose files were told of last.
    told: Mutex<Told>,
    store: Mutex<Store>,
    /// The reports that holders of near leases have sent.
    reports: Mutex<Reports>,
    /// The proven connections, in the form of [`Worker::connections`]; zero before the first proof.
    ///
    /// A message to itself has proven that all subscriptions stand, and a renewal that the claim does.
    proven_connections: AtomicU64,
}

/// The outcome of an insertion, and its effect on near leases.
#[derive(Debug)]
pub(crate) struct Inserted {
    /// The outcome for the entry.
    pub(crate) outcome: Insert,
    /// The length of the near lease that came with it.
    pub(crate) granted: Option<Duration>,
    /// The holders that must be told that their copy is replaced.
    pub(crate) drop: Option<Drop>,
}

/// The number and the time of each holder's last report, kept for at least [`REPORT_MEMORY`].
#[derive(Debug, Default)]
struct Reports(HashMap<Holder, (u64, Moment)>);

/// Up to this many holders are remembered regardless of the age of their reports.
const FEW_HOLDERS: usize = 64;
/// How long a holder is remembered: far longer than it goes on sending one report again.
const REPORT_MEMORY: Duration = Duration::from_secs(60);

/// Entries whose files were told of, the oldest first.
#[derive(Debug, Default)]
struct Told {
    entries: VecDeque<(Instant, Arc<Entry>)>,
    bytes: u64,
}

impl Told {
    fn let_go(&mut self) {
        while let Some((then, entry)) = self.entries.front()
            && (self.bytes > MOST_TOLD_BYTES || then.elapsed() > FILE_GRACE)
        {
            self.bytes -= entry.size();
            self.entries.pop_front();
        }
    }
}

impl Reports {
    fn is_new(&mut self, report: &HitsReport) -> bool {
        let now = Moment::now();
        if self.0.len() > FEW_HOLDERS {
            self.0.retain(|_, (_, last)| now.since(*last) < REPORT_MEMORY);
        }
        let (number, last) = self.0.entry(report.holder).or_insert((0, now));
        let is_new = report.number > *number;
        (*number, *last) = (report.number.max(*number), now);
        is_new
    }
}

impl Worker {
    /// A worker that does not serve yet: see [`Worker::prove_connections`].
    pub(crate) fn new(
        name: String,
        buses: &Buses,
        claim: Claim,
        store: Store,
        windows: Arc<WindowQueue>,
        max_pixels: u64,
        shelf: Option<Shelf>,
    ) -> Arc<Self> {
        Arc::new(Self {
            watch: Watch::new(name.clone(), buses.own.client().clone()),
            name,
            incarnation: claim.incarnation().to_owned(),
            started: Instant::now(),
            bus: buses.answers.clone(),
            own: buses.own.clone(),
            claim,
            windows,
            max_capacity_mb: memory::largest_capacity_mb(),
            max_pixels,
            revision: AtomicU64::new(0),
            shelf,
            told: Mutex::default(),
            store: Mutex::new(store),
            reports: Mutex::default(),
            proven_connections: AtomicU64::new(0),
        })
    }

    /// Keeps the file of `entry` for [`FILE_GRACE`], so that the gateway that is told of it finds it, whatever becomes of
    /// the entry.
    pub(crate) fn tell_file(&self, entry: &Arc<Entry>) {
        let mut told = self.told.lock();
        told.bytes += entry.size();
        told.entries.push_back((Instant::now(), entry.clone()));
        told.let_go();
    }

    /// Lets go of the files whose time is over.
    pub(crate) fn let_files_go(&self) {
        self.told.lock().let_go();
    }

    /// The store. The lock is never held across an await, and a panic under it leaves counters off by
    /// one at worst.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock()
    }

    /// Whether resident entries may be served: only with a valid claim, and only on connections whose
    /// subscriptions are proven.
    ///
    /// Subscriptions come back in any order after a reconnection, and an invalidation that is sent
    /// before its subscription stands gets lost.
    pub(crate) fn is_serving(&self) -> bool {
        self.proven_connections.load(Ordering::Acquire) == self.connections() && self.claim.is_valid()
    }

    /// The numbers of both connections as one. Neither comes near to 2^32 connections.
    fn connections(&self) -> u64 {
        self.bus.connection_count() << 32 | self.own.connection_count()
    }

    /// Looks `item` up, for a reply of at most `most` bytes. Grants a near lease on a hit if `asked` names a holder.
    ///
    /// `asked` may name the tag of a copy that the other side holds. With `may_fill` a miss hands out a fill lease. All
    /// of it happens under the store's lock, so that no drop comes between.
    pub(crate) fn get(
        &self,
        item: &Item,
        asked: &Meta,
        most: u64,
        may_fill: bool,
    ) -> (Lookup, Option<Duration>) {
        let now = Instant::now();
        let mut store = self.store();
        let serving = self.is_serving();
        let (tag, counters) = (asked.tag.as_ref(), store.counters());
        let found = if may_fill {
            store.get(item, tag, most, serving, now)
        } else {
            store.look(item, tag, most, serving)
        };
        if asked.again {
            store.take_counters_back_to(counters);
        }
        let granted = match (&found, asked.near) {
            (Lookup::Hit(_) | Lookup::Fresh(_), Some(holder)) => {
                store.holders.grant(&item.key, holder, Moment::now())
            }
            _ => None,
        };
        (found, granted)
    }

    /// Renews the near lease of `holder`, if the resident entry still has the tag of its copy.
    pub(crate) fn renew(&self, item: &Item, tag: &Tag, holder: Holder) -> Option<Duration> {
        let mut store = self.store();
        if !self.is_serving() {
            return None;
        }
        store.confirm(item, tag)?;
        store.holders.grant(&item.key, holder, Moment::now())
    }

    /// Inserts with the lease that `asked` names, or by request without one. `None` while the worker does
    /// not serve.
    pub(crate) fn insert(&self, entry: Entry, asked: &Meta) -> Option<Inserted> {
        let now = Instant::now();
        let key = entry.key.clone();
        let mut store = self.store();
        if !self.is_serving() {
            return None;
        }
        Some(match asked.lease {
            Some(lease) => {
                let outcome = store.fill(entry, lease, now);
                let holder = asked.near.filter(|_| matches!(outcome, Insert::Stored(_)));
                let granted = holder.and_then(|holder| store.holders.grant(&key, holder, Moment::now()));
                Inserted { outcome, granted, drop: None }
            }
            None => {
                let outcome = store.put(entry);
                Inserted { outcome, granted: None, drop: Some(store.holders.drop_key(&key, Moment::now())) }
            }
        })
    }

    /// Drops an entry whose bytes are gone.
    pub(crate) fn forget(&self, item: &Item) {
        self.store().forget(item);
    }

    /// Notes an image that is too large even to be sent here.
    pub(crate) fn reject(&self, item: &Item, lease: Option<Lease>) -> Inserted {
        let mut store = self.store();
        let outcome = store.reject(item, lease, Instant::now());
        let drop = lease.is_none().then(|| store.holders.drop_key(&item.key, Moment::now()));
        Inserted { outcome, granted: None, drop }
    }

    /// Removes the entries of a key because its origin changed.
    ///
    /// With `refill`, a lease to fill the original anew may come with that, as with a miss right after it.
    pub(crate) fn invalidate(&self, key: &Key, refill: Option<Refill>) -> Invalidated {
        let mut store = self.store();
        let removed = store.invalidate(key);
        let lease = match refill {
            Some(refill) if self.is_serving() => {
                let was_resident = removed.iter().any(|entry| entry.variant().is_none());
                let is_wanted = refill == Refill::Any || was_resident;
                is_wanted.then(|| store.refill(key, was_resident, Instant::now())).flatten()
            }
            _ => None,
        };
        Invalidated { removed, drop: store.holders.drop_key(key, Moment::now()), lease }
    }

    /// Counts the hits that a holder of near leases reports, and returns whether it did.
    ///
    /// A report is not counted twice, nor if it was meant for another life of the worker, which may have counted it.
    /// `None` while this worker does not serve: the holder then asks the one that does.
    pub(crate) fn count_near_hits(&self, report: &HitsReport) -> Option<bool> {
        let mut store = self.store();
        if !self.is_serving() {
            return None;
        }
        let mut reports = self.reports.lock();
        let counts = report.to == self.incarnation && reports.is_new(report);
        if counts {
            report.hits.iter().for_each(|hits| store.count_near_hits(hits));
        }
        Some(counts)
    }

    /// Proves each new connection, the first included, before the worker serves on it.
    ///
    /// A message to itself proves that all subscriptions stand, and a renewal that the claim does. Then everything that
    /// was held is dropped, leases included, and only then does the worker serve again.
    ///
    /// # Errors
    /// Never by itself; ends with `shutdown`.
    pub(crate) async fn prove_connections(
        self: Arc<Self>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let (mut answering, mut own) = (self.bus.connections(), self.own.connections());
        loop {
            answering.borrow_and_update();
            own.borrow_and_update();
            let connections = self.connections();
            if self.proven_connections.load(Ordering::Acquire) != connections {
                let Some(proven) = shutdown.run_until_cancelled(self.prove()).await else {
                    return Ok(());
                };
                match proven {
                    Ok(()) => self.serve_from(connections),
                    Err(error) => {
                        tracing::debug!("a new connection is not proven yet: {error:#}");
                        // The failure may have been instant; a reconnection ends the pause early.
                        tokio::select! {
                            _ = answering.changed() => {}
                            _ = own.changed() => {}
                            () = tokio::time::sleep(Duration::from_millis(100)) => {}
                            () = shutdown.cancelled() => return Ok(()),
                        }
                    }
                }
                continue;
            }
            tokio::select! {
                _ = answering.changed() => {}
                _ = own.changed() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    async fn prove(&self) -> anyhow::Result<()> {
        self.bus.hears(&self.own, PROOF_TIME).await?;
        // At the first proof the claim has just been won, on the present connection, and needs no renewal.
        let is_first = self.proven_connections.load(Ordering::Acquire) == 0;
        if !is_first || self.claim.connection() != self.own.connection_count() {
            self.claim.renew().await?;
        }
        Ok(())
    }

    fn serve_from(&self, connections: u64) {
        let dropped = {
            let mut store = self.store();
            if connections != self.connections() || self.claim.connection() != self.own.connection_count() {
                return;
            }
            let dropped = store.clear();
            self.proven_connections.store(connections, Ordering::Release);
            dropped
        };
        tracing::info!(
            connection = self.bus.connection_count(),
            dropped_entries = dropped.entries,
            "the worker serves"
        );
    }

    /// The answer to `cache.stats`.
    pub(crate) fn stats(&self) -> CacheStats {
        let now = self.store().snapshot();
        let counters = now.counters;
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let hit_ratio =
            (counters.request_count > 0).then(|| counters.hit_count as f64 / counters.request_count as f64);
        CacheStats {
            worker: self.name.clone(),
            incarnation: self.incarnation.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            policy: now.policy,
            revision: self.revision.load(Ordering::Relaxed),
            capacity_bytes: now.capacity,
            cache_size_bytes: now.cache_size,
            key_count: now.key_count,
            hit_ratio,
            serving: self.is_serving(),
            pending_window_count: self.windows.pending_count(),
            lost_window_count: self.windows.lost_count(),
            slow_consumer_count: self.bus.slow_consumer_count() + self.own.slow_consumer_count(),
            refused_answer_count: self.bus.refused_answer_count(),
            connection_count: self.bus.connection_count(),
            dropped_event_count: self.watch.dropped_count(),
            counters,
        }
    }
}

/// The refusal of a worker that does not serve: an acknowledgement by it would say nothing about the one that does.
pub(crate) fn not_serving() -> Refusal {
    Refusal::new(Code::Unavailable, "this worker does not serve at this moment; ask again")
}
