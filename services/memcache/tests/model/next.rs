//! What follows from a step.

use crate::protocol::{Protocol, Scene, Step};
use crate::rules::Rule;
use crate::state::{
    ANY, CLAIM_TICKS, Claim, GatewayId, Lease, MARGIN_TICKS, Owner, READS, Read, Reading, Sight,
    Subscriptions, System, Telling, TellingStep, Unfinished, Verdict, Version, Worker, WorkerId,
};

/// A state on its way to the next one.
pub(crate) struct Next<'a> {
    protocol: &'a Protocol,
    system: System,
}

impl Next<'_> {
    /// The state after a step that can be taken.
    pub(crate) fn after(protocol: &Protocol, system: &System, step: Step) -> System {
        let mut next = Next { protocol, system: System { sight: None, ..*system } };
        next.take(step);
        next.forget_what_does_not_matter();
        next.system
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask { gateway, worker } => self.ask(gateway, worker),
            Step::AnswerGet { read } => self.answer_get(read),
            Step::GetTimesOut { read } => {
                self.see(Sight::Bypass);
                self.go_to_origin(read);
            }
            Step::MissArrives { read } => self.miss_arrives(read),
            Step::ReadRow { read } => self.read_row(read),
            Step::ReadFile { read } => self.read_file(read),
            Step::SendFill { read, worker } => self.send_fill(read, worker),
            Step::TakeFill { read } => self.take_fill(read),
            Step::FillAnswered { read } => self.fill_answered(read),
            Step::FillTimesOut { read } => self.fill_times_out(read),
            Step::TakeLateFill { worker } => self.take_late_fill(worker),
            Step::Upload { gateway } => self.upload(gateway),
            Step::Repeat { gateway } => self.repeat(gateway),
            Step::WriteOwedRow { telling } => self.write_owed_row(telling),
            Step::WriteOwedNote { telling } => self.write_owed_note(telling),
            Step::SendInvalidate { telling, worker } => self.send_invalidate(telling, worker),
            Step::TakeInvalidate { telling } => self.take_invalidate(telling),
            Step::InvalidateTimesOut { telling } => self.set_telling(telling, TellingStep::Due),
            Step::Settle { telling, note_goes } => self.settle(telling, note_goes),
            Step::GiveUp { telling } => self.give_up(telling),
            Step::TellLeftBehind { gateway } => {
                if let Some(token) = self.system.origin.note {
                    self.tell(Telling { gateway, token, asker: None, at: TellingStep::Due });
                }
            }
            Step::RemoveFile { version } => self.system.origin.removed |= 1 << version,
            Step::GatewayDies { gateway } => self.gateway_dies(gateway),
            Step::Evict { worker } => self.worker(worker).entry = None,
            Step::LeaseEnds { worker } => self.void_lease(worker),
            Step::LeaseToNobody { worker } => self.worker(worker).leased = true,
            Step::Finish { worker } => self.finish(worker),
            Step::LoseConnection { worker } => {
                spend(&mut self.system.left.losses);
                self.lose_connection(worker);
            }
            Step::Reconnect { worker } => self.reconnect(worker),
            Step::Subscribe { worker, to } => {
                let it = self.worker(worker);
                it.subscriptions = it.subscriptions.with(to);
            }
            Step::Prove { worker } => self.prove(worker),
            Step::Kill { worker } => {
                spend(&mut self.system.left.kills);
                self.replace_owner(worker, Owner::Gone);
                self.end_process(worker);
            }
            Step::Stop { worker } => {
                spend(&mut self.system.left.stops);
                self.worker(worker).stopping = true;
            }
            Step::Unsubscribe { worker, from } => self.unsubscribe(worker, from),
            Step::Leave { worker } => {
                self.replace_owner(worker, Owner::Released);
                self.end_process(worker);
            }
            Step::ServerForgets => self.server_forgets(),
            Step::Tick { asleep } => self.tick(asleep),
            Step::TakeClaim { worker } => self.take_claim(worker),
            Step::Renew { worker } => self.renew(worker),
            Step::Renewed { worker } => self.renewed(worker),
            Step::LoseClaim { worker } => {
                self.replace_owner(worker, Owner::Former(worker));
                self.end_life(worker);
            }
            Step::Release { worker } => self.replace_owner(worker, Owner::Released),
        }
    }

    fn worker(&mut self, worker: WorkerId) -> &mut Worker {
        &mut self.system.workers[usize::from(worker)]
    }

    fn at(&self, read: u8) -> Option<Reading> {
        self.system.read(read).map(|read| read.at)
    }

    fn set(&mut self, read: u8, at: Reading) {
        if let Some(reading) = &mut self.system.reads[usize::from(read)] {
            reading.at = at;
        }
    }

    fn set_telling(&mut self, telling: u8, at: TellingStep) {
        if let Some(told) = &mut self.system.tellings[usize::from(telling)] {
            told.at = at;
        }
    }

    fn see(&mut self, sight: Sight) {
        if self.protocol.looks {
            self.system.sight = Some(sight);
        }
    }

    /// Makes states alike that differ in nothing which has an effect any more.
    fn forget_what_does_not_matter(&mut self) {
        let protocol = self.protocol;
        let System { origin, reads, tellings, left, .. } = &mut self.system;
        for telling in tellings.iter_mut() {
            // Its note is gone, so nothing comes of its acknowledgement.
            if protocol.keeps(Rule::NotesGoByTheirToken)
                && telling.is_some_and(|told| told.asker.is_none() && origin.note != Some(told.token))
            {
                *telling = None;
            }
        }
        // Only its death and its flights tell a gateway from another.
        if left.deaths == 0 {
            for telling in tellings.iter_mut().flatten() {
                telling.gateway = 0;
            }
            for read in reads.iter_mut().flatten().filter(|read| read.at == Reading::Origin) {
                read.gateway = 0;
            }
        }
    }
}

