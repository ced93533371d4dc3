//! The layers around every route. They bound the requests that are handled at once. They refuse requests of other web
//! sites and requests without a needed token. They add security headers, and count.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::access::{Gate, Peer};
use super::lend;
use super::lend::Bodies;
use crate::config::Config;
use crate::error::Error;
use crate::holders::Counts;
use crate::hosts;
use crate::routes::answer::{RESOURCE_POLICY, failure};
use crate::routes::images;
use crate::service::state::AppState;
use crate::visitor::Visitor;

/// Scripts, styles and images come from this gateway's own files only, and none is inline in the page.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a request waits for the turn of a request that was ended.
const ENDING_LIMIT: Duration = Duration::from_secs(1);
/// The route label of a request that matched no route.
const UNMATCHED: &str = "unmatched";

/// The turns that an address may have for each free turn. One address alone gets three quarters of all turns, two get
/// six sevenths, and one turn is always left for another address (Choudhury and Hahne, "Dynamic queue length
/// thresholds", 1998).
const FOR_EACH_FREE: usize = 3;

/// Bounds the requests that are handled at once. Requests with a body have turns of their own, so that a slow upload
/// never takes the turn of a read. A connection has one request at a time, so the number of connections bounds the
/// answers that are still being sent.
///
/// A variant may take long, so reads of variants get at most half of the turns. The other half is left to other
/// requests.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    without_body: Lane,
    of_variants: Arc<Semaphore>,
    with_body: Lane,
    bodies: Bodies,
}

#[derive(Debug, Clone)]
struct Lane {
    free: Arc<Semaphore>,
    counts: Arc<Mutex<Counts>>,
}

/// The turn of a request, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _turn: SemaphorePermit<'a>,
    lane: &'a Lane,
    visitor: Visitor,
}

impl Lane {
    fn new(turns: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(turns)), counts: Arc::default() }
    }

    /// Whether the address may have another turn.
    fn is_fair(&self, visitor: Visitor) -> bool {
        let free = self.free.available_permits();
        // If no turn is free, the rule has nothing to protect. `take` then ends a slow body, or gives no turn.
        free == 0 || self.counts.lock().of(visitor) < FOR_EACH_FREE * free
    }

    fn with<'a>(&'a self, turn: SemaphorePermit<'a>, visitor: Visitor) -> Turn<'a> {
        self.counts.lock().add(visitor);
        Turn { _turn: turn, lane: self, visitor }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lane.counts.lock().remove(self.visitor);
    }
}

impl Turns {
    /// As many turns as the settings allow, for requests with and without a body each.
    pub(super) fn new(config: &Config) -> Self {
        let most = config.max_requests as usize;
        let of_variants = Arc::new(Semaphore::new((most / 2).max(1)));
        Self {
            without_body: Lane::new(most),
            of_variants,
            with_body: Lane::new(most),
            bodies: Bodies::default(),
        }
    }

    /// One of the turns that reads of variants may have at once, if one is free.
    fn take_for_variant(&self) -> Option<SemaphorePermit<'_>> {
        self.of_variants.try_acquire().ok()
    }

    /// A turn for a request, if its address may have one. The slowest body may be ended for a request with a body.
    pub(super) async fn take(&self, has_body: bool, visitor: Visitor) -> Option<Turn<'_>> {
        let lane = if has_body { &self.with_body } else { &self.without_body };
        if !lane.is_fair(visitor) {
            return None;
        }
        let turn = match lane.free.try_acquire() {
            Ok(turn) => turn,
            Err(_) if has_body && self.bodies.end_slowest() => {
                timeout(ENDING_LIMIT, lane.free.acquire()).await.ok()?.ok()?
            }
            Err(_) => return None,
        };
        Some(lane.with(turn, visitor))
    }
}

/// The layer around every route, down to the answer when a handler panics.
pub(super) async fn guard(
    State((state, gate, turns)): State<(AppState, Gate, Turns)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let has_body = lend::has_body(&request);
    let visitor = gate.visitor(peer(&request), request.headers());
    request.extensions_mut().insert(visitor);
    let turn = turns.take(has_body, visitor).await;
    let of_variants = images::is_of_variant(request.uri()).then(|| turns.take_for_variant());
    let path = request.uri().path().to_owned();
    let handled = async {
        if turn.is_none() && path != "/healthz" {
            failure(&state.views, &path, Error::Busy)
        } else if of_variants.as_ref().is_some_and(Option::is_none) {
            failure(&state.views, &path, Error::VariantsBusy)
        } else if has_body {
            let most = state.config.max_image_bytes().saturating_mul(2);
            let entry = Arc::new(turns.bodies.enter());
            let response = lend::run(request, next, most, entry.clone()).await;
            if entry.was_ended() { failure(&state.views, &path, Error::BodyTooSlow) } else { response }
        } else {
            next.run(request).await
        }
    };
    // The panic hook of the process has logged the panic with its place. The request still gets an answer.
    let mut response = AssertUnwindSafe(handled).catch_unwind().await.unwrap_or_else(|_| {
        failure(&state.views, &path, Error::Internal(anyhow::anyhow!("the handler of {path} panicked")))
    });
    drop((turn, of_variants));
    add_security_headers(response.headers_mut());
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    state.metrics.count_request(label(&method), route, response.status().as_str(), started.elapsed());
    response
}

