//! What can happen, and when.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::Property;

use crate::rules::Rule;
use crate::state::{
    ASKING, AskingStep, Budget, CLAIM_TICKS, Claim, Drop, DropFor, Early, GatewayId, Holders, MARGIN_TICKS,
    Origin, Owner, READS, Reading, Sight, Subscriptions, System, TELLINGS, TellingStep, Unfinished, Verdict,
    Version, Worker, WorkerId,
};

/// How large a system is, and what may happen in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) gateways: u8,
    /// How many reads go on at once. One after another there may be any number.
    pub(crate) readers: usize,
    pub(crate) budget: Budget,
    /// Whether an uploader may be answered 503, and gateways tell of what was left behind.
    pub(crate) gives_up: bool,
    /// Whether uploads fill the cache with what they have stored.
    pub(crate) refills: bool,
    /// Whether replaced files are removed.
    pub(crate) removes_files: bool,
    /// Whether subscriptions are made and ended one by one.
    pub(crate) one_by_one: bool,
    /// Whether there is a second worker, and time in which a claim runs out.
    pub(crate) standby: bool,
    /// Whether gateways have a near cache.
    pub(crate) near: bool,
    /// Whether they renew their leases, a gateway one at a time. A renewal does no more than the get of a read
    /// that finds what the gateway holds.
    pub(crate) renews: bool,
    /// How many answers with a lease, and renewals, are on their way at once. Those to fills are apart.
    pub(crate) asking: usize,
    /// Whether copies are dropped for clears, and for invalidations that nobody waits for any more.
    pub(crate) clears: bool,
}

/// The protocol in a scene, with some rules left out.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) scene: Scene,
    left_out: &'static [Rule],
    /// Whether states tell what the last step has shown.
    pub(crate) looks: bool,
    /// Whether what a read returned is held to like what an upload was answered for.
    pub(crate) counts_reads: bool,
    /// Which of the promises have been seen broken.
    broken: [AtomicBool; 4],
}

