//! The id of an installation.

use std::fmt;
use std::str::FromStr;

/// The id of the installation that a store or a database belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginId([u8; 16]);

impl OriginId {
    /// An id that no other installation has: 128 random bits.
    pub(crate) fn draw() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id must be 32 hexadecimal digits")]
pub struct NoId;

impl FromStr for OriginId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(|number| Self(number.to_be_bytes())).ok_or(NoId)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let id = OriginId::draw();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(id, OriginId::draw());
        let small = OriginId(7_u128.to_be_bytes());
        assert_eq!(small.to_string().parse::<OriginId>().unwrap(), small);
        for text in ["", "0", "+0000000000000000000000000000001", &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(text.parse::<OriginId>(), Err(NoId), "{text}");
        }
    }
}
