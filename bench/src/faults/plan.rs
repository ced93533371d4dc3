//! How a run is done.

use std::path::PathBuf;
use std::time::Duration;

use super::load::Pace;
use super::strike;

/// How a run is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long faults are made; once each without it.
    pub(crate) length: Option<Duration>,
    /// Which kinds of faults.
    pub(crate) kinds: Vec<strike::Kind>,
    pub(crate) binaries: PathBuf,
    /// Whether there are two nats-servers.
    pub(crate) is_cluster: bool,
}

impl Plan {
    /// Whether each kind strikes once only.
    pub(crate) fn is_short(&self) -> bool {
        self.length.is_none()
    }

    /// How much the clients ask for. A short run shares its processors with other tests.
    pub(crate) fn pace(&self) -> Pace {
        let (longest_pause_ms, probe_ms) = if self.is_short() { (60, 60) } else { (30, 20) };
        Pace { longest_pause_ms, probe_every: Duration::from_millis(probe_ms) }
    }
}
