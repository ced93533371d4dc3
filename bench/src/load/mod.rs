//! Load: requests over connections that stay open, and how long each took.
//!
//! It shares the machine with what it measures, so it is as lean as can be: all requests are built beforehand, each
//! thread has a runtime of its own and shares nothing while it runs, and a body is read into one buffer a thread.
//!
//! [`Load::closed`] keeps a number of requests in flight and shows how many a system can handle. [`Load::open`]
//! sends at a rate, and takes the time from when a request was meant to be sent: a system that stalls for a moment
//! is charged with all the requests that came in the meantime.

pub(crate) mod bus;
pub(crate) mod http;
mod metronome;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::task::LocalSet;
use tokio::time::timeout;

use metronome::Metronome;

/// How long answers may take, once no more requests are sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection to a server, with at most one request in flight.
pub(crate) trait Target: Sized + 'static {
    /// Where the server is.
    type Place: Clone + Send + Sync + 'static;
    /// A request, ready to be sent, and the expected answer.
    type Message: Send + Sync + 'static;

    /// The place for one thread, called once in it: anything that its connections share, or that needs its runtime, is
    /// made here.
    fn on_thread(place: &Self::Place) -> Self::Place {
        place.clone()
    }

    /// Connects.
    fn connect(place: &Self::Place) -> impl Future<Output = Result<Self, Failure>>;

    /// Sends a request, and reads its answer to the end.
    fn send(&mut self, message: &Self::Message) -> impl Future<Output = Result<(), Failure>>;
}

/// A message, and the number of the kind that it is counted among: 0, 1, ….
#[derive(Debug, Clone)]
pub(crate) struct Request<M> {
    pub(crate) kind: usize,
    pub(crate) message: M,
}

/// Chooses the request that a connection sends next, by its index. Each connection has a clone of it, and its own
/// source of random numbers.
pub(crate) trait Choose: FnMut(&mut SmallRng) -> usize + Clone + Send + Sync + 'static {}

impl<F: FnMut(&mut SmallRng) -> usize + Clone + Send + Sync + 'static> Choose for F {}

/// A load: the requests for a server, and how they are sent.
#[derive(Debug)]
pub(crate) struct Load<T: Target, C> {
    /// Where the server is.
    pub(crate) place: T::Place,
    /// All requests that may be sent.
    pub(crate) requests: Arc<Vec<Request<T::Message>>>,
    /// Chooses the next of them.
    pub(crate) choose: C,
    /// How many connections.
    pub(crate) connections: usize,
    /// The number of threads that the connections are spread over.
    pub(crate) threads: usize,
    /// The seed of all random choices.
    pub(crate) seed: u64,
    /// For how long requests are sent before they are counted.
    pub(crate) warmup: Duration,
    /// For how long they are counted.
    pub(crate) length: Duration,
}

/// A derived `Clone` would require targets that can be cloned.
impl<T: Target, C: Clone> Clone for Load<T, C> {
    fn clone(&self) -> Self {
        let (place, requests, choose) = (self.place.clone(), self.requests.clone(), self.choose.clone());
        Self { place, requests, choose, ..*self }
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection could be made.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// The connection broke off.
    #[error("the connection broke off: {0}")]
    Lost(ErrorKind),
    /// Another status than expected.
    #[error("answered with status {0}")]
    Status(u16),
    /// Another length than expected.
    #[error("answered with {0} bytes")]
    Length(u64),
    /// Other bytes than expected.
    #[error("answered with other bytes than expected")]
    Content,
    /// A header that says something else than expected.
    #[error("answered with {0}: {1}")]
    Header(&'static str, String),
    /// Bytes that are no answer in this protocol.
    #[error("answered with what can't be read")]
    Malformed,
    /// No answer.
    #[error("not answered")]
    Unanswered,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.kind())
    }
}

/// The outcome of a load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// How long the requests of each kind took, in nanoseconds.
    pub(crate) kinds: Vec<Histogram<u64>>,
    /// Requests that failed, the warm-up's included.
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// The time during which requests were counted.
    pub(crate) length: Duration,
}