/// One thing that happens. Reads and tellings are named by their places, which are sorted after each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A read begins: its `get` goes to a worker, or the server says that there are no responders.
    Ask {
        gateway: GatewayId,
        worker: Option<WorkerId>,
    },
    AnswerGet {
        read: u8,
    },
    GetTimesOut {
        read: u8,
    },
    MissArrives {
        read: u8,
    },
    ReadRow {
        read: u8,
    },
    ReadFile {
        read: u8,
    },
    /// The fill goes to a worker, or the server says that there are no responders.
    SendFill {
        read: u8,
        worker: Option<WorkerId>,
    },
    TakeFill {
        read: u8,
    },
    FillAnswered {
        read: u8,
    },
    FillTimesOut {
        read: u8,
    },
    TakeLateFill {
        worker: WorkerId,
    },

    /// A read begins and ends with a copy.
    NearHit {
        gateway: GatewayId,
    },
    /// A gateway asks for more time for its copy.
    AskForMore {
        gateway: GatewayId,
        worker: WorkerId,
    },
    AnswerRenewal {
        asking: u8,
    },
    /// The worker notes the holder, where that is not one step with looking the key up.
    NoteHolder {
        asking: u8,
    },
    /// What comes with a lease is kept.
    Keep {
        asking: u8,
    },
    /// Nobody waits for it any more.
    AskingTimesOut {
        asking: u8,
    },
    /// A gateway drops its copy. It may be asked to several times.
    DropCopy {
        drop: DropFor,
        gateway: GatewayId,
    },
    /// The acknowledgement arrives.
    CopyDropped {
        drop: DropFor,
        gateway: GatewayId,
    },
    /// The server says that nobody is there to drop it.
    NobodyDrops {
        drop: DropFor,
        gateway: GatewayId,
    },
    /// The lease that the gateway had when the image changed has ended by the worker's clock.
    HolderWaitedOut {
        telling: u8,
        gateway: GatewayId,
    },
    /// Those that were out before the worker won its claim have.
    PredecessorsWaitedOut {
        worker: WorkerId,
    },
    /// A gateway that has made sure that nobody serves has waited for as long.
    NobodyWaitedOut {
        telling: u8,
    },
    /// Nobody holds a copy any more that was out when the image changed.
    Acknowledge {
        telling: u8,
    },
    /// Copies are dropped, and nobody waits for it. The removal of the entry is a [`Step::Evict`].
    DropForNobody {
        worker: WorkerId,
    },

    /// The transaction of an upload is committed.
    Upload {
        gateway: GatewayId,
    },
    /// That of a request which finds the row as it wants it.
    Repeat {
        gateway: GatewayId,
    },
    WriteOwedRow {
        telling: u8,
    },
    WriteOwedNote {
        telling: u8,
    },
    /// The invalidation goes to a worker, or the server says that there are no responders.
    SendInvalidate {
        telling: u8,
        worker: Option<WorkerId>,
    },
    TakeInvalidate {
        telling: u8,
    },
    InvalidateTimesOut {
        telling: u8,
    },
    /// A read at the leader arrives that began after the change.
    ReadOwner {
        telling: u8,
    },
    /// A gateway ends the claim, or confirms that there is none: by a write that begins after the change.
    MakeSure {
        telling: u8,
    },
    /// What was read, or made sure of, before the change is taken for it.
    TakeEarlyRead {
        telling: u8,
    },
    TakeEarlyWrite {
        telling: u8,
    },
    /// A read says that nobody serves, as was so at some time.
    TakeReadForAWrite {
        telling: u8,
    },
    /// Somebody looks into the bucket for something else.
    ReadOwnerEarly,
    MakeSureEarly,
    /// The acknowledgement arrives: the note goes, unless MySQL is away, and the uploader is answered.
    Settle {
        telling: u8,
        note_goes: bool,
    },
    /// The uploader is answered 503.
    GiveUp {
        telling: u8,
    },
    /// A gateway finds a note that was left behind.
    TellLeftBehind {
        gateway: GatewayId,
    },
    RemoveFile {
        version: Version,
    },
    GatewayDies {
        gateway: GatewayId,
    },

    /// The policy evicts the entry. An invalidation that nobody waits for any more does no more than this
    /// and [`Step::LeaseEnds`] do.
    Evict {
        worker: WorkerId,
    },
    LeaseEnds {
        worker: WorkerId,
    },
    /// A get is answered whose reader has given up; or one of the many readers beyond those here.
    LeaseToNobody {
        worker: WorkerId,
    },
    /// The rest of an invalidation, where that is not one step.
    Finish {
        worker: WorkerId,
    },

    LoseConnection {
        worker: WorkerId,
    },
    Reconnect {
        worker: WorkerId,
    },
    Subscribe {
        worker: WorkerId,
        to: Subscriptions,
    },
    /// A round trip proves the connection.
    Prove {
        worker: WorkerId,
    },
    Kill {
        worker: WorkerId,
    },
    Stop {
        worker: WorkerId,
    },
    Unsubscribe {
        worker: WorkerId,
        from: Subscriptions,
    },
    /// A stop ends: the claim is given up, and the process is gone.
    Leave {
        worker: WorkerId,
    },
    /// nats-server starts again, without the bucket of the claim.
    ServerForgets,
    /// The stream of the claim is gone, or has taken back what it had acknowledged.
    StreamForgets,

    /// Time passes, except for a worker whose clock stands still.
    Tick {
        asleep: Option<WorkerId>,
    },
    /// Time passes, except for a worker whose machine is paused.
    TickInAPause {
        paused: WorkerId,
    },
    TakeClaim {
        worker: WorkerId,
    },
    /// The bucket takes a renewal.
    Renew {
        worker: WorkerId,
    },
    /// The acknowledgement of the renewal arrives.
    Renewed {
        worker: WorkerId,
    },
    LoseClaim {
        worker: WorkerId,
    },
    Release {
        worker: WorkerId,
    },
}

/// The promise.
pub(crate) const NEVER_STALE: &str = "a read returns nothing older than what was answered before it began";
/// What rule 5 is for.
pub(crate) const NEVER_FAILS: &str = "a read of a stored image finds it";
/// What the notes of rule 6 are for.
pub(crate) const NOTHING_LEFT_BEHIND: &str = "whoever serves an old image is going to be told";
/// What the claim is for.
pub(crate) const ONE_SERVES: &str = "no two workers serve at once";

