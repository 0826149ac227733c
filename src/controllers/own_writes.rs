//! [`OwnWrites`]: a controller must not decide on a cache that lacks what it has itself just
//! written, or it creates the same pods twice.
//!
//! Every write answers with its revision, and an informer knows up to which revision it is whole: so
//! before a key is reconciled again, its informer must have reached the last revision that the
//! key's reconcile wrote.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use kontiki_api::client::ApiType;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::Deleted;
use parking_lot::Mutex;

use super::runtime::ReconcileError;

/// How long a reconcile waits for its informer before it is tried again later.
const DEADLINE: Duration = Duration::from_secs(5);

/// What was written to the objects of one informer, by the key for whose sake.
pub struct OwnWrites<Key, K> {
    informer: Arc<Informer<K>>,
    pending: Mutex<HashMap<Key, u64>>,
}

impl<Key: Clone + Eq + Hash, K: ApiType> OwnWrites<Key, K> {
    /// Nothing written yet.
    pub fn new(informer: Arc<Informer<K>>) -> Self {
        Self { informer, pending: Mutex::default() }
    }

    /// Notes that `object` was created or changed; it is as the API returned it.
    pub fn wrote(&self, key: &Key, object: &K) {
        self.note(key, object.metadata().resource_version.as_deref().unwrap_or_default());
    }

    /// Notes a deletion.
    pub fn deleted(&self, key: &Key, deleted: &Deleted) {
        self.note(key, deleted.object().str_at("/metadata/resourceVersion"));
    }

    fn note(&self, key: &Key, resource_version: &str) {
        let revision = resource_version.parse().unwrap_or(0);
        let mut pending = self.pending.lock();
        let latest = pending.entry(key.clone()).or_default();
        *latest = revision.max(*latest);
    }

    /// Waits until the informer has seen what was written for `key`.
    pub async fn seen(&self, key: &Key) -> Result<(), ReconcileError> {
        let Some(revision) = self.pending.lock().get(key).copied() else { return Ok(()) };
        if tokio::time::timeout(DEADLINE, self.informer.reached(revision)).await.is_err() {
            return Err(ReconcileError::Stale { revision });
        }
        // A key is reconciled by one worker at a time, so nothing was added meanwhile.
        self.pending.lock().remove(key);
        Ok(())
    }
}
