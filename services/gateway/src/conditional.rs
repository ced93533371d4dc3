//! Conditional and range requests (RFC 9110, sections 13 and 14), as pure functions of the request's
//! headers and what is known of the image.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum_extra::headers::{Header as _, HeaderMapExt as _, IfModifiedSince, IfUnmodifiedSince, LastModified};
use origin::dates::{Modified, at};
use origin::error::Unmet;
use origin::images::Precondition;
use wire::Tag;
use wire::words::shown;

use crate::error::Error;

/// The age from which a date proves which image a client holds. The clocks by which it is compared need not agree to
/// the second (RFC 9110, section 8.8.2.2).
const LEAST_AGE: Duration = Duration::from_secs(2);

/// The answer to a read, once it is known that the image exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// 200: all of it.
    Whole,
    /// 200: a HEAD asks for all of it, without its bytes.
    Head,
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
///
/// A date makes a condition true only if it is exactly that of the image and a proof. Where it saves bytes, it must
/// also be old enough: for an answer without bytes, and for a part that is put together with others.
/// `If-Unmodified-Since` saves nothing, so a younger date will do.
pub(crate) fn decide(
    headers: &HeaderMap,
    tag: &Tag,
    modified: Option<Modified>,
    size: u64,
    now: SystemTime,
) -> Decision {
    let proof = modified.filter(|modified| modified.is_proof);
    let old_proof = proof.filter(|proof| at(proof.seconds) + LEAST_AGE <= now);
    if headers.contains_key(header::IF_MATCH) {
        if !tags(headers, &header::IF_MATCH).is_some_and(|tags| tags.match_strongly(tag)) {
            return Decision::PreconditionFailed;
        }
    } else if let Some(since) = headers.typed_get::<IfUnmodifiedSince>()
        && !proof.is_some_and(|proof| proof.is_at(since))
    {
        return Decision::PreconditionFailed;
    }
    if let Some(tags) = tags(headers, &header::IF_NONE_MATCH) {
        if tags.match_weakly(tag) {
            return Decision::NotModified;
        }
    } else if let Some(since) = headers.typed_get::<IfModifiedSince>()
        && old_proof.is_some_and(|proof| proof.is_at(since))
    {
        return Decision::NotModified;
    }
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Decision::Whole;
    };
    if headers.contains_key(header::IF_RANGE) && !if_range_holds(headers, tag, old_proof) {
        return Decision::Whole;
    }
    match byte_range(range) {
        Some(range) => range.within(size),
        None => Decision::Whole,
    }
}

fn if_range_holds(headers: &HeaderMap, tag: &Tag, old_proof: Option<Modified>) -> bool {
    // One tag: neither a list nor "*" (section 13.1.5).
    if let Some(tags) = tags(headers, &header::IF_RANGE) {
        return tags.is_one() && tags.match_strongly(tag);
    }
    // The typed header would look for an entity tag first, and an assertion in its parser does not hold.
    let date = LastModified::decode(&mut headers.get_all(header::IF_RANGE).iter()).ok();
    date.zip(old_proof).is_some_and(|(date, proof)| proof.is_at(date))
}

/// The strong entity tag of an image, as in the header `ETag`.
pub(crate) fn etag(tag: &Tag) -> String {
    format!("\"{tag}\"")
}

/// The date for `Last-Modified`: never later than the moment of the answer (RFC 9110, section 8.8.2.1).
pub(crate) fn last_modified(modified: SystemTime, now: SystemTime) -> SystemTime {
    modified.min(now)
}

/// The one range of a header `Range`. Several ranges at once may be ignored (section 14.2), and are. A range that
/// can't be read is ignored too.
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
    /// The given number of bytes at the end.
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
    fn is_one(&self) -> bool {
        matches!(self, Self::These(tags) if tags.len() == 1)
    }

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

/// The conditions under which a `PUT` or `DELETE` may change the stored image. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WriteConditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    unmodified_since: Option<IfUnmodifiedSince>,
}