/// Reads: `Reader` and `Flights` in the gateway, `Worker::get` and `Worker::insert` in the worker.
impl Next<'_> {
    fn ask(&mut self, gateway: GatewayId, worker: Option<WorkerId>) {
        // Without rule 2, the row is read while the cache is still being asked.
        let reads_early = worker.is_some() && !self.protocol.keeps(Rule::TheRowIsReadAfterTheLease);
        let row = reads_early.then_some(self.system.origin.row);
        let at = worker.map_or(Reading::Origin, |worker| Reading::Get { worker });
        let read = Read { gateway, floor: self.system.answered, row, at };
        let Some(place) =
            (0..).zip(&self.system.reads).find_map(|(place, read)| read.is_none().then_some(place))
        else {
            return;
        };
        self.system.reads[usize::from(place)] = Some(read);
        if worker.is_none() {
            self.go_to_origin(place);
        }
    }

    fn answer_get(&mut self, read: u8) {
        let Some(Reading::Get { worker }) = self.at(read) else { return };
        let it = *self.system.worker(worker);
        if !it.proven {
            self.see(Sight::UnprovenAsked);
        } else if it.stopping {
            self.see(Sight::StoppingAsked);
        }
        match it.entry {
            Some(version) if self.protocol.hits(&it) => {
                if self.system.left.uploads == 0 && version == self.system.origin.row {
                    self.see(Sight::HitOfTheNewest);
                }
                if self.protocol.scene.standby && self.system.worker(1 - worker).lives() {
                    self.see(Sight::StandbyServes);
                }
                // What the read returns is settled now, however long the reply takes.
                self.returns(read, version);
            }
            None if self.protocol.grants(&it) && !it.leased => {
                self.worker(worker).leased = true;
                self.set(read, Reading::Miss { lease: Some(Lease::current_of(worker)) });
            }
            _ => self.set(read, Reading::Miss { lease: None }),
        }
    }

    fn miss_arrives(&mut self, read: u8) {
        let Some(asker) = self.system.read(read) else { return };
        let Reading::Miss { lease } = asker.at else { return };
        if let Some(lease) = lease {
            for other in self.system.reads.iter_mut().flatten().filter(|other| other.gateway == asker.gateway)
            {
                if let Reading::Leading { open, .. } = &mut other.at {
                    *open = false;
                }
            }
            self.set(read, Reading::Leading { lease, open: true, bytes: asker.row.is_some() });
            return;
        }
        let takes_in = |other: &Read| match other.at {
            Reading::Leading { open, .. } => open,
            Reading::Fill { .. } | Reading::Filled { .. } => {
                !self.protocol.keeps(Rule::FlightsCloseBeforeTheFill)
            }
            _ => false,
        };
        let flight = (0..).zip(&self.system.reads).find_map(|(leader, other)| {
            other.filter(|other| other.gateway == asker.gateway && takes_in(other)).map(|_| leader)
        });
        if let Some(leader) = flight {
            self.set(read, Reading::Aboard { leader });
        } else if self.protocol.keeps(Rule::OnlyTheLeaseFills) {
            self.go_to_origin(read);
        } else {
            self.fill_without_lease(read);
        }
    }

    /// Reads the origin for one read alone. Where no file can be gone, that is over at once: the later the
    /// row is read, the newer is what the read returns.
    fn go_to_origin(&mut self, read: u8) {
        self.set(read, Reading::Origin);
        self.set_row(read, None);
        if !self.protocol.scene.removes_files {
            self.read_row(read);
        }
    }

    fn set_row(&mut self, read: u8, row: Option<Version>) {
        if let Some(reading) = &mut self.system.reads[usize::from(read)] {
            reading.row = row;
        }
    }

    fn read_row(&mut self, read: u8) {
        self.set_row(read, Some(self.system.origin.row));
        if !self.protocol.scene.removes_files {
            self.read_file(read);
        }
    }

    /// Rule 5.
    fn read_file(&mut self, read: u8) {
        let Some(Read { row: Some(version), at, .. }) = self.system.read(read) else { return };
        if self.system.origin.removed & (1 << version) != 0 {
            if !self.protocol.keeps(Rule::GoneFilesAreLookedUpAgain) {
                self.system.verdict = Verdict::Failed;
            }
            self.see(Sight::RowReadAgain);
            self.set_row(read, None);
        } else if let Reading::Leading { lease, open, .. } = at {
            self.set(read, Reading::Leading { lease, open, bytes: true });
        } else {
            self.returns(read, version);
        }
    }

    fn send_fill(&mut self, read: u8, worker: Option<WorkerId>) {
        let Some(Reading::Leading { lease, .. }) = self.at(read) else { return };
        match worker {
            Some(worker) => self.set(read, Reading::Fill { lease: Some(lease), worker }),
            None => self.land(read, false),
        }
    }

    /// What others who miss may not do (rule 1).
    fn fill_without_lease(&mut self, read: u8) {
        self.set_row(read, Some(self.system.origin.row));
        match self.system.routes(Subscriptions::PUT).next().flatten() {
            Some(worker) => self.set(read, Reading::Fill { lease: None, worker }),
            None => self.go_to_origin(read),
        }
    }

    fn take_fill(&mut self, read: u8) {
        let Some(Read { row: Some(version), at: Reading::Fill { lease, worker }, .. }) =
            self.system.read(read)
        else {
            return;
        };
        let stored = self.fill(worker, lease, version);
        if lease == Some(Lease::VOID) && !stored {
            self.see(Sight::FillRefused);
        }
        self.set(read, Reading::Filled { stored });
    }

    fn take_late_fill(&mut self, worker: WorkerId) {
        if let Some((lease, version)) = self.worker(worker).late_fill.take()
            && self.fill(worker, Some(lease), version)
        {
            self.see(Sight::LateFillStored);
        }
    }

    /// Rule 2.
    fn fill(&mut self, worker: WorkerId, lease: Option<Lease>, version: Version) -> bool {
        let it = *self.system.worker(worker);
        let is_current = it.leased && lease == Some(Lease::current_of(worker));
        let is_good = is_current || lease.is_none() || !self.protocol.keeps(Rule::FillsNeedTheCurrentLease);
        if !is_good || !self.protocol.takes_fills(&it) {
            return false;
        }
        self.worker(worker).entry = Some(version);
        self.void_lease(worker);
        true
    }

    fn fill_answered(&mut self, read: u8) {
        let Some(Reading::Filled { stored }) = self.at(read) else { return };
        self.land(read, stored || !self.protocol.keeps(Rule::RefusedFillsAreNotShared));
    }

    fn fill_times_out(&mut self, read: u8) {
        self.leave_fill(read);
        self.land(read, !self.protocol.keeps(Rule::UnansweredFillsAreNotShared));
    }

    /// Nobody waits for this read's fill any more. One whose lease is void is refused, and that is all.
    fn leave_fill(&mut self, read: u8) {
        let Some(Read { row: Some(version), at: Reading::Fill { lease: Some(lease), worker }, .. }) =
            self.system.read(read)
        else {
            return;
        };
        if lease != Lease::VOID || !self.protocol.keeps(Rule::FillsNeedTheCurrentLease) {
            self.worker(worker).late_fill = Some((lease, version));
        }
    }

    /// A flight ends: its leader returns what it has read, and those aboard do so too, or each reads for
    /// itself (rule 4).
    fn land(&mut self, leader: u8, shared: bool) {
        let Some(version) = self.system.read(leader).and_then(|read| read.row) else { return };
        for passenger in 0..READS as u8 {
            if self.at(passenger) == Some(Reading::Aboard { leader }) {
                if shared {
                    self.see(Sight::FlightShared);
                    self.returns(passenger, version);
                } else {
                    self.see(Sight::FlightNotShared);
                    self.go_to_origin(passenger);
                }
            }
        }
        self.returns(leader, version);
    }

    /// A read ends.
    fn returns(&mut self, read: u8, version: Version) {
        if let Some(reading) = self.system.reads[usize::from(read)].take()
            && version < reading.floor
        {
            self.system.verdict = Verdict::Stale;
        }
        if self.protocol.counts_reads {
            self.answer(version);
        }
    }

    fn gateway_dies(&mut self, gateway: GatewayId) {
        spend(&mut self.system.left.deaths);
        for read in 0..READS as u8 {
            if self.system.read(read).is_some_and(|reading| reading.gateway == gateway) {
                self.leave_fill(read);
                self.system.reads[usize::from(read)] = None;
            }
        }
        for telling in &mut self.system.tellings {
            if telling.is_some_and(|told| told.gateway == gateway) {
                *telling = None;
            }
        }
    }
}

