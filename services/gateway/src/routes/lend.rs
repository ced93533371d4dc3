//! Bodies are lent to handlers and taken back.
//!
//! A handler that refuses an upload answers before it has read all of it. If the connection were then
//! closed on the rest, the peer's kernel would throw the answer away and show "connection reset" instead
//! of the sentence. So what a refusing handler has left is read and dropped first, within limits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

/// How long the rest of a refused body is read for.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Whether a request comes with a body.
pub(super) fn has_body(request: &Request) -> bool {
    !request.body().is_end_stream()
}

/// Runs the handlers, and reads what they have left of the body, up to `most` bytes.
pub(super) async fn run(request: Request, next: Next, most: u64) -> Response {
    // Whoever waits for a "100 Continue" sends nothing before it, and need not be asked to.
    let waits = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let lent = Arc::new(Mutex::new(Lent { body: body.into_data_stream(), touched: false, ended: false }));
    let reading = lent.clone();
    let body = Body::from_stream(stream::poll_fn(move |context| lock(&reading).poll(context)));
    let response = next.run(Request::from_parts(parts, body)).await;
    let left = {
        let lent = lock(&lent);
        !lent.ended && (lent.touched || !waits)
    };
    if left && (response.status().is_client_error() || response.status().is_server_error()) {
        drain(&lent, most).await;
    }
    response
}

struct Lent {
    body: BodyDataStream,
    touched: bool,
    ended: bool,
}

impl Lent {
    fn poll(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<bytes::Bytes, axum::Error>>> {
        self.touched = true;
        let polled = self.body.poll_next_unpin(context);
        self.ended |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }
}

/// One task at a time reads a body: the lock never waits.
fn lock(lent: &Mutex<Lent>) -> MutexGuard<'_, Lent> {
    lent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn drain(lent: &Mutex<Lent>, most: u64) {
    let mut rest = stream::poll_fn(|context| lock(lent).poll(context));
    let reading = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = rest.next().await {
            read += chunk.len() as u64;
            if read > most {
                return;
            }
        }
    };
    // Beyond the limits the peer has to live without the sentence.
    let _ = timeout(DRAIN_LIMIT, reading).await;
}
