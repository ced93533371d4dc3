//! The sizes at which the protocol is searched, and what may happen in each. Whatever rule is left out is missed
//! within 6 to 18 steps, so they are large enough.

use crate::protocol::Scene;
use crate::state::{ANY, Budget};

const NOTHING: Budget = Budget { uploads: 0, repeats: 0, deaths: 0, losses: 0, kills: 0, stops: 0, wipes: 0 };

/// No faults but those of every day: messages that come late, in any order, after whoever asked has given
/// up, or never; evictions, leases that end; an upload that is answered 503 and told of later.
pub(crate) const PEACE: Scene = Scene {
    name: "peace",
    gateways: 2,
    readers: 2,
    budget: Budget { uploads: 2, ..NOTHING },
    gives_up: true,
    removes_files: false,
    one_by_one: false,
    standby: false,
};

/// Three reads at once, so that a flight has passengers while yet another read has the lease.
pub(crate) const CROWD: Scene =
    Scene { name: "a crowd", readers: 3, budget: Budget { uploads: 1, ..NOTHING }, gives_up: false, ..PEACE };

/// Replaced files are removed at any moment after the row has changed: earlier than need be.
pub(crate) const REMOVALS: Scene = Scene { name: "removals", removes_files: true, gives_up: false, ..PEACE };

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

/// Smaller ones, which are enough for what is missed where a rule is left out.
pub(crate) mod smaller {
    use super::{Budget, CONNECTIONS, CUTS, DEATHS, LIVES, STANDBY, Scene};

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
}