/// Changes: `Images::put`, `Pending` and `Teller` in the gateway, `Store::invalidate` in the worker.
impl Next<'_> {
    fn upload(&mut self, gateway: GatewayId) {
        spend(&mut self.system.left.uploads);
        let protocol = self.protocol;
        let origin = &mut self.system.origin;
        origin.last_token += 1;
        let token = origin.last_token;
        let at = if !protocol.keeps(Rule::NotedNotBeforeTheRow) {
            TellingStep::RowOwed
        } else if !protocol.keeps(Rule::NotedNotAfterTheRow) {
            TellingStep::NoteOwed
        } else {
            TellingStep::Due
        };
        if at != TellingStep::RowOwed {
            origin.row += 1;
        }
        if at != TellingStep::NoteOwed && protocol.keeps(Rule::ChangesAreNoted) {
            origin.note = Some(token);
        }
        let version = origin.row;
        if !protocol.keeps(Rule::AnsweredAfterTheAcknowledgement) {
            self.answer(version);
        }
        self.tell(Telling { gateway, token, asker: Some(version), at });
    }

    fn write_owed_row(&mut self, telling: u8) {
        self.system.origin.row += 1;
        let row = self.system.origin.row;
        if let Some(told) = &mut self.system.tellings[usize::from(telling)] {
            told.asker = Some(row);
            told.at = TellingStep::Due;
        }
    }

    fn write_owed_note(&mut self, telling: u8) {
        self.system.origin.note = self.system.telling(telling).map(|told| told.token);
        self.set_telling(telling, TellingStep::Due);
    }

    /// As `finish_unmet`: if nothing is pending, the cache was told of the row as it is.
    fn repeat(&mut self, gateway: GatewayId) {
        spend(&mut self.system.left.repeats);
        let origin = &mut self.system.origin;
        let row = origin.row;
        if origin.note.is_none() || !self.protocol.keeps(Rule::UnchangedRowsAreToldToo) {
            self.answer(row);
            return;
        }
        origin.last_token += 1;
        let token = origin.last_token;
        origin.note = Some(token);
        self.tell(Telling { gateway, token, asker: Some(row), at: TellingStep::Due });
    }

    fn tell(&mut self, telling: Telling) {
        if let Some(place) = self.system.tellings.iter_mut().find(|place| place.is_none()) {
            *place = Some(telling);
        }
    }

    fn send_invalidate(&mut self, telling: u8, worker: Option<WorkerId>) {
        if worker.is_none() {
            self.see(Sight::NoResponders);
        }
        let at = worker.map_or(TellingStep::Acknowledged, |worker| TellingStep::Invalidate { worker });
        self.set_telling(telling, at);
    }

    /// Rule 3.
    fn take_invalidate(&mut self, telling: u8) {
        let Some(Telling { at: TellingStep::Invalidate { worker }, token, .. }) =
            self.system.telling(telling)
        else {
            return;
        };
        let protocol = self.protocol;
        let mut acknowledges = protocol.acknowledges(self.system.worker(worker));
        if !acknowledges {
            self.see(Sight::NotAcknowledged);
        }
        if !protocol.keeps(Rule::AcknowledgedLast) {
            self.worker(worker).unfinished = Unfinished::Everything;
        } else if !protocol.keeps(Rule::InvalidationsAreOneStep) {
            self.worker(worker).entry = None;
            self.worker(worker).unfinished = Unfinished::Lease { token };
            acknowledges = false;
        } else {
            if protocol.keeps(Rule::InvalidationsRemoveTheEntry) {
                self.worker(worker).entry = None;
            }
            if protocol.keeps(Rule::InvalidationsVoidTheLease) {
                self.void_lease(worker);
            }
        }
        self.set_telling(telling, if acknowledges { TellingStep::Acknowledged } else { TellingStep::Due });
    }

    fn finish(&mut self, worker: WorkerId) {
        match std::mem::replace(&mut self.worker(worker).unfinished, Unfinished::Nothing) {
            Unfinished::Nothing => {}
            Unfinished::Everything => {
                self.worker(worker).entry = None;
                self.void_lease(worker);
            }
            Unfinished::Lease { token } => {
                self.void_lease(worker);
                for told in self.system.tellings.iter_mut().flatten().filter(|told| told.token == token) {
                    told.at = TellingStep::Acknowledged;
                }
            }
        }
    }

    fn settle(&mut self, telling: u8, note_goes: bool) {
        let Some(told) = self.system.tellings[usize::from(telling)].take() else { return };
        match (self.system.origin.note, told.asker) {
            (Some(token), Some(_)) if token != told.token => self.see(Sight::LaterNoteKept),
            (Some(_), None) => self.see(Sight::LeftBehindTold),
            _ => {}
        }
        let is_its_own = self.system.origin.note == Some(told.token);
        if note_goes && (is_its_own || !self.protocol.keeps(Rule::NotesGoByTheirToken)) {
            self.system.origin.note = None;
        }
        if let Some(version) = told.asker {
            self.answer(version);
        }
    }

    fn give_up(&mut self, telling: u8) {
        let told = self.system.tellings[usize::from(telling)].take();
        let Some(version) = told.and_then(|told| told.asker) else { return };
        self.see(Sight::StillTelling);
        if !self.protocol.keeps(Rule::SilenceIsNoAcknowledgement) {
            self.answer(version);
        }
    }

    /// An upload of this version is answered as done.
    fn answer(&mut self, version: Version) {
        self.system.answered = self.system.answered.max(version);
    }

    fn void_lease(&mut self, worker: WorkerId) {
        let was_out = std::mem::replace(&mut self.worker(worker).leased, false);
        if was_out && self.protocol.keeps(Rule::LeaseNumbersAreUsedOnce) {
            self.forget(Lease::current_of(worker));
        }
    }

    /// This number is not the current one any more.
    fn forget(&mut self, number: Lease) {
        let forget = |lease: &mut Lease| {
            if *lease == number {
                *lease = Lease::VOID;
            }
        };
        for read in self.system.reads.iter_mut().flatten() {
            match &mut read.at {
                Reading::Miss { lease } | Reading::Fill { lease, .. } => lease.iter_mut().for_each(forget),
                Reading::Leading { lease, .. } => forget(lease),
                Reading::Get { .. } | Reading::Aboard { .. } | Reading::Filled { .. } | Reading::Origin => {}
            }
        }
        for worker in &mut self.system.workers {
            if worker.late_fill.is_some_and(|(lease, _)| lease == number) {
                worker.late_fill = None;
            }
        }
    }
}

