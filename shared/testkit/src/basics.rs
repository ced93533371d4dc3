//! The common needs of all servers of a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may take to start or to stop before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often [`eventually`](crate::eventually) looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The repository's root: where `nats.conf`, `migrations/` and `templates/` lie.
pub fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies two folders below the repository's root")
        .to_owned()
}

/// A name that nothing else has: `prefix` and 64 random bits.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}{:016x}", rand::random::<u64>())
}
