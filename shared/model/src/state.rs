//! What the parts of the system hold at one moment, and what is on its way between them.
//!
//! A message belongs to one exchange, so it is kept as the step at which that exchange stands: a
//! [`Reading::Get`] is a `cache.get.<key>` on its way to a worker or in its buffer, a [`Reading::Miss`] the
//! reply on its way back. Each may arrive at any later moment or never, whatever else arrives before it.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// The number of an image. 0 is stored at first, each upload stores the next.
pub(crate) type Version = u8;
/// Which gateway: 0 or 1.
pub(crate) type GatewayId = u8;
/// Which worker: 0 or 1.
pub(crate) type WorkerId = u8;

/// How many reads can go on at once.
pub(crate) const READS: usize = 3;
/// How many tellings can: those of two uploads, and one of what was left behind.
pub(crate) const TELLINGS: usize = 3;
/// `CLAIM_MS`, in ticks.
pub(crate) const CLAIM_TICKS: u8 = 1;
/// How much longer a worker that stands by waits, in ticks.
pub(crate) const MARGIN_TICKS: u8 = 1;
/// How many can ask for a near lease at once, or be granted one, besides the reads.
pub(crate) const ASKING: usize = 2;

/// The whole system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct System {
    pub(crate) origin: Origin,
    pub(crate) workers: [Worker; 2],
    /// The entry of the bucket `CACHE_OWNERS`.
    pub(crate) owner: Owner,
    /// For how many ticks gateways have seen it unchanged.
    pub(crate) unchanged: u8,
    /// What is known from before the changes that are told of now, where that is made use of.
    pub(crate) early: Early,
    pub(crate) reads: [Option<Read>; READS],
    /// The copies in the gateways' near caches.
    pub(crate) copies: [Option<Copy>; 2],
    pub(crate) asking: [Option<Asking>; ASKING],
    pub(crate) tellings: [Option<Telling>; TELLINGS],
    /// The newest version whose upload was answered. No read that begins now may return an older one.
    pub(crate) answered: Version,
    /// What may still happen.
    pub(crate) left: Budget,
    pub(crate) verdict: Verdict,
    /// What the last step has shown, where a test looks for it.
    pub(crate) sight: Option<Sight>,
}

impl Hash for System {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            origin,
            workers,
            owner,
            unchanged,
            early,
            reads,
            copies,
            asking,
            tellings,
            answered,
            left,
            verdict,
            sight,
        } = self;
        let mut bytes = Bytes::default();
        (origin, workers, owner, unchanged, early, reads).hash(&mut bytes);
        (copies, asking, tellings, answered, left, verdict, sight).hash(&mut bytes);
        hasher.write(&bytes.bytes[..bytes.length]);
    }
}

/// Collects the numbers of a state, each of which is less than 256, so that they are hashed in one go. Hashing them one by
/// one takes a fifth of a search.
struct Bytes {
    bytes: [u8; 256],
    length: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { bytes: [0; 256], length: 0 }
    }
}

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// The number of an enum's variant, or the length of an array.
    fn write_isize(&mut self, number: isize) {
        debug_assert!((0..256).contains(&number));
        self.write_u8(number as u8);
    }

    fn write_usize(&mut self, number: usize) {
        debug_assert!(number < 256);
        self.write_u8(number as u8);
    }

    fn finish(&self) -> u64 {
        unreachable!("Bytes only collects: the hasher of the state hashes them")
    }
}

/// What has come to light. A run ends with anything but good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Good,
    /// A read returned an older image than one whose upload was answered before the read began.
    Stale,
    /// A read of a stored image came to nothing.
    Failed,
}

/// What somebody knows from a look into the bucket before a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Early {
    /// A read has named this life.
    pub(crate) named: Option<WorkerId>,
    /// A write has made sure that nobody serves.
    pub(crate) was_sure: bool,
    /// The claim has been free at some time, so that a read may return that.
    pub(crate) was_free: bool,
}

