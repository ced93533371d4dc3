//! Pages of the list of images, in any of its orders.
//!
//! A page begins behind a row, not at a number, so a page a million rows further on is as quick. Each order has an
//! index, and a page is read from neighbouring entries of it. No index sorts the keys with a prefix by anything but the
//! key. The database sorts these in one go, and is asked to only for few rows.

use std::fmt;
use std::str::FromStr;

use sqlx::{MySql, QueryBuilder};
use time::OffsetDateTime;
use wire::words::{one_of, shown};

use crate::error::Error;
use crate::images::Images;
use crate::rows::{Columns, ImageRow, answered, behind};

/// The column that sorts a list. Rows with the same value come in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Key,
    Size,
    Stored,
}

/// An order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By key, byte for byte.
    Key,
    /// By key, byte for byte, in descending order.
    KeyDown,
    /// By the time of storing, the latest first.
    Newest,
    /// By the time of storing, the earliest first.
    Oldest,
    /// By size, the largest first.
    Largest,
    /// By size, the smallest first.
    Smallest,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 6] =
        [Self::Key, Self::KeyDown, Self::Newest, Self::Oldest, Self::Largest, Self::Smallest];

    /// The name in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::KeyDown => "key-down",
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Largest => "largest",
            Self::Smallest => "smallest",
        }
    }

    fn by(self) -> By {
        match self {
            Self::Key | Self::KeyDown => By::Key,
            Self::Newest | Self::Oldest => By::Stored,
            Self::Largest | Self::Smallest => By::Size,
        }
    }

    fn is_down(self) -> bool {
        matches!(self, Self::KeyDown | Self::Newest | Self::Largest)
    }

    /// Whether it is an order by key, for which a prefix needs no sorting.
    pub fn is_by_key(self) -> bool {
        self.by() == By::Key
    }
}

impl FromStr for Order {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|order| order.as_str() == text).ok_or_else(|| {
            let allowed = one_of(Self::ALL.map(Self::as_str));
            Error::NoPlace(format!("sort must be {allowed}, got {}", shown(text)))
        })
    }
}

/// A row's place in an order. In URLs it is the key or, where that is not enough, `<size>:<key>` or
/// `<microseconds since 1970>:<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    value: Value,
    key: Vec<u8>,
}

/// The value before the key in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Size(u64),
    Stored(OffsetDateTime),
}

impl Place {
    /// The place of a row.
    pub fn of(row: &ImageRow, order: Order) -> Self {
        let value = match order.by() {
            By::Key => Value::None,
            By::Size => Value::Size(row.size),
            By::Stored => Value::Stored(row.dates.updated_at),
        };
        Self { value, key: row.key.as_str().as_bytes().to_vec() }
    }

    /// Reads a place in this order.
    ///
    /// # Errors
    /// [`Error::NoPlace`] for a text that is no place in this order.
    pub fn parse(text: &str, order: Order) -> Result<Self, Error> {
        let bad = |what: &str| {
            let order = order.as_str();
            let got = shown(text);
            Error::NoPlace(format!("a place in the list sorted by {order} must be {what}:<key>, got {got}"))
        };
        let apart = |what| text.split_once(':').ok_or_else(|| bad(what));
        let (value, key) = match order.by() {
            By::Key => (Value::None, text),
            By::Size => {
                let (size, key) = apart("<bytes>")?;
                (Value::Size(size.parse().map_err(|_| bad("<bytes>"))?), key)
            }
            By::Stored => {
                const WHAT: &str = "<microseconds since 1970>";
                let (stored, key) = apart(WHAT)?;
                // The year must have four digits, as in the database.
                let stored: i64 = stored.parse().map_err(|_| bad(WHAT))?;
                let stored = OffsetDateTime::from_unix_timestamp_nanos(i128::from(stored) * 1000);
                let stored = stored.ok().filter(|stored| (1970..=9999).contains(&stored.year()));
                (Value::Stored(stored.ok_or_else(|| bad(WHAT))?), key)
            }
        };
        Ok(Self { value, key: key.as_bytes().to_vec() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::None => {}
            Value::Size(size) => write!(f, "{size}:")?,
            Value::Stored(stored) => write!(f, "{}:", stored.unix_timestamp_nanos() / 1000)?,
        }
        f.write_str(&String::from_utf8_lossy(&self.key))
    }
}

/// The position of a page in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// At the beginning.
    First,
    /// Behind a row.
    After(Place),
    /// Before a row.
    Before(Place),
}

/// A page of the list.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows, in the list's order.
    pub rows: Vec<ImageRow>,
    /// Whether there may be rows before this page.
    pub has_previous: bool,
    /// Whether there may be rows behind this page.
    pub has_next: bool,
}

