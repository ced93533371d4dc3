//! Questions of one moment that share one trip, to another server or to a disk.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Gathers questions, and has those of a moment answered by one trip.
///
/// The trips are made one after the other, and two of them begin at least a pause apart. A trip answers only the
/// questions that were asked before it began.
#[derive(Debug)]
pub struct Together<Q, A> {
    asked: Mutex<Vec<Asked<Q, A>>>,
    /// When the last trip began.
    turn: tokio::sync::Mutex<Option<Instant>>,
    pause: Duration,
}

/// A question of a trip. It is asked again by a later trip if it is dropped without an answer.
#[derive(Debug)]
pub struct Asked<Q, A> {
    /// The question.
    pub question: Q,
    asker: oneshot::Sender<A>,
}

impl<Q, A> Asked<Q, A> {
    /// Whether the asker still waits.
    pub fn is_awaited(&self) -> bool {
        !self.asker.is_closed()
    }

    /// Answers the question.
    pub fn answer(self, answer: A) {
        // An asker that does not wait any more needs no answer.
        let _ = self.asker.send(answer);
    }
}

impl<Q: Clone, A> Together<Q, A> {
    /// Two trips begin at least `pause` apart, so that many questions share one. A single question does not wait.
    pub fn new(pause: Duration) -> Self {
        Self { asked: Mutex::default(), turn: tokio::sync::Mutex::default(), pause }
    }

    /// The answer to `question`, by the next trip. The task whose turn it is makes the trip, with all questions asked
    /// so far.
    pub async fn ask<F: Future<Output = ()>>(&self, question: Q, trip: impl Fn(Vec<Asked<Q, A>>) -> F) -> A {
        loop {
            let (asker, mut answer) = oneshot::channel();
            self.asked.lock().push(Asked { question: question.clone(), asker });
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered,
                mut turn = self.turn.lock() => {
                    // The trip before may have answered this question too.
                    if let Ok(answer) = answer.try_recv() {
                        return answer;
                    }
                    let left = turn.map_or(Duration::ZERO, |last| self.pause.saturating_sub(last.elapsed()));
                    if !left.is_zero() {
                        tokio::time::sleep(left).await;
                    }
                    *turn = Some(Instant::now());
                    let asked = std::mem::take(&mut *self.asked.lock());
                    if !asked.is_empty() {
                        trip(asked).await;
                    }
                    drop(turn);
                    answer.await
                }
            };
            // Without an answer, the task that made the trip has given up: the question is asked again.
            if let Ok(answer) = answered {
                return answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers each number by the trip that answered it.
    async fn by_trip(asked: Vec<Asked<u32, usize>>, trips: &AtomicUsize) {
        let trip = trips.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        for one in asked {
            one.answer(trip);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_of_one_moment_share_a_trip_and_none_is_answered_by_a_trip_before_it() {
        let (together, trips) = (Together::new(Duration::from_millis(2)), AtomicUsize::new(0));
        let ask = |number| together.ask(number, |asked| by_trip(asked, &trips));
        let later = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            tokio::join!(ask(3), ask(4))
        };
        // The first begins its trip before the second is asked, and the others come while it is on its way.
        assert_eq!(tokio::join!(ask(1), ask(2), later), (1, 2, (2, 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_whose_trip_was_given_up_is_asked_again() {
        let (together, trips) =
            (Arc::new(Together::new(Duration::from_millis(2))), Arc::new(AtomicUsize::new(0)));
        let ask = |number| {
            let (together, trips) = (Arc::clone(&together), Arc::clone(&trips));
            tokio::spawn(async move { together.ask(number, |asked| by_trip(asked, &trips)).await })
        };
        let (first, second) = (ask(1), ask(2));
        tokio::time::sleep(Duration::from_millis(5)).await;
        first.abort();
        assert_eq!(second.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn trips_begin_a_pause_apart() {
        let (together, trips) = (Together::new(Duration::from_millis(50)), AtomicUsize::new(0));
        let began = Instant::now();
        for number in 1..=3 {
            together.ask(number, |asked| by_trip(asked, &trips)).await;
        }
        assert_eq!(began.elapsed().as_millis(), 110, "two pauses and the last trip");
        assert_eq!(trips.load(Ordering::Relaxed), 3);
    }
}
