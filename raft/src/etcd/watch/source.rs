//! One watcher of the store as a stream that says whose it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use kontiki_storage::kv::{KvError, WatchMessage};
use kontiki_storage::watch::Watcher;

pub(super) struct Source {
    pub(super) id: i64,
    pub(super) serial: u64,
    pub(super) watcher: Watcher,
}

/// What a watcher said.
pub(super) struct Said {
    pub(super) id: i64,
    pub(super) serial: u64,
    pub(super) message: Result<WatchMessage, KvError>,
}

impl Stream for Source {
    type Item = Said;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        let (id, serial) = (self.id, self.serial);
        let message = self.watcher.poll_next(cx);
        message.map(|message| message.map(|message| Said { id, serial, message }))
    }
}
