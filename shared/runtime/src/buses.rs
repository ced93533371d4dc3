//! The two connections of a service that answers requests.

use std::time::Duration;

use crate::args::NatsArgs;
use crate::bus::{Bus, BusError, Refusal, User};

/// The connections of a service, each as a user of its own. The asker of a request chooses the reply subject, so the
/// connection that answers may publish to inboxes only. All other messages of the service go over the other connection.
#[derive(Debug, Clone)]
pub struct Buses {
    /// The connection that answers requests.
    pub answers: Bus,
    /// The connection for JetStream, for events and for the service's own requests.
    pub own: Bus,
}

impl Buses {
    /// Connects both, as [`Bus::connect`] does: as `answering`, and as `own`.
    ///
    /// # Errors
    /// [`BusError`], of the first connection that fails.
    pub async fn connect(
        args: &NatsArgs,
        (answering, own): (&'static str, &'static str),
        password: &str,
        subscription_capacity: usize,
        limit: Duration,
    ) -> Result<Self, BusError> {
        let connect = |user| Bus::connect(args, user, password, subscription_capacity, limit);
        let (answers, own) =
            tokio::try_join!(connect(User::answering(answering)), connect(User::asking(own)))?;
        Ok(Self { answers, own })
    }

    /// Waits until the server refuses something on one of the connections.
    pub async fn refused(&self) -> Refusal {
        tokio::select! {
            refusal = self.answers.refused() => refusal,
            refusal = self.own.refused() => refusal,
        }
    }

    /// Whether one of the clients has ended for good: see [`Bus::has_died`].
    pub async fn have_died(&self) -> bool {
        let (answers, own) = tokio::join!(self.answers.has_died(), self.own.has_died());
        answers || own
    }

    /// Ends both connections, as [`Bus::drain`] does.
    pub async fn drain(&self, limit: Duration) {
        tokio::join!(self.answers.drain(limit), self.own.drain(limit));
    }
}
