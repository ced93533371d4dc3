//! The stop signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT or SIGTERM.
///
/// Later signals are received and ignored. Ctrl-C under a Procfile runner sends SIGINT from the terminal and then
/// SIGTERM from the runner. The second signal must not cut a clean stop short.
///
/// # Errors
/// When the handlers can't be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    tokio::spawn({
        let token = token.clone();
        async move {
            loop {
                let name = tokio::select! {
                    received = interrupt.recv() => received.map(|()| "SIGINT"),
                    received = terminate.recv() => received.map(|()| "SIGTERM"),
                };
                let Some(name) = name else { return };
                let already = token.is_cancelled();
                token.cancel();
                tracing::info!(signal = name, already, "the process stops: it has received a signal");
            }
        }
    });
    Ok(token)
}