impl Protocol {
    pub(crate) fn new(scene: Scene, left_out: &'static [Rule]) -> Self {
        Self { scene, left_out, looks: false, counts_reads: false, broken: Default::default() }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        !self.left_out.contains(&rule)
    }

    pub(crate) fn workers(&self) -> std::ops::Range<WorkerId> {
        0..if self.scene.standby { 2 } else { 1 }
    }

    /// One of all the states that are like this one.
    pub(crate) fn canonical(&self, system: System) -> System {
        system.canonical(self.workers().end)
    }

    /// One worker serves, with nothing resident; the row names the first image.
    pub(crate) fn start(&self) -> System {
        let serving = Worker {
            entry: None,
            leased: false,
            late_fill: None,
            holders: Holders::default(),
            waits_for_leases_before: false,
            late_drop: Drop::NOBODY,
            subscriptions: Subscriptions::ALL,
            connected: true,
            proven: true,
            stopping: false,
            was_paused: false,
            claim: Some(Claim { age: 0, renewal: None, on_this_connection: true }),
            unchanged: 0,
            unfinished: Unfinished::Nothing,
        };
        let standby = Worker {
            subscriptions: Subscriptions::NONE,
            connected: self.scene.standby,
            proven: false,
            claim: None,
            ..serving
        };
        System {
            origin: Origin { row: 0, note: None, last_token: 0, removed: 0 },
            workers: [serving, standby],
            owner: Owner::Life(0),
            unchanged: 0,
            early: Early::default(),
            reads: [None; READS],
            copies: [None; 2],
            asking: [None; ASKING],
            tellings: [None; TELLINGS],
            answered: 0,
            left: self.scene.budget,
            verdict: Verdict::Good,
            sight: None,
        }
    }

    /// Reports only the first of the states in which a promise is broken: stateright keeps the last
    /// counterexample that it comes upon before it ends, and a breadth-first search the shortest first.
    pub(crate) fn holds(&self, promise: usize, good: bool) -> bool {
        good || self.broken[promise].swap(true, Ordering::Relaxed)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scene.name)?;
        if !self.left_out.is_empty() {
            write!(f, " without {:?}", self.left_out)?;
        }
        Ok(())
    }
}

impl Protocol {
    /// What there is to see in this scene.
    pub(crate) fn sights(&self) -> Vec<Property<Self>> {
        fn sight(name: &'static str, seen: fn(&Protocol, &System) -> bool) -> Property<Protocol> {
            Property::sometimes(name, seen)
        }
        macro_rules! sights {
            ($($sight:ident),*) => {
                vec![$(sight(stringify!($sight), |_, system| system.sight == Some(Sight::$sight))),*]
            };
        }
        let Scene { readers, budget, gives_up, refills, removes_files, standby, near, renews, .. } =
            self.scene;
        let mut sights = sights!(HitOfTheNewest, FillRefused, LateFillStored, Bypass);
        if readers > 1 && self.scene.gateways > 1 {
            sights.extend(sights!(FlightShared, FlightNotShared));
        }
        if gives_up {
            sights.extend(sights!(StillTelling, LeftBehindTold));
            if budget.uploads + budget.repeats > 1 {
                sights.extend(sights!(LaterNoteKept));
            }
        }
        if refills {
            sights.extend(sights!(LeaseWithAnAcknowledgement));
        }
        if removes_files {
            sights.extend(sights!(RowReadAgain));
        }
        if budget.losses > 0 {
            sights.extend(sights!(NobodySure, UnprovenAsked));
        }
        if budget.stops > 0 {
            sights.extend(sights!(StoppingAsked));
        }
        if standby {
            sights.extend(sights!(StandbyServes, NotAcknowledged, ClaimCameBack, EndedByGateway));
        }
        if budget.pauses > 0 {
            sights.extend(sights!(PausedAcknowledged));
        }
        if near {
            sights.extend(sights!(NearHitOfTheNewest, CopyWithoutEntry, GrantSpoiled));
            sights.extend(sights!(HoldersHaveDropped, HolderWaitedOut, LaterGrantLeft));
            if renews {
                sights.extend(sights!(LeaseRenewed));
            }
            if standby || budget.kills > 0 {
                sights.extend(sights!(PredecessorsWaitedOut));
            }
            if budget.losses > 0 {
                sights.extend(sights!(NobodyWaitedOut));
            }
        }
        sights
    }
}

