//! Conditional and range requests (RFC 9110, sections 13 and 14), as pure functions of the request's
//! headers and what is known of the image.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum_extra::headers::{Header as _, HeaderMapExt as _, IfModifiedSince, IfUnmodifiedSince, LastModified};
use wire::Tag;

use crate::error::Error;

/// What a read is answered with, once it is known that the image exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// 200: all of it.
    Whole,
    /// 206: these bytes of it, at least one.
    Part(Range<u64>),
    /// 304: the asker has it.
    NotModified,
    /// 412: the asker wants another image than this one.
    PreconditionFailed,
    /// 416: none of its bytes lies within the range.
    NotSatisfiable,
}

/// The tag of the image that the asker holds, for the cache to compare.
pub(crate) fn held_tag(headers: &HeaderMap) -> Option<Tag> {
    // With If-Match there is more to decide than whether it is still the same.
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        return None;
    }
    match tags(headers, &header::IF_NONE_MATCH)? {
        Tags::Any => None,
        Tags::These(tags) => tags.into_iter().find_map(|tag| tag.text.parse().ok()),
    }
}

/// Decides a read of an image of `size` bytes, in the order of RFC 9110, section 13.2.2.
pub(crate) fn decide(headers: &HeaderMap, tag: &Tag, modified_s: Option<i64>, size: u64) -> Decision {
    let modified = modified_s.map(at);
    if headers.contains_key(header::IF_MATCH) {
        if !tags(headers, &header::IF_MATCH).is_some_and(|tags| tags.match_strongly(tag)) {
            return Decision::PreconditionFailed;
        }
    } else if let Some(since) = headers.typed_get::<IfUnmodifiedSince>()
        && modified.is_some_and(|modified| !since.precondition_passes(modified))
    {
        return Decision::PreconditionFailed;
    }
    if let Some(tags) = tags(headers, &header::IF_NONE_MATCH) {
        if tags.match_weakly(tag) {
            return Decision::NotModified;
        }
    } else if let Some(since) = headers.typed_get::<IfModifiedSince>()
        && modified.is_some_and(|modified| !since.is_modified(modified))
    {
        return Decision::NotModified;
    }
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Decision::Whole;
    };
    if headers.contains_key(header::IF_RANGE) && !if_range_holds(headers, tag, modified) {
        return Decision::Whole;
    }
    match byte_range(range) {
        Some(range) => range.within(size),
        None => Decision::Whole,
    }
}

fn if_range_holds(headers: &HeaderMap, tag: &Tag, modified: Option<SystemTime>) -> bool {
    if let Some(tags) = tags(headers, &header::IF_RANGE) {
        return tags.match_strongly(tag);
    }
    // A date is compared as it stands (section 13.1.5). The typed header would look for an entity tag first, and its
    // parser asserts what is not so.
    let date = LastModified::decode(&mut headers.get_all(header::IF_RANGE).iter()).ok();
    date.is_some() && date == modified.map(LastModified::from)
}

/// The strong entity tag of an image, as in the header `ETag`.
pub(crate) fn etag(tag: &Tag) -> String {
    format!("\"{tag}\"")
}

/// A moment given in seconds since 1970, within the years that a date in a header may have: somebody who puts an image
/// into the cache may claim any.
pub(crate) fn at(seconds: i64) -> SystemTime {
    const END_OF_9999: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(END_OF_9999))
}

/// The one range of a header `Range`. Several at once are allowed to be ignored (section 14.2), and are;
/// so is what can't be read.
fn byte_range(text: &str) -> Option<ByteRange> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    match (number(first), number(last)) {
        (None, Some(length)) if first.is_empty() => Some(ByteRange::Last(length)),
        (Some(first), None) if last.is_empty() => Some(ByteRange::From(first, u64::MAX)),
        (Some(first), Some(last)) if first <= last => Some(ByteRange::From(first, last)),
        _ => None,
    }
}

