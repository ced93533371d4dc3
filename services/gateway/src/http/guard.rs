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
use tokio::time::timeout;

use super::access::{Gate, Peer, is_bearer, only_reads};
use super::lend;
use super::lend::Bodies;
use crate::config::Config;
use crate::cors::CorsOrigins;
use crate::error::Error;
use crate::fair::{FairPlace, FairPlaces};
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

/// Bounds the requests that are handled at once. Requests with a body have turns of their own, so that a slow upload
/// never takes the turn of a read. A connection has one request at a time, so the number of connections bounds the
/// answers that are still being sent.
///
/// A variant may take long, so reads of variants get at most half of the turns. The other half is left to other
/// requests. No address has all turns of a kind.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Kinds>);

#[derive(Debug)]
struct Kinds {
    without_body: FairPlaces,
    of_variants: FairPlaces,
    with_body: FairPlaces,
    bodies: Bodies,
}

impl Turns {
    /// As many turns as the settings allow, for requests with and without a body each.
    pub(super) fn new(config: &Config) -> Self {
        let most = config.max_requests as usize;
        Self(Arc::new(Kinds {
            without_body: FairPlaces::new(most),
            of_variants: FairPlaces::new(most / 2),
            with_body: FairPlaces::new(most),
            bodies: Bodies::default(),
        }))
    }

    /// One of the turns that reads of variants may have at once, if the address may have one.
    fn take_for_variant(&self, visitor: Visitor) -> Option<FairPlace<'_>> {
        self.0.of_variants.take(visitor)
    }

    /// A turn for a request, if its address may have one. The slowest body may be ended for a request with a body.
    pub(super) async fn take(&self, has_body: bool, visitor: Visitor) -> Option<FairPlace<'_>> {
        if !has_body {
            return self.0.without_body.take(visitor);
        }
        let turns = &self.0.with_body;
        if let Some(turn) = turns.take(visitor) {
            return Some(turn);
        }
        if turns.is_fair(visitor) && self.0.bodies.end_slowest() {
            return timeout(ENDING_LIMIT, turns.next(visitor)).await.ok()?;
        }
        None
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
    let of_variants = images::is_of_variant(request.uri()).then(|| turns.take_for_variant(visitor));
    let path = request.uri().path().to_owned();
    let handled = async {
        if turn.is_none() && path != "/healthz" {
            failure(&state.views, &path, Error::Busy)
        } else if of_variants.as_ref().is_some_and(Option::is_none) {
            failure(&state.views, &path, Error::VariantsBusy)
        } else if has_body {
            let most = state.config.max_image_bytes().saturating_mul(2);
            let entry = Arc::new(turns.0.bodies.enter());
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
    let mut response = match admitted(&state.config.cors_origins, &gate, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => failure(&state.views, request.uri().path(), error),
    };
    gate.keep_private(response.headers_mut());
    response
}

fn admitted(origins: &CorsOrigins, gate: &Gate, request: &Request) -> Result<(), Error> {
    gate.check_host(request)?;
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if is_no_read(request.method())
        && is_from_another_site(request.uri(), request.headers())
        && !may_come_from_elsewhere(origins, gate, request, route)
    {
        return Err(Error::CrossSite);
    }
    gate.admit(request.method(), route, request.headers(), peer(request))?;
    is_plain(request)
}

/// Whether a script of another site may send this. Its origin must be allowed. A change needs the token as `Bearer` too:
/// a browser adds the password of a login by itself, to requests of any site.
fn may_come_from_elsewhere(
    origins: &CorsOrigins,
    gate: &Gate,
    request: &Request,
    route: Option<&str>,
) -> bool {
    let (method, headers) = (request.method(), request.headers());
    let is_no_login = headers.get(header::AUTHORIZATION).is_none_or(is_bearer);
    origins.allow(headers) && (only_reads(method, route) || (gate.needs_token(method, route) && is_no_login))
}

fn peer(request: &Request) -> Peer {
    request.extensions().get::<Peer>().copied().unwrap_or_default()
}

/// Refuses an encoded body, because the gateway decodes no `Content-Encoding`.
fn is_plain(request: &Request) -> Result<(), Error> {
    let codings = request.headers().get_all(header::CONTENT_ENCODING);
    if lend::has_body(request) && !codings.iter().all(is_no_coding) {
        return Err(Error::UnsupportedType(
            "Content-Encoding must be left out: send the bytes of the image as they are".into(),
        ));
    }
    Ok(())
}

/// Whether a `Content-Encoding` says that nothing is encoded. Names of codings have no case (RFC 9110, section 8.4.1).
fn is_no_coding(coding: &HeaderValue) -> bool {
    let mut names = coding.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.all(|name| name.is_empty() || name.eq_ignore_ascii_case(b"identity"))
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

    #[test]
    fn an_encoding_is_one_whatever_its_case() {
        for none in ["identity", "Identity", "", " ", "identity, IDENTITY"] {
            assert!(is_no_coding(&HeaderValue::from_static(none)), "{none}");
        }
        for one in ["gzip", "GZIP", "identity, br", "identity;q=1"] {
            assert!(!is_no_coding(&HeaderValue::from_static(one)), "{one}");
        }
    }

    #[test]
    fn only_known_methods_are_labels() {
        assert_eq!(label(&Method::GET), "GET");
        assert_eq!(label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
