//! What follows from a step.

use crate::protocol::{Protocol, Scene, Step};
use crate::rules::Rule;
use crate::state::{
    ANY, Asking, AskingStep, CLAIM_TICKS, Claim, Copy, Drop, DropFor, GatewayId, Holders, Lease,
    MARGIN_TICKS, NearLease, Owner, READS, Read, Reading, Sight, Subscriptions, System, TELLINGS, Telling,
    TellingStep, Told, Unfinished, Verdict, Version, Waiting, Worker, WorkerId,
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
            Step::NearHit { gateway } => self.near_hit(gateway),
            Step::AskForMore { gateway, worker } => self.ask_for_more(gateway, worker),
            Step::AnswerRenewal { asking } => self.answer_renewal(asking),
            Step::NoteHolder { asking } => self.note_holder(asking),
            Step::Keep { asking } => self.keep(asking),
            Step::AskingTimesOut { asking } => *self.asking(asking) = None,
            Step::DropCopy { drop, gateway } => self.drop_copy(drop, gateway),
            Step::CopyDropped { drop, gateway } | Step::NobodyDrops { drop, gateway } => {
                self.copy_dropped(drop, gateway);
            }
            Step::HolderWaitedOut { telling, gateway } => self.holder_waited_out(telling, gateway),
            Step::PredecessorsWaitedOut { worker } => self.predecessors_waited_out(worker),
            Step::NobodyWaitedOut { telling } => self.nobody_waited_out(telling),
            Step::Acknowledge { telling } => self.acknowledge(telling),
            Step::DropForNobody { worker } => self.worker(worker).late_drop = self.drop_of_holders(worker),
            Step::Upload { gateway } => self.upload(gateway),
            Step::Repeat { gateway } => self.repeat(gateway),
            Step::WriteOwedRow { telling } => self.write_owed_row(telling),
            Step::WriteOwedNote { telling } => self.write_owed_note(telling),
            Step::SendInvalidate { telling, worker } => self.send_invalidate(telling, worker),
            Step::TakeInvalidate { telling } => self.take_invalidate(telling),
            Step::InvalidateTimesOut { telling } => self.set_telling(telling, TellingStep::Due),
            Step::ReadOwner { telling } => self.read_owner(telling),
            Step::MakeSure { telling } => {
                self.make_sure();
                self.is_sure(telling);
            }
            Step::TakeEarlyRead { telling } => {
                let named = self.system.early.named;
                if let Some(told) = &mut self.system.tellings[usize::from(telling)] {
                    told.named = named;
                }
            }
            Step::TakeEarlyWrite { telling } | Step::TakeReadForAWrite { telling } => self.is_sure(telling),
            Step::ReadOwnerEarly => self.system.early.named = self.owning_life(),
            Step::MakeSureEarly => {
                self.make_sure();
                self.system.early.was_sure = true;
            }
            Step::Settle { telling, note_goes } => self.settle(telling, note_goes),
            Step::GiveUp { telling } => self.give_up(telling),
            Step::TellLeftBehind { gateway } => {
                if let Some(token) = self.system.origin.note {
                    self.tell(Telling { gateway, token, asker: None, at: TellingStep::Due, named: None });
                }
            }
            Step::RemoveFile { version } => self.system.origin.removed |= 1 << version,
            Step::GatewayDies { gateway } => self.gateway_dies(gateway),
            Step::Evict { worker } => {
                self.worker(worker).entry = None;
                if !self.protocol.keeps(Rule::HoldersOutliveEntries) {
                    self.worker(worker).holders = Holders::default();
                }
            }
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
            Step::StreamForgets => {
                spend(&mut self.system.left.takebacks);
                self.write_entry(Owner::Unknown);
            }
            Step::TickInAPause { paused } => {
                spend(&mut self.system.left.pauses);
                let it = self.worker(paused);
                it.was_paused = it.lives();
                self.tick(Some(paused));
            }
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
        if protocol.scene.near {
            self.forget_near_leases_that_do_not_matter();
        }
        let System { origin, tellings, left, .. } = &mut self.system;
        for telling in tellings.iter_mut() {
            // Its note is gone, so nothing comes of its acknowledgement.
            if protocol.keeps(Rule::NotesGoByTheirToken)
                && telling.is_some_and(|told| told.asker.is_none() && origin.note != Some(told.token))
            {
                *telling = None;
            }
        }
        let is_told_of_no_more = left.uploads == 0
            && left.repeats == 0
            && origin.note.is_none()
            && tellings.iter().all(Option::is_none);
        if !protocol.scene.standby || is_told_of_no_more {
            self.system.unchanged = 0;
        }
        // In a scene without time, nobody looks at the entry.
        if !protocol.scene.standby {
            self.system.owner = Owner::Life(0);
        }
        let System { reads, tellings, left, .. } = &mut self.system;
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

/// Near leases: `Near` in the gateway, `holders.rs` and `near.rs` in the worker.
impl Next<'_> {
    fn asking(&mut self, asking: u8) -> &mut Option<Asking> {
        &mut self.system.asking[usize::from(asking)]
    }

    /// To be called before a request is sent.
    fn near_lease(&self) -> Option<NearLease> {
        self.protocol.scene.near.then(NearLease::default)
    }

    fn near_hit(&mut self, gateway: GatewayId) {
        let Some(copy) = self.system.copies[usize::from(gateway)] else { return };
        if copy.version < self.system.answered {
            self.system.verdict = Verdict::Stale;
        }
        if self.system.left.uploads == 0 && copy.version == self.system.origin.row {
            let is_gone = self.system.workers.iter().all(|worker| worker.entry.is_none());
            self.see(if is_gone { Sight::CopyWithoutEntry } else { Sight::NearHitOfTheNewest });
        }
    }

    fn note_asking(&mut self, asking: Asking) {
        if !self.protocol.has_room_to_ask(&self.system) {
            return;
        }
        if let Some(place) = self.system.asking.iter_mut().find(|place| place.is_none()) {
            *place = Some(asking);
        }
    }

    fn ask_for_more(&mut self, gateway: GatewayId, worker: WorkerId) {
        if let (Some(copy), Some(lease)) = (self.system.copies[usize::from(gateway)], self.near_lease()) {
            let at = AskingStep::Renewal { worker };
            self.note_asking(Asking { gateway, version: copy.version, lease, at });
        }
    }

    fn answer_renewal(&mut self, asking: u8) {
        let Some(asked) = *self.asking(asking) else { return };
        let AskingStep::Renewal { worker } = asked.at else { return };
        *self.asking(asking) = None;
        if self.protocol.renews(self.system.worker(worker), asked.version) {
            self.grant(worker, asked.gateway);
            *self.asking(asking) = Some(Asking { at: AskingStep::Renewed, ..asked });
        }
    }

    /// A get is answered with a hit, and a lease on it.
    fn answer_with_lease(
        &mut self,
        worker: WorkerId,
        gateway: GatewayId,
        near: Option<NearLease>,
        version: Version,
    ) {
        let at = if self.protocol.keeps(Rule::LookingUpAndNotingAreOneStep) {
            self.grant(worker, gateway);
            AskingStep::Granted
        } else {
            AskingStep::LookedUp { worker }
        };
        // Otherwise a drop has spoiled it.
        if let Some(lease) = near {
            self.note_asking(Asking { gateway, version, lease, at });
        }
    }

    fn note_holder(&mut self, asking: u8) {
        let Some(asked) = *self.asking(asking) else { return };
        let AskingStep::LookedUp { worker } = asked.at else { return };
        self.grant(worker, asked.gateway);
        *self.asking(asking) = Some(Asking { at: AskingStep::Granted, ..asked });
    }

    fn grant(&mut self, worker: WorkerId, gateway: GatewayId) {
        let it = self.worker(worker);
        it.holders.set(gateway, true);
        let later = |drop: &mut Drop| {
            if let Some(told) = drop.told_mut(gateway) {
                told.has_a_later_grant = true;
            }
        };
        later(&mut it.late_drop);
        for told in self.system.tellings.iter_mut().flatten() {
            match &mut told.at {
                TellingStep::Dropping { worker: by, drop } if *by == worker => later(drop),
                _ => {}
            }
        }
    }

    fn keep(&mut self, asking: u8) {
        let Some(asked) = *self.asking(asking) else { return };
        if asked.at == AskingStep::Granted && !self.protocol.keeps(Rule::CheckingAndKeepingAreOneStep) {
            *self.asking(asking) = Some(Asking { at: AskingStep::Checked, ..asked });
            return;
        }
        *self.asking(asking) = None;
        if asked.at != AskingStep::Renewed {
            self.keep_copy(asked.gateway, asked.version, asked.lease);
        } else if let Some(copy) = &mut self.system.copies[usize::from(asked.gateway)]
            && copy.version == asked.version
        {
            copy.lease = if copy.is_over { asked.lease } else { copy.lease.or_later(asked.lease) };
            copy.is_over = false;
            self.see(Sight::LeaseRenewed);
        }
    }

    fn keep_copy(&mut self, gateway: GatewayId, version: Version, lease: NearLease) {
        self.system.copies[usize::from(gateway)] = Some(Copy { version, lease, is_over: false });
    }

    /// Whom an invalidation has to tell. Their leases will have ended when it has waited for them.
    fn drop_of_holders(&mut self, worker: WorkerId) -> Drop {
        let mut drop = Drop::NOBODY;
        for gateway in 0..2 {
            if self.system.worker(worker).holders.has(gateway) {
                *drop.told_mut(gateway) = Some(Told::default());
            }
        }
        if !self.protocol.keeps(Rule::HoldersStayUntilTheyHaveDropped) {
            self.worker(worker).holders = Holders::default();
        }
        drop
    }

    /// As `Near::drop_copies`.
    fn drop_copy(&mut self, which: DropFor, gateway: GatewayId) {
        self.system.copies[usize::from(gateway)] = None;
        let protocol = self.protocol;
        let is_spoiled = |asked: &Asking| {
            asked.gateway == gateway
                && match asked.at {
                    AskingStep::Checked => false,
                    AskingStep::Renewal { .. } | AskingStep::Renewed => {
                        protocol.keeps(Rule::DropsSpoilRenewals)
                    }
                    AskingStep::LookedUp { .. } | AskingStep::Granted => {
                        protocol.keeps(Rule::DropsSpoilWhatIsAskedFor)
                    }
                }
        };
        let mut spoils = false;
        for asking in &mut self.system.asking {
            spoils |= asking.take_if(|asked| is_spoiled(asked)).is_some();
        }
        if protocol.keeps(Rule::DropsSpoilWhatIsAskedFor) {
            for read in self.system.reads.iter_mut().flatten().filter(|read| read.gateway == gateway) {
                spoils |= read.near.take().is_some();
            }
        }
        if spoils {
            self.see(Sight::GrantSpoiled);
        }
        for other in 0..2 {
            if (other == gateway || !protocol.keeps(Rule::HoldersAreToldApart))
                && let Some(Some(told)) = self.told(which, other)
            {
                told.has_dropped = true;
            }
        }
    }

    fn told(&mut self, which: DropFor, gateway: GatewayId) -> Option<&mut Option<Told>> {
        let drop = match which {
            DropFor::Nobody(worker) => &mut self.worker(worker).late_drop,
            DropFor::Telling(telling) => match &mut self.system.tellings[usize::from(telling)] {
                Some(Telling { at: TellingStep::Dropping { drop, .. }, .. }) => drop,
                _ => return None,
            },
        };
        Some(drop.told_mut(gateway))
    }

    /// As `Holders::acknowledged`.
    fn copy_dropped(&mut self, which: DropFor, gateway: GatewayId) {
        let Some(worker) = self.who_drops(which) else { return };
        let Some(told) = self.told(which, gateway).and_then(Option::take) else { return };
        if told.has_a_later_grant && self.protocol.keeps(Rule::LaterGrantsAreLeft) {
            self.see(Sight::LaterGrantLeft);
        } else {
            self.worker(worker).holders.set(gateway, false);
        }
    }

    fn who_drops(&self, which: DropFor) -> Option<WorkerId> {
        match which {
            DropFor::Nobody(worker) => Some(worker),
            DropFor::Telling(telling) => match self.system.telling(telling)?.at {
                TellingStep::Dropping { worker, .. } => Some(worker),
                _ => None,
            },
        }
    }

    fn holder_waited_out(&mut self, telling: u8, gateway: GatewayId) {
        self.run_out(Waiting::Telling(telling), Some(gateway));
        let Some(worker) = self.who_drops(DropFor::Telling(telling)) else { return };
        if let Some(told) = self.told(DropFor::Telling(telling), gateway).and_then(Option::take)
            && !told.has_a_later_grant
        {
            self.worker(worker).holders.set(gateway, false);
        }
        self.see(Sight::HolderWaitedOut);
    }

    fn predecessors_waited_out(&mut self, worker: WorkerId) {
        self.run_out(Waiting::Worker(worker), None);
        self.worker(worker).waits_for_leases_before = false;
        self.see(Sight::PredecessorsWaitedOut);
    }

    fn nobody_waited_out(&mut self, telling: u8) {
        self.run_out(Waiting::Telling(telling), None);
        self.set_telling(telling, TellingStep::Acknowledged);
        self.see(Sight::NobodyWaitedOut);
    }

    fn acknowledge(&mut self, telling: u8) {
        let Some(worker) = self.who_drops(DropFor::Telling(telling)) else { return };
        let acknowledges = self.protocol.acknowledges(self.system.worker(worker));
        self.see(if acknowledges { Sight::HoldersHaveDropped } else { Sight::NotAcknowledged });
        if acknowledges {
            self.acknowledged_by(telling, worker);
        } else {
            self.set_telling(telling, TellingStep::Due);
        }
    }

    /// A wait begins: for whatever has been asked for by now, whoever grants it.
    fn begin_to_wait(&mut self, wait: Waiting) {
        for (_, lease) in self.system.near_leases() {
            *lease = lease.and_before(wait);
        }
    }

    /// A wait for the holders that `drop` names begins: for what they have been granted by now.
    fn begin_to_wait_for(&mut self, drop: Drop, wait: Waiting) {
        let is_told = |gateway: GatewayId| drop.told(gateway).is_some();
        for (gateway, copy) in (0..).zip(&mut self.system.copies) {
            if let Some(copy) = copy.as_mut().filter(|_| is_told(gateway)) {
                copy.lease = copy.lease.and_before(wait);
            }
        }
        for asked in self.system.asking.iter_mut().flatten().filter(|asked| is_told(asked.gateway)) {
            match asked.at {
                AskingStep::Renewal { .. } | AskingStep::LookedUp { .. } => {}
                AskingStep::Granted | AskingStep::Renewed | AskingStep::Checked => {
                    asked.lease = asked.lease.and_before(wait);
                }
            }
        }
        for read in self.system.reads.iter_mut().flatten().filter(|read| is_told(read.gateway)) {
            if let (Reading::Filled { .. }, Some(lease)) = (read.at, &mut read.near) {
                *lease = lease.and_before(wait);
            }
        }
    }

    /// A wait is over, for one gateway or for each, and so are the leases that it was for.
    fn run_out(&mut self, wait: Waiting, only: Option<GatewayId>) {
        let protocol = self.protocol;
        // By a clock that is slower than that of whoever waits, a lease lasts a little longer.
        if !protocol.keeps(Rule::WaitsForLeasesHaveAMargin) {
            return;
        }
        let is_over = |gateway: GatewayId, lease: NearLease| {
            lease.ends_before(wait) && only.is_none_or(|only| only == gateway)
        };
        if protocol.keeps(Rule::CopiesEndWithTheirLease) {
            for (gateway, copy) in (0..).zip(&mut self.system.copies) {
                if copy.is_some_and(|copy| is_over(gateway, copy.lease)) {
                    // Its bytes stay, to be served again after a renewal: as after a get that finds them there.
                    *copy = copy
                        .filter(|_| !protocol.keeps(Rule::RenewalsNeedTheTag))
                        .map(|copy| Copy { is_over: true, ..copy });
                }
            }
        }
        if protocol.keeps(Rule::NearLeasesCountFromBeforeTheRequest) {
            for asking in &mut self.system.asking {
                asking.take_if(|asked| is_over(asked.gateway, asked.lease));
            }
            for read in self.system.reads.iter_mut().flatten() {
                read.near.take_if(|lease| is_over(read.gateway, *lease));
            }
        }
    }

    /// Makes states alike that differ only in leases and waits of which nothing can come any more.
    fn forget_near_leases_that_do_not_matter(&mut self) {
        let is_last = self.system.left.uploads == 0 && !self.protocol.looks;
        // The last image that there is can't be an old one.
        let row = is_last.then_some(self.system.origin.row);
        let mut holds = Holders::default();
        for (gateway, copy) in (0..).zip(&mut self.system.copies) {
            copy.take_if(|copy| Some(copy.version) == row);
            holds.set(gateway, copy.is_some());
        }
        for asking in &mut self.system.asking {
            asking.take_if(|asked| Some(asked.version) == row);
            if let Some(asked) = asking
                && !matches!(asked.at, AskingStep::Renewal { .. })
            {
                holds.set(asked.gateway, true);
            }
        }
        for read in self.system.reads.iter_mut().flatten() {
            let is_old = row.is_none() || read.row != row;
            let asks = match read.at {
                Reading::Get { .. } => true,
                Reading::Fill { .. } | Reading::Filled { stored: true } => is_old,
                _ => false,
            };
            read.near = read.near.filter(|_| asks);
            if read.near.is_some() && read.at == (Reading::Filled { stored: true }) {
                holds.set(read.gateway, true);
            }
        }
        // Whoever holds nothing that was granted may be told to drop it, or waited for, with no effect but a
        // delay. And an acknowledgement may be delayed without that.
        for worker in &mut self.system.workers {
            worker.holders = worker.holders.and(holds);
        }
        self.forget_waits_for_nothing();
    }

    /// Nothing comes of a wait when each lease that ends before it is gone.
    fn forget_waits_for_nothing(&mut self) {
        let System { tellings, workers, .. } = self.system;
        let goes_on = |gateway: GatewayId, wait: Waiting| match wait {
            Waiting::Worker(worker) => workers[usize::from(worker)].waits_for_leases_before,
            Waiting::Telling(place) => match tellings[usize::from(place)].map(|told| told.at) {
                Some(TellingStep::Dropping { drop, .. }) => drop.told(gateway).is_some(),
                Some(TellingStep::Sure) => true,
                _ => false,
            },
        };
        let mut waited_for = NearLease::default();
        for (gateway, lease) in self.system.near_leases() {
            lease.retain(|wait| goes_on(gateway, wait));
            waited_for = waited_for.or_earlier(*lease);
        }
        for worker in self.protocol.workers() {
            self.worker(worker).waits_for_leases_before &= waited_for.ends_before(Waiting::Worker(worker));
        }
        for place in 0..TELLINGS as u8 {
            if let Some(told) = &mut self.system.tellings[usize::from(place)]
                && told.at == TellingStep::Sure
                && !waited_for.ends_before(Waiting::Telling(place))
            {
                told.at = TellingStep::Acknowledged;
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
        let read = Read { gateway, floor: self.system.answered, row, at, near: self.near_lease() };
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
        let Some(Read { gateway, at: Reading::Get { worker }, near, .. }) = self.system.read(read) else {
            return;
        };
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
                if self.protocol.scene.near {
                    self.answer_with_lease(worker, gateway, near, version);
                }
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
        let near = self.near_lease();
        match worker {
            Some(worker) => {
                self.set(read, Reading::Fill { lease: Some(lease), worker });
                if let Some(reading) = &mut self.system.reads[usize::from(read)] {
                    reading.near = near;
                }
            }
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
        let Some(Read { gateway, row: Some(version), at: Reading::Fill { lease, worker }, .. }) =
            self.system.read(read)
        else {
            return;
        };
        let stored = self.fill(worker, lease, version);
        if lease == Some(Lease::VOID) && !stored {
            self.see(Sight::FillRefused);
        }
        if stored && self.protocol.scene.near && self.protocol.keeps(Rule::HoldersByFillsAreNoted) {
            self.grant(worker, gateway);
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
        let Some(Read { gateway, row: Some(version), at: Reading::Filled { stored }, near, .. }) =
            self.system.read(read)
        else {
            return;
        };
        if let Some(lease) = near.filter(|_| stored) {
            self.keep_copy(gateway, version, lease);
        }
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
        self.forget_holder(gateway);
    }
}

/// Near leases across lives.
impl Next<'_> {
    /// The next life of a gateway is another holder, and of this one no copy is left.
    fn forget_holder(&mut self, gateway: GatewayId) {
        self.system.copies[usize::from(gateway)] = None;
        for asking in &mut self.system.asking {
            asking.take_if(|asked| asked.gateway == gateway);
        }
        for worker in &mut self.system.workers {
            worker.holders.set(gateway, false);
            *worker.late_drop.told_mut(gateway) = None;
        }
        for told in self.system.tellings.iter_mut().flatten() {
            if let TellingStep::Dropping { drop, .. } = &mut told.at {
                *drop.told_mut(gateway) = None;
            }
        }
    }

    /// A worker has won its claim, and does not know what its predecessors have granted.
    fn wait_for_leases_before(&mut self, worker: WorkerId) {
        if self.protocol.scene.near && self.protocol.keeps(Rule::NewWorkersWait) {
            self.worker(worker).waits_for_leases_before = true;
            self.begin_to_wait(Waiting::Worker(worker));
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
        self.tell(Telling { gateway, token, asker: Some(version), at, named: None });
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
        self.tell(Telling { gateway, token, asker: Some(row), at: TellingStep::Due, named: None });
    }

    fn tell(&mut self, telling: Telling) {
        if let Some(place) = self.system.tellings.iter_mut().find(|place| place.is_none()) {
            *place = Some(telling);
        }
    }

    fn send_invalidate(&mut self, telling: u8, worker: Option<WorkerId>) {
        match worker {
            Some(worker) => self.set_telling(telling, TellingStep::Invalidate { worker }),
            None => self.is_sure(telling),
        }
    }

    /// Nobody serves, as far as this telling knows.
    fn is_sure(&mut self, telling: u8) {
        if self.protocol.scene.near && self.protocol.keeps(Rule::NobodyIsWaitedOut) {
            self.set_telling(telling, TellingStep::Sure);
            self.begin_to_wait(Waiting::Telling(telling));
        } else {
            self.set_telling(telling, TellingStep::Acknowledged);
        }
    }

    /// The write of a gateway: by compare-and-set, so nobody has written the entry since the gateway saw it.
    fn make_sure(&mut self) {
        let is_free = self.system.owner == Owner::Released;
        if !self.protocol.scene.standby && self.system.worker(0).lives() {
            // It is cut off, and its claim has run out meanwhile.
            self.end_life(0);
        }
        let may_come_back = self.protocol.workers().any(|worker| self.system.worker(worker).lives());
        if !is_free && may_come_back {
            self.see(Sight::EndedByGateway);
        } else {
            self.see(Sight::NobodySure);
        }
        self.write_entry(Owner::Released);
    }

    fn owning_life(&self) -> Option<WorkerId> {
        match self.system.owner {
            Owner::Life(worker) => Some(worker),
            _ => None,
        }
    }

    fn read_owner(&mut self, telling: u8) {
        let owner = self.owning_life();
        let Some(told) = &mut self.system.tellings[usize::from(telling)] else { return };
        told.named = owner;
        if let TellingStep::Unconfirmed { worker } = told.at {
            told.at = if owner == Some(worker) { TellingStep::Acknowledged } else { TellingStep::Due };
        }
    }

    /// The acknowledgement of a worker arrives.
    fn acknowledged_by(&mut self, telling: u8, worker: WorkerId) {
        let was_paused = self.system.worker(worker).was_paused;
        if was_paused {
            self.see(Sight::PausedAcknowledged);
        }
        let named = self.system.telling(telling).and_then(|told| told.named);
        let counts = !self.protocol.reads_owner() || named == Some(worker);
        let at = if counts { TellingStep::Acknowledged } else { TellingStep::Unconfirmed { worker } };
        self.set_telling(telling, at);
    }

    /// Rule 3.
    fn take_invalidate(&mut self, telling: u8) {
        let Some(Telling { gateway, at: TellingStep::Invalidate { worker }, token, asker, .. }) =
            self.system.telling(telling)
        else {
            return;
        };
        let protocol = self.protocol;
        let was_resident = self.system.worker(worker).entry.is_some();
        let drop = self.drop_of_holders(worker);
        let seen_first = !protocol.keeps(Rule::RemovingAndSeeingWhoHoldsAreOneStep);
        let mut acknowledges = protocol.acknowledges(self.system.worker(worker));
        if !protocol.keeps(Rule::AcknowledgedLast) {
            self.worker(worker).unfinished = Unfinished::Everything;
        } else if !protocol.keeps(Rule::InvalidationsAreOneStep) {
            self.worker(worker).entry = None;
            self.worker(worker).unfinished = Unfinished::Lease { token };
            acknowledges = false;
        } else if seen_first {
            self.worker(worker).unfinished = Unfinished::Removal;
        } else {
            if protocol.keeps(Rule::InvalidationsRemoveTheEntry) {
                self.worker(worker).entry = None;
            }
            if protocol.keeps(Rule::InvalidationsVoidTheLease) {
                self.void_lease(worker);
            }
            if let (true, Some(version)) = (protocol.scene.refills && was_resident, asker) {
                self.lease_to_uploader(worker, gateway, version);
            }
        }
        if protocol.scene.near && protocol.keeps(Rule::HoldersAreWaitedFor) {
            self.set_telling(telling, TellingStep::Dropping { worker, drop });
            self.begin_to_wait_for(drop, Waiting::Telling(telling));
            return;
        }
        if acknowledges {
            self.acknowledged_by(telling, worker);
        } else {
            self.see(Sight::NotAcknowledged);
            self.set_telling(telling, TellingStep::Due);
        }
    }

    /// The lease that an upload of `version` gets with its acknowledgement. It goes on as that of a read which nobody waits
    /// for; the acknowledgement may come to the gateway at any moment from now on.
    fn lease_to_uploader(&mut self, worker: WorkerId, gateway: GatewayId, version: Version) {
        let it = self.system.worker(worker);
        let Some(place) = self.system.reads.iter().position(Option::is_none) else { return };
        if it.leased || !self.protocol.grants(it) {
            return;
        }
        self.worker(worker).leased = true;
        self.see(Sight::LeaseWithAnAcknowledgement);
        // Without this part, it fills with the bytes that it has at hand.
        let row = (!self.protocol.keeps(Rule::UploadsReadTheRowToo)).then_some(version);
        let lease = Some(Lease::current_of(worker));
        self.system.reads[place] =
            Some(Read { gateway, floor: 0, row, at: Reading::Miss { lease }, near: None });
    }

    fn finish(&mut self, worker: WorkerId) {
        match std::mem::replace(&mut self.worker(worker).unfinished, Unfinished::Nothing) {
            Unfinished::Nothing => {}
            Unfinished::Everything | Unfinished::Removal => {
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
            let claim = Claim { age: 0, renewal: None, on_this_connection: true };
            if it.claim.replace(claim).is_none() {
                self.wait_for_leases_before(worker);
            }
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
        if !self.protocol.keeps(Rule::HoldersOutliveConnections) {
            self.worker(worker).holders = Holders::default();
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
        it.holders = Holders::default();
        it.waits_for_leases_before = false;
        it.late_drop = Drop::NOBODY;
        it.subscriptions = Subscriptions::NONE;
        it.claim = None;
        it.unchanged = 0;
        it.was_paused = false;
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
            match told.at {
                TellingStep::Invalidate { worker: asked }
                | TellingStep::Dropping { worker: asked, .. }
                | TellingStep::Unconfirmed { worker: asked }
                    if asked == worker =>
                {
                    told.at = TellingStep::Due;
                }
                _ => {}
            }
        }
        // Its next life is another one.
        self.system.early.named.take_if(|named| *named == worker);
        for told in self.system.tellings.iter_mut().flatten() {
            told.named.take_if(|named| *named == worker);
        }
        for asking in &mut self.system.asking {
            asking.take_if(|asked| match asked.at {
                AskingStep::Renewal { worker: asked } | AskingStep::LookedUp { worker: asked } => {
                    asked == worker
                }
                _ => false,
            });
        }
    }

    fn end_process(&mut self, worker: WorkerId) {
        self.end_life(worker);
        self.lose_connection(worker);
        self.worker(worker).stopping = false;
    }

    fn server_forgets(&mut self) {
        spend(&mut self.system.left.wipes);
        self.write_entry(Owner::Nobody);
        for worker in self.protocol.workers() {
            self.lose_connection(worker);
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
        self.system.unchanged = (self.system.unchanged + 1).min(CLAIM_TICKS + MARGIN_TICKS);
    }

    /// Whoever waits for the owner sees another entry from now on.
    fn write_entry(&mut self, owner: Owner) {
        self.system.owner = owner;
        self.system.unchanged = 0;
        for worker in self.protocol.workers() {
            self.worker(worker).unchanged = 0;
        }
        if owner == Owner::Released && !self.protocol.keeps(Rule::NobodyIsSureByAWrite) {
            self.system.early.was_free = true;
        }
    }

    /// By compare-and-set, so nobody has written the entry since this worker saw it.
    fn take_claim(&mut self, worker: WorkerId) {
        spend(&mut self.system.left.takeovers);
        self.write_entry(Owner::Life(worker));
        let it = self.worker(worker);
        it.claim = Some(Claim { age: 0, renewal: None, on_this_connection: true });
        it.unchanged = 0;
        self.wait_for_leases_before(worker);
        self.subscribe_at_once(worker);
    }

    fn renew(&mut self, worker: WorkerId) {
        let it = self.worker(worker);
        it.was_paused = false;
        if let Some(claim) = &mut it.claim {
            claim.renewal = Some(0);
        }
        self.write_entry(Owner::Life(worker));
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
        if self.system.owner != Owner::Life(worker) {
            return;
        }
        if owner == Owner::Released {
            self.write_entry(owner);
        } else {
            // Nothing is written: only what becomes of that life is noted.
            self.system.owner = owner;
        }
    }
}

fn spend(budget: &mut u8) {
    if *budget != ANY {
        *budget -= 1;
    }
}