/// A number too large for us is larger than any image: it counts as the largest.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteRange {
    /// From the first to the last byte, both included.
    From(u64, u64),
    /// So many at the end.
    Last(u64),
}

impl ByteRange {
    fn within(self, size: u64) -> Decision {
        let range = match self {
            Self::From(first, last) => first..last.saturating_add(1).min(size),
            Self::Last(length) => size.saturating_sub(length)..size,
        };
        if range.start < range.end { Decision::Part(range) } else { Decision::NotSatisfiable }
    }
}

/// The tags in a header such as `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: any image at all.
    Any,
    /// One of these.
    These(Vec<EntityTag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EntityTag {
    weak: bool,
    text: String,
}

impl Tags {
    fn match_strongly(&self, tag: &Tag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|candidate| !candidate.weak && candidate.names(tag)),
        }
    }

    fn match_weakly(&self, tag: &Tag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|candidate| candidate.names(tag)),
        }
    }
}

impl EntityTag {
    fn names(&self, tag: &Tag) -> bool {
        self.text.len() == 64 && self.text == tag.to_string()
    }
}

/// The tags in the header `name`; none if it is not there or can't be read.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Tags> {
    let mut found = Vec::new();
    for value in headers.get_all(name) {
        match tag_list(value)? {
            Tags::Any => return Some(Tags::Any),
            Tags::These(tags) => found.extend(tags),
        }
    }
    (!found.is_empty()).then_some(Tags::These(found))
}

