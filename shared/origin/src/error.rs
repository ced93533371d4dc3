//! The errors of the origin.

use std::sync::Arc;
use std::time::Duration;

use runtime::logging::Seldom;
use sniff::SniffError;

/// The image files, as errors call them.
pub(crate) const STORE: &str = "the image store";

/// Why something could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MySQL or the image store does not answer, or refuses for a reason of its own.
    #[error("{part} can't be reached now: {reason}")]
    Unavailable {
        /// The part that failed: `MySQL` or `the image store`.
        part: &'static str,
        /// The reason in a few words.
        reason: String,
    },
    /// Image store and database do not belong together, so nothing may be changed.
    #[error("nothing can be changed here now: {0}")]
    Apart(String),
    /// A condition of the asker does not hold; nothing was changed.
    #[error(transparent)]
    Unmet(#[from] Unmet),
    /// A place or an order of the list that does not exist.
    #[error("{0}")]
    NoPlace(String),
    /// Bytes that are no image of an allowed type and size.
    #[error(transparent)]
    NoImage(#[from] SniffError),
    /// More bytes than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The body did not arrive in time, in seconds.
    #[error("the body must not pause for {0} s, and it did: send it again")]
    BodyTimeout(u64),
    /// The file that the row of an image names is missing or has another size.
    #[error("{0}")]
    FileMissing(String),
    /// Something that should not happen.
    #[error("{0:#}")]
    Internal(anyhow::Error),
}

/// Why a condition of the asker does not hold, in a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unmet(pub &'static str);

/// The shortest time between two log lines of a kind that any reader can cause again and again.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why MySQL refuses a statement, where the reason lies with the server or its administrator. The numbers are those of
/// the "MySQL Error Message Reference" and of "MariaDB Error Codes". `None` where the statement itself is wrong.
fn reason_of(number: u16) -> Option<&'static str> {
    Some(match number {
        1146 => "its tables are not there yet: start the recorder, which makes them",
        1205 | 1213 => "another transaction holds a lock on the row",
        1290 | 1792 | 1836 | 3100 | 4149 => "it is read-only",
        1040 | 1203 | 1226 => "it takes no more connections",
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698 | 1820 | 1862 | 1873 | 3118 | 3955 | 4151 => {
            "it refuses the gateway's account: check GATEWAY_DATABASE_URL"
        }
        1021 | 1030 | 1037 | 1038 | 1041 | 1114 | 1135 | 3675 => "it is out of memory or disk space",
        1047 => "its node is not part of its cluster now",
        1053 | 1077 | 1079 | 1080 | 1317 | 1927 | 1969 | 3024 | 3169 => "it has ended the statement",
        1049 => "it has no database of that name: check GATEWAY_DATABASE_URL",
        _ => return None,
    })
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Arc::new(error).into()
    }
}

/// Why MySQL did not do what it was asked, where that may pass or be mended.
fn reason_for(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => Some("the connection failed"),
        sqlx::Error::PoolTimedOut => Some("no connection became free in time"),
        sqlx::Error::PoolClosed => Some("this gateway is stopping"),
        sqlx::Error::Database(database) => {
            let error = database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
            reason_of(error.map_or(0, |error| error.number()))
        }
        _ => None,
    }
}

/// The error is shared, because several readers may have shared the statement that failed.
impl From<Arc<sqlx::Error>> for Error {
    fn from(error: Arc<sqlx::Error>) -> Self {
        match reason_for(&error) {
            Some(reason) => {
                // The server's own words are for the log.
                static SAID: Seldom = Seldom::new(SAID_EVERY);
                if let Some(times) = SAID.now() {
                    tracing::warn!(%error, reason, times, "MySQL failed a statement");
                }
                Self::Unavailable { part: "MySQL", reason: reason.to_owned() }
            }
            None if matches!(*error, sqlx::Error::Database(_)) => {
                Self::Internal(anyhow::Error::new(error).context("MySQL refused a statement"))
            }
            None => Self::Internal(anyhow::Error::new(error).context("MySQL gave no readable answer")),
        }
    }
}