/// Things that must be seen to happen, lest a promise is kept because nothing ever does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sight {
    /// A hit of the newest image, after all uploads.
    HitOfTheNewest,
    /// A fill was refused, since an invalidation had voided its lease.
    FillRefused,
    /// A fill was stored whose sender had given up.
    LateFillStored,
    /// A read got what another one's flight had read.
    FlightShared,
    /// An upload's invalidation came with the lease to fill the new image.
    LeaseWithAnAcknowledgement,
    /// A read left a flight whose fill was not stored, and read for itself.
    FlightNotShared,
    /// A read gave up the cache, and went to the origin.
    Bypass,
    /// A read found its file gone, and went to the row again.
    RowReadAgain,
    /// An uploader was told that the cache is still being told.
    StillTelling,
    /// What was left behind was acknowledged to a gateway that did not make the change.
    LeftBehindTold,
    /// An acknowledgement left the note of a later upload where it was.
    LaterNoteKept,
    /// A gateway has made sure that nobody serves, whose claim was given up.
    NobodySure,
    /// It has ended the claim of a worker that may serve again later.
    EndedByGateway,
    /// A worker that was paused, with its clock, has acknowledged what is no longer its own.
    PausedAcknowledged,
    /// A worker whose connection is not proven yet answered a get.
    UnprovenAsked,
    /// A get reached a worker that is on its way out.
    StoppingAsked,
    /// A worker served although the one before it, whose claim has run out, is still on the bus.
    StandbyServes,
    /// A worker whose claim has run out refused to acknowledge an invalidation.
    NotAcknowledged,
    /// A claim that had run out became valid again by a renewal sent in time.
    ClaimCameBack,
    /// A gateway served the newest image from its copy, after all uploads.
    NearHitOfTheNewest,
    /// It did so while the worker held nothing.
    CopyWithoutEntry,
    /// A copy was renewed.
    LeaseRenewed,
    /// A drop overtook what was granted before, and spoiled it.
    GrantSpoiled,
    /// A change was acknowledged after its holders had dropped their copies.
    HoldersHaveDropped,
    /// A lease was waited for that was out when the image changed.
    HolderWaitedOut,
    /// A holder's acknowledgement left what it had been granted since.
    LaterGrantLeft,
    /// A new worker waited for a lease that was out before it won its claim.
    PredecessorsWaitedOut,
    /// A gateway that had made sure that nobody serves waited for a lease that was out.
    NobodyWaitedOut,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Budget {
    /// Uploads. A delete is an upload of a version that nobody can fill.
    pub(crate) uploads: u8,
    /// Requests that find the row as they want it, such as an upload or a delete sent again.
    pub(crate) repeats: u8,
    /// Gateways that die. Another life of them begins at once.
    pub(crate) deaths: u8,
    /// Connections of a worker that are lost.
    pub(crate) losses: u8,
    /// Workers that are killed, and started again.
    pub(crate) kills: u8,
    /// Workers that are stopped in order, and started again.
    pub(crate) stops: u8,
    /// Restarts of nats-server in which it loses the bucket of the claim.
    pub(crate) wipes: u8,
    /// Times that the entry of the claim is lost while connections stand: the stream is removed, or has taken back what
    /// it had acknowledged.
    pub(crate) takebacks: u8,
    /// Times that a worker's machine is paused, its clock with it.
    pub(crate) pauses: u8,
    /// Times that a worker takes the claim over.
    pub(crate) takeovers: u8,
}

/// Any number of times. With no count to keep, that even makes for fewer states than a few times.
pub(crate) const ANY: u8 = u8::MAX;

/// The row of the key, its note, and the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The image that the row names.
    pub(crate) row: Version,
    /// The token of the row in `pending_invalidations`, if there is one.
    pub(crate) note: Option<u8>,
    /// The token that was drawn last.
    pub(crate) last_token: u8,
    /// A bit for each image whose file has been removed.
    pub(crate) removed: u8,
}

/// The number of a fill lease.
///
/// A number that is not its worker's current one never will be again (rule 1), so all such are written as
/// [`Lease::VOID`]. That keeps the states finite, however many reads there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lease(u8);

impl Lease {
    /// No longer current anywhere.
    pub(crate) const VOID: Self = Self(0);

    /// The one that is out at this worker.
    pub(crate) fn current_of(worker: WorkerId) -> Self {
        Self(worker + 1)
    }

    fn swap_workers(&mut self) {
        if *self != Self::VOID {
            self.0 = 3 - self.0;
        }
    }
}

