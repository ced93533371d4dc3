//! Schemas of the types that a derive can't describe, for the HTTP interface. `Key` and `Span` are read from text by
//! rules of their own; a pattern says them as far as a pattern can.

use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::key::{Key, MAX_KEY_BYTES};
use crate::span::Span;

/// Each unit has a largest number of its own.
const SPAN: &str = concat!(
    "^0*",
    r"(([1-9][0-9]{0,1}|[1-2][0-9]{2}|3[0-5][0-9]|36[0-5]|366)d",
    r"|([1-9][0-9]{0,2}|[1-7][0-9]{3}|8[0-6][0-9]{2}|87[0-7][0-9]|878[0-3]|8784)h",
    r"|([1-9][0-9]{0,4}|[1-4][0-9]{5}|5[0-1][0-9]{4}|52[0-6][0-9]{3}|5270[0-3][0-9]|527040)m",
    r"|([1-9][0-9]{0,6}|[1-2][0-9]{7}|30[0-9]{6}|31[0-5][0-9]{5}|316[0-1][0-9]{4}|3162[0-1][0-9]{3}|31622[0-3][0-9]{2}|31622400)s",
    r"|([1-9][0-9]{0,9}|[1-2][0-9]{10}|30[0-9]{9}|31[0-5][0-9]{8}|316[0-1][0-9]{7}|3162[0-1][0-9]{6}|31622[0-3][0-9]{5}|31622400000)ms",
    ")$"
);

impl PartialSchema for Span {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(SPAN)).examples(["10m"]);
        text.description(Some("A whole number and a unit (ms, s, m, h, d), from 1ms to 366d.")).build().into()
    }
}

impl ToSchema for Span {}

/// A pattern can't count bytes, so a key within these bounds may still be too long. No `.` or `..`; no control characters, and at the ends no white space either.
const KEY: &str = concat!(
    r"^(?!\.{1,2}$)",
    r"[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]",
    r"([^\u0000-\u001F\u007F-\u009F]*",
    r"[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000])?$"
);

impl PartialSchema for Key {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let text = text.max_length(Some(MAX_KEY_BYTES)).pattern(Some(KEY)).examples(["cats/tom.jpg"]);
        text.description(Some("1 to 255 bytes of UTF-8.")).build().into()
    }
}

impl ToSchema for Key {}
