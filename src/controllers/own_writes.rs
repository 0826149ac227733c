//! [`OwnWrites`]: a controller must not decide on a cache that lacks what it has itself just
//! written, or it creates the same pods twice.
//!
//! Every write answers with its revision, and an informer knows up to which revision it is whole: so
//! before a key is reconciled again, its informer must have reached the last revision that the
//! key's reconcile wrote, and dropped what it deleted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use kontiki_api::client::ApiType;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::Deleted;
use parking_lot::Mutex;

use super::owners;
use super::runtime::ReconcileError;

/// How long a reconcile waits for its informer before it is tried again later.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often a deleted object is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What was written to the objects of one informer, by the key for whose sake.
pub struct OwnWrites<Key, K> {
    informer: Arc<Informer<K>>,
    pending: Mutex<HashMap<Key, Pending>>,
}

#[derive(Debug, Default, Clone)]
struct Pending {
    revision: u64,
    /// Namespace, name and uid of what was deleted outright.
    gone: Vec<(String, String, String)>,
}

impl<Key: Clone + Eq + Hash, K: ApiType> OwnWrites<Key, K> {
    /// Nothing written yet.
    pub fn new(informer: Arc<Informer<K>>) -> Self {
        Self { informer, pending: Mutex::default() }
    }

    /// Notes that `object` was created or changed; it is as the API returned it.
    pub fn wrote(&self, key: &Key, object: &K) {
        let revision =
            revision_of(object.metadata().resource_version.as_deref().unwrap_or_default());
        let mut all = self.pending.lock();
        let pending = all.entry(key.clone()).or_default();
        pending.revision = pending.revision.max(revision);
    }

    /// Notes a deletion.
    pub fn deleted(&self, key: &Key, deleted: &Deleted) {
        let mut all = self.pending.lock();
        let pending = all.entry(key.clone()).or_default();
        let object = deleted.object();
        match deleted {
            Deleted::Terminating(_) => {
                let revision = revision_of(object.str_at("/metadata/resourceVersion"));
                pending.revision = pending.revision.max(revision);
            }
            Deleted::Gone(_) => pending.gone.push((
                object.namespace().to_owned(),
                object.name().to_owned(),
                object.str_at("/metadata/uid").to_owned(),
            )),
        }
    }

    /// Waits until the informer has seen what was written for `key`.
    pub async fn seen(&self, key: &Key) -> Result<(), ReconcileError> {
        let Some(pending) = self.pending.lock().get(key).cloned() else { return Ok(()) };
        let wait = async {
            self.informer.reached(pending.revision).await;
            while pending.gone.iter().any(|gone| self.is_there(gone)) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            return Err(ReconcileError::Stale { revision: pending.revision });
        }
        // A key is reconciled by one worker at a time, so nothing was added meanwhile.
        self.pending.lock().remove(key);
        Ok(())
    }

    fn is_there(&self, (namespace, name, uid): &(String, String, String)) -> bool {
        self.informer
            .get(namespace, name)
            .is_some_and(|object| owners::uid(object.metadata()) == uid)
    }
}

fn revision_of(resource_version: &str) -> u64 {
    resource_version.parse().unwrap_or(0)
}
