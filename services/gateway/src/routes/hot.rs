//! The short way of the most frequent request: an image of which this gateway has a copy.
//!
//! The router, the layers around it and the futures that they box cost more than everything else that such a
//! request needs. So it is answered before them, by the same functions and to the same rules; whatever is
//! not quite as simple goes on to them.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Incoming};

use super::access::Gate;
use super::guard::add_security_headers;
use super::images::{self, PREFIX, ROUTE};
use crate::metrics::RequestCounter;
use crate::near::Near;
use crate::read::CacheStatus;
use crate::state::AppState;

const METHOD: &str = "GET";

/// What answers near hits.
#[derive(Debug)]
pub(super) struct Hot {
    state: AppState,
    near: Arc<Near>,
    gate: Gate,
    whole: RequestCounter,
}

impl Hot {
    /// That of a gateway with a near cache.
    pub(super) fn new(state: &AppState, gate: &Gate) -> Option<Self> {
        let near = state.near()?.clone();
        let whole = state.metrics.request_counter(METHOD, ROUTE, StatusCode::OK.as_str());
        Some(Self { state: state.clone(), near, gate: gate.clone(), whole })
    }

    /// The answer to a plain `GET` of an image that is here.
    pub(super) fn answer(&self, request: &Request<Incoming>) -> Option<Response> {
        let started = Instant::now();
        if request.method() != Method::GET || !request.body().is_end_stream() {
            return None;
        }
        let key = request.uri().path().strip_prefix(PREFIX)?;
        // Escaped, it may be another key than it looks.
        if key.contains('%') {
            return None;
        }
        self.gate.admit(&Method::GET, Some(ROUTE), request.headers()).ok()?;
        let (copy, bytes) = self.near.hit(key)?;
        let took = started.elapsed();
        self.state.metrics.count_read(CacheStatus::Near, took);
        let answer = images::respond_near(&self.state, request.uri(), request.headers(), &copy, bytes, took);
        let mut response = answer.unwrap_or_else(|error| error.into_response());
        self.gate.keep_private(response.headers_mut());
        add_security_headers(response.headers_mut());
        match response.status() {
            StatusCode::OK => self.whole.count(started.elapsed()),
            status => self.state.metrics.count_request(METHOD, ROUTE, status.as_str(), started.elapsed()),
        }
        Some(response)
    }
}
