//! The present state of store and database: whether they belong together, whether the store can be written to, and the
//! result of the last sweep.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::blobs::{BlobError, Blobs, unavailable};
use crate::error::{Error, STORE};
use crate::id::OriginId;
use crate::identity::{Identity, Standing};
use crate::swept::Swept;

/// How often both are checked. A probe of S3 costs money.
const FOLDER_EVERY: Duration = Duration::from_secs(5);
const S3_EVERY: Duration = Duration::from_secs(30);
/// The shortest time between two checks, however many are asked for.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// The present state of store and database. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ties(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    wake: Notify,
}

/// The result of the last check.
#[derive(Debug, Clone, Default)]
struct Known {
    standing: Option<Standing>,
    /// Why the standing could not be found out, if it never was.
    unknown: Option<String>,
    /// The problem of the store, if it has one.
    trouble: Option<String>,
    swept: Option<Swept>,
}

impl Ties {
    /// The id of both, if something may be changed.
    ///
    /// # Errors
    /// [`Error::Apart`]; [`Error::Unavailable`] as long as it is not known.
    pub fn may_change(&self) -> Result<OriginId, Error> {
        let known = self.lock();
        match &known.standing {
            Some(Standing::Joined(id)) => Ok(*id),
            Some(Standing::Apart(mismatch)) => Err(Error::Apart(mismatch.advice())),
            None => Err(Error::Unavailable {
                part: STORE,
                reason: format!(
                    "whether it belongs to the database is not known yet{}",
                    known.unknown.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default()
                ),
            }),
        }
    }

    /// The state of a store and a database that belong together.
    #[cfg(test)]
    pub(crate) fn joined() -> Self {
        let ties = Self::default();
        ties.lock().standing = "0".repeat(32).parse().ok().map(Standing::Joined);
        ties
    }

    /// The state of the store in a sentence. It is an error if nothing can be stored or changed.
    pub fn health(&self, max_percent: u64) -> Result<String, String> {
        if let Err(Error::Apart(reason) | Error::Unavailable { reason, .. }) = self.may_change() {
            return Err(reason);
        }
        let known = self.lock();
        if let Some(trouble) = &known.trouble {
            return Err(trouble.clone());
        }
        let mut message = match known.swept.as_ref().filter(|swept| swept.held) {
            Some(swept) => format!("can be read and written; {}", swept.too_much(max_percent)),
            None => "can be read and written, and belongs to the database".to_owned(),
        };
        if let Some(missing) = known.swept.as_ref().map(Swept::unreadable).filter(|missing| *missing > 0) {
            message.push_str(&format!("; at the last sweep the files of {missing} images were missing"));
        }
        Ok(message)
    }

    /// The result of the last sweep, if there was one.
    pub fn swept(&self) -> Option<Swept> {
        self.lock().swept.clone()
    }

    /// Notes the result of a sweep.
    pub(crate) fn note_sweep(&self, swept: Swept) {
        self.lock().swept = Some(swept);
    }

    /// Asks for a check soon, because a call to the store failed.
    pub fn look_soon(&self) {
        self.0.wake.notify_one();
    }

    /// Checks both now.
    pub async fn look(&self, identity: &Identity, blobs: &Blobs) {
        let probed = blobs.probe().await.err();
        let trouble = probed.as_ref().map(trouble);
        let settled = match &probed {
            // The store would only hang once more.
            Some(error @ BlobError::TimedOut(_)) => Err(unavailable(error)),
            _ => identity.settle().await,
        };
        let mut known = self.lock();
        if known.trouble != trouble {
            match &trouble {
                Some(reason) => tracing::warn!(reason, "the image store can't be written to"),
                None => tracing::info!("the image store can be written to again"),
            }
            known.trouble = trouble;
        }
        match settled {
            Ok(standing) => {
                if known.standing.as_ref() != Some(&standing) {
                    match &standing {
                        Standing::Apart(mismatch) => tracing::error!("{}", mismatch.advice()),
                        Standing::Joined(id) => {
                            tracing::info!(%id, "image store and database belong together");
                        }
                    }
                }
                known.standing = Some(standing);
            }
            // The earlier result remains valid: MySQL may be away for a while.
            Err(error) => known.unknown = Some(error.to_string()),
        }
    }

    /// Checks both again and again, until the stop.
    pub async fn run(
        self,
        identity: Identity,
        blobs: Blobs,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let every = if blobs.is_folder() { FOLDER_EVERY } else { S3_EVERY };
        loop {
            // While something is wrong, both are checked often, so that a repair shows soon.
            let pause = if self.health(0).is_ok() { every } else { FOLDER_EVERY };
            let look = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = async {
                        self.0.wake.notified().await;
                        sleep(LEAST_PAUSE).await;
                    } => {}
                }
                self.look(&identity, &blobs).await;
            };
            if shutdown.run_until_cancelled(look).await.is_none() {
                return Ok(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock()
    }
}

fn trouble(error: &BlobError) -> String {
    format!("it can't be written to: {}", error.reason())
}