/// Connections, lives and stops: `Worker::prove_connections`, `run` and `live` in the worker.
impl Next<'_> {
    /// What has come into the worker's buffers stays there.
    fn lose_connection(&mut self, worker: WorkerId) {
        let it = self.worker(worker);
        it.connected = false;
        it.subscriptions = Subscriptions::NONE;
        if let Some(claim) = &mut it.claim {
            claim.renewal = None;
        }
    }

    fn reconnect(&mut self, worker: WorkerId) {
        let standby = self.protocol.scene.standby;
        let it = self.worker(worker);
        it.connected = true;
        it.proven = false;
        if standby {
            if let Some(claim) = &mut it.claim {
                claim.on_this_connection = false;
            }
        } else {
            // With nobody else there, whoever comes has the claim.
            it.claim = Some(Claim { age: 0, renewal: None, on_this_connection: true });
        }
        if !self.protocol.keeps(Rule::DroppedAfterTheProof) {
            self.drop_everything(worker);
        }
        self.subscribe_at_once(worker);
    }

    /// Subscribes, in a scene that does not show how.
    fn subscribe_at_once(&mut self, worker: WorkerId) {
        let Scene { one_by_one, .. } = self.protocol.scene;
        let it = self.worker(worker);
        if !one_by_one && it.lives() {
            it.subscriptions = Subscriptions::ALL;
        }
    }

    /// Rule 7.
    fn prove(&mut self, worker: WorkerId) {
        self.worker(worker).proven = true;
        if self.protocol.keeps(Rule::DroppedAfterTheProof) {
            self.drop_everything(worker);
        }
    }

    fn drop_everything(&mut self, worker: WorkerId) {
        if self.protocol.keeps(Rule::ReconnectionsDropEntries) {
            self.worker(worker).entry = None;
        }
        if self.protocol.keeps(Rule::ReconnectionsVoidLeases) {
            self.void_lease(worker);
        }
    }

    /// Rule 8.
    fn unsubscribe(&mut self, worker: WorkerId, from: Subscriptions) {
        let Scene { one_by_one, .. } = self.protocol.scene;
        let it = self.worker(worker);
        it.subscriptions = it.subscriptions.without(from);
        if !one_by_one && from != Subscriptions::INVALIDATE {
            it.subscriptions = it.subscriptions.without(Subscriptions::GET).without(Subscriptions::PUT);
        }
    }

    /// A life of a worker ends, and with it all that it held and all in its buffers.
    fn end_life(&mut self, worker: WorkerId) {
        let drops = self.protocol.keeps(Rule::LostClaimsDropEverything);
        let it = self.worker(worker);
        if drops {
            it.entry = None;
            it.leased = false;
            it.proven = false;
        }
        it.late_fill = None;
        it.subscriptions = Subscriptions::NONE;
        it.claim = None;
        it.unchanged = 0;
        it.unfinished = Unfinished::Nothing;
        if drops && self.protocol.keeps(Rule::LaterLivesUseOtherLeaseNumbers) {
            self.forget(Lease::current_of(worker));
        }
        for read in 0..READS as u8 {
            match self.at(read) {
                Some(Reading::Get { worker: asked }) if asked == worker => self.go_to_origin(read),
                Some(Reading::Fill { worker: asked, .. }) if asked == worker => self.land(read, false),
                _ => {}
            }
        }
        for told in self.system.tellings.iter_mut().flatten() {
            if told.at == (TellingStep::Invalidate { worker }) {
                told.at = TellingStep::Due;
            }
        }
    }

    fn end_process(&mut self, worker: WorkerId) {
        self.end_life(worker);
        self.lose_connection(worker);
        self.worker(worker).stopping = false;
    }

    fn server_forgets(&mut self) {
        spend(&mut self.system.left.wipes);
        self.system.owner = Owner::Nobody;
        for worker in self.protocol.workers() {
            self.lose_connection(worker);
            self.worker(worker).unchanged = 0;
        }
    }
}