impl Outcome {
    /// How many requests were answered as they should be.
    pub(crate) fn count(&self) -> u64 {
        self.kinds.iter().map(Histogram::len).sum()
    }

    /// The answered requests per second.
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.count() as f64 / self.length.as_secs_f64()
    }

    /// All kinds together.
    pub(crate) fn all(&self) -> Histogram<u64> {
        self.kinds.iter().fold(histogram(), |mut all, kind| {
            all += kind;
            all
        })
    }

    /// This outcome, if no request failed.
    ///
    /// # Errors
    /// The failures and their numbers: a figure that counts failures as fast answers would say nothing.
    pub(crate) fn sound(self) -> anyhow::Result<Self> {
        let failures: Vec<_> =
            self.failures.iter().map(|(failure, count)| format!("{count} × {failure}")).collect();
        anyhow::ensure!(failures.is_empty(), "requests failed: {}", failures.join(", "));
        anyhow::ensure!(self.count() > 0, "no request was answered");
        Ok(self)
    }

    fn add(&mut self, other: &Self) {
        if self.kinds.len() < other.kinds.len() {
            self.kinds.resize_with(other.kinds.len(), histogram);
        }
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            *mine += theirs;
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(failure.clone()).or_default() += count;
        }
    }

    fn fail(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }
}

/// As many threads as there are cores: then only the machine limits the load, whatever the server is.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Chooses each request in turn, across all connections.
pub(crate) fn in_turn(requests: usize) -> impl Choose {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    move |_: &mut SmallRng| next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % requests
}

/// Chooses requests at random, each with the same probability.
pub(crate) fn at_random(requests: usize) -> impl Choose {
    move |random: &mut SmallRng| rand::RngExt::random_range(random, 0..requests)
}

impl<T: Target, C: Choose> Load<T, C> {
    /// Keeps one request in flight on each connection.
    ///
    /// # Errors
    /// When a connection or a thread can't be made. Requests that fail are in the outcome.
    pub(crate) async fn closed(&self) -> anyhow::Result<Outcome> {
        self.run(None).await
    }

    /// Sends `rate` requests a second, evenly. Requests without a free connection wait, and the wait counts.
    ///
    /// # Errors
    /// As [`Load::closed`].
    pub(crate) async fn open(&self, rate: f64) -> anyhow::Result<Outcome> {
        self.run(Some(rate)).await
    }

    /// Runs the load. A length that was too short for any answer is doubled and tried again, for the slowest machine.
    async fn run(&self, rate: Option<f64>) -> anyhow::Result<Outcome> {
        let mut load = self.clone();
        loop {
            let outcome = load.run_once(rate).await?;
            if outcome.count() > 0 || !outcome.failures.is_empty() || load.length >= PATIENCE {
                return Ok(outcome);
            }
            load.length *= 2;
        }
    }

    async fn run_once(&self, rate: Option<f64>) -> anyhow::Result<Outcome> {
        let threads = self.threads.clamp(1, self.connections);
        let barrier = Arc::new(Barrier::new(threads));
        let parts: Vec<_> = (0..threads)
            .map(|thread| {
                let load = self.clone();
                let part = Part {
                    connections: (thread..self.connections).step_by(threads).collect(),
                    // So that the threads don't send at the same moments.
                    rate: rate.map(|rate| rate / threads as f64),
                    phase: thread as f64 / threads as f64,
                    barrier: barrier.clone(),
                };
                tokio::task::spawn_blocking(move || load.run_part(&part))
            })
            .collect();
        let mut outcome = Outcome { length: self.length, ..Outcome::default() };
        for part in join_all(parts).await {
            outcome.add(&part.context("a thread of the load ended")??);
        }
        Ok(outcome)
    }