impl Worker {
    /// Whether whoever asks it may be served.
    pub(crate) fn serves(&self) -> bool {
        self.connected
            && self.proven
            && self.has_valid_claim()
            && !self.was_paused
            && self.subscriptions.has(Subscriptions::GET)
    }
}

impl System {
    pub(crate) fn servers_of_old_images_are_told(&self) -> bool {
        let is_old = |worker: &Worker| worker.entry.is_some_and(|version| version < self.origin.row);
        let will_tell = |at: TellingStep| match at {
            TellingStep::RowOwed
            | TellingStep::NoteOwed
            | TellingStep::Due
            | TellingStep::Invalidate { .. }
            | TellingStep::Unconfirmed { .. } => true,
            TellingStep::Dropping { .. } | TellingStep::Sure | TellingStep::Acknowledged => false,
        };
        let is_going_to_be_told =
            self.origin.note.is_some() || self.tellings.iter().flatten().any(|telling| will_tell(telling.at));
        is_going_to_be_told || !self.workers.iter().any(|worker| worker.serves() && is_old(worker))
    }
}

/// Which steps can be taken.
impl Protocol {
    pub(crate) fn steps_of_reads(&self, system: &System, steps: &mut Vec<Step>) {
        if system.reads.iter().flatten().count() < self.scene.readers {
            for gateway in 0..self.scene.gateways {
                steps.extend(system.routes(Subscriptions::GET).map(|worker| Step::Ask { gateway, worker }));
            }
        }
        for (read, reading) in (0..).zip(&system.reads) {
            let Some(reading) = reading else { continue };
            match reading.at {
                Reading::Get { .. } => {
                    steps.extend([Step::AnswerGet { read }, Step::GetTimesOut { read }]);
                }
                Reading::Miss { .. } => {
                    steps.extend([Step::MissArrives { read }, Step::GetTimesOut { read }]);
                }
                Reading::Leading { bytes: true, .. } => {
                    let routes = system.routes(Subscriptions::PUT);
                    steps.extend(routes.map(|worker| Step::SendFill { read, worker }));
                }
                Reading::Leading { bytes: false, .. } | Reading::Origin => steps.push(match reading.row {
                    None => Step::ReadRow { read },
                    Some(_) => Step::ReadFile { read },
                }),
                Reading::Aboard { .. } => {}
                Reading::Fill { .. } => steps.extend([Step::TakeFill { read }, Step::FillTimesOut { read }]),
                Reading::Filled { .. } => {
                    steps.extend([Step::FillAnswered { read }, Step::FillTimesOut { read }]);
                }
            }
        }
    }