/// The claim: `claim.rs` in the worker.
impl Next<'_> {
    fn tick(&mut self, asleep: Option<WorkerId>) {
        for worker in self.protocol.workers().filter(|worker| asleep != Some(*worker)) {
            let it = self.worker(worker);
            match &mut it.claim {
                Some(claim) => {
                    claim.age = (claim.age + 1).min(CLAIM_TICKS + 1);
                    // What is acknowledged even later has run out already.
                    claim.renewal = claim.renewal.map(|age| age + 1).filter(|age| *age <= CLAIM_TICKS);
                }
                None => it.unchanged = (it.unchanged + 1).min(CLAIM_TICKS + MARGIN_TICKS),
            }
        }
    }

    /// By compare-and-set, so nobody has written the entry since this worker saw it.
    fn take_claim(&mut self, worker: WorkerId) {
        self.system.owner = Owner::Life(worker);
        self.worker(1 - worker).unchanged = 0;
        let it = self.worker(worker);
        it.claim = Some(Claim { age: 0, renewal: None, on_this_connection: true });
        it.unchanged = 0;
        self.subscribe_at_once(worker);
    }

    fn renew(&mut self, worker: WorkerId) {
        if let Some(claim) = &mut self.worker(worker).claim {
            claim.renewal = Some(0);
        }
        self.worker(1 - worker).unchanged = 0;
    }

    fn renewed(&mut self, worker: WorkerId) {
        if !self.system.worker(worker).has_valid_claim() {
            self.see(Sight::ClaimCameBack);
        }
        let from_before = self.protocol.keeps(Rule::ClaimsCountFromBeforeTheRenewal);
        if let Some(claim) = &mut self.worker(worker).claim
            && let Some(age) = claim.renewal.take()
        {
            claim.age = if from_before { age } else { 0 };
            claim.on_this_connection = true;
        }
    }

    fn replace_owner(&mut self, worker: WorkerId, owner: Owner) {
        if self.system.owner == Owner::Life(worker) {
            self.system.owner = owner;
        }
    }
}

fn spend(budget: &mut u8) {
    if *budget != ANY {
        *budget -= 1;
    }
}
