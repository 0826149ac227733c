//! The task behind an informer: list, then watch from there; list again when the watch cannot be
//! resumed.

use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::kv::{
    Event, EventKind, KeyRange, KeyValue, Kv, KvError, RangeRequest, Revision, WatchMessage,
    WatchRequest,
};
use tokio_util::sync::CancellationToken;

use super::{Decode, Informer, Name};
use crate::registry::key;

/// How long to wait before asking a store again that could not answer.
const RETRY: Duration = Duration::from_millis(200);

/// Keeps an informer current until `stop`.
pub(super) async fn run<T: Send + Sync + 'static>(
    kv: Arc<dyn Kv>,
    informer: Arc<Informer<T>>,
    decode: Decode<T>,
    stop: CancellationToken,
) {
    let mut at: Option<Revision> = None;
    loop {
        // Dropping a round at any await is safe: the informer has applied whole messages only, and
        // `at` is not used after the stop.
        let round = tokio::select! {
            () = stop.cancelled() => return,
            round = follow(&*kv, &informer, decode, &mut at) => round,
        };
        match round {
            Ok(()) => return, // the store has shut down
            Err(KvError::SlowWatcher { .. }) => {}
            Err(KvError::Compacted { .. }) => at = None,
            Err(error) => {
                tracing::debug!(kind = ?informer.kind, %error, "informer waits for the store");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
}

/// Lists where there is no revision to resume from, then watches until that fails. `at` is the last
/// revision that was taken in whole.
async fn follow<T: Send + Sync + 'static>(
    kv: &dyn Kv,
    informer: &Informer<T>,
    decode: Decode<T>,
    at: &mut Option<Revision>,
) -> Result<(), KvError> {
    let range = KeyRange::prefix(key::folder(informer.kind, ""));
    let from = match *at {
        Some(revision) => revision,
        None => list(kv, informer, decode, range.clone()).await?,
    };
    *at = Some(from);
    informer.advance(from.get());
    let request = WatchRequest { range, start: Some(from.next()), prev_kv: false };
    let mut watcher = kv.watch(request).await?;
    loop {
        // Both arms are cancel-safe: a message stays queued, and a lost wish for progress is wished
        // again by who waits.
        let message = tokio::select! {
            message = watcher.next() => message,
            () = informer.progress_wanted.notified() => {
                watcher.request_progress();
                continue;
            }
        };
        let Some(message) = message else { return Ok(()) };
        match message? {
            WatchMessage::Progress(revision) => *at = Some(revision),
            WatchMessage::Events(events) => {
                for event in &events {
                    take(informer, decode, event);
                }
                *at = events.last().map(|event| event.kv.mod_revision).or(*at);
            }
        }
        informer.advance(at.map_or(0, Revision::get));
    }
}

async fn list<T: Send + Sync + 'static>(
    kv: &dyn Kv,
    informer: &Informer<T>,
    decode: Decode<T>,
    range: KeyRange,
) -> Result<Revision, KvError> {
    let response = kv.range(RangeRequest::new(range)).await?;
    let list = response.kvs.iter().filter_map(|kv| read(informer, decode, kv)).collect();
    informer.reset(list);
    Ok(response.revision)
}

fn take<T: Send + Sync + 'static>(informer: &Informer<T>, decode: Decode<T>, event: &Event) {
    match event.kind {
        EventKind::Put => {
            if let Some((name, revision, object)) = read(informer, decode, &event.kv) {
                informer.apply(name, revision, object);
            }
        }
        EventKind::Delete => {
            if let Some((namespace, name)) = key::parse(informer.kind, &event.kv.key) {
                informer.delete(&(namespace.to_owned(), name.to_owned()));
            }
        }
    }
}

/// Decodes a stored object; one that cannot be decoded is left out and said so.
fn read<T: Send + Sync + 'static>(
    informer: &Informer<T>,
    decode: Decode<T>,
    kv: &KeyValue,
) -> Option<(Name, u64, T)> {
    let (namespace, name) = key::parse(informer.kind, &kv.key)?;
    let revision = kv.mod_revision.get();
    match decode(&kv.value, revision) {
        Ok(object) => Some(((namespace.to_owned(), name.to_owned()), revision, object)),
        Err(error) => {
            tracing::error!(key = %String::from_utf8_lossy(&kv.key), %error, "unreadable object");
            None
        }
    }
}