    /// Runs the part of one thread.
    fn run_part(mut self, part: &Part) -> anyhow::Result<Outcome> {
        self.place = T::on_thread(&self.place);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let connecting = part.connections.iter().map(|_| T::connect(&self.place));
            let connected = join_all(connecting).await.into_iter().collect::<Result<Vec<T>, _>>();
            // The clock starts for all threads when all connections are made. If one is missing, it starts for none.
            part.barrier.wait();
            let connected = connected?;
            let kinds = self.requests.iter().map(|request| request.kind + 1).max().unwrap_or_default();
            let tally = Outcome { kinds: (0..kinds).map(|_| histogram()).collect(), ..Outcome::default() };
            let tally = Rc::new(RefCell::new(tally));
            let start = Instant::now();
            let times = Times { begin: start + self.warmup, end: start + self.warmup + self.length };
            let metronome = match part.rate {
                Some(rate) => Some(Rc::new(Metronome::start(start, rate, part.phase, times.end)?)),
                None => None,
            };
            let load = Rc::new(self);
            let tasks: Vec<_> = connected
                .into_iter()
                .zip(&part.connections)
                .map(|(target, number)| {
                    let random = SmallRng::seed_from_u64(load.seed.wrapping_add(*number as u64));
                    let connection = Connection {
                        load: load.clone(),
                        tally: tally.clone(),
                        times,
                        metronome: metronome.clone(),
                        random,
                    };
                    tokio::task::spawn_local(connection.run(target))
                })
                .collect();
            let unfinished = Rc::new(Cell::new(tasks.len()));
            let all = async {
                let tick = async {
                    match &metronome {
                        Some(metronome) => metronome.run(part.connections.len()).await,
                        None => Ok(()),
                    }
                };
                let connections = join_all(tasks.into_iter().map(|task| {
                    let unfinished = unfinished.clone();
                    async move {
                        task.await?;
                        unfinished.set(unfinished.get() - 1);
                        anyhow::Ok(())
                    }
                }));
                let (ticked, connections) = tokio::join!(tick, connections);
                ticked?;
                connections.into_iter().collect::<anyhow::Result<()>>()
            };
            let limit = times.end.saturating_duration_since(Instant::now()) + PATIENCE;
            if let Ok(ended) = timeout(limit, all).await {
                ended?;
            }
            for _ in 0..unfinished.get() {
                tally.borrow_mut().fail(Failure::Unanswered);
            }
            Ok(tally.take())
        })
    }
}

/// The part of a load that one thread does.
struct Part {
    connections: Vec<usize>,
    rate: Option<f64>,
    phase: f64,
    barrier: Arc<Barrier>,
}

/// When requests are counted.
#[derive(Debug, Clone, Copy)]
struct Times {
    begin: Instant,
    end: Instant,
}

/// The state that one connection needs.
struct Connection<T: Target, C> {
    load: Rc<Load<T, C>>,
    tally: Rc<RefCell<Outcome>>,
    times: Times,
    metronome: Option<Rc<Metronome>>,
    random: SmallRng,
}

impl<T: Target, C: Choose> Connection<T, C> {
    async fn run(mut self, mut target: T) {
        let mut choose = self.load.choose.clone();
        let requests = self.load.requests.clone();
        // In a closed loop, a request begins when the one before it ends.
        let mut now = Instant::now();
        loop {
            let begun = match &self.metronome {
                Some(metronome) => match metronome.next().await {
                    Some(intended) => intended,
                    None => return,
                },
                None if now >= self.times.end => return,
                None => now,
            };
            let request = &requests[choose(&mut self.random)];
            let sent = target.send(&request.message).await;
            now = Instant::now();
            let Err(failure) = sent else {
                self.count(request.kind, begun, now);
                continue;
            };
            self.tally.borrow_mut().fail(failure);
            match T::connect(&self.load.place).await {
                Ok(again) => target = again,
                Err(failure) => {
                    self.tally.borrow_mut().fail(failure);
                    return;
                }
            }
        }
    }

    fn count(&self, kind: usize, begun: Instant, ended: Instant) {
        // In an open loop each request that was due counts, however late its answer is. In a closed loop only
        // those count that were answered in the time.
        let counts = begun >= self.times.begin
            && match self.metronome {
                Some(_) => begun < self.times.end,
                None => ended <= self.times.end,
            };
        if counts {
            let nanoseconds = u64::try_from((ended - begun).as_nanos()).unwrap_or(u64::MAX);
            self.tally.borrow_mut().kinds[kind].saturating_record(nanoseconds);
        }
    }
}

