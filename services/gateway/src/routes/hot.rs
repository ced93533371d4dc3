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
use super::guard::{add_security_headers, is_from_another_site};
use super::{api, images};
use crate::metrics::RequestCounter;
use crate::near::Near;
use crate::read::CacheStatus;
use crate::state::AppState;

/// What answers near hits.
#[derive(Debug)]
pub(super) struct Hot {
    state: AppState,
    near: Arc<Near>,
    gate: Gate,
    images: RequestCounter,
    keys: RequestCounter,
}

impl Hot {
    /// That of a gateway with a near cache.
    pub(super) fn new(state: &AppState, gate: &Gate) -> Option<Self> {
        let near = state.near()?.clone();
        let counter = |method: Method, route| {
            state.metrics.request_counter(method.as_str(), route, StatusCode::OK.as_str())
        };
        let (images, keys) = (counter(Method::GET, images::ROUTE), counter(Method::POST, api::KEY_ROUTE));
        Some(Self { state: state.clone(), near, gate: gate.clone(), images, keys })
    }

    /// The answer to a plain `GET` of an image, or a `POST` for its base64, that is here.
    pub(super) fn answer(&self, request: &Request<Incoming>) -> Option<Response> {
        let started = Instant::now();
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        if !request.body().is_end_stream() {
            return None;
        }
        let (key, route, counter) = if method == Method::GET {
            (uri.path().strip_prefix(images::PREFIX)?, images::ROUTE, &self.images)
        } else if method == Method::POST && !is_from_another_site(headers) {
            (uri.path().strip_prefix(api::KEY_PREFIX)?, api::KEY_ROUTE, &self.keys)
        } else {
            return None;
        };
        // Escaped, it may be another key than it looks.
        if key.contains('%') {
            return None;
        }
        self.gate.admit(method, Some(route), headers).ok()?;
        let (copy, bytes) = self.near.hit(key)?;
        let took = started.elapsed();
        self.state.metrics.count_read(CacheStatus::Near, took);
        let answer = match route {
            api::KEY_ROUTE => api::respond_near(&copy, bytes, took),
            _ => images::respond_near(&self.state, uri, headers, &copy, bytes, took),
        };
        let mut response = answer.unwrap_or_else(|error| error.into_response());
        self.gate.keep_private(response.headers_mut());
        add_security_headers(response.headers_mut());
        match response.status() {
            StatusCode::OK => counter.count(started.elapsed()),
            status => {
                let metrics = &self.state.metrics;
                metrics.count_request(method.as_str(), route, status.as_str(), started.elapsed());
            }
        }
        Some(response)
    }
}
