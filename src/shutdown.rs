//! One tree of cancellation tokens per process; its root is cancelled by SIGTERM or SIGINT.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Cancels the returned token at the first SIGTERM or SIGINT. A second one ends the process at
/// once, for whoever has no patience with an orderly stop.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let root = CancellationToken::new();
    let token = root.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!("{name}: stopping");
        token.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        warn!("second signal: ending at once");
        std::process::exit(130);
    });
    Ok(root)
}

/// Waits for a task that was told to stop, and aborts it when it does not within `deadline`.
pub async fn join<T>(what: &str, mut task: JoinHandle<T>, deadline: Duration) -> Option<T> {
    match tokio::time::timeout(deadline, &mut task).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) if error.is_panic() => {
            warn!("{what} panicked: {error}");
            None
        }
        Ok(Err(_)) => None,
        Err(_) => {
            warn!("{what} did not stop within {deadline:?}: aborted");
            task.abort();
            None
        }
    }
}