/// An empty histogram, from a microsecond to 100 s, with three significant digits.
fn histogram() -> Histogram<u64> {
    // The bounds are constants, and are valid.
    Histogram::new_with_bounds(1_000, 100_000_000_000, 3).unwrap_or_else(|_| unreachable!())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::http::{Http, Message};
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Mutex;

    /// How long the server below stalls, once.
    const STALL: Duration = Duration::from_millis(400);

    /// A server that stalls for all its clients after it has answered `before` requests.
    async fn server(before: usize, answer: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::new(Mutex::new(0));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answered = answered.clone();
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    // Requests are small, and come one at a time.
                    while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let mut answered = answered.lock().await;
                        *answered += 1;
                        if *answered == before {
                            tokio::time::sleep(STALL).await;
                        }
                        drop(answered);
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        port
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_time_too_short_for_an_answer_is_doubled() {
        let all = Load { length: Duration::from_millis(20), ..load(server(1, GOOD).await, 1) };
        let outcome = all.closed().await.unwrap().sound().unwrap();
        assert!(outcome.length > all.length, "{:?}", outcome.length);
    }

    fn load(port: u16, connections: usize) -> Load<Http, impl Choose> {
        let message = Message::get("/").answered_with("abc".into()).saying("X-Is", "it");
        Load {
            place: port,
            requests: Arc::new(vec![Request { kind: 0, message }]),
            choose: in_turn(1),
            connections,
            threads: 2,
            seed: 1,
            warmup: Duration::ZERO,
            length: Duration::from_secs(1),
        }
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nX-Is: it\r\nContent-Length: 3\r\n\r\nabc";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stall_is_charged_with_every_request_that_was_due_in_it() {
        const RATE: f64 = 500.0;
        let closed = load(server(100, GOOD).await, 2).closed().await.unwrap().sound().unwrap();
        let open = load(server(100, GOOD).await, 2).open(RATE).await.unwrap().sound().unwrap();
        let slow = |outcome: &Outcome| {
            let all = outcome.all();
            all.len() - all.count_between(0, u64::try_from(STALL.as_nanos() / 4).unwrap())
        };
        // Two connections wait once each; a few more slow requests may be the machine's doing.
        let of_stall = RATE * STALL.as_secs_f64();
        assert!(slow(&closed) >= 2 && slow(&closed) < 20, "{}", slow(&closed));
        assert!(slow(&open) as f64 >= of_stall / 2.0, "{} of {of_stall}", slow(&open));
        assert!(open.all().max() >= u64::try_from(STALL.as_nanos() * 9 / 10).unwrap());
        // Every request that was due is counted.
        assert!((open.rate() - RATE).abs() < 0.02 * RATE, "{}", open.rate());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_is_not_as_expected_is_a_failure_with_a_name() {
        for (answer, failure) in [
            ("HTTP/1.1 404 Not Found\r\nX-Is: it\r\nContent-Length: 3\r\n\r\nabc", Failure::Status(404)),
            ("HTTP/1.1 200 OK\r\nX-Is: it\r\nContent-Length: 2\r\n\r\nab", Failure::Length(2)),
            ("HTTP/1.1 200 OK\r\nX-Is: it\r\nContent-Length: 3\r\n\r\nabd", Failure::Content),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Failure::Header("X-Is", String::new())),
            ("HTTP/1.1 200 OK\r\nX-Is: it\r\n\r\nabc", Failure::Malformed),
            ("SSH-2.0-x\r\n\r\n", Failure::Malformed),
        ] {
            let load =
                Load { length: Duration::from_millis(50), ..load(server(usize::MAX, answer).await, 1) };
            let outcome = load.closed().await.unwrap();
            assert!(outcome.failures.contains_key(&failure), "{answer:?}: {:?}", outcome.failures);
            assert!(outcome.sound().is_err());
        }
        let closed_port = testkit::free_port();
        assert!(load(closed_port, 1).closed().await.is_err());
    }
}