impl WriteConditions {
    /// The conditions of a request.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when there is one that can't be read: to pass over it could destroy the image that
    /// the asker wanted to protect.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Error> {
        let read = |name: HeaderName| match tags(headers, &name) {
            None if headers.contains_key(&name) => Err(Error::BadRequest(format!(
                "{} must be * or entity tags in double quotes, apart by commas, got {}",
                title_of(&name),
                given(headers, &name)
            ))),
            tags => Ok(tags),
        };
        let (if_match, if_none_match) = (read(header::IF_MATCH)?, read(header::IF_NONE_MATCH)?);
        let dates = headers.get_all(header::IF_UNMODIFIED_SINCE).iter().count();
        let unmodified_since = headers.typed_get().filter(|_| dates == 1);
        if dates > 0 && unmodified_since.is_none() {
            return Err(Error::BadRequest(format!(
                "If-Unmodified-Since must be one date, as in Last-Modified, got {}",
                given(headers, &header::IF_UNMODIFIED_SINCE)
            )));
        }
        Ok(Self { if_match, if_none_match, unmodified_since })
    }
}

/// The name of a condition as documentation writes it.
fn title_of(name: &HeaderName) -> &'static str {
    if *name == header::IF_MATCH { "If-Match" } else { "If-None-Match" }
}

/// The values of a header, as a sentence shows them.
fn given(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    shown(&values.join(", "))
}

