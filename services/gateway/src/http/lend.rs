//! Lends request bodies to handlers, and takes back the rest.
//!
//! A handler that refuses an upload answers before it has read the whole body. If the connection were then closed on
//! the rest, the peer's kernel would discard the answer and report "connection reset" instead. So the rest of a refused
//! body is read and dropped first, within limits.
//!
//! A body may come slowly. But when there is no turn for another request with a body, the slowest body is ended.
//! Otherwise a client that sends a byte now and then on enough connections would block all uploads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::holders::{Held, Registry};

/// A body that has been coming for less than this is not ended.
const LEAST_TIME: Duration = Duration::from_secs(5);
/// A body of at least so many bytes a second, 128 kbit/s, is not ended.
const LEAST_RATE: u64 = 16_000;
/// How long the rest of a refused body is read for.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Whether a request comes with a body.
pub(super) fn has_body(request: &Request) -> bool {
    !request.body().is_end_stream()
}

/// The request bodies that are being received.
#[derive(Debug, Clone, Default)]
pub(super) struct Bodies(Registry<Coming>);

/// A body that is being received.
#[derive(Debug)]
struct Coming {
    since: Instant,
    bytes: u64,
}

/// The entry of one body, as long as it is being received.
#[derive(Debug)]
pub(super) struct Entry(Held<Coming>);

impl Bodies {
    /// Enters a body that begins now.
    pub(super) fn enter(&self) -> Entry {
        Entry(self.0.enter(None, Coming { since: Instant::now(), bytes: 0 }))
    }

    /// Ends the slowest body, if it is too slow. Returns whether one was ended.
    pub(super) fn end_slowest(&self) -> bool {
        let mut bodies = self.0.lock();
        let rates = bodies.iter().filter_map(|(number, body)| {
            let time = body.state.since.elapsed();
            let rate = body.state.bytes / time.as_secs().max(1);
            (time >= LEAST_TIME && rate < LEAST_RATE).then_some((rate, number))
        });
        let Some((_, slowest)) = rates.min() else { return false };
        bodies.end(slowest);
        true
    }
}

impl Entry {
    /// Whether the body was ended because it came too slowly.
    pub(super) fn was_ended(&self) -> bool {
        self.0.leave().is_cancelled()
    }

    fn came(&self, bytes: usize) {
        self.0.change(|body| body.bytes += bytes as u64);
    }

    fn is_whole(&self) {
        self.0.give_up();
    }
}

/// Runs the handlers. If they refuse the request, the rest of its body is then read, up to `most` bytes. The handlers
/// see the body break off once it is ended.
pub(super) async fn run(request: Request, next: Next, most: u64, entry: Arc<Entry>) -> Response {
    // A client that waits for a "100 Continue" sends no body before it, so an untouched body has no rest to read.
    let waits = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let lent = Arc::new(Mutex::new(Lent {
        body: body.into_data_stream(),
        go: Box::pin(entry.0.leave().clone().cancelled_owned()),
        entry,
        touched: false,
        ended: false,
    }));
    let reading = lent.clone();
    let body = Body::from_stream(stream::poll_fn(move |context| reading.lock().poll(context)));
    let response = next.run(Request::from_parts(parts, body)).await;
    let left = {
        let lent = lent.lock();
        !lent.ended && (lent.touched || !waits)
    };
    if left && (response.status().is_client_error() || response.status().is_server_error()) {
        drain(&lent, most).await;
    }
    response
}

struct Lent {
    body: BodyDataStream,
    entry: Arc<Entry>,
    go: Pin<Box<WaitForCancellationFutureOwned>>,
    touched: bool,
    ended: bool,
}

impl Lent {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<bytes::Bytes, axum::Error>>> {
        self.touched = true;
        if self.go.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(Err(axum::Error::new("it came too slowly"))));
        }
        let polled = self.body.poll_next_unpin(context);
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => self.entry.came(bytes.len()),
            Poll::Ready(None | Some(Err(_))) => {
                self.ended = true;
                self.entry.is_whole();
            }
            Poll::Pending => {}
        }
        polled
    }
}

async fn drain(lent: &Mutex<Lent>, most: u64) {
    let mut rest = stream::poll_fn(|context| lent.lock().poll(context));
    let reading = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = rest.next().await {
            read += chunk.len() as u64;
            if read > most {
                return;
            }
        }
    };
    // Beyond the limits the peer may not get the answer.
    let _ = timeout(DRAIN_LIMIT, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_slowest_body_is_ended_and_none_that_is_fast_or_whole_or_new() {
        let bodies = Bodies::default();
        let (slow, slower, fast, whole) = (bodies.enter(), bodies.enter(), bodies.enter(), bodies.enter());
        assert!(!bodies.end_slowest());
        advance(LEAST_TIME).await;
        let new = bodies.enter();
        slow.came(1000);
        slower.came(10);
        fast.came(1_000_000);
        whole.is_whole();
        assert!(bodies.end_slowest());
        assert!(slower.was_ended() && !slow.was_ended());
        assert!(bodies.end_slowest());
        assert!(slow.was_ended());
        assert!(!bodies.end_slowest());
        assert!(![&fast, &whole, &new].iter().any(|entry| entry.was_ended()));
        drop((slow, slower, fast, whole, new));
        assert!(bodies.0.lock().len() == 0);
    }
}
