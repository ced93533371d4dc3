//! The failures of requests to the gateway, and the HTTP status that each is answered with.
//!
//! One enum for all interfaces: the JSON routes answer it as JSON through [`IntoResponse`], pages show
//! its sentence as HTML. A failure that is not the asker's fault is logged once, here, when it is answered.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use origin::blobs::BlobError;
use origin::variants::VariantError;
use runtime::bus::RequestFailure;
use runtime::logging::Seldom;
use serde::Serialize;
use sniff::SniffError;
use utoipa::ToSchema;
use wire::reply::{Code, Refusal};
use wire::words::{cut, one_of, shown};
use wire::{Key, KeyError};

/// Why a request was not met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something in the request is malformed or not allowed; the sentence says what is.
    #[error("{0}")]
    BadRequest(String),
    /// The text in the place of a key is not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request needs the admin token and came without one.
    #[error(
        "the request must have the admin token, got none: send it as \"Authorization: Bearer …\", or log in with it as \
         the password"
    )]
    NoToken,
    /// The credentials of the request are not the admin token.
    #[error(
        "the request must have the admin token, got another one: send it as \"Authorization: Bearer …\", or log in with \
         it as the password"
    )]
    WrongToken,
    /// The credentials are not looked at, because so many before them were wrong.
    #[error("this address has sent too many wrong tokens: try again in {wait_s} s")]
    TooManyTokens {
        /// How long credentials from this address are not looked at, in seconds.
        wait_s: u64,
    },
    /// The request is for another host than this one.
    #[error(
        "Host must be an IP address, localhost or a name in this gateway's setting ALLOWED_HOSTS, got {shown}: \
         add the name there if it is one of this gateway",
        shown = shown(.0)
    )]
    WrongHost(String),
    /// A change that another web site asked this browser for.
    #[error(
        "a change must come from this site, from a program, or with a Bearer token from an origin in CORS_ORIGINS, got one from another web site"
    )]
    CrossSite,
    /// No image is stored under the key.
    #[error("no image is stored under \"{0}\"")]
    NoImage(Key),
    /// There is no such path.
    #[error("there is no page or resource at {shown}", shown = shown(.0))]
    NoRoute(String),
    /// The path exists, the method does not.
    #[error("the method at {at} must be {choices}, got {method}", at = cut(.path), choices = one_of(.allow.split(", ")))]
    MethodNotAllowed {
        /// The path asked for.
        path: String,
        /// The method asked for.
        method: String,
        /// The methods that are allowed, for the header `Allow`.
        allow: String,
    },
    /// The body did not arrive in time.
    #[error("the body must not pause for {0} s, and it did: send it again")]
    BodyTimeout(u64),
    /// The body came more slowly than all others, and its turn was needed.
    #[error("the body came slowest of all while others waited: send it again")]
    BodyTooSlow,
    /// `If-Match` or `If-None-Match` does not hold; nothing was changed.
    #[error("{0}")]
    PreconditionFailed(&'static str),
    /// More bytes or pixels than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// A body of a kind that the route does not take, or bytes that are no image of an allowed type.
    #[error("{0}")]
    UnsupportedType(String),
    /// No byte of the image lies within the range.
    #[error("Range must begin within the image, which has {size} bytes")]
    RangeNotSatisfiable {
        /// The size of the image in bytes.
        size: u64,
    },
    /// An image that is empty, cut off or contradicts itself.
    #[error("{0}")]
    Unprocessable(String),
    /// No cache has yet said that it dropped the old image: that of this change, or of an earlier one if this one changed
    /// nothing.
    #[error(
        "{done}: the cache is still being told, and a read may return the image from before until it has acknowledged"
    )]
    StillTelling {
        /// The change that was made, in a few words: `the image is stored, but not yet confirmed`.
        done: &'static str,
    },
    /// The gateway is working on so many requests that this one would only wait.
    #[error("this gateway handles as many requests as it may at once (MAX_REQUESTS): try again in a second")]
    Busy,
    /// The most requests that may wait for variants are waiting already.
    #[error("this gateway makes as many variants as it may at once: try again in a second, or leave w out")]
    VariantsBusy,
    /// The variant takes longer than a request may wait for it.
    #[error("the variant is not made yet: try again in a few seconds, or leave w out")]
    VariantLate,
    /// The most streams of events that there may be are open already.
    #[error(
        "this gateway sends as many streams of events as it may at once (MAX_EVENT_STREAMS): try again later"
    )]
    TooManyStreams,
    /// A part that this request needs does not answer.
    #[error("{part} can't be reached now: {reason}")]
    Unavailable {
        /// Which part: `MySQL`, `the cache`, `the recorder`, `the image store`.
        part: &'static str,
        /// The reason, in a few words.
        reason: String,
    },
    /// The file that the row of an image names is missing or has another size.
    #[error(
        "the file of this image is missing or damaged in the image store: restore it, store the image again, or delete it"
    )]
    FileMissing(String),
    /// Image store and database do not belong together, so nothing may be changed.
    #[error("nothing can be changed here now: {0}")]
    Apart(String),
    /// A part refuses with a code of its own.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// A failure that should not happen. The asker learns no more than that; the log has the cause.
    #[error("the gateway failed at this request: its log has the cause")]
    Internal(#[source] anyhow::Error),
}

