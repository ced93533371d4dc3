//! The worker that serves, as the leader of the stream says; and the proof that none does (design rule 9).
//!
//! "No responders" is no proof: it is the view of the one server that this gateway is connected to. Behind a route that
//! is cut, a worker may serve on. A read is no proof either: a leader that was cut off answers from its old state.
//! A compare-and-set write is a proof. It ends a claim that has run out, or finds that there is none. A worker that
//! serves after the write has read all that it holds after it.
//!
//! Reads and writes are made one after the other. Each is for all questions of that moment: it begins after them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::Bus;
use runtime::bucket::Written;
use runtime::clock::Moment;
use runtime::owners::{Observer, Outlook, Owners};
use tokio::sync::oneshot;
use wire::owners::Entry;

/// How long one read or write may take.
const LIMIT: Duration = Duration::from_secs(1);
/// The least time between the beginnings of two reads.
const TOGETHER: Duration = Duration::from_millis(2);
/// The pause before the next try, after the bus failed or another write came between.
const AGAIN: Duration = Duration::from_millis(20);

/// The claim to serve, as the bucket has it. Clones share the open questions and the last observation.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    owners: Owners,
    /// It expects an entry: a gateway comes after the first worker, or can do without one until that comes.
    seen: Mutex<Observer>,
    asked: Mutex<Vec<Asked>>,
    /// When the last read began.
    turn: tokio::sync::Mutex<Option<Moment>>,
}

#[derive(Debug)]
enum Asked {
    Owner(oneshot::Sender<Option<String>>),
    Nobody(oneshot::Sender<Nobody>),
}

/// Whether it is sure that no worker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// No worker serves: a write that began after the question has proved it, and had done so by this moment.
    Sure(Moment),
    /// A worker serves, or may serve. The question is worth asking again after so long.
    Perhaps(Duration),
}

impl Serving {
    /// Asks by `bus`, the connection of a user that may read and write the entry.
    pub(crate) fn new(bus: Bus) -> Self {
        let (owners, seen) = (Owners::new(bus), Mutex::new(Observer::new(true)));
        Self { shared: Arc::new(Shared { owners, seen, asked: Mutex::default(), turn: Default::default() }) }
    }

    /// The incarnation that owns the claim, by a read that begins after this was called. `None` if there is none, or
    /// no answer.
    pub(crate) async fn owner(&self) -> Option<String> {
        self.shared.ask(Asked::Owner).await
    }

    /// Tries to make sure that no worker serves, by a write that begins after this was called.
    pub(crate) async fn nobody(&self) -> Nobody {
        self.shared.ask(Asked::Nobody).await
    }
}

impl Shared {
    async fn ask<A>(&self, question: impl Fn(oneshot::Sender<A>) -> Asked) -> A {
        loop {
            let (asker, mut answer) = oneshot::channel();
            self.asked.lock().push(question(asker));
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered,
                mut turn = self.turn.lock() => {
                    // The task that had the turn before may have answered this question too.
                    if let Ok(answer) = answer.try_recv() {
                        return answer;
                    }
                    // Under many changes, one read answers all that come in that time. A single change does not wait.
                    let left = turn.map_or(Duration::ZERO, |last| TOGETHER.saturating_sub(last.elapsed()));
                    if !left.is_zero() {
                        tokio::time::sleep(left).await;
                    }
                    *turn = Some(Moment::now());
                    self.look().await;
                    drop(turn);
                    answer.await
                }
            };
            // Without an answer, the task that read for this question too has given up: it is asked again.
            if let Ok(answer) = answered {
                return answer;
            }
        }
    }

    /// Reads for all questions asked so far, and writes if one of them needs that and it is possible.
    async fn look(&self) {
        let asked = std::mem::take(&mut *self.asked.lock());
        if asked.is_empty() {
            return;
        }
        let found = self.owners.read(LIMIT).await;
        let found =
            found.inspect_err(|failure| tracing::debug!(%failure, "who serves can't be read now")).ok();
        if let Some(found) = &found {
            self.seen.lock().note(found, Moment::now());
        }
        let entry = found.as_ref().and_then(|found| found.entry());
        let owner = entry.filter(|entry| !entry.released).map(|entry| entry.incarnation.clone());
        let mut doubters = Vec::new();
        for one in asked {
            match one {
                // An asker that does not wait any more needs no answer.
                Asked::Owner(asker) => drop(asker.send(owner.clone())),
                Asked::Nobody(asker) => doubters.push(asker),
            }
        }
        if doubters.iter().all(oneshot::Sender::is_closed) {
            return;
        }
        let nobody = if found.is_some() { self.make_sure().await } else { Nobody::Perhaps(AGAIN) };
        for asker in doubters {
            let _ = asker.send(nobody);
        }
    }

    /// Ends the claim that was just read if it has run out, and confirms that there is none otherwise.
    async fn make_sure(&self) -> Nobody {
        let outlook = self.seen.lock().outlook(Moment::now());
        match outlook {
            Outlook::Free => {}
            Outlook::RunOut => tracing::warn!("the claim to serve has run out, and is ended by this gateway"),
            Outlook::Owned { left, .. } => return Nobody::Perhaps(left),
            Outlook::Newer(_) | Outlook::Unseen => return Nobody::Perhaps(LIMIT),
        }
        let (entry, over) = self.seen.lock().following(Entry::ended, || {
            Entry::first(format!("{:016x}", rand::random::<u64>()), "none", String::new(), 0).ended()
        });
        match self.owners.write(&entry, over, LIMIT).await {
            Ok(Written::Done(revision)) => {
                let now = Moment::now();
                self.seen.lock().wrote(&entry, revision, now);
                Nobody::Sure(now)
            }
            Ok(Written::Overtaken) => Nobody::Perhaps(AGAIN),
            Err(failure) => {
                tracing::debug!(%failure, "that nobody serves can't be written now");
                Nobody::Perhaps(AGAIN)
            }
        }
    }
}
