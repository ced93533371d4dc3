//! Digests of bodies: `Content-Digest` and `Repr-Digest` (RFC 9530), and `Content-MD5` (RFC 1864).
//!
//! No body that is taken in is encoded, and none is a part of another, so content and representation are the same bytes.

use std::future::ready;

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::alphabet::STANDARD as STANDARD_ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as BASE64};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use md5::Md5;
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha512};
use wire::Tag;
use wire::words::shown;

use crate::error::Error;
use crate::head::value;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
/// As lenient with the end of base64 as RFC 8941, section 4.2.7, asks for.
const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD_ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Names the digest of an answer.
pub(crate) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The digests that a request claims for its body.
#[derive(Default)]
pub(crate) struct Digests {
    claims: Vec<Claim>,
    /// One for each algorithm that is claimed, however often.
    hashes: Vec<(Algorithm, Box<dyn DynDigest + Send>)>,
}

/// One of them.
struct Claim {
    header: HeaderName,
    algorithm: Algorithm,
    digest: Vec<u8>,
}

/// The algorithms that are checked. RFC 9530 allows to ignore others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Md5, Self::Sha256, Self::Sha512];

    /// Its name in the registry of RFC 9530.
    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
        }
    }

    fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|one| name.eq_ignore_ascii_case(one.name().as_bytes()))
    }

    fn hash(self) -> Box<dyn DynDigest + Send> {
        match self {
            Self::Md5 => Box::new(Md5::default()),
            Self::Sha256 => Box::new(Sha256::default()),
            Self::Sha512 => Box::new(Sha512::default()),
        }
    }
}

impl Digests {
    /// The digests in the headers of a request. Those of unknown algorithms are ignored.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a header that can't be read.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Error> {
        let mut claims = Vec::new();
        for text in headers.get_all(CONTENT_MD5) {
            let digest = decoded(text.as_bytes(), Algorithm::Md5);
            let digest = digest.ok_or_else(|| bad(&CONTENT_MD5, "the base64 of 16 bytes", text))?;
            claims.push(Claim { header: CONTENT_MD5, algorithm: Algorithm::Md5, digest });
        }
        for header in [CONTENT_DIGEST, REPR_DIGEST] {
            for text in headers.get_all(&header) {
                for (name, value) in members(text) {
                    let Some(algorithm) = Algorithm::of_name(name) else { continue };
                    let digest = value
                        .and_then(|value| decoded(value.strip_prefix(b":")?.strip_suffix(b":")?, algorithm));
                    let digest = digest.ok_or_else(|| {
                        bad(&header, "digests such as sha-256=:BASE64:, apart by commas", text)
                    })?;
                    claims.push(Claim { header: header.clone(), algorithm, digest });
                }
            }
        }
        let is_claimed = |algorithm: &Algorithm| claims.iter().any(|claim| claim.algorithm == *algorithm);
        let hashes = Algorithm::ALL.into_iter().filter(is_claimed);
        let hashes = hashes.map(|algorithm| (algorithm, algorithm.hash())).collect();
        Ok(Self { claims, hashes })
    }

    /// Whether no digest is claimed that has to be checked.
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The body, which ends with [`Error::BadRequest`] if it has another digest.
    pub(crate) fn checked<S>(mut self, body: S) -> impl Stream<Item = Result<Bytes, Error>>
    where
        S: Stream<Item = Result<Bytes, Error>>,
    {
        body.map(Some).chain(stream::once(ready(None))).filter_map(move |chunk| {
            ready(match chunk {
                Some(Ok(bytes)) => {
                    self.hashes.iter_mut().for_each(|(_, hash)| hash.update(&bytes));
                    Some(Ok(bytes))
                }
                Some(Err(error)) => Some(Err(error)),
                None => std::mem::take(&mut self).check().err().map(Err),
            })
        })
    }

    fn check(self) -> Result<(), Error> {
        for (algorithm, hash) in self.hashes {
            let found = hash.finalize();
            let of_it = |claim: &&Claim| claim.algorithm == algorithm;
            if let Some(wrong) = self.claims.iter().filter(of_it).find(|claim| *found != *claim.digest) {
                return Err(Error::BadRequest(format!(
                    "{} must be that of the body, whose {} is {}, got {}: nothing was changed",
                    shown_name(&wrong.header),
                    algorithm.name(),
                    BASE64.encode(&found),
                    BASE64.encode(&wrong.digest),
                )));
            }
        }
        Ok(())
    }
}

/// The names of a dictionary (RFC 8941, section 3.2), each with its value if it has one, without parameters. The values that
/// are asked for here hold no comma, so that a text with one only makes names that nobody knows.
fn members(dictionary: &HeaderValue) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    dictionary.as_bytes().split(|byte| *byte == b',').map(|member| {
        let member = member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match member.iter().position(|byte| *byte == b'=') {
            Some(at) => (&member[..at], Some(&member[at + 1..])),
            None => (member, None),
        }
    })
}

/// A digest from base64, with or without padding (RFC 8941, section 4.2.7); `None` if it is none, or as long as no digest of
/// the algorithm is.
fn decoded(text: &[u8], algorithm: Algorithm) -> Option<Vec<u8>> {
    let digest = ANY_PADDING.decode(text.trim_ascii()).ok()?;
    (digest.len() == algorithm.hash().output_size()).then_some(digest)
}

fn bad(header: &HeaderName, what: &str, got: &HeaderValue) -> Error {
    let got = shown(&String::from_utf8_lossy(got.as_bytes()));
    Error::BadRequest(format!("{} must be {what}, got {got}", shown_name(header)))
}

/// The name of a header as people write it.
fn shown_name(header: &HeaderName) -> &'static str {
    match header.as_str() {
        "content-md5" => "Content-MD5",
        "repr-digest" => "Repr-Digest",
        _ => "Content-Digest",
    }
}

