//! Limits on writers of rows, so that they leave connections to the readers.
//!
//! A row that another process has locked keeps its writers waiting, each with a connection. So of the writers of one
//! key in this process only one has a connection at a time. A quarter of all connections is left to readers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wire::Key;

use crate::error::Error;

/// How long a writer waits for the writers before it.
const PATIENCE: Duration = Duration::from_millis(2500);

type Lock = Arc<tokio::sync::Mutex<()>>;

/// The writers of this process. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Writers {
    connections: Arc<Semaphore>,
    keys: Arc<Mutex<HashMap<Key, Lock>>>,
}

/// The right to write the row of a key, until it is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    writers: Writers,
    key: Key,
    turn: Option<OwnedMutexGuard<()>>,
    _connection: OwnedSemaphorePermit,
}

impl Writers {
    /// For a database with so many connections.
    pub(crate) fn new(connections: u32) -> Self {
        let most = (connections as usize * 3 / 4).max(1);
        Self { connections: Arc::new(Semaphore::new(most)), keys: Arc::default() }
    }

    /// Waits for the turn to write the row of `key`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when other writers are not done in time. Nothing was written then.
    pub(crate) async fn enter(&self, key: &Key) -> Result<Writer, Error> {
        let lock = self.keys().entry(key.clone()).or_default().clone();
        let both = async {
            let turn = lock.lock_owned().await;
            let connection = self.connections.clone().acquire_owned().await;
            (turn, connection)
        };
        let entered = timeout(PATIENCE, both).await;
        match entered {
            Ok((turn, Ok(connection))) => Ok(Writer {
                writers: self.clone(),
                key: key.clone(),
                turn: Some(turn),
                _connection: connection,
            }),
            _ => {
                self.forget(key);
                let reason = "others write to this row, or to many, and wait for a lock; nothing was changed"
                    .to_owned();
                Err(Error::Unavailable { part: "MySQL", reason })
            }
        }
    }

    /// Removes the lock of a key if no writer uses it.
    fn forget(&self, key: &Key) {
        let mut keys = self.keys();
        if keys.get(key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            keys.remove(key);
        }
    }
    fn keys(&self) -> MutexGuard<'_, HashMap<Key, Lock>> {
        self.keys.lock()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.turn.take());
        self.writers.forget(&self.key);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_writes_a_key_at_a_time_and_all_leave_connections_to_readers() {
        let writers = Writers::new(4);
        let key = |name: &str| Key::new(name).unwrap();
        let first = writers.enter(&key("a")).await.unwrap();
        assert!(matches!(writers.enter(&key("a")).await, Err(Error::Unavailable { .. })));
        let (second, third) =
            (writers.enter(&key("b")).await.unwrap(), writers.enter(&key("c")).await.unwrap());
        assert!(writers.enter(&key("d")).await.is_err());
        let waiting = tokio::spawn({
            let writers = writers.clone();
            async move { writers.enter(&Key::new("a").unwrap()).await.is_ok() }
        });
        tokio::time::sleep(PATIENCE / 2).await;
        drop(first);
        assert!(waiting.await.unwrap());
        drop((second, third));
        assert!(writers.keys().is_empty(), "{writers:?}");
        assert_eq!(writers.connections.available_permits(), 3);
    }
}