    pub(crate) fn steps_of_tellings(&self, system: &System, steps: &mut Vec<Step>) {
        let left = system.left;
        let has_room = system.tellings.contains(&None);
        let is_left_behind = system.origin.note.is_some()
            && system.tellings.iter().flatten().all(|telling| telling.asker.is_some());
        self.steps_of_looks_before_a_change(system, steps);
        for gateway in 0..self.scene.gateways {
            if has_room && left.uploads > 0 {
                steps.push(Step::Upload { gateway });
            }
            if has_room && left.repeats > 0 {
                steps.push(Step::Repeat { gateway });
            }
            if has_room && is_left_behind && self.scene.gives_up {
                steps.push(Step::TellLeftBehind { gateway });
            }
            if left.deaths > 0 {
                steps.push(Step::GatewayDies { gateway });
            }
        }
        if self.scene.removes_files {
            let is_there = |version: &Version| system.origin.removed & (1 << *version) == 0;
            let replaced = (0..system.origin.row).filter(is_there);
            steps.extend(replaced.map(|version| Step::RemoveFile { version }));
        }
        for (telling, told) in (0..).zip(&system.tellings) {
            let Some(told) = told else { continue };
            match told.at {
                TellingStep::RowOwed => steps.push(Step::WriteOwedRow { telling }),
                TellingStep::NoteOwed => steps.push(Step::WriteOwedNote { telling }),
                TellingStep::Due => {
                    let is_believed = !self.keeps(Rule::NoRespondersIsNoAcknowledgement);
                    let routes = system.routes(Subscriptions::INVALIDATE);
                    let routes = routes.filter(|worker| worker.is_some() || is_believed);
                    steps.extend(routes.map(|worker| Step::SendInvalidate { telling, worker }));
                    if is_believed && !self.keeps(Rule::NoRouteIsCut) {
                        steps.push(Step::SendInvalidate { telling, worker: None });
                    }
                    self.steps_of_making_sure(system, telling, steps);
                    if self.scene.gives_up {
                        steps.push(Step::GiveUp { telling });
                    }
                }
                TellingStep::Invalidate { .. } => {
                    steps.extend([Step::TakeInvalidate { telling }, Step::InvalidateTimesOut { telling }]);
                    if self.reads_owner() && told.named.is_none() {
                        steps.push(Step::ReadOwner { telling });
                    }
                }
                TellingStep::Dropping { worker, drop } => {
                    steps.push(Step::InvalidateTimesOut { telling });
                    self.steps_of_a_drop(DropFor::Telling(telling), drop, steps);
                    let it = system.worker(worker);
                    if drop == Drop::NOBODY
                        && !it.waits_for_leases_before
                        && it.unfinished != Unfinished::Removal
                    {
                        steps.push(Step::Acknowledge { telling });
                    }
                    for gateway in (0..2).filter(|gateway| drop.told(*gateway).is_some()) {
                        steps.push(Step::HolderWaitedOut { telling, gateway });
                    }
                }
                TellingStep::Unconfirmed { .. } => {
                    steps.extend([Step::ReadOwner { telling }, Step::InvalidateTimesOut { telling }]);
                }
                TellingStep::Sure => steps.push(Step::NobodyWaitedOut { telling }),
                TellingStep::Acknowledged => {
                    steps.push(Step::Settle { telling, note_goes: true });
                    if self.scene.gives_up && told.asker.is_some() {
                        steps.push(Step::Settle { telling, note_goes: false });
                    }
                }
            }
        }
    }

    /// `Serving::nobody` in the gateway, and its reads while an invalidation is on its way.
    fn steps_of_making_sure(&self, system: &System, telling: u8, steps: &mut Vec<Step>) {
        let Some(told) = system.telling(telling) else { return };
        if self.can_make_sure(system) {
            steps.push(Step::MakeSure { telling });
        }
        if self.reads_owner() && told.named.is_none() {
            steps.push(Step::ReadOwner { telling });
        }
        if !self.keeps(Rule::ReadsBeginAfterTheChange) && told.named.is_none() && system.early.named.is_some()
        {
            steps.push(Step::TakeEarlyRead { telling });
        }
        if !self.keeps(Rule::WritesBeginAfterTheChange) && system.early.was_sure {
            steps.push(Step::TakeEarlyWrite { telling });
        }
        if !self.keeps(Rule::NobodyIsSureByAWrite) && system.early.was_free {
            steps.push(Step::TakeReadForAWrite { telling });
        }
    }

    fn steps_of_looks_before_a_change(&self, system: &System, steps: &mut Vec<Step>) {
        if !self.keeps(Rule::ReadsBeginAfterTheChange) && matches!(system.owner, Owner::Life(_)) {
            steps.push(Step::ReadOwnerEarly);
        }
        if !self.keeps(Rule::WritesBeginAfterTheChange) && self.can_make_sure(system) {
            steps.push(Step::MakeSureEarly);
        }
    }

    /// Whether reads at the leader are shown: see "The bus" in the model's description.
    pub(crate) fn reads_owner(&self) -> bool {
        self.scene.budget.pauses > 0 && self.keeps(Rule::AcknowledgementsNeedARead)
    }

    /// Whether a gateway may write that nobody serves.
    fn can_make_sure(&self, system: &System) -> bool {
        if !self.scene.standby {
            // In a scene without time, a claim runs out while its worker is cut off, or dead.
            let it = system.worker(0);
            return !it.lives() || !it.connected;
        }
        let margin = if self.keeps(Rule::GatewaysWaitAMargin) { MARGIN_TICKS } else { 0 };
        let has_waited = system.unchanged >= CLAIM_TICKS + margin || !self.keeps(Rule::GatewaysWait);
        has_waited || system.owner == Owner::Released
    }