/// A worker: its process, its place on the bus, and what it holds under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Worker {
    /// The resident image.
    pub(crate) entry: Option<Version>,
    /// Whether a lease is out.
    pub(crate) leased: bool,
    /// A fill in its buffer whose sender no longer waits.
    pub(crate) late_fill: Option<(Lease, Version)>,
    /// The gateways that have a near lease, as far as it knows.
    pub(crate) holders: Holders,
    /// Whether near leases may be out that were asked for before it won its claim.
    pub(crate) waits_for_leases_before: bool,
    /// A drop for an invalidation that nobody waits for any more, or for a clear by somebody.
    pub(crate) late_drop: Drop,
    /// The subscriptions that stand at the server.
    pub(crate) subscriptions: Subscriptions,
    pub(crate) connected: bool,
    /// Whether a round trip has proven the connection. Once lost, it counts as proven until the next one.
    pub(crate) proven: bool,
    /// Whether it is on its way out.
    pub(crate) stopping: bool,
    /// Whether its machine was paused, its clock with it, since it last renewed its claim.
    pub(crate) was_paused: bool,
    pub(crate) claim: Option<Claim>,
    /// For how many ticks a worker that stands by has seen the claim unchanged.
    pub(crate) unchanged: u8,
    /// What an invalidation has still to do, where it is not one step.
    pub(crate) unfinished: Unfinished,
}

/// What an invalidation has still to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Unfinished {
    Nothing,
    /// It is acknowledged, and nothing has been done.
    Everything,
    /// The entry is removed. Then comes the lease, then the acknowledgement to the holder of this token.
    Lease {
        token: u8,
    },
    /// Its holders are known, and are being told. The entry and the lease are still to be removed.
    Removal,
}

/// A worker's right to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Claim {
    /// Ticks on the worker's clock since it sent the last renewal that it knows to have succeeded.
    pub(crate) age: u8,
    /// Ticks since it sent the renewal whose acknowledgement is on its way.
    pub(crate) renewal: Option<u8>,
    /// Whether it was won or renewed on the present connection.
    pub(crate) on_this_connection: bool,
}

/// Whom the bucket names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// There is no entry, nor anything else in the store. A process that was started since finds a first start, so
    /// nobody waits.
    Nobody,
    /// Nothing is known of it: there is no entry where there was one, or an earlier one stands there.
    Unknown,
    /// The present life of a worker.
    Life(WorkerId),
    /// The last life of a worker, which serves no more and stands by again.
    Former(WorkerId),
    /// A life that was killed.
    Gone,
    /// A life that gave the claim up.
    Released,
}

/// Subscriptions of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Subscriptions(u8);

impl Subscriptions {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const GET: Self = Self(1);
    pub(crate) const PUT: Self = Self(2);
    pub(crate) const INVALIDATE: Self = Self(4);
    pub(crate) const ALL: Self = Self(7);
    pub(crate) const EACH: [Self; 3] = [Self::GET, Self::PUT, Self::INVALIDATE];

    pub(crate) fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    pub(crate) fn with(self, one: Self) -> Self {
        Self(self.0 | one.0)
    }

    pub(crate) fn without(self, one: Self) -> Self {
        Self(self.0 & !one.0)
    }
}

/// A read by somebody, through a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Read {
    pub(crate) gateway: GatewayId,
    /// The newest version whose upload was answered when it began.
    pub(crate) floor: Version,
    /// What the row said.
    pub(crate) row: Option<Version>,
    pub(crate) at: Reading,
    /// The near lease that it asks for with its get or its fill, unless what is granted will not be kept.
    pub(crate) near: Option<NearLease>,
}

/// How far a read has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reading {
    /// `cache.get.<key>` is on its way to a worker.
    Get { worker: WorkerId },
    /// The reply is on its way back: nothing is resident, perhaps with a lease.
    Miss { lease: Option<Lease> },
    /// It has a lease, and reads the origin for all aboard its flight.
    Leading {
        lease: Lease,
        /// Whether others may join: no other flight of this gateway has begun since.
        open: bool,
        /// Whether it has the file's bytes, too.
        bytes: bool,
    },
    /// It waits for the flight of another read, which is named by its place.
    Aboard { leader: u8 },
    /// `cache.put.<key>` is on its way to a worker. Without a lease it is unconditional.
    Fill { lease: Option<Lease>, worker: WorkerId },
    /// The reply to it is on its way back.
    Filled { stored: bool },
    /// It reads the origin for itself alone.
    Origin,
}

