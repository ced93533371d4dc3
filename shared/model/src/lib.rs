//! A model of what keeps a replaced image from being served again, searched through all its states.
//!
//! It follows "Never a stale image" in ARCHITECTURE.md rule by rule, and names states and messages as the code
//! does: `lease.rs`, `holders.rs`, `near.rs`, `worker.rs`, `claim.rs` and the order of a stop in the worker,
//! `flight.rs`, `near/`, `read.rs`, `telling.rs` and `origin/` in the gateway. One key; up to two uploads,
//! three reads at once and any number of them one after another, two gateways, two workers; rows with their
//! notes, files, the bus, the bucket of the claim, copies under near leases. [`scenes`] says which of these and
//! which faults go together.
//!
//! [`promises`] checks that in every state of each scene
//!
//! - a read has returned nothing older than what was answered before it began, through either gateway, from
//!   its copy or not,
//! - a read of a stored image has found it,
//! - whoever serves an old image is going to be told,
//! - no two workers serve at once,
//!
//! and that what is to happen there does: hits of the newest image, fills refused, flights shared, reads that
//! bypass the cache, a standby that serves while its predecessor is still on the bus, hits of copies, grants
//! that a drop has overtaken, leases waited out, and more. [`left_out`] leaves out one part of a rule at a
//! time, and the search must find how a promise is broken by that.
//!
//! # The bus
//!
//! Whatever is sent may arrive at any later moment or never, in any order, and its sender may give up before or
//! after. So a message that is lost needs no step of its own, nor does a process that is stopped and resumed:
//! nothing must happen. A server routes a request to one of those who are subscribed at that moment; from then
//! on it may sit in the worker's buffer, across a lost connection too, until the worker's life ends.
//!
//! A route that is cut between two servers needs no step either: "no responders" from a server that does not see the
//! worker is no more to a gateway than silence. The bucket is where each may reach it or not. A read at its leader may
//! return an older entry, from a leader that was cut off, so it proves nothing by itself: it counts together with an
//! acknowledgement, and there only where a worker was paused with its clock; elsewhere the claim is enough, and the
//! read is left out. Both can be on their way at once, since all that counts is that the read begins after the change.
//!
//! Some things are left out since others do the same. An invalidation that nobody waits for any more removes
//! the entry and voids the lease, as an eviction and the end of a lease may at any moment; so does a clear, and
//! what either has dropped is a [`Step::DropForNobody`](protocol::Step::DropForNobody). A get whose reader has
//! given up takes the lease with it, as any other reader's does. And as nothing changes what a hit returns once
//! it is answered, nor makes a row that is read later older, such a read is over at once; only what was granted
//! with the hit is still on its way. What is granted to somebody who has given up makes others wait longer, and
//! nothing else.
//!
//! An upload that fills has its lease from the acknowledgement, and goes on from there as a read that nobody waits for. Its
//! lease may be used at any moment after the removal, which is earlier than the acknowledgement can arrive.
//!
//! # Time
//!
//! What waits may give up at any moment: 50 ms for a get, 2 s for an invalidation, 5 s until an uploader is
//! answered 503, 10 s for a lease. What holds then holds for every length.
//!
//! Only the claim and near leases rest on lengths. For the claim, time passes in ticks, which the search puts
//! wherever it likes: an owner serves while at most one tick has passed on its clock since it sent the last
//! renewal that succeeded, and a worker that stands by takes over when it has counted one more since the claim
//! last changed. Whatever happens in continuous time happens here too: put two ticks before each time that a
//! claim runs out or is taken for having run out. No owner's answer comes between one of its renewals and such
//! a moment that the renewal should have prevented, for the owner counts from before it sent the renewal, the
//! other from after the bucket took it, and the margin is more than their clocks differ by in that time. So no
//! answer sees more ticks than it would have time.
//!
//! Near leases need no ticks, which would make the younger of two end with the older. They all last equally
//! long, and whoever waits for them waits for that long and an eighth, more than clocks run apart by meanwhile:
//! a worker for a holder since it granted the last lease, a new worker since it won its claim, a gateway since
//! it got no responders. So only the order counts. When a wait is over, at any moment, those leases are over by
//! their gateway's clock that were asked for before it began, and no others. So each lease knows which waits
//! have begun since ([`NearLease`](state::NearLease)); a worker's wait for a holder is noted in those that were
//! granted when the image changed, which is enough for the promise and leaves the others more time than they
//! have. That a lease ends earlier needs no step: nothing must be served from a copy.
//!
//! # Numbers
//!
//! States that differ only in the numbers of gateways, workers, reads and tellings are one. Lease numbers are
//! told apart only as far as they can still be current, those of grants and drops only as far as one is later
//! than the other. Copies of the last image that there will be are forgotten, since they can't be old. So there
//! are finitely many states although reads and most faults may happen any number of times.

#![cfg(test)]

mod left_out;
mod machine;
mod next;
mod promises;
mod protocol;
mod rules;
mod scenes;
mod search;
mod state;
