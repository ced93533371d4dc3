//! The sizes at which the protocol is searched, and what may happen in each. Whatever rule is left out is missed
//! within 6 to 25 steps, so they are large enough.

use crate::protocol::Scene;
use crate::state::{ANY, Budget};

const NOTHING: Budget = Budget {
    uploads: 0,
    repeats: 0,
    deaths: 0,
    losses: 0,
    kills: 0,
    stops: 0,
    wipes: 0,
    takebacks: 0,
    pauses: 0,
    takeovers: ANY,
};

/// No faults but those of every day: messages that come late, in any order, after whoever asked has given
/// up, or never; evictions, leases that end; an upload that is answered 503 and told of later.
pub(crate) const PEACE: Scene = Scene {
    name: "peace",
    gateways: 2,
    readers: 2,
    budget: Budget { uploads: 2, ..NOTHING },
    gives_up: true,
    refills: false,
    removes_files: false,
    one_by_one: false,
    standby: false,
    near: false,
    renews: false,
    asking: 0,
    clears: false,
};

/// Three reads at once, so that a flight has passengers while yet another read has the lease.
pub(crate) const CROWD: Scene =
    Scene { name: "a crowd", readers: 3, budget: Budget { uploads: 1, ..NOTHING }, gives_up: false, ..PEACE };

/// Replaced files are removed at any moment after the row has changed: earlier than need be.
pub(crate) const REMOVALS: Scene = Scene { name: "removals", removes_files: true, gives_up: false, ..PEACE };

/// Uploads fill the cache with what they have stored.
pub(crate) const REFILLS: Scene = Scene { name: "fills by uploads", refills: true, ..PEACE };

/// Gateways die with all that they were about to do, and a request comes that finds its row changed already.
pub(crate) const DEATHS: Scene = Scene {
    name: "deaths",
    readers: 1,
    budget: Budget { uploads: 2, repeats: 1, deaths: ANY, ..NOTHING },
    ..PEACE
};

/// Gateways die with two reads in flight.
pub(crate) const DEATHS_IN_FLIGHT: Scene = Scene {
    name: "deaths in flight",
    readers: 2,
    budget: Budget { uploads: 1, deaths: ANY, ..NOTHING },
    ..PEACE
};

/// One worker whose connection is lost, which is killed or stopped and started again, each any number of
/// times. Its subscriptions come in any order.
pub(crate) const CONNECTIONS: Scene = Scene {
    name: "connections",
    budget: Budget { uploads: 2, losses: ANY, kills: ANY, stops: ANY, ..NOTHING },
    gives_up: false,
    one_by_one: true,
    ..PEACE
};

/// A second worker takes over whenever the first has not renewed its claim in time: since it was stopped
/// and is resumed later, is slow, or cannot reach the bucket.
pub(crate) const STANDBY: Scene = Scene {
    name: "a standby",
    gateways: 1,
    budget: Budget { uploads: 1, ..NOTHING },
    gives_up: false,
    standby: true,
    ..PEACE
};

/// A second worker takes over while uploads fill the cache.
pub(crate) const STANDBY_REFILLS: Scene =
    Scene { name: "a standby and fills by uploads", readers: 1, refills: true, ..STANDBY };

/// Two workers, both of which are killed or stopped and started again.
pub(crate) const LIVES: Scene = Scene {
    name: "lives",
    readers: 1,
    budget: Budget { uploads: 1, kills: ANY, stops: ANY, ..NOTHING },
    ..STANDBY
};

/// Two workers that are cut off, or lose both their connections and the bucket of the claim with a nats-server
/// that starts anew.
pub(crate) const CUTS: Scene = Scene {
    name: "cuts",
    readers: 1,
    budget: Budget { uploads: 1, losses: ANY, wipes: ANY, ..NOTHING },
    ..STANDBY
};

/// The stream of the claim is removed, or takes back what it had acknowledged, while all connections stand.
pub(crate) const TAKEBACKS: Scene = Scene {
    name: "takebacks",
    readers: 1,
    budget: Budget { uploads: 1, takebacks: ANY, ..NOTHING },
    ..STANDBY
};

/// The machine of a worker is paused, its clock with it, so that it takes its claim for valid when another worker has
/// it. What it serves then is what remains of old images, and nothing here; what it acknowledges must not count.
pub(crate) const PAUSES: Scene =
    Scene { name: "pauses", readers: 1, budget: Budget { uploads: 1, pauses: ANY, ..NOTHING }, ..STANDBY };