/// A change that a gateway tells the cache of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Telling {
    pub(crate) gateway: GatewayId,
    pub(crate) token: u8,
    /// The version whose uploader waits for the answer; none for a change that was left behind.
    pub(crate) asker: Option<Version>,
    pub(crate) at: TellingStep,
    /// The life that a read since the change has named as the owner.
    pub(crate) named: Option<WorkerId>,
}

/// How far a telling has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TellingStep {
    /// The note is written and the row is not, where that is not one transaction.
    RowOwed,
    /// The row is written and the note is not, where that is not one transaction.
    NoteOwed,
    /// `cache.invalidate.<key>` is to be sent.
    Due,
    /// It is on its way to a worker.
    Invalidate { worker: WorkerId },
    /// The entry is removed and the lease void. The worker has the holders of near leases drop their copies,
    /// and waits for them and for those of its predecessors.
    Dropping { worker: WorkerId, drop: Drop },
    /// A worker's present life has acknowledged it, which counts once a read names it.
    Unconfirmed { worker: WorkerId },
    /// It is sure that nobody serves; what somebody granted before may still last.
    Sure,
    /// It is sure that no cache holds the image from before.
    Acknowledged,
}

/// A gateway's copy of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Copy {
    pub(crate) version: Version,
    pub(crate) lease: NearLease,
    /// Whether its time is over. Nothing comes of such a copy but where a test leaves out the tag of a
    /// renewal, so elsewhere it is none.
    pub(crate) is_over: bool,
}

/// The time of a near lease. All last equally long, and so does each wait for them, with a margin; so what
/// counts is only which waits have begun since a lease was asked for, or was known to be out: they end
/// after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NearLease(u8);

/// Who waits for near leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The telling at this place: it, or the worker for it.
    Telling(u8),
    /// A worker that has won its claim.
    Worker(WorkerId),
}

impl Waiting {
    fn bit(self) -> u8 {
        match self {
            Self::Telling(place) => 1 << place,
            Self::Worker(worker) => 1 << (TELLINGS as u8 + worker),
        }
    }
}

impl NearLease {
    pub(crate) fn ends_before(self, wait: Waiting) -> bool {
        self.0 & wait.bit() != 0
    }

    pub(crate) fn and_before(self, wait: Waiting) -> Self {
        Self(self.0 | wait.bit())
    }

    /// Of the two, whichever ends later.
    pub(crate) fn or_later(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Of the two, whatever waits have begun since either.
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn retain(&mut self, goes_on: impl Fn(Waiting) -> bool) {
        let tellings = (0..TELLINGS as u8).map(Waiting::Telling);
        let over = tellings.chain([0, 1].map(Waiting::Worker)).filter(|wait| !goes_on(*wait));
        self.0 &= !over.fold(0, |bits, wait| bits | wait.bit());
    }

    fn swap_workers(&mut self) {
        let [one, other] = [0, 1].map(|worker| Waiting::Worker(worker).bit());
        let swapped = if self.0 & one != 0 { other } else { 0 } | if self.0 & other != 0 { one } else { 0 };
        self.0 = self.0 & !(one | other) | swapped;
    }

    fn sort_tellings(&mut self, order: [u8; TELLINGS]) {
        let mut sorted = *self;
        sorted.retain(|wait| matches!(wait, Waiting::Worker(_)));
        for (place, from) in (0..).zip(order) {
            if self.ends_before(Waiting::Telling(from)) {
                sorted = sorted.and_before(Waiting::Telling(place));
            }
        }
        *self = sorted;
    }
}

/// A gateway that asks for a near lease for nobody's sake any more: `Asking` in the code, besides those
/// that are reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Asking {
    pub(crate) gateway: GatewayId,
    /// What it holds, or was answered.
    pub(crate) version: Version,
    pub(crate) lease: NearLease,
    pub(crate) at: AskingStep,
}

/// How far that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AskingStep {
    /// The renewal of a copy is on its way to a worker.
    Renewal { worker: WorkerId },
    /// The worker has looked the key up, and has the holder still to note, where that is not one step.
    LookedUp { worker: WorkerId },
    /// The hit is on its way back, with a lease.
    Granted,
    /// The answer to the renewal is.
    Renewed,
    /// No drop has spoiled it, and the copy is still to be kept, where that is not one step.
    Checked,
}

