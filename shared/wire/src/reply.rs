//! The codes with which services refuse a request.
//!
//! They travel in the headers of ADR-32, `Nats-Service-Error-Code` and `Nats-Service-Error`, and
//! mean what the same numbers mean in HTTP.

/// The name of the header with the code.
pub const ERROR_CODE_HEADER: &str = "Nats-Service-Error-Code";
/// The name of the header with the sentence.
pub const ERROR_HEADER: &str = "Nats-Service-Error";

/// The kind of a refusal, as a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed, or a value in it is not allowed.
    BadRequest,
    /// No entry is resident under this key (a miss), or there is no such command.
    NotFound,
    /// A fill's lease is not the current one: it was used, has expired or was voided.
    Conflict,
    /// Heavier than the cache can hold, or than the bus can carry.
    TooLarge,
    /// Not an image of an allowed type.
    UnsupportedType,
    /// An image that breaks off or contradicts itself.
    Unprocessable,
    /// Something failed inside the service.
    Internal,
    /// The service can't answer now, because it or something that it needs is not ready.
    Unavailable,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedType => 415,
            Self::Unprocessable => 422,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// The code of a number; one that is not known is [`Code::Internal`].
    pub fn from_number(number: u16) -> Self {
        match number {
            400 => Self::BadRequest,
            404 => Self::NotFound,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            415 => Self::UnsupportedType,
            422 => Self::Unprocessable,
            503 => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

/// A refusal, which a service answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind.
    pub code: Code,
    /// A sentence that says what is wrong and what is allowed.
    pub message: String,
}

impl Refusal {
    /// A refusal with a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
