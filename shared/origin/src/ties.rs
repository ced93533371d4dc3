//! What is known at each moment of store and database: whether they belong together, whether the store can be
//! written to, and what the last sweep came to.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::blobs::{BlobError, Blobs, unavailable};
use crate::error::{Error, STORE};
use crate::id::OriginId;
use crate::identity::{Identity, Standing};
use crate::swept::Swept;

/// How often both are looked at. A probe of S3 costs money.
const FOLDER_EVERY: Duration = Duration::from_secs(5);
const S3_EVERY: Duration = Duration::from_secs(30);
/// The shortest time between two looks, however many ask for one.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// Who knows it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ties(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    wake: Notify,
}

/// What was found last.
#[derive(Debug, Clone, Default)]
struct Known {
    standing: Option<Standing>,
    /// Why that could not be found out, if it never was.
    unknown: Option<String>,
    /// What is wrong with the store.
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

    /// Those of a store and a database that belong together.
    #[cfg(test)]
    pub(crate) fn joined() -> Self {
        let ties = Self::default();
        ties.lock().standing = "0".repeat(32).parse().ok().map(Standing::Joined);
        ties
    }

    /// Whether everything is as it should be, or in a sentence what is not.
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

    /// What the last sweep came to.
    pub fn swept(&self) -> Option<Swept> {
        self.lock().swept.clone()
    }

    /// What a sweep came to.
    pub(crate) fn note_sweep(&self, swept: Swept) {
        self.lock().swept = Some(swept);
    }

    /// Something went wrong in the store: it is looked at now.
    pub fn look_soon(&self) {
        self.0.wake.notify_one();
    }

    /// Looks at both, now.
    pub async fn look(&self, identity: &Identity, blobs: &Blobs) {
        let probed = blobs.probe().await.err();
        let trouble = probed.as_ref().map(trouble);
        let settled = match &probed {
            // It would only hang once more.
            Some(error @ BlobError::TimedOut(_)) => Err(unavailable(error)),
            _ => identity.settle().await,
        };
        let mut known = self.lock();
        if known.trouble != trouble {
            match &trouble {
                Some(reason) => tracing::warn!(reason, "the image store is in trouble"),
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
            // What was found before stands: MySQL may be away for a while.
            Err(error) => known.unknown = Some(error.to_string()),
        }
    }

    /// Looks at both again and again, until the stop.
    pub async fn run(
        self,
        identity: Identity,
        blobs: Blobs,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let every = if blobs.is_folder() { FOLDER_EVERY } else { S3_EVERY };
        loop {
            // While something is wrong, whoever mends it wants to see that soon.
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