/// A set of gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Holders([bool; 2]);

impl Holders {
    pub(crate) fn has(self, gateway: GatewayId) -> bool {
        self.0[usize::from(gateway)]
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self([self.0[0] && other.0[0], self.0[1] && other.0[1]])
    }

    pub(crate) fn set(&mut self, gateway: GatewayId, holds: bool) {
        self.0[usize::from(gateway)] = holds;
    }
}

/// What each gateway is asked to drop its copy for, until it is known to have done so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Drop([Option<Told>; 2]);

/// A holder that is asked to drop its copy: again and again, until its acknowledgement has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Told {
    /// Whether it has done so, and its acknowledgement is on its way.
    pub(crate) has_dropped: bool,
    /// Whether it was granted a lease since: by a grant with a higher number than the drop.
    pub(crate) has_a_later_grant: bool,
}

impl Drop {
    pub(crate) const NOBODY: Self = Self([None; 2]);

    pub(crate) fn told(&self, gateway: GatewayId) -> Option<Told> {
        self.0[usize::from(gateway)]
    }

    pub(crate) fn told_mut(&mut self, gateway: GatewayId) -> &mut Option<Told> {
        &mut self.0[usize::from(gateway)]
    }
}

/// Which drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropFor {
    /// That of the telling at this place.
    Telling(u8),
    /// The [`Worker::late_drop`].
    Nobody(WorkerId),
}

impl Worker {
    /// As `Claim::is_valid`.
    pub(crate) fn has_valid_claim(&self) -> bool {
        self.claim.is_some_and(|claim| claim.age <= CLAIM_TICKS)
    }

    fn cmp_but_for_its_number(&self, other: &Self) -> Ordering {
        let what_has_no_number = |worker: &Self| Self {
            late_fill: None,
            holders: Holders::default(),
            late_drop: Drop::NOBODY,
            ..*worker
        };
        what_has_no_number(self).cmp(&what_has_no_number(other))
    }

    /// Whether a life of it is on, rather than that it stands by.
    pub(crate) fn lives(&self) -> bool {
        self.claim.is_some()
    }
}

impl System {
    pub(crate) fn worker(&self, worker: WorkerId) -> &Worker {
        &self.workers[usize::from(worker)]
    }

    pub(crate) fn read(&self, read: u8) -> Option<Read> {
        self.reads[usize::from(read)]
    }

    pub(crate) fn telling(&self, telling: u8) -> Option<Telling> {
        self.tellings[usize::from(telling)]
    }

    /// To whom the server can route a message; to nobody when it answers "no responders".
    pub(crate) fn routes(&self, to: Subscriptions) -> impl Iterator<Item = Option<WorkerId>> + use<> {
        let subscribed = [0, 1].map(|worker| self.worker(worker).subscriptions.has(to).then_some(worker));
        let nobody = (subscribed == [None, None]).then_some(None);
        subscribed.into_iter().filter(Option::is_some).chain(nobody)
    }

    /// One of all the states that differ from this one only in the numbers of gateways and workers, and in
    /// the places of reads and tellings.
    pub(crate) fn canonical(mut self, workers: u8) -> Self {
        self.sort();
        if workers == 1 {
            return self.least_by_gateways();
        }
        match self.workers[0].cmp_but_for_its_number(&self.workers[1]) {
            Ordering::Less => self.least_by_gateways(),
            Ordering::Greater => self.with_workers_swapped().least_by_gateways(),
            Ordering::Equal => self.least_by_gateways().min(self.with_workers_swapped().least_by_gateways()),
        }
    }

    fn least_by_gateways(self) -> Self {
        if self.has_nothing_of_the_other_gateway() {
            return self;
        }
        self.min(self.with_gateways_swapped())
    }

    fn has_nothing_of_the_other_gateway(&self) -> bool {
        let tells = |telling: &Telling| {
            let is_told = match telling.at {
                TellingStep::Dropping { drop, .. } => drop.told(1).is_some(),
                _ => false,
            };
            telling.gateway != 0 || is_told
        };
        let knows = |worker: &Worker| worker.holders.has(1) || worker.late_drop.told(1).is_some();
        !self.reads.iter().flatten().any(|read| read.gateway != 0)
            && !self.tellings.iter().flatten().any(tells)
            && !self.asking.iter().flatten().any(|asking| asking.gateway != 0)
            && !self.workers.iter().any(knows)
            && self.copies[1].is_none()
    }

