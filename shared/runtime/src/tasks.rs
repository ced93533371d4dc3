//! Background tasks. A task that ends before the stop ends its process, with the reason.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A task that ended before the stop of its process, or did not end in time after it.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure {
    /// It returned an error.
    #[error("{name} failed: {source:#}")]
    Failed {
        /// The name of the task.
        name: &'static str,
        /// The error.
        source: anyhow::Error,
    },
    /// It returned as if it were done.
    #[error("{0} ended by itself")]
    Ended(&'static str),
    /// It panicked or was aborted.
    #[error("a background task died: {0}")]
    Died(tokio::task::JoinError),
    /// It had not ended when the time for a clean stop was over.
    #[error("background tasks had not ended after {} ms", .0.as_millis())]
    StillRunning(Duration),
}

/// The background tasks of one service.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet. `shutdown` is the token whose cancellation makes it right for a task to end.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { set: JoinSet::new(), shutdown }
    }

    /// Starts a task.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits for the stop.
    ///
    /// # Errors
    /// [`TaskFailure`], as soon as a task ends before that.
    pub async fn watch(&mut self) -> Result<(), TaskFailure> {
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            Some(ended) = self.set.join_next() => ended,
        };
        match ended {
            // A task may see the stop a moment before this one does.
            Ok((_, Ok(()))) if self.shutdown.is_cancelled() => Ok(()),
            Ok((name, Ok(()))) => Err(TaskFailure::Ended(name)),
            Ok((name, Err(source))) => Err(TaskFailure::Failed { name, source }),
            Err(error) => Err(TaskFailure::Died(error)),
        }
    }

    /// Waits until all tasks have ended, for at most `grace`; then aborts the rest.
    ///
    /// # Errors
    /// [`TaskFailure`], when one failed or did not end.
    pub async fn finish(mut self, grace: Duration) -> Result<(), TaskFailure> {
        let all = async {
            while let Some(ended) = self.set.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    Ok((name, Err(source))) => return Err(TaskFailure::Failed { name, source }),
                    Err(error) => return Err(TaskFailure::Died(error)),
                }
            }
            Ok(())
        };
        tokio::time::timeout(grace, all).await.unwrap_or(Err(TaskFailure::StillRunning(grace)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_is_an_error_and_one_that_stops_is_not() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("good", {
            let shutdown = shutdown.clone();
            async move {
                shutdown.cancelled().await;
                Ok(())
            }
        });
        tasks.spawn("short", async { Ok(()) });
        assert!(matches!(tasks.watch().await, Err(TaskFailure::Ended("short"))));
        tasks.spawn("bad", async { Err(anyhow::anyhow!("no")) });
        assert!(matches!(tasks.watch().await, Err(TaskFailure::Failed { name: "bad", .. })));
        shutdown.cancel();
        assert!(tasks.watch().await.is_ok());
        assert!(tasks.finish(Duration::from_secs(5)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_named_as_such() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("deaf", std::future::pending());
        shutdown.cancel();
        assert!(tasks.watch().await.is_ok());
        assert!(matches!(tasks.finish(Duration::from_secs(1)).await, Err(TaskFailure::StillRunning(_))));
    }
}