/// Near caches in two gateways, where leases come with hits and fills and are renewed.
pub(crate) const NEAR: Scene = Scene {
    name: "near leases",
    readers: 1,
    budget: Budget { uploads: 1, ..NOTHING },
    gives_up: false,
    near: true,
    renews: true,
    asking: 2,
    ..PEACE
};

/// Two uploads, so that leases are granted between one drop and the next.
pub(crate) const NEAR_TWICE: Scene = Scene {
    name: "near leases and two uploads",
    budget: Budget { uploads: 2, ..NOTHING },
    renews: false,
    asking: 1,
    ..NEAR
};

/// Uploads fill the cache and bring a copy with that.
pub(crate) const NEAR_REFILLS: Scene =
    Scene { name: "near leases and fills by uploads", gateways: 1, refills: true, ..NEAR_TWICE };

/// Two reads at once, one of which fills while the other is granted a lease.
pub(crate) const NEAR_CROWD: Scene =
    Scene { name: "near leases in a crowd", readers: 2, renews: false, asking: 1, ..NEAR };

/// Copies are also dropped for invalidations that nobody waits for any more, and for clears.
pub(crate) const NEAR_CLEARS: Scene = Scene {
    name: "near leases and clears",
    gateways: 1,
    budget: Budget { uploads: 2, ..NOTHING },
    clears: true,
    ..NEAR
};

/// Gateways die with their copies.
pub(crate) const NEAR_DEATHS: Scene =
    Scene { name: "near leases and deaths", budget: Budget { deaths: ANY, ..NEAR.budget }, ..NEAR };

/// One worker whose connection is lost, which is killed or stopped and started again.
pub(crate) const NEAR_CONNECTIONS: Scene = Scene {
    name: "near leases across connections",
    gateways: 1,
    budget: Budget { losses: ANY, kills: ANY, stops: ANY, ..NEAR.budget },
    ..NEAR
};

/// A second worker takes over, once: from a first that is silent and comes back, or is killed.
pub(crate) const NEAR_STANDBY: Scene = Scene {
    name: "near leases and a standby",
    gateways: 1,
    budget: Budget { kills: 1, takeovers: 1, ..NEAR.budget },
    standby: true,
    renews: false,
    asking: 1,
    ..NEAR
};

/// The first worker is stopped in order, so that the second serves at once, while copies last. Leases come with
/// fills.
pub(crate) const NEAR_HANDOVER: Scene = Scene {
    name: "near leases and a handover",
    budget: Budget { stops: 1, takeovers: 1, ..NEAR.budget },
    asking: 0,
    ..NEAR_STANDBY
};

/// The bucket of the claim is lost with all connections, and a second worker serves while the first may have
/// requests in its buffer that came before. Leases come with fills.
pub(crate) const NEAR_WIPE: Scene = Scene {
    name: "near leases and the loss of the bucket",
    budget: Budget { wipes: 1, takeovers: 1, ..NEAR.budget },
    asking: 0,
    ..NEAR_STANDBY
};

/// Smaller ones, which are enough for what is missed where a rule is left out.
pub(crate) mod smaller {
    use super::{Budget, CONNECTIONS, CUTS, DEATHS, LIVES, NEAR_STANDBY, STANDBY, Scene};

    /// Without requests sent again.
    pub(crate) const DEATHS_ALONE: Scene =
        Scene { name: "deaths alone", budget: Budget { repeats: 0, ..DEATHS.budget }, ..DEATHS };

    /// With one upload.
    pub(crate) const RECONNECTIONS: Scene =
        Scene { name: "reconnections", budget: Budget { uploads: 1, ..CONNECTIONS.budget }, ..CONNECTIONS };

    /// With one read at a time.
    pub(crate) const QUIET_STANDBY: Scene = Scene { name: "a quiet standby", readers: 1, ..STANDBY };

    /// With no more than one stop.
    pub(crate) const ONE_STOP: Scene =
        Scene { name: "one stop", budget: Budget { kills: 0, stops: 1, ..LIVES.budget }, ..LIVES };

    /// With no more than one loss, that of the bucket.
    pub(crate) const ONE_LOSS: Scene =
        Scene { name: "one loss", budget: Budget { losses: 0, wipes: 1, ..CUTS.budget }, ..CUTS };

    /// With renewals, and without a death of the first worker.
    pub(crate) const RENEWALS_AND_A_STANDBY: Scene = Scene {
        name: "renewals and a standby",
        renews: true,
        budget: Budget { kills: 0, ..NEAR_STANDBY.budget },
        ..NEAR_STANDBY
    };
}
