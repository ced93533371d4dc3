//! Connections that were just in use, at hand for the next statement.
//!
//! The pool tests each connection that comes back to it. This takes a round trip to the server and a task. A connection
//! that is in use all the time is therefore kept apart from the pool, and goes back to it when it is idle for
//! [`IDLE`], or after [`OUT`] at the latest, so that the pool's own limits on its age hold.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::{MySql, MySqlPool};
use tokio::time::Instant;

/// How long a connection stays at hand without being used.
const IDLE: Duration = Duration::from_millis(100);
/// How long a connection may be away from its pool.
const OUT: Duration = Duration::from_secs(10);

/// A connection that is away from its pool.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) connection: PoolConnection<MySql>,
    since: Instant,
}

/// The connections at hand. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hand(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The connections, and when each was last in use. The last one was in use last.
    idle: Vec<(Out, Instant)>,
    /// How many tasks wait for the pool.
    waiting: usize,
    /// Whether a task gives idle connections back to the pool.
    is_watched: bool,
}

/// A task that waits for the pool, until this is dropped.
struct Waiting(Hand);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.lock().waiting -= 1;
    }
}

impl Hand {
    /// A connection at hand, or else one of the pool.
    ///
    /// # Errors
    /// As [`MySqlPool::acquire`].
    pub(crate) async fn take(&self, pool: &MySqlPool) -> sqlx::Result<Out> {
        let _waiting = {
            let mut state = self.0.lock();
            if let Some((out, _)) = state.idle.pop() {
                return Ok(out);
            }
            // From now on, the pool gets each connection that is given back.
            state.waiting += 1;
            Waiting(self.clone())
        };
        Ok(Out { connection: pool.acquire().await?, since: Instant::now() })
    }

    /// Keeps a connection at hand. The pool gets it if it is due there, or if a task waits for the pool.
    pub(crate) fn keep(&self, out: Out, pool: &MySqlPool) {
        let mut state = self.0.lock();
        if state.waiting > 0 || out.since.elapsed() > OUT || pool.is_closed() {
            return;
        }
        state.idle.push((out, Instant::now()));
        if !state.is_watched {
            state.is_watched = true;
            tokio::spawn(self.clone().watch());
        }
    }

    /// Gives all connections at hand back to the pool.
    pub(crate) fn clear(&self) {
        self.0.lock().idle.clear();
    }

    /// Gives idle connections back to the pool, until none is at hand.
    async fn watch(self) {
        loop {
            tokio::time::sleep(IDLE).await;
            let mut state = self.0.lock();
            state.idle.retain(|(_, used)| used.elapsed() < IDLE);
            if state.idle.is_empty() {
                state.is_watched = false;
                return;
            }
        }
    }
}
