//! The one header that messages about image bytes carry.
//!
//! Headers are expensive on NATS: three on a reply cost 24 % of the request rate at 10 bytes. So one header,
//! [`HEADER`], carries all of a message's metadata, as `name=value` pairs separated by a space:
//! `type=image/png tag=9f86… modified=1764000000`. Unknown names are ignored, so that an older part understands a
//! newer one.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::near::Holder;
use crate::shelf::{FileName, Folder};
use crate::words::shown;

/// The header's name.
pub const HEADER: &str = "Pixcache";

/// The SHA-256 of an image's bytes: its entity tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; 32]);

/// The right to fill one key, handed out with a miss and never used twice
/// (*Scaling Memcache at Facebook*, NSDI 2013, §3.2.1).
///
/// The upper half is drawn anew in each life of a worker, the lower half counts up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease(pub u128);

/// The metadata in the header of a `cache.get`, `cache.put` or `cache.invalidate`, or of its reply. All fields may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// `type`: the content type, such as `image/png`.
    pub content_type: Option<String>,
    /// `tag`: in a get, the tag of the bytes that the asker already holds; elsewhere, the hash of the bytes.
    pub tag: Option<Tag>,
    /// `modified`: when the image was stored, in seconds since 1970.
    pub modified_s: Option<i64>,
    /// `lease`: handed out by a miss or with an acknowledgement, carried by a fill.
    pub lease: Option<Lease>,
    /// `returned=1`: in a put without bytes, the lease is given back unused. The next miss may have one.
    pub returned: bool,
    /// `size`: the size in bytes of an image that is too large to be sent. In a put without bytes it is too large for
    /// the bus. In the reply to a get it is too large for the room that the asker has.
    pub size: Option<u64>,
    /// `shelf`: in a get, the folder whose files the asker reads; in its reply, that of the worker, if the asker named none.
    pub shelf: Option<Folder>,
    /// `file`: in a put or in the reply to a get without bytes, the file that has them. `size` is how many there are.
    pub file: Option<FileName>,
    /// `again=1`: in a get, the file that the reply to it named could not be read. It counts no more.
    pub again: bool,
    /// `look=1`: in a get, the asker would not fill: a miss hands out no lease.
    pub look: bool,
    /// `refill`: in an invalidation, the asker would fill the original anew: the acknowledgement may hand out its lease.
    pub refill: Option<Refill>,
    /// `fresh=1`: in the reply to a get, the tag that the asker holds is still the current one.
    pub fresh: bool,
    /// `near`: in a get or a fill, the holder that asks for a near lease.
    pub near: Option<Holder>,
    /// `renewal=1`: in a get with a tag, only the near lease is to be renewed. It is no lookup.
    pub renewal: bool,
    /// `granted`: in a reply, the length of the near lease, in milliseconds from when the request was sent.
    pub granted_ms: Option<u64>,
}

/// Which originals an invalidation hands out a lease for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refill {
    /// `resident`: those that were resident.
    Resident,
    /// `any`: all.
    Any,
}

/// Why a header's text is not a [`Meta`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// A part without `=`.
    #[error("the header {HEADER} must be pairs name=value apart by spaces, got {shown}", shown = shown(.0))]
    NoPair(String),
    /// A known name with a value that it can't have.
    #[error("{name} in the header {HEADER} must be {allowed}, got {shown}", shown = shown(value))]
    BadValue {
        /// The field's name.
        name: &'static str,
        /// The value that the header holds.
        value: String,
        /// A sentence that says which values are allowed.
        allowed: &'static str,
    },
}

impl FromStr for Meta {
    type Err = MetaError;