/// Passes on the requests that are allowed. It runs within [`guard`], so that the body of a refused request is read
/// like any other, and its sender sees the reason.
pub(super) async fn admit(
    State((state, gate)): State<(AppState, Gate)>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match admitted(&gate, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => failure(&state.views, request.uri().path(), error),
    };
    gate.keep_private(response.headers_mut());
    response
}

fn admitted(gate: &Gate, request: &Request) -> Result<(), Error> {
    gate.check_host(request)?;
    if is_no_read(request.method()) && is_from_another_site(request.uri(), request.headers()) {
        return Err(Error::CrossSite);
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    gate.admit(request.method(), route, request.headers(), peer(request))?;
    is_plain(request)
}

fn peer(request: &Request) -> Peer {
    request.extensions().get::<Peer>().copied().unwrap_or_default()
}

/// Refuses an encoded body, because the gateway decodes no `Content-Encoding`.
fn is_plain(request: &Request) -> Result<(), Error> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" && lend::has_body(request) => Err(Error::UnsupportedType(
            "Content-Encoding must be left out: send the bytes of the image as they are".into(),
        )),
        _ => Ok(()),
    }
}

/// The label of a method. Unknown methods share one label, because a client can invent any number of them.
fn label(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") => known,
        _ => "other",
    }
}

/// Whether the method does more than read. Of the others, a browser shows no answer to another web site without asking.
fn is_no_read(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a browser sends this on behalf of another web site. Browsers say so in `Sec-Fetch-Site`, older ones in
/// `Origin`. Other programs send neither, and have no user's rights that could be misused.
pub(super) fn is_from_another_site(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    match (origin.to_str(), hosts::authority(uri, headers)) {
        (Ok(origin), Ok(Some(authority))) => !hosts::is_same_site(origin, authority),
        _ => true,
    }
}

/// Adds the headers that every answer has. A header that the handler has set is kept.
pub(super) fn add_security_headers(headers: &mut HeaderMap) {
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(PAGE_POLICY);
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers.entry(RESOURCE_POLICY).or_insert(HeaderValue::from_static("same-origin"));
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
        is_from_another_site(&Uri::from_static("/"), &headers)
    }

    #[test]
    fn only_what_another_site_sends_is_refused() {
        assert!(!refused(&[]));
        assert!(!refused(&[("sec-fetch-site", "same-origin")]));
        assert!(!refused(&[("sec-fetch-site", "none")]));
        assert!(refused(&[("sec-fetch-site", "cross-site")]));
        // Another port of this machine is the same site, but another origin.
        assert!(refused(&[("sec-fetch-site", "same-site")]));
        assert!(!refused(&[("origin", "http://127.0.0.1:5000"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "http://127.0.0.1:5001"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "http://evil.example"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "null"), ("host", "127.0.0.1:5000")]));
        assert!(refused(&[("origin", "http://127.0.0.1:5000")]));
        // Proxies may name the default port, browsers never do.
        assert!(!refused(&[("origin", "https://example.com"), ("host", "example.com:443")]));
        assert!(!refused(&[("origin", "http://example.com"), ("host", "example.com:80")]));
        assert!(refused(&[("origin", "https://example.com"), ("host", "example.com:80")]));
    }

    #[tokio::test]
    async fn one_address_never_has_all_turns() {
        use std::net::{IpAddr, Ipv4Addr};
        let visitor = |number| Visitor::from(IpAddr::V4(Ipv4Addr::from_bits(number)));
        let lane = || Lane::new(100);
        let of_variants = Arc::new(Semaphore::new(1));
        let bodies = Bodies::default();
        let turns = Turns { without_body: lane(), of_variants, with_body: lane(), bodies };
        for has_body in [false, true] {
            let mut held = Vec::new();
            let mut counts = Vec::new();
            for number in 0..5 {
                let before = held.len();
                while let Some(turn) = turns.take(has_body, visitor(number)).await {
                    held.push(turn);
                }
                counts.push(held.len() - before);
            }
            assert_eq!(counts, [75, 19, 5, 1, 0]);
            drop(held);
            assert!(turns.without_body.counts.lock().is_empty() && turns.with_body.counts.lock().is_empty());
        }
    }

    #[test]
    fn only_known_methods_are_labels() {
        assert_eq!(label(&Method::GET), "GET");
        assert_eq!(label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