fn tag_list(value: &HeaderValue) -> Option<Tags> {
    let mut rest = value.to_str().ok()?.trim();
    if rest == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    loop {
        let weak = rest.starts_with("W/");
        let opened = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (text, behind) = opened.split_once('"')?;
        tags.push(EntityTag { weak, text: text.to_owned() });
        rest = behind.trim_start();
        if rest.is_empty() {
            return Some(Tags::These(tags));
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

/// Under which conditions a `PUT` or `DELETE` may change what is there. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteConditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    unmodified_since: Option<IfUnmodifiedSince>,
}

impl WriteConditions {
    /// The conditions of a request.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when there is one that can't be read: to pass over it could destroy what the
    /// asker wanted to protect.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Error> {
        let read = |name: HeaderName| match tags(headers, &name) {
            None if headers.contains_key(&name) => Err(Error::BadRequest(format!(
                "the header {name} can't be read: * is allowed, or entity tags in double quotes, apart by commas"
            ))),
            tags => Ok(tags),
        };
        Ok(Self {
            if_match: read(header::IF_MATCH)?,
            if_none_match: read(header::IF_NONE_MATCH)?,
            unmodified_since: headers.typed_get(),
        })
    }

    /// Whether they hold for the image that is there now, given by its tag and its time, or for none.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] with a sentence.
    pub fn check(&self, current: Option<(&Tag, SystemTime)>) -> Result<(), Error> {
        let tag = current.map(|(tag, _)| tag);
        if let Some(tags) = &self.if_match {
            match tag {
                None => {
                    return Err(Error::PreconditionFailed(
                        "If-Match does not hold: nothing is stored under this key",
                    ));
                }
                Some(tag) if !tags.match_strongly(tag) => {
                    return Err(Error::PreconditionFailed(
                        "If-Match does not hold: another image is stored under this key",
                    ));
                }
                Some(_) => {}
            }
        } else if let (Some(since), Some((_, modified))) = (&self.unmodified_since, current)
            && !since.precondition_passes(modified)
        {
            return Err(Error::PreconditionFailed(
                "If-Unmodified-Since does not hold: the image was replaced after that",
            ));
        }
        if let (Some(tags), Some(tag)) = (&self.if_none_match, tag)
            && tags.match_weakly(tag)
        {
            return Err(Error::PreconditionFailed(
                "If-None-Match does not hold: an image is stored under this key",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    const TAG: Tag = Tag([0xab; 32]);
    const MODIFIED_S: i64 = 1_700_000_000;
    const MODIFIED: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const BEFORE: &str = "Tue, 14 Nov 2023 22:13:19 GMT";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn decided(pairs: &[(&'static str, &str)]) -> Decision {
        decide(&headers(pairs), &TAG, Some(MODIFIED_S), 1000)
    }

    fn mine() -> String {
        etag(&TAG)
    }

    fn other() -> String {
        etag(&Tag([1; 32]))
    }

    #[test]
    fn without_conditions_all_of_it_is_sent() {
        assert_eq!(decided(&[]), Decision::Whole);
    }

    #[test]
    fn if_none_match_is_weak_and_wins_over_the_date() {
        assert_eq!(decided(&[("if-none-match", &mine())]), Decision::NotModified);
        assert_eq!(decided(&[("if-none-match", &format!("W/{}", mine()))]), Decision::NotModified);
        assert_eq!(decided(&[("if-none-match", &format!("{}, {}", other(), mine()))]), Decision::NotModified);
        assert_eq!(decided(&[("if-none-match", "*")]), Decision::NotModified);
        let changed = [("if-none-match", &*other()), ("if-modified-since", MODIFIED)];
        assert_eq!(decided(&changed), Decision::Whole);
        assert_eq!(decided(&[("if-none-match", &mine()), ("range", "bytes=0-9")]), Decision::NotModified);
    }

    #[test]
    fn if_modified_since_counts_when_there_is_no_tag() {
        assert_eq!(decided(&[("if-modified-since", MODIFIED)]), Decision::NotModified);
        assert_eq!(decided(&[("if-modified-since", BEFORE)]), Decision::Whole);
        assert_eq!(decided(&[("if-modified-since", "yesterday")]), Decision::Whole);
        let unknown = decide(&headers(&[("if-modified-since", MODIFIED)]), &TAG, None, 1000);
        assert_eq!(unknown, Decision::Whole);
    }

    #[test]
    fn if_match_is_strong() {
        assert_eq!(decided(&[("if-match", &mine())]), Decision::Whole);
        assert_eq!(decided(&[("if-match", "*")]), Decision::Whole);
        assert_eq!(decided(&[("if-match", &other())]), Decision::PreconditionFailed);
        assert_eq!(decided(&[("if-match", &format!("W/{}", mine()))]), Decision::PreconditionFailed);
        assert_eq!(decided(&[("if-match", "unquoted")]), Decision::PreconditionFailed);
        assert_eq!(decided(&[("if-unmodified-since", MODIFIED)]), Decision::Whole);
        assert_eq!(decided(&[("if-unmodified-since", BEFORE)]), Decision::PreconditionFailed);
    }

    #[test]
    fn one_range_is_served_and_several_or_malformed_ones_are_ignored() {
        for (range, expected) in [
            ("bytes=0-0", Decision::Part(0..1)),
            ("bytes=10-19", Decision::Part(10..20)),
            ("bytes=990-", Decision::Part(990..1000)),
            ("bytes=990-5000", Decision::Part(990..1000)),
            ("bytes=990-99999999999999999999999", Decision::Part(990..1000)),
            ("bytes=-10", Decision::Part(990..1000)),
            ("bytes=-5000", Decision::Part(0..1000)),
            ("BYTES= 5-6", Decision::Part(5..7)),
            ("bytes=1000-", Decision::NotSatisfiable),
            ("bytes=99999999999999999999-", Decision::NotSatisfiable),
            ("bytes=-0", Decision::NotSatisfiable),
            ("bytes=0-1,5-6", Decision::Whole),
            ("bytes=9-1", Decision::Whole),
            ("bytes=-", Decision::Whole),
            ("bytes=a-b", Decision::Whole),
            ("bytes=+1-2", Decision::Whole),
            ("bytes", Decision::Whole),
            ("lines=1-2", Decision::Whole),
        ] {
            assert_eq!(decided(&[("range", range)]), expected, "{range}");
        }
    }

    #[test]
    fn if_range_decides_whether_the_range_counts() {
        let part = Decision::Part(0..10);
        let with = |validator: &str| decided(&[("range", "bytes=0-9"), ("if-range", validator)]);
        assert_eq!(with(&mine()), part);
        assert_eq!(with(MODIFIED), part);
        assert_eq!(with(&other()), Decision::Whole);
        assert_eq!(with(&format!("W/{}", mine())), Decision::Whole);
        assert_eq!(with(BEFORE), Decision::Whole);
        // Later than the image, so it was not sent with it.
        assert_eq!(with("Tue, 14 Nov 2023 22:13:21 GMT"), Decision::Whole);
        for nonsense in ["nonsense", "\" \"\"", "\"a", "W/"] {
            assert_eq!(with(nonsense), Decision::Whole, "{nonsense}");
        }
    }

    #[test]
    fn the_cache_is_asked_with_the_tag_that_is_held() {
        assert_eq!(held_tag(&headers(&[("if-none-match", &mine())])), Some(TAG));
        assert_eq!(held_tag(&headers(&[("if-none-match", &format!("\"x\", W/{}", mine()))])), Some(TAG));
        assert_eq!(held_tag(&headers(&[("if-none-match", "*")])), None);
        assert_eq!(held_tag(&headers(&[("if-none-match", &mine()), ("if-match", "*")])), None);
        assert_eq!(held_tag(&headers(&[])), None);
    }

    #[test]
    fn writes_obey_their_conditions() {
        let now = Some((&TAG, at(MODIFIED_S)));
        let check = |pairs: &[(&'static str, &str)], current: Option<(&Tag, SystemTime)>| {
            WriteConditions::from_headers(&headers(pairs)).unwrap().check(current).is_ok()
        };
        assert!(check(&[], now) && check(&[], None));
        assert!(check(&[("if-match", &mine())], now));
        assert!(!check(&[("if-match", &other())], now));
        assert!(check(&[("if-match", "*")], now));
        assert!(!check(&[("if-match", "*")], None));
        assert!(!check(&[("if-match", &mine())], None));
        assert!(check(&[("if-none-match", "*")], None));
        assert!(!check(&[("if-none-match", "*")], now));
        assert!(!check(&[("if-none-match", &mine())], now));
        assert!(check(&[("if-none-match", &other())], now));
        assert!(!check(&[("if-unmodified-since", BEFORE)], now));
        assert!(check(&[("if-unmodified-since", MODIFIED)], now));
    }

    #[test]
    fn a_write_with_a_condition_that_cannot_be_read_is_refused() {
        for value in ["abc", "\"abc", "\"a\" \"b\"", "*, \"a\"", "W/abc", ""] {
            let read = WriteConditions::from_headers(&headers(&[("if-match", value)]));
            assert!(matches!(read, Err(Error::BadRequest(_))), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_range_lies_within_the_image(text in "(bytes=)?[0-9,-]{0,12}", size in 0u64..2000) {
            let decision = decide(&headers(&[("range", &text)]), &TAG, None, size);
            if let Decision::Part(range) = decision {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn any_condition_is_read_or_refused(
            text in prop_oneof!["[ -~]{0,40}", Just(MODIFIED.to_owned())],
            modified_s in prop_oneof![Just(i64::MAX), Just(i64::MIN), any::<i64>()],
        ) {
            let text = text.trim();
            let _ = WriteConditions::from_headers(&headers(&[("if-match", text)]));
            for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
                let given = headers(&[(name, text), ("if-range", text), ("range", "bytes=1-")]);
                if let Decision::Part(range) = decide(&given, &TAG, Some(modified_s), 10) {
                    prop_assert_eq!(range, 1..10);
                }
            }
        }
    }
}
