//! The promises, one file each, as checks of what was recorded.

pub(crate) mod availability;
pub(crate) mod configuration;
pub(crate) mod durability;
pub(crate) mod freshness;
pub(crate) mod memory;
pub(crate) mod owner;
pub(crate) mod statistics;

use serde::Serialize;

use super::history::Moment;
use super::strike::Strike;

/// A fault, and the recovery after it.
#[derive(Debug, Clone)]
pub(crate) struct Struck {
    pub(crate) strike: Strike,
    /// When every gateway found all parts of the system again.
    pub(crate) ready: Option<Moment>,
    /// When windows became rows again.
    pub(crate) recorded: Option<Moment>,
}

/// The outcome of one check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    /// The promise.
    pub(crate) promise: &'static str,
    /// A description of the records that were checked.
    pub(crate) looked_at: String,
    /// A sentence for each time it was not kept.
    pub(crate) violations: Vec<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::faults::strike::Kind;

    /// A fault from one second to the next, after which all was well at once.
    pub(crate) fn struck(kind: Kind, began: Moment, healed: Moment) -> Struck {
        let strike = Strike {
            kind,
            began,
            healed,
            gateways: [false; 2],
            killed_gateways: Vec::new(),
            killed_workers: Vec::new(),
            stepped_clocks: false,
            lost_store: false,
        };
        Struck { strike, ready: Some(healed), recorded: Some(healed) }
    }
}
