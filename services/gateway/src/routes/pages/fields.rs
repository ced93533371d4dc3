//! The fields of a page's query or form.

use axum::extract::{FromRequest as _, RawForm, Request};
use axum::http::StatusCode;
use percent_encoding::percent_decode;
use wire::words::shown;
use wire::{Key, KeyError};

use crate::error::Error;
use crate::routes::answer::broken_off;

/// The largest body of a form without a file: a key of 255 bytes, escaped, is below 1 kB.
pub(super) const FORM_LIMIT: usize = 16 * 1024;

/// The fields of a query or of a form without files.
///
/// Unlike the usual decoders this one keeps bytes that are not UTF-8, so that a key made of them is
/// refused and not taken for another one.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    fn parse(text: &[u8]) -> Self {
        let decode = |part: &[u8]| {
            let spaced: Vec<u8> = part.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
            percent_decode(&spaced).collect::<Vec<u8>>()
        };
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            (decode(halves.next().unwrap_or_default()), decode(halves.next().unwrap_or_default()))
        });
        Self(pairs.collect())
    }

    pub(super) fn of_query(query: Option<String>) -> Self {
        Self::parse(query.unwrap_or_default().as_bytes())
    }

    pub(super) async fn of_form(request: Request) -> Result<Self, Error> {
        Self::of_form_up_to(request, FORM_LIMIT).await
    }

    /// The fields of a form of at most `limit` bytes; its route has to allow as many.
    pub(super) async fn of_form_up_to(request: Request, limit: usize) -> Result<Self, Error> {
        let form =
            RawForm::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Error::TooLarge(format!("the form must be at most {limit} bytes, got more"))
                }
                StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                    Error::UnsupportedType("Content-Type must be application/x-www-form-urlencoded".into())
                }
                _ => broken_off(),
            })?;
        Ok(Self::parse(&form.0))
    }

    /// The bytes of the first field of that name.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The bytes of every field of that name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The text of a field, for showing it again.
    pub(super) fn shown(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name).unwrap_or_default()).into_owned()
    }

    /// The text of a field that has to be text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        match String::from_utf8(bytes.to_owned()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => {
                Err(Error::BadRequest(format!("{name} must be UTF-8, got {}", shown(&self.shown(name)))))
            }
        }
    }

    pub(super) fn key(&self) -> Result<Key, KeyError> {
        Key::from_bytes(self.bytes("key").unwrap_or_default())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(self.bytes(name)?).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_keep_their_bytes() {
        let fields = Fields::parse(b"key=a%2Fb+c%26&key=second&empty=&bare&bad=%FF%zz");
        assert_eq!(fields.key().map(|key| key.to_string()), Ok("a/b c&".to_owned()));
        assert_eq!(fields.all("key").collect::<Vec<_>>(), [&b"a/b c&"[..], b"second"]);
        assert_eq!(fields.bytes("empty"), Some(&b""[..]));
        assert_eq!(fields.bytes("bare"), Some(&b""[..]));
        assert_eq!(fields.bytes("absent"), None);
        assert_eq!(fields.bytes("bad"), Some(&b"\xFF%zz"[..]));
        assert!(fields.text("bad").is_err());
        assert_eq!(Fields::parse(b"key=%FF").key(), Err(KeyError::NotUtf8));
        assert_eq!(Fields::parse(b"").key(), Err(KeyError::Empty));
    }
}
