//! Watches: every change after a revision, in order, each once (invariant R5).

use tokio::sync::mpsc;

use crate::kv::{KvError, WatchMessage};

/// How many messages a watcher may lag behind before it is closed as [`KvError::SlowWatcher`].
pub const WATCHER_QUEUE: usize = 1024;

/// The receiving end of a watch. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    messages: mpsc::Receiver<Result<WatchMessage, KvError>>,
}

impl Watcher {
    /// The next message; `None` when the store has shut down. After an error there is nothing more.
    /// Cancel-safe: a message is either returned or still queued.
    pub async fn next(&mut self) -> Option<Result<WatchMessage, KvError>> {
        self.messages.recv().await
    }
}
