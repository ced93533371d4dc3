//! The fast path of the most frequent requests: plain reads of an image.
//!
//! The router, the layers around it and the futures that they box cost more than the rest of a near hit. They also cost
//! a good part of a hit that crosses the bus. So plain reads are answered before the router, by the same functions and
//! to the same rules. Every other request goes on to the router.

use std::time::Instant;

use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Incoming};
use wire::Key;

use super::access::{Gate, Peer};
use super::guard::{Turns, add_security_headers, is_from_another_site};
use crate::error::Error;
use crate::metrics::RequestCounter;
use crate::routes::{api, images};
use crate::service::state::AppState;

/// Answers plain reads before they reach the router.
#[derive(Debug)]
pub(super) struct Hot {
    state: AppState,
    gate: Gate,
    turns: Turns,
    images: RequestCounter,
    keys: RequestCounter,
}

/// A plain read: a `GET` of an image without a width, or a `POST` for its base64. It has no body, and no escape in its
/// key.
#[derive(Debug, Clone, Copy)]
struct Read<'a> {
    request: &'a Request<Incoming>,
    what: What,
    key: &'a str,
    started: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The bytes of an image.
    Image,
    /// The bytes of an image as base64 in JSON.
    Key,
}

impl What {
    fn pattern(self) -> &'static str {
        match self {
            Self::Image => images::ROUTE,
            Self::Key => api::KEY_ROUTE,
        }
    }
}

impl Hot {
    /// A fast path that shares the gate and the turns of the router.
    pub(super) fn new(state: &AppState, gate: &Gate, turns: &Turns) -> Self {
        let counter = |method: Method, route| {
            state.metrics.request_counter(method.as_str(), route, StatusCode::OK.as_str())
        };
        Self {
            state: state.clone(),
            gate: gate.clone(),
            turns: turns.clone(),
            images: counter(Method::GET, images::ROUTE),
            keys: counter(Method::POST, api::KEY_ROUTE),
        }
    }

    /// The answer to a plain `GET` of an image, or a `POST` for its base64. `None` leaves the request to the router.
    pub(super) async fn answer(&self, request: &Request<Incoming>, peer: Peer) -> Option<Response> {
        let read = Read::new(request)?;
        self.gate.check_host(request).ok()?;
        // The router answers a refused request and counts it.
        if !self.gate.admits(request.method(), Some(read.what.pattern()), request.headers(), peer) {
            return None;
        }
        let answer = match self.near(read) {
            Some(answer) => answer,
            // The future is boxed, or each connection would reserve memory for it.
            None => Box::pin(self.far(read, peer)).await?,
        };
        Some(self.finish(read, answer.unwrap_or_else(|error| error.into_response())))
    }

    /// Answers from the near copy of this gateway, if there is one.
    fn near(&self, read: Read<'_>) -> Option<Result<Response, Error>> {
        let hit = self.state.read_near(read.key, None, read.started)?;
        let (uri, headers) = (read.request.uri(), read.request.headers());
        Some(match read.what {
            What::Image => images::respond_near(&self.state, uri, headers, hit, false),
            What::Key => api::respond_near(hit),
        })
    }

    /// Answers from wherever the image is. `None` if the key is not valid, or there is no turn for the request.
    async fn far(&self, read: Read<'_>, peer: Peer) -> Option<Result<Response, Error>> {
        let key = Key::new(read.key).ok()?;
        let visitor = self.gate.visitor(peer, read.request.headers());
        let _turn = self.turns.take(false, visitor).await?;
        let (uri, headers) = (read.request.uri(), read.request.headers());
        Some(match read.what {
            What::Image => images::read_far(&self.state, &key.into(), visitor, uri, headers, false).await,
            What::Key => api::read_far(&self.state, key, visitor).await,
        })
    }

    fn finish(&self, read: Read<'_>, mut response: Response) -> Response {
        self.gate.keep_private(response.headers_mut());
        add_security_headers(response.headers_mut());
        let took = read.started.elapsed();
        match (response.status(), read.what) {
            (StatusCode::OK, What::Image) => self.images.count(took),
            (StatusCode::OK, What::Key) => self.keys.count(took),
            (status, what) => {
                let (metrics, method) = (&self.state.metrics, read.request.method());
                metrics.count_request(method.as_str(), what.pattern(), status.as_str(), took);
            }
        }
        response
    }
}

impl<'a> Read<'a> {
    fn new(request: &'a Request<Incoming>) -> Option<Self> {
        let started = Instant::now();
        if !request.body().is_end_stream() {
            return None;
        }
        let path = request.uri().path();
        let (what, key) = if request.method() == Method::GET && !images::asks_for_width(request.uri()) {
            (What::Image, path.strip_prefix(images::PREFIX)?)
        } else if request.method() == Method::POST
            && request.uri().query().is_none()
            && !is_from_another_site(request.uri(), request.headers())
        {
            (What::Key, path.strip_prefix(api::KEY_PREFIX)?)
        } else {
            return None;
        };
        // An escaped key is not the key that the path shows, so the router decodes it.
        (!key.contains('%')).then_some(Self { request, what, key, started })
    }
}
