//! Rows that several readers ask for at once, by one statement.
//!
//! Up to [`STATEMENTS`] statements run at once. A reader that asks meanwhile waits for its turn. The first reader that
//! gets one asks for all that wait. So a gateway that misses once sends one statement, and one that misses a thousand
//! times at once sends a few dozen. Each row is read after it was asked for (design rule 2).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use sql::Database;
use sqlx::{MySql, QueryBuilder};
use tokio::sync::{Semaphore, oneshot};
use wire::Key;

use crate::rows::Columns;

/// How many statements run at once; never more than half the number of connections. With fewer, one slow statement
/// would hold up all others. With more, each statement would be for fewer rows.
const STATEMENTS: usize = 2;
/// The most rows of one statement.
const MOST_ROWS: usize = 64;

/// The readers that wait for rows. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Gathered {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    /// A std mutex: it is held for a few instructions and never across an await.
    queue: Mutex<Queue>,
    turns: Semaphore,
}

#[derive(Debug, Default)]
struct Queue {
    /// The questions, in the order in which they came.
    asked: VecDeque<Asked>,
    last_number: u64,
}

/// One reader's question.
#[derive(Debug)]
struct Asked {
    number: u64,
    key: Key,
    answer: oneshot::Sender<Answer>,
}

/// The answer to each reader that shares a statement.
type Answer = Result<Option<Columns>, Arc<sqlx::Error>>;

impl Gathered {
    /// No reader waits yet.
    pub(crate) fn new(database: Database) -> Self {
        let connections = database.max_connections() as usize;
        let turns = Semaphore::new((connections / 2).clamp(1, STATEMENTS));
        Self { shared: Arc::new(Shared { database, queue: Mutex::default(), turns }) }
    }

    /// The row of `key`.
    ///
    /// # Errors
    /// The error with which the statement failed.
    pub(crate) async fn get(&self, key: &Key) -> Answer {
        let shared = &self.shared;
        loop {
            let (number, mut answer) = shared.queue().push(key);
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered,
                turn = shared.turns.acquire() => {
                    while shared.queue().is_waiting(number) {
                        shared.ask().await;
                    }
                    // Another reader has asked for it, or it is answered.
                    drop(turn);
                    answer.await
                }
            };
            // If no answer comes, the reader whose statement included this row has given up; so this one asks again.
            if let Ok(answer) = answered {
                return answer;
            }
        }
    }
}

impl Shared {
    /// Asks for the rows of the readers that have waited longest.
    async fn ask(&self) {
        let asked = self.queue().take();
        let Some(last) = asked.last() else { return };
        // The list is filled up to a power of two: the server prepares a statement for each length.
        let fill = std::iter::repeat_n(&last.key, asked.len().next_power_of_two() - asked.len());
        let mut statement = QueryBuilder::<MySql>::new(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at, \
             earlier_at \
             FROM images WHERE image_key IN (",
        );
        let mut list = statement.separated(", ");
        for key in asked.iter().map(|asked| &asked.key).chain(fill) {
            list.push_bind(key.as_str().as_bytes());
        }
        let rows: Result<Vec<Columns>, _> =
            statement.push(")").build_query_as().fetch_all(&self.database).await.map_err(Arc::new);
        let rows = rows.map(|rows| {
            rows.into_iter().map(|columns| (columns.0.clone(), columns)).collect::<HashMap<_, _>>()
        });
        for one in asked {
            let answer = match &rows {
                Ok(rows) => Ok(rows.get(one.key.as_str().as_bytes()).cloned()),
                Err(error) => Err(error.clone()),
            };
            // A reader that no longer waits needs no answer.
            let _ = one.answer.send(answer);
        }
    }
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

impl Queue {
    fn push(&mut self, key: &Key) -> (u64, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        self.last_number += 1;
        self.asked.push_back(Asked { number: self.last_number, key: key.clone(), answer: sender });
        (self.last_number, answer)
    }

    fn is_waiting(&self, number: u64) -> bool {
        self.asked.front().is_some_and(|first| first.number <= number)
    }

    /// The questions that have waited longest and still wait, at most [`MOST_ROWS`] of them.
    fn take(&mut self) -> Vec<Asked> {
        let count = self.asked.len().min(MOST_ROWS);
        self.asked.drain(..count).filter(|asked| !asked.answer.is_closed()).collect()
    }
}