impl Precondition for WriteConditions {
    /// Whether they hold for the image that is there now, given by its tag and its time, or for none.
    ///
    /// A date holds only if it is exactly that of the image and a proof, so that no client overwrites an image that it
    /// has not seen. It need not be old, because it is compared where it was made.
    fn check(&self, current: Option<(&Tag, Modified)>) -> Result<(), Unmet> {
        let tag = current.map(|(tag, _)| tag);
        if let Some(tags) = &self.if_match {
            match tag {
                None => {
                    return Err(Unmet(
                        "If-Match must hold the ETag of the stored image, and nothing is stored under this key",
                    ));
                }
                Some(tag) if !tags.match_strongly(tag) => {
                    return Err(Unmet(
                        "If-Match must hold the ETag of the stored image, and another image is stored under this key",
                    ));
                }
                Some(_) => {}
            }
        } else if let Some(since) = self.unmodified_since {
            match current {
                None => {
                    return Err(Unmet(
                        "If-Unmodified-Since must be the Last-Modified of the stored image, and nothing is stored under this key",
                    ));
                }
                Some((_, modified)) if !modified.is_at(since) => {
                    return Err(Unmet(
                        "If-Unmodified-Since must be the Last-Modified of the stored image, and another image is stored under this key",
                    ));
                }
                Some((_, modified)) if !modified.is_proof => {
                    return Err(Unmet(
                        "If-Unmodified-Since must tell apart what was stored, and several images were stored within that second: use If-Match",
                    ));
                }
                Some(_) => {}
            }
        }
        if let (Some(tags), Some(tag)) = (&self.if_none_match, tag)
            && tags.match_weakly(tag)
        {
            return Err(Unmet(
                "If-None-Match must not hold the ETag of the stored image, nor *, and an image is stored under this key",
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
    const MODIFIED: Modified = Modified { seconds: 1_700_000_000, is_proof: true };
    const UNPROVEN: Modified = Modified { is_proof: false, ..MODIFIED };
    const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const AFTER: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
    const BEFORE: &str = "Tue, 14 Nov 2023 22:13:19 GMT";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn decided(pairs: &[(&'static str, &str)]) -> Decision {
        decide(&headers(pairs), &TAG, Some(MODIFIED), 1000, later())
    }

    /// When the date is old enough.
    fn later() -> SystemTime {
        at(MODIFIED.seconds + 2)
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
        let changed = [("if-none-match", &*other()), ("if-modified-since", DATE)];
        assert_eq!(decided(&changed), Decision::Whole);
        assert_eq!(decided(&[("if-none-match", &mine()), ("range", "bytes=0-9")]), Decision::NotModified);
    }

    #[test]
    fn if_modified_since_counts_when_there_is_no_tag() {
        assert_eq!(decided(&[("if-modified-since", DATE)]), Decision::NotModified);
        assert_eq!(decided(&[("if-modified-since", BEFORE)]), Decision::Whole);
        assert_eq!(decided(&[("if-modified-since", "yesterday")]), Decision::Whole);
        // Later than the image, so it was not sent with it.
        assert_eq!(decided(&[("if-modified-since", AFTER)]), Decision::Whole);
        for modified in [None, Some(UNPROVEN)] {
            let unknown = decide(&headers(&[("if-modified-since", DATE)]), &TAG, modified, 1000, later());
            assert_eq!(unknown, Decision::Whole);
        }
    }

    #[test]
    fn if_match_is_strong() {
        assert_eq!(decided(&[("if-match", &mine())]), Decision::Whole);
        assert_eq!(decided(&[("if-match", "*")]), Decision::Whole);
        assert_eq!(decided(&[("if-match", &other())]), Decision::PreconditionFailed);
        assert_eq!(decided(&[("if-match", &format!("W/{}", mine()))]), Decision::PreconditionFailed);
        assert_eq!(decided(&[("if-match", "unquoted")]), Decision::PreconditionFailed);
        assert_eq!(decided(&[("if-unmodified-since", DATE)]), Decision::Whole);
        for date in [BEFORE, AFTER] {
            assert_eq!(decided(&[("if-unmodified-since", date)]), Decision::PreconditionFailed);
        }
        let unproven =
            decide(&headers(&[("if-unmodified-since", DATE)]), &TAG, Some(UNPROVEN), 1000, later());
        assert_eq!(unproven, Decision::PreconditionFailed);
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
        assert_eq!(with(DATE), part);
        assert_eq!(with(&other()), Decision::Whole);
        assert_eq!(with(&format!("W/{}", mine())), Decision::Whole);
        assert_eq!(with(BEFORE), Decision::Whole);
        assert_eq!(with(AFTER), Decision::Whole);
        for nonsense in ["nonsense", "\" \"\"", "\"a", "W/", "*"] {
            assert_eq!(with(nonsense), Decision::Whole, "{nonsense}");
        }
        assert_eq!(with(&format!("{}, {}", other(), mine())), Decision::Whole);
    }

    #[test]
    fn a_date_saves_bytes_only_once_it_is_two_seconds_old() {
        let early = later() - Duration::from_millis(1);
        let decided =
            |now, pairs: &[(&'static str, &str)]| decide(&headers(pairs), &TAG, Some(MODIFIED), 1000, now);
        let since = [("if-modified-since", DATE)];
        assert_eq!(
            (decided(early, &since), decided(later(), &since)),
            (Decision::Whole, Decision::NotModified)
        );
        let rest = [("range", "bytes=0-9"), ("if-range", DATE)];
        assert_eq!(
            (decided(early, &rest), decided(later(), &rest)),
            (Decision::Whole, Decision::Part(0..10))
        );
        // A tag needs no age.
        assert_eq!(decided(early, &[("if-none-match", &mine())]), Decision::NotModified);
        assert_eq!(decided(early, &[("if-unmodified-since", DATE)]), Decision::Whole);
    }

    #[test]
    fn what_is_no_proof_stays_so_on_its_way_through_the_cache() {
        for modified in [MODIFIED, UNPROVEN] {
            assert_eq!(Modified::from_wire(modified.to_wire()), Some(modified));
        }
        assert_eq!(Modified::from_wire(0), None);
        assert!(Modified::from_wire(i64::MIN).is_some_and(|modified| !modified.is_proof));
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
        let now = Some((&TAG, MODIFIED));
        let check = |pairs: &[(&'static str, &str)], current: Option<(&Tag, Modified)>| {
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
        assert!(check(&[("if-unmodified-since", DATE)], now));
        assert!(!check(&[("if-unmodified-since", AFTER)], now));
        assert!(!check(&[("if-unmodified-since", DATE)], None));
        assert!(!check(&[("if-unmodified-since", DATE)], Some((&TAG, UNPROVEN))));
        // A tag decides.
        assert!(check(&[("if-unmodified-since", BEFORE), ("if-match", &mine())], now));
        assert!(!check(&[("if-unmodified-since", DATE), ("if-match", &other())], now));
    }

    #[test]
    fn a_write_with_a_condition_that_cannot_be_read_is_refused() {
        for value in ["abc", "\"abc", "\"a\" \"b\"", "*, \"a\"", "W/abc", ""] {
            let read = WriteConditions::from_headers(&headers(&[("if-match", value)]));
            assert!(matches!(read, Err(Error::BadRequest(_))), "{value}");
        }
        let dates = |values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("if-unmodified-since", *value)).collect();
            WriteConditions::from_headers(&headers(&pairs))
        };
        assert!(dates(&[DATE]).is_ok());
        for unreadable in [&["junk"][..], &[""], &[DATE, DATE], &["1700000000"]] {
            assert!(matches!(dates(unreadable), Err(Error::BadRequest(_))), "{unreadable:?}");
        }
    }

    proptest! {
        #[test]
        fn any_range_lies_within_the_image(text in "(bytes=)?[0-9,-]{0,12}", size in 0u64..2000) {
            let decision = decide(&headers(&[("range", &text)]), &TAG, None, size, later());
            if let Decision::Part(range) = decision {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn any_condition_is_read_or_refused(
            text in prop_oneof!["[ -~]{0,40}", Just(DATE.to_owned())],
            modified_s in prop_oneof![Just(i64::MAX), Just(i64::MIN), any::<i64>()],
        ) {
            let text = text.trim();
            let _ = WriteConditions::from_headers(&headers(&[("if-match", text)]));
            for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
                let given = headers(&[(name, text), ("if-range", text), ("range", "bytes=1-")]);
                let modified = Modified::from_wire(modified_s);
                if let Decision::Part(range) = decide(&given, &TAG, modified, 10, later()) {
                    prop_assert_eq!(range, 1..10);
                }
            }
        }
    }
}

#[cfg(test)]
mod dates_and_conditions {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::{Duration as StdDuration, UNIX_EPOCH};

    use axum::http::HeaderMap;
    use axum_extra::headers::{HeaderMapExt as _, LastModified};
    use proptest::prelude::*;
    use wire::Tag;

    use origin::dates::Dates;
    use time::OffsetDateTime;

    use super::*;

    const START_MS: i64 = 1_700_000_000_000;

    #[derive(Debug, Clone)]
    enum Step {
        /// The database's clock goes forward or back by so many milliseconds.
        Clock(i64),
        Put,
        Delete,
        /// A client is sent one of the images that were ever stored, by a gateway whose clock is so much ahead: a cache
        /// may go on serving it until it has acknowledged that there is another.
        Send {
            image: prop::sample::Index,
            ahead_ms: i64,
        },
        /// A client asks with something that it was sent.
        Ask {
            held: prop::sample::Index,
            ahead_ms: i64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let ahead = -3000..3000i64;
        prop_oneof![
            4 => (1..700i64).prop_map(Step::Clock),
            1 => (-20_000..90_000i64).prop_map(Step::Clock),
            4 => Just(Step::Put),
            2 => Just(Step::Delete),
            4 => (any::<prop::sample::Index>(), ahead.clone())
                .prop_map(|(image, ahead_ms)| Step::Send { image, ahead_ms }),
            6 => (any::<prop::sample::Index>(), ahead).prop_map(|(held, ahead_ms)| Step::Ask { held, ahead_ms }),
        ]
    }

    fn moment(ms: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap()
    }

    fn tag(image: usize) -> Tag {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&image.to_be_bytes());
        Tag(tag)
    }

    /// Headers of one kind, with a date and without a tag.
    fn asking(name: &'static str, date: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, date.parse().unwrap());
        headers.insert("range", "bytes=10-".parse().unwrap());
        headers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_date_ever_takes_one_image_for_another(steps in prop::collection::vec(step(), 1..80)) {
            let mut clock_ms = START_MS;
            let mut latest_clock_ms = START_MS;
            let mut stored: Vec<Dates> = Vec::new();
            let mut row: Option<usize> = None;
            let mut left_behind: Option<OffsetDateTime> = None;
            let mut held: Vec<(usize, String)> = Vec::new();
            for step in steps {
                match step {
                    Step::Clock(ms) => {
                        // Never back by more than the time for which the dates of deleted images are remembered.
                        clock_ms = (clock_ms + ms).max(latest_clock_ms - 50_000);
                        latest_clock_ms = latest_clock_ms.max(clock_ms);
                    }
                    Step::Put => {
                        let latest = row.map(|image| stored[image].latest()).or(left_behind);
                        let dates = Dates::of_next(moment(clock_ms), latest);
                        prop_assert!(dates.updated_at <= moment(clock_ms));
                        row = Some(stored.len());
                        stored.push(dates);
                    }
                    Step::Delete => {
                        if let Some(image) = row.take()
                            && let Some(latest) = stored[image].left_behind(moment(clock_ms))
                        {
                            left_behind = left_behind.max(Some(latest));
                        }
                    }
                    Step::Send { image, ahead_ms } if !stored.is_empty() => {
                        let image = image.index(stored.len());
                        let now = UNIX_EPOCH
                            + StdDuration::from_millis((clock_ms + ahead_ms).try_into().unwrap());
                        let sent = last_modified(at(stored[image].modified().seconds), now);
                        let mut headers = HeaderMap::new();
                        headers.typed_insert(LastModified::from(sent));
                        prop_assert!(sent <= now);
                        held.push((image, headers["last-modified"].to_str().unwrap().to_owned()));
                    }
                    Step::Ask { held: which, ahead_ms } if !held.is_empty() => {
                        let Some(current) = row else { continue };
                        let (image, date) = &held[which.index(held.len())];
                        let now = UNIX_EPOCH
                            + StdDuration::from_millis((clock_ms + ahead_ms).try_into().unwrap());
                        let modified = stored[current].modified();
                        for name in ["if-modified-since", "if-range", "if-unmodified-since"] {
                            let decision = decide(&asking(name, date), &tag(current), Some(modified), 1000, now);
                            let is_taken_for_it = match name {
                                "if-modified-since" => decision == Decision::NotModified,
                                _ => matches!(decision, Decision::Part(_)),
                            };
                            prop_assert!(!is_taken_for_it || *image == current, "{name}: {date}");
                        }
                        let write = WriteConditions::from_headers(&asking("if-unmodified-since", date)).unwrap();
                        let may_write = write.check(Some((&tag(current), modified))).is_ok();
                        prop_assert!(!may_write || *image == current, "a lost update: {date}");
                        prop_assert!(write.check(None).is_err());
                    }
                    Step::Send { .. } | Step::Ask { .. } => {}
                }
            }
        }

        #[test]
        fn the_date_of_an_image_that_was_stored_in_a_second_of_its_own_holds(gaps in prop::collection::vec(1000..5000i64, 1..10)) {
            let mut clock_ms = START_MS;
            let mut latest = None;
            for gap in gaps {
                clock_ms += gap;
                let dates = Dates::of_next(moment(clock_ms), latest);
                prop_assert!(dates.modified().is_proof);
                latest = Some(dates.latest());
            }
        }
    }
}
