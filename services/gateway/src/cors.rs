//! Cross-origin requests (CORS, in the Fetch standard, section 3.2): scripts of other web applications that may read
//! answers, and make changes with the token.

use std::str::FromStr;

use axum::http::header;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use wire::words::shown;

use crate::hosts::{is_host, origin_of};

/// The methods that a script of an allowed origin may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
/// The headers that it may send.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Accept, Authorization, Content-Digest, Content-MD5, Content-Type, If-Match, If-Modified-Since, If-None-Match, \
     If-Range, If-Unmodified-Since, Last-Event-ID, Range, Repr-Digest, Want-Repr-Digest",
);
/// The headers of answers that it may read, besides those that any script may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Accept-Ranges, Cache-Status, Content-Range, ETag, Location, Repr-Digest, Retry-After, Server-Timing",
);
/// For how many seconds a browser may remember the answer to a preflight request.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins in `CORS_ORIGINS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Any.
    Any,
    /// These, in lower case, each with its port.
    These(Vec<String>),
}

impl Default for CorsOrigins {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl CorsOrigins {
    /// Whether none is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the script that sends this request belongs to an allowed origin.
    pub(crate) fn allow(&self, headers: &HeaderMap) -> bool {
        headers.get(header::ORIGIN).is_some_and(|origin| self.include(origin))
    }

    fn include(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::These(origins) => {
                let origin = origin.to_str().ok().and_then(normal);
                origin.is_some_and(|origin| origins.contains(&origin))
            }
        }
    }

    /// The answer to a preflight request of an allowed origin; `None` to any other request.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        (asks && self.allow(headers)).then(|| {
            let allowed = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
                (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            ];
            (StatusCode::NO_CONTENT, allowed).into_response()
        })
    }

    /// Adds the headers that let a script of this origin read an answer, if it is allowed.
    pub(crate) fn add_to(&self, answer: &mut HeaderMap, origin: Option<HeaderValue>) {
        if self.is_empty() {
            return;
        }
        if *self != Self::Any {
            // Also where no origin asks: a shared cache must not give that answer to one that does.
            answer.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = origin.filter(|origin| self.include(origin)) {
            let origin = if *self == Self::Any { HeaderValue::from_static("*") } else { origin };
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

impl FromStr for CorsOrigins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut origins = Vec::new();
        for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
            if origin == "*" {
                return Ok(Self::Any);
            }
            origins.push(normal(origin).ok_or_else(|| {
                format!(
                    "must be origins apart by commas, each a scheme, a host and perhaps a port, such as \
                     https://app.example.com,http://localhost:3000 (* allows any), got {}",
                    shown(origin)
                )
            })?);
        }
        Ok(Self::These(origins))
    }
}

/// An origin in one form: in lower case, with its port. `None` if it is none.
fn normal(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, host, port) = origin_of(&origin)?;
    is_host(host).then(|| format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))])
    }

    #[test]
    fn origins_that_are_set_are_allowed_and_no_others() {
        let origins: CorsOrigins =
            " https://App.example.com , http://localhost:3000,https://b.example:443,http://[::1]:80"
                .parse()
                .unwrap();
        for origin in
            ["https://app.example.com", "http://localhost:3000", "https://b.example", "http://[::1]"]
        {
            assert!(origins.allow(&from(origin)), "{origin}");
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://evil.example",
            "http://localhost",
            "null",
            "",
            "https://",
        ] {
            assert!(!origins.allow(&from(origin)), "{origin}");
        }
        assert!(!origins.allow(&HeaderMap::new()));
        let any: CorsOrigins = "*".parse().unwrap();
        assert!(any.allow(&from("null")) && !any.allow(&HeaderMap::new()));
        assert!(" , ".parse::<CorsOrigins>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_origin_is_named() {
        for wrong in [
            "app.example.com",
            "https://",
            "https://a/b",
            "ftp://a",
            "null",
            "https://a:x",
            "https://a:99999",
            "https://u@a",
            "https://a b",
        ] {
            let refused = format!("https://x.example,{wrong}").parse::<CorsOrigins>().unwrap_err();
            assert!(refused.contains(&format!("got \"{wrong}\"")), "{wrong}: {refused}");
        }
    }

    #[test]
    fn answers_say_who_may_read_them() {
        let added = |origins: &str, request: &HeaderMap| {
            let mut answer = HeaderMap::new();
            origins.parse::<CorsOrigins>().unwrap().add_to(&mut answer, request.get(header::ORIGIN).cloned());
            let of = |name| answer.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
            (of(header::ACCESS_CONTROL_ALLOW_ORIGIN), of(header::VARY))
        };
        let text = |text: &str| Some(text.to_owned());
        let ours = from("https://a.example");
        assert_eq!(added("", &ours), (None, None));
        assert_eq!(added("*", &ours), (text("*"), None));
        assert_eq!(added("*", &HeaderMap::new()), (None, None));
        assert_eq!(added("https://a.example", &ours), (text("https://a.example"), text("origin")));
        assert_eq!(added("https://a.example", &HeaderMap::new()), (None, text("origin")));
        assert_eq!(added("https://b.example", &ours), (None, text("origin")));
    }

    #[test]
    fn a_preflight_is_answered_to_allowed_origins() {
        let origins: CorsOrigins = "https://a.example".parse().unwrap();
        let mut asking = from("https://a.example");
        assert!(origins.preflight(&Method::OPTIONS, &asking).is_none());
        asking.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        assert_eq!(origins.preflight(&Method::OPTIONS, &asking).unwrap().status(), StatusCode::NO_CONTENT);
        assert!(origins.preflight(&Method::GET, &asking).is_none());
        asking.insert(header::ORIGIN, HeaderValue::from_static("https://b.example"));
        assert!(origins.preflight(&Method::OPTIONS, &asking).is_none());
    }
}