    fn with_gateways_swapped(mut self) -> Self {
        for read in self.reads.iter_mut().flatten() {
            read.gateway = 1 - read.gateway;
        }
        for telling in self.tellings.iter_mut().flatten() {
            telling.gateway = 1 - telling.gateway;
            if let TellingStep::Dropping { drop, .. } = &mut telling.at {
                drop.0.swap(0, 1);
            }
        }
        for asking in self.asking.iter_mut().flatten() {
            asking.gateway = 1 - asking.gateway;
        }
        for worker in &mut self.workers {
            worker.holders.0.swap(0, 1);
            worker.late_drop.0.swap(0, 1);
        }
        self.copies.swap(0, 1);
        self.sort();
        self
    }

    fn with_workers_swapped(mut self) -> Self {
        self.workers.swap(0, 1);
        for worker in &mut self.workers {
            if let Some((lease, _)) = &mut worker.late_fill {
                lease.swap_workers();
            }
        }
        match &mut self.owner {
            Owner::Life(worker) | Owner::Former(worker) => *worker = 1 - *worker,
            Owner::Nobody | Owner::Unknown | Owner::Gone | Owner::Released => {}
        }
        if let Some(worker) = &mut self.early.named {
            *worker = 1 - *worker;
        }
        for read in self.reads.iter_mut().flatten() {
            match &mut read.at {
                Reading::Get { worker } => *worker = 1 - *worker,
                Reading::Miss { lease } => lease.iter_mut().for_each(Lease::swap_workers),
                Reading::Leading { lease, .. } => lease.swap_workers(),
                Reading::Fill { lease, worker } => {
                    lease.iter_mut().for_each(Lease::swap_workers);
                    *worker = 1 - *worker;
                }
                Reading::Aboard { .. } | Reading::Filled { .. } | Reading::Origin => {}
            }
        }
        for telling in self.tellings.iter_mut().flatten() {
            if let Some(worker) = &mut telling.named {
                *worker = 1 - *worker;
            }
            if let TellingStep::Invalidate { worker }
            | TellingStep::Dropping { worker, .. }
            | TellingStep::Unconfirmed { worker } = &mut telling.at
            {
                *worker = 1 - *worker;
            }
        }
        for asking in self.asking.iter_mut().flatten() {
            if let AskingStep::Renewal { worker } | AskingStep::LookedUp { worker } = &mut asking.at {
                *worker = 1 - *worker;
            }
        }
        self.near_leases().for_each(|(_, lease)| lease.swap_workers());
        self.sort();
        self
    }

    /// All near leases, granted or asked for, each with its gateway.
    pub(crate) fn near_leases(&mut self) -> impl Iterator<Item = (GatewayId, &mut NearLease)> {
        let copies =
            (0..).zip(&mut self.copies).filter_map(|(gateway, copy)| Some((gateway, copy.as_mut()?)));
        let asking = self.asking.iter_mut().flatten().map(|asking| (asking.gateway, &mut asking.lease));
        let reads = self.reads.iter_mut().flatten();
        copies
            .map(|(gateway, copy)| (gateway, &mut copy.lease))
            .chain(asking)
            .chain(reads.filter_map(|read| Some((read.gateway, read.near.as_mut()?))))
    }

    /// Sorts what is only a set: the tellings and the reads with what points to their places, and who asks
    /// for near leases.
    fn sort(&mut self) {
        let mut order: [u8; TELLINGS] = [0, 1, 2];
        order.sort_by_key(|&place| self.telling(place));
        if order != [0, 1, 2] {
            self.tellings = order.map(|place| self.telling(place));
            self.near_leases().for_each(|(_, lease)| lease.sort_tellings(order));
        }
        self.asking.sort_unstable();
        let mut order: [u8; READS] = [0, 1, 2];
        order.sort_by_key(|&place| self.read(place));
        if order == [0, 1, 2] {
            return;
        }
        self.reads = order.map(|place| self.read(place));
        for read in self.reads.iter_mut().flatten() {
            if let Reading::Aboard { leader } = &mut read.at {
                *leader = (0..)
                    .zip(order)
                    .find_map(|(place, from)| (from == *leader).then_some(place))
                    .unwrap_or(*leader);
            }
        }
    }
}