impl Error {
    /// The HTTP status that this is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Key(_) => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooManyTokens { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::WrongHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NoImage(_) | Self::NoRoute(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) | Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::StillTelling { .. }
            | Self::Busy
            | Self::VariantsBusy
            | Self::VariantLate
            | Self::TooManyStreams
            | Self::Unavailable { .. }
            | Self::Apart(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(refusal) => {
                StatusCode::from_u16(refusal.code.number()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::FileMissing(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The sentence for the asker: what is wrong and, where that helps, what is allowed.
    pub(crate) fn message(&self) -> String {
        self.to_string()
    }

    /// The failure of a request to `part` on the bus.
    pub(crate) fn of_request(part: &'static str, failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::Refused(refused) if refused.refusal.code == Code::Unavailable => {
                Self::Unavailable { part, reason: refused.refusal.message }
            }
            RequestFailure::Refused(refused) => Self::Refused(refused.refusal),
            failure => Self::Unavailable { part, reason: failure.to_string() },
        }
    }
}

/// The ways to present the admin token: browsers know the first, programs take either.
const CHALLENGES: [&str; 2] = ["Basic realm=\"pixcache\", charset=\"UTF-8\"", "Bearer realm=\"pixcache\""];

/// How often a failure is logged that any reader can cause again and again.
const SAID_EVERY: Duration = Duration::from_secs(10);

impl Error {
    /// Logs a failure that the asker can't mend. The asker's own mistakes are not logged.
    pub(crate) fn log(&self) {
        match self {
            Self::Internal(source) => {
                tracing::error!(error = format!("{source:#}"), "the gateway failed at a request")
            }
            Self::Unavailable { part, reason } => {
                tracing::warn!(part, reason, "a request was answered 503: a part is not available");
            }
            Self::FileMissing(reason) => {
                static SAID: Seldom = Seldom::new(SAID_EVERY);
                if let Some(times) = SAID.now() {
                    tracing::warn!(
                        reason,
                        times,
                        "an image could not be read: its file is missing or damaged"
                    );
                }
            }
            Self::StillTelling { done } => {
                tracing::warn!(done, "a change was answered 503: the cache has not acknowledged it");
            }
            _ => {}
        }
    }
}

impl From<origin::Error> for Error {
    fn from(error: origin::Error) -> Self {
        use origin::Error as E;
        match error {
            E::Unavailable { part, reason } => Self::Unavailable { part, reason },
            E::Apart(reason) => Self::Apart(reason),
            E::Unmet(unmet) => Self::PreconditionFailed(unmet.0),
            E::NoPlace(sentence) => Self::BadRequest(sentence),
            E::NoImage(error) => error.into(),
            E::TooLarge(sentence) => Self::TooLarge(sentence),
            E::BodyTimeout(seconds) => Self::BodyTimeout(seconds),
            E::FileMissing(reason) => Self::FileMissing(reason),
            E::Internal(error) => Self::Internal(error),
        }
    }
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        origin::Error::from(error).into()
    }
}

impl From<VariantError> for Error {
    fn from(error: VariantError) -> Self {
        match error {
            VariantError::Refused(reason) => {
                Self::Unprocessable(format!("{reason}: leave w out to get it as it is stored"))
            }
            VariantError::Busy => Self::VariantsBusy,
            VariantError::Late => Self::VariantLate,
            VariantError::Unavailable { part, reason } => Self::Unavailable { part, reason },
            VariantError::Damaged(reason) => Self::FileMissing(reason),
            VariantError::Gone(_) => Self::FileMissing(error.to_string()),
            VariantError::Other(_) => Self::Internal(error.into()),
        }
    }
}

impl From<SniffError> for Error {
    fn from(error: SniffError) -> Self {
        let sentence = error.to_string();
        match error {
            SniffError::Unsupported => Self::UnsupportedType(sentence),
            SniffError::TooManyPixels { .. } | SniffError::TooMuchWork { .. } => Self::TooLarge(sentence),
            SniffError::Empty | SniffError::Truncated { .. } | SniffError::Malformed { .. } => {
                Self::Unprocessable(sentence)
            }
        }
    }
}

/// The answer to a call that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// Always the string `false`.
    #[schema(example = "false")]
    success: &'static str,
    /// The status and the reason of the failure.
    error: FailureDetail,
}

/// The status and the reason of the failure.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureDetail {
    /// The HTTP status.
    code: u16,
    /// A sentence that says what is wrong and what is allowed.
    message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let error = FailureDetail { code: error.status().as_u16(), message: error.message() };
        Self { success: "false", error }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status(), axum::Json(Failure::from(&self))).into_response();
        self.add_headers(response.headers_mut());
        response
    }
}

impl Error {
    /// Adds the headers that belong to the status, whatever form the body has.
    pub(crate) fn add_headers(&self, headers: &mut axum::http::HeaderMap) {
        match self {
            Self::MethodNotAllowed { allow, .. } => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    headers.insert(header::ALLOW, allow);
                }
            }
            Self::NoToken | Self::WrongToken => {
                for challenge in CHALLENGES {
                    headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
                }
            }
            Self::TooManyTokens { wait_s } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*wait_s));
            }
            Self::RangeNotSatisfiable { size } => {
                if let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    headers.insert(header::CONTENT_RANGE, range);
                }
            }
            Self::StillTelling { .. }
            | Self::Busy
            | Self::VariantsBusy
            | Self::TooManyStreams
            | Self::Unavailable { .. }
            | Self::Apart(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::VariantLate => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
    }
}
