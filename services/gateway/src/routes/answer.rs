//! Shared by the handlers: failures in the form of each interface, and parts of requests and answers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use percent_encoding::percent_decode_str;
use wire::words::{one_of, shown};

use crate::error::Error;
use crate::head::value;
use crate::image::{CacheStatus, ReadOutcome};
use crate::views::{ErrorPage, Shell, Views};

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The sites whose web pages may load an answer without asking. Images have a setting for it.
pub(crate) const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A failure in the form of the interface that `path` belongs to: a page for people, JSON for programs.
pub(crate) fn failure(views: &Views, path: &str, error: Error) -> Response {
    if is_for_programs(path) { error.into_response() } else { error_page(views, &error) }
}

pub(crate) fn is_for_programs(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    ["api", "events", "images", "healthz", "readyz", "metrics"].contains(&first)
}

/// A failure as a page.
pub(crate) fn error_page(views: &Views, error: &Error) -> Response {
    error.log();
    let status = error.status();
    let page = ErrorPage { status: status.as_u16(), title: title_of(status), message: sentence(error) };
    let mut response = match views.page("error.html", &Shell::new(None, None), &page) {
        Ok(body) => html(status, body),
        Err(broken) => {
            broken.log();
            (status, error.message()).into_response()
        }
    };
    error.add_headers(response.headers_mut());
    response
}

/// The title of a status, in plain words.
pub(crate) fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "The request is not valid",
        StatusCode::UNAUTHORIZED => "Log in first",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::METHOD_NOT_ALLOWED => "Wrong method",
        StatusCode::SERVICE_UNAVAILABLE => "Not possible now",
        status if status.is_client_error() => "The request is refused",
        _ => "The gateway failed",
    }
}

/// An error's message as a sentence of its own.
pub(crate) fn sentence(error: &Error) -> String {
    let message = error.message();
    let mut letters = message.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let text: String = first.chain(letters).collect();
    if text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}

pub(crate) fn html(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        // Not "no-referrer", as elsewhere: with that, browsers send our own forms with `Origin: null`,
        // and older ones say nothing else about where a form comes from.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (status, headers, body).into_response()
}

/// The parameters of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The parameters of an address that takes those with these `names`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for another name, for one that is given twice, and for a value that is not UTF-8.
    pub(crate) fn of<const N: usize>(uri: &Uri, names: [&str; N]) -> Result<Self, Error> {
        let mut given: Vec<(String, String)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name).unwrap_or_else(|lossy| lossy);
            if !names.contains(&name.as_str()) {
                let got = shown(&name);
                return Err(Error::BadRequest(match names.is_empty() {
                    true => format!("this address must have no query parameter, got {got}"),
                    false => format!("a query parameter must be {}, got {got}", one_of(names)),
                }));
            }
            if given.iter().any(|(before, _)| *before == name) {
                return Err(Error::BadRequest(format!("{name} must be given once, got it twice")));
            }
            let value = decoded(value)
                .map_err(|lossy| Error::BadRequest(format!("{name} must be UTF-8, got {}", shown(&lossy))))?;
            given.push((name, value));
        }
        Ok(Self(given))
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// A part of a query as text. The error is the text with its bytes that are not UTF-8 replaced.
fn decoded(part: &str) -> Result<String, String> {
    let spaced = part.replace('+', " ");
    let bytes: Vec<u8> = percent_decode_str(&spaced).collect();
    String::from_utf8(bytes).map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A body that is empty, or an empty JSON object: the sender of another one expects it to have an effect.
pub(crate) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bad =
            |got: &str| Error::BadRequest(format!("the body must be empty, got {got}; nothing was changed"));
        let body =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => bad("more than 64 kB"),
                _ => broken_off(),
            })?;
        match body.trim_ascii() {
            b"" | b"{}" => Ok(Self),
            other => Err(bad(&shown(&String::from_utf8_lossy(other)))),
        }
    }
}

/// The error of a body whose connection broke off.
pub(crate) fn broken_off() -> Error {
    Error::BadRequest("the body must arrive whole, and its connection broke off: send it again".into())
}

/// `Server-Timing`: the time of the cache and, unless it was a hit, of the origin with everything after it.
pub(crate) fn server_timing(read: &ReadOutcome) -> Result<HeaderValue, Error> {
    match read.cache_status {
        CacheStatus::Hit | CacheStatus::Near => cache_timing(read.cache_time),
        _ => {
            let cache_ms = read.cache_time.as_secs_f64() * 1000.0;
            let rest_ms = read.elapsed.saturating_sub(read.cache_time).as_secs_f64() * 1000.0;
            value(format!("cache;dur={cache_ms:.3}, origin;dur={rest_ms:.3}"))
        }
    }
}

pub(crate) fn cache_timing(took: Duration) -> Result<HeaderValue, Error> {
    // Integers only: formatting floating-point numbers takes longer than a near hit.
    value(format!("cache;dur={}.{:03}", took.as_millis(), took.subsec_micros() % 1000))
}

/// The chunks of a body.
pub(crate) fn data(body: Body) -> impl Stream<Item = Result<Bytes, Error>> {
    body.into_data_stream().map_err(|_| broken_off())
}

/// The length that a request claims for its body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_query_is_read_or_refused_by_the_name_of_its_parameter() {
        let of = |uri: &str| Parameters::of(&uri.parse().unwrap(), ["range", "step", "format"]);
        let read = of("/api/stats?range=1h&&step=a+b%26").unwrap();
        assert_eq!(
            (read.get("range"), read.get("step"), read.get("format")),
            (Some("1h"), Some("a b&"), None)
        );
        for (query, sentence) in [
            ("foo=1", r#"a query parameter must be range, step or format, got "foo""#),
            ("rang%65s", r#"a query parameter must be range, step or format, got "ranges""#),
            ("range=1h&range=2h", "range must be given once, got it twice"),
            ("step=%FF", "step must be UTF-8, got \"\u{fffd}\""),
        ] {
            assert_eq!(of(&format!("/api/stats?{query}")).unwrap_err().message(), sentence);
        }
    }
}
