//! The HTTP server under the routes.
//!
//! `axum::serve` has no time limit for a request's head, no cap on connections, and waits for the last
//! connection without end; so hyper is driven here directly.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Part};
use crate::http::access::{Gate, Peer};
use crate::http::app::{App, starting};
use crate::http::crowd::{Crowd, Doing, Room};
use crate::http::patient::Patient;
use crate::metrics::ConnectionMetrics;
use crate::routes::events::Endless;
use crate::views::Views;
use crate::visitor::Visitor;

/// How long a connection may take to send a request's head, and how long it may stay idle before it.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a peer may read nothing of its answer.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of a request's head, and of an answer that waits for its peer, beyond the piece that is
/// being sent.
const BUFFER_BYTES: usize = 64 << 10;
/// How often an idle connection is looked for while there is none and a new connection waits.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long to wait when the process has no file descriptor left for another connection.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// The most connections that may wait to be accepted. The system cuts it to its own limit.
const BACKLOG: u32 = 4096;
/// The file descriptors for all other uses than connections: uploads, MySQL, NATS, the log.
const OTHER_DESCRIPTORS: u64 = 256;

/// Takes requests from the first moment. Until the routes are there, its answers name the parts that it waits for.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    views: Views,
    gate: Gate,
    app: Arc<OnceLock<App>>,
    waiting_for: Arc<Mutex<Health>>,
}

impl Front {
    /// A front without routes.
    pub(crate) fn new(views: Views, gate: Gate) -> Self {
        let waiting = Part { ok: false, message: "waiting for it".into() };
        let unknown = Part { ok: false, message: "unknown until NATS is connected".into() };
        let store = Part { ok: true, message: "can be opened".into() };
        let health = Health {
            nats: waiting.clone(),
            memcache: unknown.clone(),
            recorder: unknown,
            mysql: waiting,
            store,
        };
        Self { views, gate, app: Arc::default(), waiting_for: Arc::new(Mutex::new(health)) }
    }

    /// Notes that a part is connected.
    pub(crate) fn found(&self, part: impl FnOnce(&mut Health) -> &mut Part) {
        let mut waiting_for = self.waiting_for.lock();
        *part(&mut waiting_for) = Part { ok: true, message: "connected".into() };
    }

    /// Opens the routes.
    pub(crate) fn open(&self, app: App) {
        // There is one start, so it is never set before.
        let _ = self.app.set(app);
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Result<Response, Infallible> {
        if let Some(app) = self.app.get() {
            return Ok(app.answer(request, peer).await);
        }
        let waiting_for = self.waiting_for.lock().clone();
        Ok(starting(&self.views, &self.gate, &request, peer, &waiting_for))
    }
}

/// How the server treats connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    /// The most connections at once. For a further one, the longest idle one is closed. Without an idle one it waits.
    pub(crate) max_connections: usize,
    /// How long the stop waits for requests in flight.
    pub(crate) grace: Duration,
}

/// Listens with a queue of unaccepted connections that is as long as the system allows. The library's queue has 128
/// places: the 129th connection of a burst would wait a second before its machine tries again.
///
/// # Errors
/// When the address can't be bound.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The number of connections: `wanted`, or fewer if the file descriptors of this process do not allow as many. The
/// limit of descriptors is raised first, as far as the process may. A connection has one descriptor, and another one
/// while its answer comes from a file.
pub(crate) fn connections_within_descriptors(wanted: u32) -> usize {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let Some(descriptors) = runtime::descriptors::raise_limit() else { return wanted };
    let allowed = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    if allowed < wanted {
        tracing::warn!(
            descriptors,
            connections = allowed.max(1),
            "the limit of open files (ulimit -n) allows fewer connections than MAX_CONNECTIONS"
        );
    }
    wanted.min(allowed.max(1))
}

/// Serves until the stop. Then it finishes the requests in flight, and cuts off those that take longer than the grace.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Front,
    limits: ServerLimits,
    metrics: ConnectionMetrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let crowd = Crowd::new(limits.max_connections);
    let cut = CancellationToken::new();
    let _cut_at_last = cut.clone().drop_guard();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(BUFFER_BYTES);
    let accept = async {
        loop {
            let (stream, peer) = accepted(&listener).await?;
            // A trusted proxy connects for many clients, so its connections count for no share.
            let visitor = (!front.gate.trusts(peer)).then(|| Visitor::from(peer.0));
            let Some(slot) = slot(&slots, &crowd, &metrics, visitor).await? else { continue };
            // Answers are written whole, so there is nothing to wait for.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection broke off");
                continue;
            }
            let seat = crowd.enter(visitor);
            let (front, working) = (front.clone(), seat.clone());
            let service = service_fn(move |request| {
                let (front, working) = (front.clone(), working.clone());
                async move {
                    working.does(Doing::Working);
                    let answer = front.answer(request, peer).await;
                    if answer.as_ref().is_ok_and(|answer| answer.extensions().get::<Endless>().is_some()) {
                        working.follows();
                    }
                    working.moved();
                    working.does(Doing::Waiting);
                    answer
                }
            });
            let stream = TokioIo::new(Patient::new(stream, WRITE_LIMIT, seat.clone()));
            let connection = graceful.watch(http.serve_connection(stream, service));
            let (cut, metrics) = (cut.clone(), metrics.clone());
            tokio::spawn(async move {
                let (_slot, _open) = (slot, metrics.open());
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    },
                    () = seat.asked_to_leave() => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    };
    if let Some(failed) = shutdown.run_until_cancelled(accept).await {
        return failed;
    }
    drop(listener);
    if timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in flight were cut off: they took longer than SHUTDOWN_GRACE_MS");
    }
    Ok(())
}

/// A slot for one more connection. If all are taken, another connection is closed for it. `None` if its address has
/// more than its share and keeps all of it busy.
async fn slot(
    slots: &Arc<Semaphore>,
    crowd: &Crowd,
    metrics: &ConnectionMetrics,
    visitor: Option<Visitor>,
) -> Result<Option<OwnedSemaphorePermit>, AcquireError> {
    loop {
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return Ok(Some(slot));
        }
        match crowd.make_room(visitor) {
            Room::Made => metrics.count_evicted(),
            Room::None => {}
            Room::Refused => {
                metrics.count_evicted();
                return Ok(None);
            }
        }
        if let Ok(slot) = timeout(LOOK_AGAIN, slots.clone().acquire_owned()).await {
            return slot.map(Some);
        }
    }
}

/// The next connection. An error of one connection does not end the server.
async fn accepted(listener: &TcpListener) -> io::Result<(tokio::net::TcpStream, Peer)> {
    loop {
        let error = match listener.accept().await {
            Ok((stream, address)) => return Ok((stream, Peer(address.ip()))),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted => {}
            _ => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::net::TcpStream;

    #[tokio::test]
    async fn a_crowd_that_comes_at_once_is_let_in() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let allowed = allowed.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(128);
        // No connection is accepted here.
        let crowd: Vec<_> = (0..allowed.min(600))
            .map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap())
            .collect();
        assert!(crowd.len() >= 128);
    }
}