    pub(crate) fn steps_of_near_leases(&self, system: &System, steps: &mut Vec<Step>) {
        let has_room = self.has_room_to_ask(system);
        for (gateway, copy) in (0..).zip(&system.copies) {
            let Some(copy) = copy else { continue };
            // Other hits change nothing.
            if !copy.is_over && (copy.version < system.answered || self.looks) {
                steps.push(Step::NearHit { gateway });
            }
            let renews = system.asking.iter().flatten().any(|asking| {
                let is_renewal = matches!(asking.at, AskingStep::Renewal { .. } | AskingStep::Renewed);
                asking.gateway == gateway && is_renewal
            });
            if has_room && self.scene.renews && !renews {
                let routes = system.routes(Subscriptions::GET).flatten();
                steps.extend(routes.map(|worker| Step::AskForMore { gateway, worker }));
            }
        }
        for (asking, asked) in (0..).zip(&system.asking) {
            let Some(asked) = asked else { continue };
            steps.push(Step::AskingTimesOut { asking });
            steps.push(match asked.at {
                AskingStep::Renewal { .. } => Step::AnswerRenewal { asking },
                AskingStep::LookedUp { .. } => Step::NoteHolder { asking },
                AskingStep::Granted | AskingStep::Renewed | AskingStep::Checked => Step::Keep { asking },
            });
        }
        for worker in self.workers() {
            let it = system.worker(worker);
            if it.waits_for_leases_before {
                steps.push(Step::PredecessorsWaitedOut { worker });
            }
            if self.scene.clears && it.late_drop == Drop::NOBODY && it.holders != Holders::default() {
                steps.push(Step::DropForNobody { worker });
            }
            self.steps_of_a_drop(DropFor::Nobody(worker), it.late_drop, steps);
        }
    }

    pub(crate) fn has_room_to_ask(&self, system: &System) -> bool {
        system.asking.iter().flatten().count() < self.scene.asking
    }

    fn steps_of_a_drop(&self, which: DropFor, drop: Drop, steps: &mut Vec<Step>) {
        for gateway in 0..2 {
            let Some(told) = drop.told(gateway) else { continue };
            if self.keeps(Rule::HoldersAreTold) {
                steps.push(Step::DropCopy { drop: which, gateway });
            }
            if told.has_dropped {
                steps.push(Step::CopyDropped { drop: which, gateway });
            }
            if !self.keeps(Rule::SilentHoldersHaveNotDropped) {
                steps.push(Step::NobodyDrops { drop: which, gateway });
            }
        }
    }

    pub(crate) fn steps_of_a_store(&self, system: &System, worker: WorkerId, steps: &mut Vec<Step>) {
        let it = system.worker(worker);
        if it.entry.is_some() {
            steps.push(Step::Evict { worker });
        }
        if it.leased {
            steps.push(Step::LeaseEnds { worker });
        } else if it.entry.is_none() && self.grants(it) {
            steps.push(Step::LeaseToNobody { worker });
        }
        if it.late_fill.is_some() {
            steps.push(Step::TakeLateFill { worker });
        }
        if it.unfinished != Unfinished::Nothing {
            steps.push(Step::Finish { worker });
        }
    }

    pub(crate) fn steps_of_a_connection(&self, system: &System, worker: WorkerId, steps: &mut Vec<Step>) {
        let (it, left) = (system.worker(worker), system.left);
        if !it.connected && !it.stopping {
            steps.push(Step::Reconnect { worker });
        }
        if !it.lives() {
            return;
        }
        if it.connected && left.losses > 0 {
            steps.push(Step::LoseConnection { worker });
        }
        if left.kills > 0 {
            steps.push(Step::Kill { worker });
        }
        if it.stopping {
            let has_left = |one, rule| !it.subscriptions.has(one) || !self.keeps(rule);
            let others_have_left = has_left(Subscriptions::GET, Rule::GetLeavesBeforeInvalidate)
                && has_left(Subscriptions::PUT, Rule::PutLeavesBeforeInvalidate);
            let may_leave = |from: &Subscriptions| {
                it.subscriptions.has(*from) && (*from != Subscriptions::INVALIDATE || others_have_left)
            };
            let leaving = Subscriptions::EACH.into_iter().filter(may_leave);
            steps.extend(leaving.map(|from| Step::Unsubscribe { worker, from }));
            if it.subscriptions == Subscriptions::NONE {
                steps.push(Step::Leave { worker });
            }
        } else if it.connected {
            let missing = Subscriptions::EACH.into_iter().filter(|one| !it.subscriptions.has(*one));
            steps.extend(missing.map(|to| Step::Subscribe { worker, to }));
            let renewed = it.claim.is_some_and(|claim| claim.on_this_connection)
                || !self.keeps(Rule::NewConnectionsRenewBeforeServing);
            if !it.proven && it.subscriptions == Subscriptions::ALL && renewed {
                steps.push(Step::Prove { worker });
            }
            if it.proven && left.stops > 0 {
                steps.push(Step::Stop { worker });
            }
        }
    }

