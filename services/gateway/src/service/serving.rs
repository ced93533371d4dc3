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
use runtime::together::{Asked, Together};
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
    asked: Arc<Together<Question, Answer>>,
}

#[derive(Debug)]
struct Shared {
    owners: Owners,
    /// It expects an entry: a gateway comes after the first worker, or can do without one until that comes.
    seen: Mutex<Observer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Owner,
    Nobody,
}

/// The result of one read, and of the write after it if a question needed one.
#[derive(Debug, Clone)]
struct Answer {
    owner: Option<String>,
    nobody: Nobody,
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
        Self { shared: Arc::new(Shared { owners, seen }), asked: Arc::new(Together::new(TOGETHER)) }
    }

    /// The incarnation that owns the claim, by a read that begins after this was called. `None` if there is none, or
    /// no answer.
    pub(crate) async fn owner(&self) -> Option<String> {
        self.ask(Question::Owner).await.owner
    }

    /// Tries to make sure that no worker serves, by a write that begins after this was called.
    pub(crate) async fn nobody(&self) -> Nobody {
        self.ask(Question::Nobody).await.nobody
    }

    async fn ask(&self, question: Question) -> Answer {
        self.asked.ask(question, |asked| self.shared.look(asked)).await
    }
}

impl Shared {
    /// Reads for all these questions, and writes if one of them needs that and it is possible.
    async fn look(&self, asked: Vec<Asked<Question, Answer>>) {
        let found = self.owners.read(LIMIT).await;
        let found =
            found.inspect_err(|failure| tracing::debug!(%failure, "who serves can't be read now")).ok();
        if let Some(found) = &found {
            self.seen.lock().note(found, Moment::now());
        }
        let entry = found.as_ref().and_then(|found| found.entry());
        let owner = entry.filter(|entry| !entry.released).map(|entry| entry.incarnation.clone());
        let (about_owner, doubts): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|one| one.question == Question::Owner);
        let answer = Answer { owner, nobody: Nobody::Perhaps(AGAIN) };
        for one in about_owner {
            one.answer(answer.clone());
        }
        if !doubts.iter().any(Asked::is_awaited) {
            return;
        }
        let nobody = if found.is_some() { self.make_sure().await } else { Nobody::Perhaps(AGAIN) };
        for one in doubts {
            one.answer(Answer { nobody, ..answer.clone() });
        }
    }

    /// Ends the claim that was just read if it has run out, and confirms that there is none otherwise.
    async fn make_sure(&self) -> Nobody {
        let outlook = self.seen.lock().outlook(Moment::now());
        match outlook {
            Outlook::Free => {}
            Outlook::RunOut => tracing::warn!(
                "the claim to serve has run out: this gateway ends it, and changes need no worker until the next claim"
            ),
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