impl Images {
    /// The rows whose keys begin with `prefix`, in this order: the `size` of them at `position`.
    ///
    /// With a prefix and another order than one by key, all rows with that prefix are read. The caller must have
    /// counted them before ([`Images::count_beginning`]).
    ///
    /// # Errors
    /// [`Error::Unavailable`] when MySQL does not answer.
    pub async fn list(
        &self,
        prefix: &str,
        order: Order,
        position: &Position,
        size: u32,
    ) -> Result<Page, Error> {
        // One more than is shown tells whether there is more.
        let limit = size + 1;
        match position {
            Position::Before(place) => {
                let mut rows = self.rows(prefix, order, Some((place, true)), limit).await?;
                if rows.len() <= size as usize {
                    // Nothing is before these: the first page, filled up with what is behind them.
                    return Box::pin(self.list(prefix, order, &Position::First, size)).await;
                }
                rows.truncate(size as usize);
                rows.reverse();
                Ok(Page { rows, has_previous: true, has_next: true })
            }
            Position::First | Position::After(_) => {
                let after = match position {
                    Position::After(place) => Some((place, false)),
                    _ => None,
                };
                let mut rows = self.rows(prefix, order, after, limit).await?;
                let has_next = rows.len() > size as usize;
                rows.truncate(size as usize);
                Ok(Page { rows, has_previous: after.is_some(), has_next })
            }
        }
    }

    /// Up to `limit` rows behind a place, or before it, the nearest first.
    async fn rows(
        &self,
        prefix: &str,
        order: Order,
        from: Option<(&Place, bool)>,
        limit: u32,
    ) -> Result<Vec<ImageRow>, Error> {
        let is_down = order.is_down() != from.is_some_and(|(_, backwards)| backwards);
        let (beyond, direction) = if is_down { ("<", "DESC") } else { (">", "ASC") };
        let (column, index) = match order.by() {
            By::Key => (None, "PRIMARY"),
            By::Size => (Some("size"), "images_size"),
            By::Stored => (Some("updated_at"), "images_updated_at"),
        };
        // The index is forced, because a planner that guesses wrong would read all of a million rows.
        let index = if prefix.is_empty() { index } else { "PRIMARY" };
        let mut question = QueryBuilder::<MySql>::new(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at, \
             earlier_at \
             FROM images FORCE INDEX (",
        );
        question.push(index).push(") WHERE TRUE");
        if !prefix.is_empty() {
            question.push(" AND image_key >= ").push_bind(prefix.as_bytes());
            question.push(" AND image_key < ").push_bind(behind(prefix.as_bytes()));
        }
        if let Some((place, _)) = from {
            question.push(" AND (");
            if let Some(column) = column {
                for (comparison, end) in [(beyond, " OR "), ("=", " AND ")] {
                    question.push(format_args!("{column} {comparison} "));
                    match place.value {
                        Value::Size(size) => question.push_bind(size),
                        Value::Stored(stored) => question.push_bind(stored),
                        Value::None => question.push("NULL"),
                    };
                    question.push(end);
                }
            }
            question.push(format_args!("image_key {beyond} ")).push_bind(&place.key[..]).push(")");
        }
        question.push(" ORDER BY ");
        if let Some(column) = column {
            question.push(format_args!("{column} {direction}, "));
        }
        question.push(format_args!("image_key {direction} LIMIT ")).push_bind(limit);
        let columns: Vec<Columns> = answered(question.build_query_as().fetch_all(self.database())).await?;
        columns.into_iter().map(ImageRow::try_from).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for (order, text) in [
            (Order::Key, "cat"),
            (Order::KeyDown, "größe/猫: 1"),
            (Order::Largest, "791555:cat:1"),
            (Order::Smallest, "0:"),
            (Order::Newest, "1790000000123456:猫"),
            (Order::Oldest, "0:a"),
        ] {
            assert_eq!(Place::parse(text, order).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_place_or_order_is_refused_with_what_is_allowed() {
        for (order, text) in [
            (Order::Largest, "cat"),
            (Order::Largest, "-1:cat"),
            (Order::Smallest, "18446744073709551616:cat"),
            (Order::Newest, "x:cat"),
            (Order::Newest, "-1:cat"),
            (Order::Oldest, "9223372036854775807:cat"),
        ] {
            let Err(Error::NoPlace(said)) = Place::parse(text, order) else { panic!("{text}") };
            assert!(said.contains(":<key>"), "{said}");
        }
        let Err(Error::NoPlace(said)) = "colour".parse::<Order>() else { panic!("an order") };
        assert!(Order::ALL.iter().all(|order| said.contains(order.as_str())), "{said}");
        assert!(Order::ALL.iter().all(|order| order.as_str().parse::<Order>().unwrap() == *order));
    }
}