    pub(crate) fn steps_of_a_claim(&self, system: &System, worker: WorkerId, steps: &mut Vec<Step>) {
        let it = system.worker(worker);
        let Some(claim) = it.claim else {
            let margin = if self.keeps(Rule::StandbysWaitAMargin) { MARGIN_TICKS } else { 0 };
            let has_waited = it.unchanged >= CLAIM_TICKS + margin || !self.keeps(Rule::StandbysWait);
            let is_free = match system.owner {
                Owner::Nobody | Owner::Released => true,
                Owner::Former(former) => former == worker,
                Owner::Unknown => !self.keeps(Rule::UnknownOwnersAreWaitedFor),
                Owner::Life(_) | Owner::Gone => false,
            };
            if it.connected && (has_waited || is_free) && system.left.takeovers > 0 {
                steps.push(Step::TakeClaim { worker });
            }
            return;
        };
        let is_owner = system.owner == Owner::Life(worker);
        if it.connected && claim.renewal.is_some() {
            steps.push(Step::Renewed { worker });
        } else if it.connected && is_owner && it.has_valid_claim() {
            steps.push(Step::Renew { worker });
        }
        if !is_owner || !it.has_valid_claim() {
            steps.push(Step::LoseClaim { worker });
        }
        if is_owner && it.stopping && !self.keeps(Rule::ReleasedLast) {
            steps.push(Step::Release { worker });
        }
    }
}

/// Whether a worker serves, in the parts that can be left out: `Worker::is_serving` in the code.
impl Protocol {
    pub(crate) fn hits(&self, worker: &Worker) -> bool {
        !worker.was_paused
            && (worker.proven || !self.keeps(Rule::NoHitsBeforeTheProof))
            && (worker.has_valid_claim() || !self.keeps(Rule::HitsNeedTheClaim))
    }

    pub(crate) fn grants(&self, worker: &Worker) -> bool {
        let may_be_asked = worker.lives();
        may_be_asked
            && !worker.was_paused
            && (worker.proven || !self.keeps(Rule::NoLeasesBeforeTheProof))
            && (worker.has_valid_claim() || !self.keeps(Rule::LeasesNeedTheClaim))
    }

    pub(crate) fn takes_fills(&self, worker: &Worker) -> bool {
        !worker.was_paused
            && (worker.proven || !self.keeps(Rule::NoFillsBeforeTheProof))
            && (worker.has_valid_claim() || !self.keeps(Rule::FillsNeedTheClaim))
    }

    pub(crate) fn renews(&self, worker: &Worker, version: Version) -> bool {
        worker.lives()
            && !worker.was_paused
            && (worker.proven || !self.keeps(Rule::RenewalsNeedTheProof))
            && (worker.has_valid_claim() || !self.keeps(Rule::RenewalsNeedTheClaim))
            && (worker.entry == Some(version)
                || worker.entry.is_some() && !self.keeps(Rule::RenewalsNeedTheTag))
    }

    pub(crate) fn acknowledges(&self, worker: &Worker) -> bool {
        let renewed = worker.claim.is_some_and(|claim| claim.on_this_connection)
            || !self.keeps(Rule::NewConnectionsRenewBeforeAcknowledging);
        renewed && (worker.has_valid_claim() || !self.keeps(Rule::AcknowledgementsNeedTheClaim))
    }
}