/// Whether the asker wants to know the SHA-256 of an image (RFC 9530, section 4).
pub(crate) fn wants_sha_256(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(WANT_REPR_DIGEST).iter().flat_map(members);
    let weight = wanted.filter(|(name, _)| Algorithm::of_name(name) == Some(Algorithm::Sha256)).last();
    matches!(weight, Some((_, Some([b'1'..=b'9'] | [b'1', b'0']))))
}

/// `Repr-Digest` of the image whose SHA-256 is `tag`.
///
/// # Errors
/// Never: the value is base64.
pub(crate) fn repr_digest(tag: &Tag) -> Result<HeaderValue, Error> {
    value(format!("{}=:{}:", Algorithm::Sha256.name(), BASE64.encode(tag.0)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use futures_util::{FutureExt as _, TryStreamExt as _};

    use super::*;

    // `printf 'hello' | openssl dgst -md5 -binary | base64`, and so on.
    const MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";
    const SHA_256: &str = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    const SHA_512: &str =
        "m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw==";

    fn taken(pairs: &[(&HeaderName, String)]) -> Result<Bytes, String> {
        let mut headers = HeaderMap::new();
        for (name, text) in pairs {
            headers.append(*name, text.parse().unwrap());
        }
        let digests = Digests::from_headers(&headers).map_err(|error| error.message())?;
        let chunks = ["he", "", "llo"].map(|chunk| Ok(Bytes::from(chunk)));
        let body = digests.checked(stream::iter(chunks)).try_collect::<Vec<_>>();
        let body = body.now_or_never().unwrap();
        Ok(body.map_err(|error| error.message())?.concat().into())
    }

    #[test]
    fn a_body_with_the_digests_that_it_claims_passes() {
        assert_eq!(taken(&[]).unwrap(), "hello");
        assert_eq!(taken(&[(&CONTENT_MD5, format!(" {MD5} "))]).unwrap(), "hello");
        for header in [CONTENT_DIGEST, REPR_DIGEST] {
            for text in [
                format!("sha-256=:{SHA_256}:"),
                format!("SHA-512=:{SHA_512}:, sha-256=:{SHA_256}:;a=1,md5=:{MD5}:"),
                format!("crc32c=:AAAA:, sha-256=:{SHA_256}:"),
                "unixsum=:AAAA:".to_owned(),
                // Members of no digest mean nothing here, nor does an empty field.
                format!("foo, bar=\"a,b\", baz=(1 2), sha-256=:{SHA_256}:;x=\"a,b\""),
                format!("sha-256=:{}:", SHA_256.trim_end_matches('=')),
                String::new(),
            ] {
                assert_eq!(taken(&[(&header, text.clone())]).unwrap(), "hello", "{text}");
            }
        }
    }

    #[test]
    fn a_body_with_another_digest_is_refused_at_its_end() {
        let other = BASE64.encode([1; 32]);
        let right = (&CONTENT_DIGEST, format!("sha-256=:{SHA_256}:"));
        for (header, name) in [(CONTENT_DIGEST, "Content-Digest"), (REPR_DIGEST, "Repr-Digest")] {
            let refused = taken(&[right.clone(), (&header, format!("sha-256=:{other}:"))]).unwrap_err();
            assert_eq!(
                refused,
                format!(
                    "{name} must be that of the body, whose sha-256 is {SHA_256}, got {other}: nothing was changed"
                )
            );
        }
        let refused = taken(&[(&CONTENT_MD5, BASE64.encode([0; 16]))]).unwrap_err();
        assert!(refused.starts_with("Content-MD5 must be that of the body, whose md5 is XUFA"), "{refused}");
    }

    #[test]
    fn a_digest_that_is_claimed_again_and_again_is_computed_once() {
        let many = vec![format!("sha-256=:{SHA_256}:"); 1000].join(", ");
        let headers = HeaderMap::from_iter([(CONTENT_DIGEST, many.parse().unwrap())]);
        assert_eq!(Digests::from_headers(&headers).unwrap().hashes.len(), 1);
        assert_eq!(taken(&[(&CONTENT_DIGEST, many)]).unwrap(), "hello");
    }

    #[test]
    fn a_header_that_is_no_digest_is_named() {
        for text in
            ["sha-256", "sha-256=abc", "sha-256=:abc", "sha-256=:abc:", "foo, sha-256=:AAAA:x", "SHA-512=1;a"]
        {
            let refused = taken(&[(&CONTENT_DIGEST, text.to_owned())]).unwrap_err();
            assert!(
                refused.starts_with("Content-Digest must be digests such as sha-256=:BASE64:"),
                "{text}: {refused}"
            );
        }
        for text in ["", "abc", SHA_256] {
            let refused = taken(&[(&CONTENT_MD5, text.to_owned())]).unwrap_err();
            assert!(refused.starts_with("Content-MD5 must be the base64 of 16 bytes"), "{text}: {refused}");
        }
    }

    #[test]
    fn the_digest_of_an_answer_is_wanted_or_not() {
        let wants = |text: &'static str| {
            wants_sha_256(&HeaderMap::from_iter([(WANT_REPR_DIGEST, HeaderValue::from_static(text))]))
        };
        for text in
            ["sha-256=1", "sha-256=10", "sha-512=3, sha-256=10;q=1, unixsum=0", "sha-256=0, sha-256=5"]
        {
            assert!(wants(text), "{text}");
        }
        for text in
            ["", "sha-256=0", "sha-512=10", "sha-256", "sha-256=11", "sha-256=a", "sha-256=9, sha-256=0"]
        {
            assert!(!wants(text), "{text}");
        }
    }
}