    fn from_str(text: &str) -> Result<Self, MetaError> {
        let mut meta = Self::default();
        for pair in text.split_ascii_whitespace() {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(MetaError::NoPair(pair.to_owned()));
            };
            let bad = |name, allowed| MetaError::BadValue { name, value: value.to_owned(), allowed };
            match name {
                "type" => meta.content_type = Some(value.to_owned()),
                "tag" => {
                    meta.tag =
                        Some(value.parse().map_err(|()| bad("tag", "a SHA-256 in 64 hexadecimal digits"))?);
                }
                "modified" => {
                    meta.modified_s =
                        Some(value.parse().map_err(|_| bad("modified", "whole seconds since 1970"))?);
                }
                "lease" => {
                    let lease = u128::from_str_radix(value, 16)
                        .map_err(|_| bad("lease", "the hexadecimal number that a miss handed out"))?;
                    meta.lease = Some(Lease(lease));
                }
                "size" => meta.size = Some(value.parse().map_err(|_| bad("size", "a number of bytes"))?),
                "shelf" => {
                    let folder = value.parse();
                    meta.shelf = Some(folder.map_err(|()| bad("shelf", "16 hexadecimal digits"))?);
                }
                "file" => {
                    let file = value.parse();
                    let allowed = "16 hexadecimal digits, a dot and a hexadecimal number";
                    meta.file = Some(file.map_err(|()| bad("file", allowed))?);
                }
                "returned" => meta.returned = value == "1",
                "again" => meta.again = value == "1",
                "look" => meta.look = value == "1",
                "refill" => {
                    meta.refill = Some(match value {
                        "resident" => Refill::Resident,
                        "any" => Refill::Any,
                        _ => return Err(bad("refill", "resident or any")),
                    });
                }
                "fresh" => meta.fresh = value == "1",
                "near" => {
                    let holder = value.parse();
                    meta.near = Some(holder.map_err(|()| bad("near", "16 hexadecimal digits"))?);
                }
                "renewal" => meta.renewal = value == "1",
                "granted" => {
                    let length = value.parse().map_err(|_| bad("granted", "a number of milliseconds"))?;
                    meta.granted_ms = Some(length);
                }
                _ => {}
            }
        }
        Ok(meta)
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(128);
        if let Some(content_type) = &self.content_type {
            write!(text, " type={content_type}")?;
        }
        if let Some(tag) = &self.tag {
            write!(text, " tag={tag}")?;
        }
        if let Some(modified) = self.modified_s {
            write!(text, " modified={modified}")?;
        }
        if let Some(lease) = &self.lease {
            write!(text, " lease={lease}")?;
        }
        if let Some(size) = self.size {
            write!(text, " size={size}")?;
        }
        if let Some(folder) = &self.shelf {
            write!(text, " shelf={folder}")?;
        }
        if let Some(file) = &self.file {
            write!(text, " file={file}")?;
        }
        if self.again {
            text.push_str(" again=1");
        }
        if self.look {
            text.push_str(" look=1");
        }
        if let Some(refill) = self.refill {
            text.push_str(match refill {
                Refill::Resident => " refill=resident",
                Refill::Any => " refill=any",
            });
        }
        if self.returned {
            text.push_str(" returned=1");
        }
        if self.fresh {
            text.push_str(" fresh=1");
        }
        if let Some(holder) = &self.near {
            write!(text, " near={holder}")?;
        }
        if self.renewal {
            text.push_str(" renewal=1");
        }
        if let Some(length) = self.granted_ms {
            write!(text, " granted={length}")?;
        }
        f.write_str(text.trim_start())
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 64];
        for (at, byte) in self.0.iter().enumerate() {
            text[2 * at] = HEX[usize::from(byte >> 4)];
            text[2 * at + 1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Tag {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(());
        }
        let digit =
            |byte: u8| (byte as char).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(());
        let mut tag = [0u8; 32];
        for (byte, pair) in tag.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(tag))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_names_are_passed_over_and_bad_values_are_named() {
        assert_eq!("later=1 fresh=1".parse(), Ok(Meta { fresh: true, ..Meta::default() }));
        assert_eq!("".parse(), Ok(Meta::default()));
        assert!(matches!("tag=12".parse::<Meta>(), Err(MetaError::BadValue { name: "tag", .. })));
        assert!(matches!("lease=x".parse::<Meta>(), Err(MetaError::BadValue { name: "lease", .. })));
        assert!(matches!("refill=1".parse::<Meta>(), Err(MetaError::BadValue { name: "refill", .. })));
        assert!(matches!("size=-1".parse::<Meta>(), Err(MetaError::BadValue { name: "size", .. })));
        assert!(matches!("modified=now".parse::<Meta>(), Err(MetaError::BadValue { name: "modified", .. })));
        assert!(matches!("hello".parse::<Meta>(), Err(MetaError::NoPair(_))));
        assert!("tag=é".repeat(32).parse::<Meta>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            content_type in proptest::option::of("image/[a-z]{1,8}"),
            tag in proptest::option::of(any::<[u8; 32]>()),
            modified_s in proptest::option::of(any::<i64>()),
            lease in proptest::option::of(any::<u128>()),
            size in proptest::option::of(any::<u64>()),
            returned in any::<bool>(),
            (shelf, file, again, look) in any::<(Option<u64>, Option<(u64, u64)>, bool, bool)>(),
            refill in proptest::option::of(proptest::sample::select(&[Refill::Resident, Refill::Any][..])),
            fresh in any::<bool>(),
            near in proptest::option::of(any::<u64>()),
            renewal in any::<bool>(),
            granted_ms in proptest::option::of(any::<u64>()),
        ) {
            let (tag, lease, near) = (tag.map(Tag), lease.map(Lease), near.map(Holder));
            let shelf = shelf.map(Folder);
            let file = file.map(|(folder, number)| FileName { folder: Folder(folder), number });
            let meta = Meta {
                content_type,
                tag,
                modified_s,
                lease,
                returned,
                size,
                shelf,
                file,
                again,
                look,
                refill,
                fresh,
                near,
                renewal,
                granted_ms,
            };
            prop_assert_eq!(meta.to_string().parse::<Meta>().unwrap(), meta);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = text.parse::<Meta>();
        }
    }
}
