//! What surrounds every route: refusing what other web sites ask for and what needs the token, headers
//! that keep browsers safe, counting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::access::Gate;
use super::lend::Bodies;
use super::{failure, lend};
use crate::config::Config;
use crate::error::Error;
use crate::state::AppState;

/// Scripts, styles and images come from this gateway's own files, and nothing is written into the page.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a request waits for the turn of one that was ended.
const ENDING_LIMIT: Duration = Duration::from_secs(1);
/// The label of what matched no route.
const UNMATCHED: &str = "unmatched";

/// How many requests are worked on at once: those with a body apart, so that nobody who sends one slowly
/// takes the turn of a reader. A connection waits for its answer with one request, so the answers that are
/// still being sent are bounded by the connections.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    without_body: Arc<Semaphore>,
    with_body: Arc<Semaphore>,
    bodies: Bodies,
}

impl Turns {
    /// As many as the settings say.
    pub(super) fn new(config: &Config) -> Self {
        let turns = || Arc::new(Semaphore::new(config.max_requests as usize));
        Self { without_body: turns(), with_body: turns(), bodies: Bodies::default() }
    }

    /// A turn for a request, for which the slowest of those with a body may have to end.
    pub(super) async fn take(&self, has_body: bool) -> Option<SemaphorePermit<'_>> {
        if !has_body {
            return self.without_body.try_acquire().ok();
        }
        match self.with_body.try_acquire() {
            Ok(turn) => Some(turn),
            Err(_) if self.bodies.end_slowest() => {
                timeout(ENDING_LIMIT, self.with_body.acquire()).await.ok()?.ok()
            }
            Err(_) => None,
        }
    }
}

/// Surrounds every route.
pub(super) async fn guard(
    State((state, turns)): State<(AppState, Turns)>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let has_body = lend::has_body(&request);
    let turn = turns.take(has_body).await;
    let mut response = if turn.is_none() && request.uri().path() != "/healthz" {
        failure(&state.views, request.uri().path(), Error::Busy)
    } else if has_body {
        let most = state.config.max_image_bytes().saturating_mul(2);
        let (path, entry) = (request.uri().path().to_owned(), Arc::new(turns.bodies.enter()));
        let response = lend::run(request, next, most, entry.clone()).await;
        if entry.was_ended() { failure(&state.views, &path, Error::BodyTooSlow) } else { response }
    } else {
        next.run(request).await
    };
    drop(turn);
    add_security_headers(response.headers_mut());
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    state.metrics.count_request(label(&method), route, response.status().as_str(), started.elapsed());
    response
}

/// Passes on what may be done. Within [`guard`], so that a body that is refused here is read like any
/// other, and whoever sends it sees why.
pub(super) async fn admit(
    State((state, gate)): State<(AppState, Gate)>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let admitted = if is_no_read(request.method()) && is_from_another_site(request.headers()) {
        Err(Error::CrossSite)
    } else {
        gate.admit(request.method(), route, request.headers()).and_then(|()| is_plain(&request))
    };
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => failure(&state.views, request.uri().path(), error),
    };
    gate.keep_private(response.headers_mut());
    response
}

/// Lets through what is sent as it is: nothing here unpacks anything.
fn is_plain(request: &Request) -> Result<(), Error> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" && lend::has_body(request) => Err(Error::UnsupportedType(
            "Content-Encoding is not allowed: send the bytes of the body as they are".into(),
        )),
        _ => Ok(()),
    }
}

/// A method as a label: anybody can make up new ones.
fn label(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") => known,
        _ => "other",
    }
}

/// Whether a browser would have asked before it let another web site read the answer.
fn is_no_read(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a browser sends this on behalf of another web site. Browsers say so in `Sec-Fetch-Site`, older
/// ones in `Origin`; other programs send neither, and have nobody's rights to misuse.
pub(super) fn is_from_another_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    match (authority, host) {
        (Some(authority), Some(host)) => !authority.eq_ignore_ascii_case(host),
        _ => true,
    }
}

/// Adds what every answer has, unless its handler has said something of its own.
pub(super) fn add_security_headers(headers: &mut HeaderMap) {
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(PAGE_POLICY);
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn refused(pairs: &[(&'static str, &str)]) -> bool {
        let headers = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        is_from_another_site(&headers)
    }

    #[test]
    fn only_what_another_site_sends_is_refused() {
        assert!(!refused(&[]));
        assert!(!refused(&[("sec-fetch-site", "same-origin")]));
        assert!(!refused(&[("sec-fetch-site", "none")]));
        assert!(refused(&[("sec-fetch-site", "cross-site")]));
        // Another port of this machine is the same site, and somebody else all the same.
        assert!(refused(&[("sec-fetch-site", "same-site")]));
        assert!(!refused(&[("origin", "http://127.0.0.1:5000"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "http://127.0.0.1:5001"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "http://evil.example"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "null"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "http://127.0.0.1:5000")]));
    }

    #[test]
    fn only_known_methods_are_labels() {
        assert_eq!(label(&Method::GET), "GET");
        assert_eq!(label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
