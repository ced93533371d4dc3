//! The rules of "Never a stale image" in ARCHITECTURE.md, each in the parts that can be left out.

/// A part of a rule that a test leaves out. The number in front is the rule's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// 1: a lease's number is never used twice.
    LeaseNumbersAreUsedOnce,
    /// 1: also not by a later life of the worker.
    LaterLivesUseOtherLeaseNumbers,
    /// 1: others who miss meanwhile do not fill.
    OnlyTheLeaseFills,

    /// 2: a fill is refused unless its lease is still the current one.
    FillsNeedTheCurrentLease,
    /// 2: its bytes come from a row read that began after the lease arrived.
    TheRowIsReadAfterTheLease,
    /// 2: also those of a fill by an upload, whose image another upload may have replaced by then.
    UploadsReadTheRowToo,

    /// 3: an invalidation removes the entry.
    InvalidationsRemoveTheEntry,
    /// 3: it voids the lease.
    InvalidationsVoidTheLease,
    /// 3: only then it is acknowledged.
    AcknowledgedLast,
    /// 3: removal and voiding are one step.
    InvalidationsAreOneStep,

    /// 4: a flight takes nobody in once its fill has been sent.
    FlightsCloseBeforeTheFill,
    /// 4: its result is not shared if the fill was refused.
    RefusedFillsAreNotShared,
    /// 4: nor if nobody knows whether it was.
    UnansweredFillsAreNotShared,

    /// 5: a file that is gone means that the row has moved on.
    GoneFilesAreLookedUpAgain,

    /// 6: an upload is answered after the worker acknowledged it.
    AnsweredAfterTheAcknowledgement,
    /// 6: no answer is no acknowledgement.
    SilenceIsNoAcknowledgement,
    /// 6: the invalidation is noted as pending.
    ChangesAreNoted,
    /// 6: by the transaction that changes the row, not after it.
    NotedNotAfterTheRow,
    /// 6: and not before it.
    NotedNotBeforeTheRow,
    /// 6: a note goes only with its own token.
    NotesGoByTheirToken,
    /// 6: the invalidation is sent even if the row did not change.
    UnchangedRowsAreToldToo,

    /// 7: until a connection is proven, no get is a hit.
    NoHitsBeforeTheProof,
    /// 7: nor does a miss come with a lease.
    NoLeasesBeforeTheProof,
    /// 7: each fill is refused.
    NoFillsBeforeTheProof,
    /// 7: what was held is dropped.
    ReconnectionsDropEntries,
    /// 7: leases included.
    ReconnectionsVoidLeases,
    /// 7: after the proof, not before.
    DroppedAfterTheProof,

    /// 8: a clean stop unsubscribes get before invalidate.
    GetLeavesBeforeInvalidate,
    /// 8: and put.
    PutLeavesBeforeInvalidate,

    /// 9: a get is a hit only with a valid claim.
    HitsNeedTheClaim,
    /// 9: a miss comes with a lease only then.
    LeasesNeedTheClaim,
    /// 9: a fill is accepted only then.
    FillsNeedTheClaim,
    /// 9: an invalidation is acknowledged only then.
    AcknowledgementsNeedTheClaim,
    /// 9: a claim counts from before its renewal was sent.
    ClaimsCountFromBeforeTheRenewal,
    /// 9: who stands by waits until the claim has run out.
    StandbysWait,
    /// 9: and a margin.
    StandbysWaitAMargin,
    /// 9: whoever lost the claim drops everything.
    LostClaimsDropEverything,
    /// 9: a clean stop gives the claim up when the worker has left the bus.
    ReleasedLast,
    /// 9: the clock goes on while the worker is stopped.
    ClocksGoOn,
    /// 9: on a new connection nothing is served before the claim was renewed on it.
    NewConnectionsRenewBeforeServing,
    /// 9: nor acknowledged.
    NewConnectionsRenewBeforeAcknowledging,
    /// 9: an acknowledgement counts if a read at the stream's leader names the incarnation that gives it.
    AcknowledgementsNeedARead,
    /// 9: that read begins after the change.
    ReadsBeginAfterTheChange,
    /// 9: that a server finds no responders is no acknowledgement.
    NoRespondersIsNoAcknowledgement,
    /// Not a rule, but what would have to be so for it to be one: the server sees all subscriptions.
    NoRouteIsCut,
    /// 9: that nobody serves is sure by a write; a leader that was cut off answers reads from what it had.
    NobodyIsSureByAWrite,
    /// 9: which begins after the change.
    WritesBeginAfterTheChange,
    /// 9: a gateway ends a claim when it has run out.
    GatewaysWait,
    /// 9: and a margin.
    GatewaysWaitAMargin,
    /// 9: an owner of whom nothing is known is waited for: the entry is missing, or an earlier one stands there.
    UnknownOwnersAreWaitedFor,

    /// Near leases: a copy is served while its lease lasts, no longer.
    CopiesEndWithTheirLease,
    /// Near leases: the gateway counts from before it sent its request.
    NearLeasesCountFromBeforeTheRequest,
    /// Near leases: whoever waits for them waits a margin longer.
    WaitsForLeasesHaveAMargin,
    /// Near leases: holders are told to drop their copies.
    HoldersAreTold,
    /// Near leases: an invalidation is acknowledged when each holder has dropped its copy or its lease has
    /// ended.
    HoldersAreWaitedFor,
    /// Near leases: no two gateways are the same holder.
    HoldersAreToldApart,
    /// Near leases: that nobody is there to hear a drop is no acknowledgement.
    SilentHoldersHaveNotDropped,
    /// Near leases: whom an invalidation waits for, the next one waits for too.
    HoldersStayUntilTheyHaveDropped,
    /// Near leases: an acknowledgement leaves what was granted after its drop.
    LaterGrantsAreLeft,
    /// Near leases: looking a key up and noting the holder are one step.
    LookingUpAndNotingAreOneStep,
    /// Near leases: removing the entry and seeing who holds it are one step.
    RemovingAndSeeingWhoHoldsAreOneStep,
    /// Near leases: those of fills are noted too.
    HoldersByFillsAreNoted,
    /// Near leases: a renewal needs a valid claim.
    RenewalsNeedTheClaim,
    /// Near leases: and a proven connection.
    RenewalsNeedTheProof,
    /// Near leases: and that what is resident is what the gateway holds.
    RenewalsNeedTheTag,
    /// Near leases: a drop spoils what was asked for by then.
    DropsSpoilWhatIsAskedFor,
    /// Near leases: renewals among it.
    DropsSpoilRenewals,
    /// Near leases: seeing that it is not spoiled and keeping the copy are one step.
    CheckingAndKeepingAreOneStep,
    /// Near leases: who holds what outlives the entry.
    HoldersOutliveEntries,
    /// Near leases: and the connection.
    HoldersOutliveConnections,
    /// Near leases: a new worker waits for those of its predecessors before it acknowledges.
    NewWorkersWait,
    /// Near leases: so does a gateway after it has made sure that nobody serves.
    NobodyIsWaitedOut,
}
