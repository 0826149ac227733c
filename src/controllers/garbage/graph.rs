//! [`Graph`]: who owns whom, over all kinds. It is nothing but the kinds' informers, each of which
//! keeps its objects also by their uid and by the uids of their owners; so it can never disagree with
//! what is known of the objects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kontiki_api::client::Client;
use kontiki_api::informer::{Informer, Informers, PartialObject};
use kontiki_api::object::OwnerRef;
use kontiki_api::registry::strategy::Kind;
use parking_lot::RwLock;

use super::plan;
use crate::controllers::runtime::{ReconcileError, Seen};

const BY_UID: &str = "uid";
const BY_OWNER: &str = "owner";
/// How long the informers may take to reach a revision.
const DEADLINE: Duration = Duration::from_secs(10);

/// An object of any kind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AnyKey {
    /// The folder of its kind: the same for all versions of it.
    storage: &'static str,
    namespace: Box<str>,
    name: Box<str>,
}

impl fmt::Display for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.storage, self.namespace, self.name)
    }
}

/// The objects of one kind.
#[derive(Clone)]
pub struct Source {
    /// The kind.
    pub kind: &'static Kind,
    /// Its objects.
    pub informer: Arc<Informer<PartialObject>>,
}

/// A found object with its kind.
#[derive(Clone)]
pub struct Found {
    /// The kind.
    pub kind: &'static Kind,
    /// The object.
    pub object: Arc<PartialObject>,
}

/// Who owns whom.
#[derive(Default)]
pub struct Graph {
    sources: RwLock<BTreeMap<&'static str, Source>>,
}

impl Graph {
    /// Takes in the kinds that have come to be known since; gives those.
    pub fn extend(&self, client: &Client, informers: &Informers) -> Vec<Source> {
        let mut sources = self.sources.write();
        let mut added = Vec::new();
        for kind in client.stored_kinds().into_iter().filter(|kind| is_watched(kind)) {
            if sources.contains_key(kind.storage) {
                continue;
            }
            let informer = informers.partial(kind);
            informer.index_by(BY_UID, |object| vec![object.uid.to_string()]);
            informer.index_by(BY_OWNER, |object| {
                object.owners.iter().map(|owner| owner.uid.clone()).collect()
            });
            let source = Source { kind, informer };
            sources.insert(kind.storage, source.clone());
            added.push(source);
        }
        added
    }

    fn all(&self) -> Vec<Source> {
        self.sources.read().values().cloned().collect()
    }

    /// The object of a key.
    pub fn get(&self, key: &AnyKey) -> Option<Found> {
        let source = self.sources.read().get(key.storage).cloned()?;
        let object = source.informer.get(&key.namespace, &key.name)?;
        Some(Found { kind: source.kind, object })
    }

    /// The object of a kind with that uid.
    pub fn with_uid(&self, kind: &Kind, uid: &str) -> Option<Arc<PartialObject>> {
        let source = self.sources.read().get(kind.storage).cloned()?;
        source.informer.indexed(BY_UID, uid).pop()
    }

    /// Whose owner is the object of that uid.
    pub fn dependents(&self, uid: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for Source { kind, informer } in self.all() {
            let objects = informer.indexed(BY_OWNER, uid).into_iter();
            found.extend(objects.map(|object| Found { kind, object }));
        }
        found
    }

    /// Waits until all that was written up to a revision is known, of every kind: before an object is
    /// let go for good, none of its dependents may be missing.
    pub async fn reached(&self, revision: u64) -> Result<(), ReconcileError> {
        let all = async {
            for source in self.all() {
                source.informer.synced().await;
                source.informer.reached(revision).await;
            }
        };
        tokio::time::timeout(DEADLINE, all).await.map_err(|_| ReconcileError::Stale { revision })
    }

    /// The keys that a change of an object of a kind concerns.
    pub fn concerned(&self, kind: &Kind, seen: &Seen<'_, PartialObject>) -> Vec<AnyKey> {
        let mut keys = Vec::new();
        match (seen.old, seen.new) {
            (old, Some(new)) => {
                if has_to_be_seen(new) && old.is_none_or(|old| tied(old) != tied(new)) {
                    keys.push(key(kind, new));
                }
                // One that took the place of another is also the other's end.
                if let Some(old) = old.filter(|old| old.uid != new.uid) {
                    keys.extend(self.dependent_keys(old));
                }
            }
            (Some(old), None) => keys.extend(self.dependent_keys(old)),
            (None, None) => {}
        }
        if let Some(old) = seen.old {
            let lost = |owner: &&OwnerRef| !seen.new.is_some_and(|new| new.owners.contains(owner));
            keys.extend(old.owners.iter().filter(lost).filter_map(|owner| self.waiting(owner)));
        }
        keys
    }

    fn dependent_keys(&self, owner: &PartialObject) -> Vec<AnyKey> {
        self.dependents(&owner.uid).iter().map(|one| key(one.kind, &one.object)).collect()
    }

    /// The owner, where it waits for its dependents to go.
    fn waiting(&self, owner: &OwnerRef) -> Option<AnyKey> {
        self.all().iter().filter(|source| source.kind.kind == owner.kind).find_map(|source| {
            let object = source.informer.indexed(BY_UID, &owner.uid).pop()?;
            plan::deletes_dependents(&object).then(|| key(source.kind, &object))
        })
    }

    /// All that have owners.
    pub fn owned(&self) -> Vec<AnyKey> {
        let mut keys = Vec::new();
        for Source { kind, informer } in self.all() {
            let objects = informer.list();
            let owned = objects.iter().filter(|object| !object.owners.is_empty());
            keys.extend(owned.map(|object| key(kind, object)));
        }
        keys
    }
}

/// Events are owned by nobody and are many; what is not kept cannot be owned.
fn is_watched(kind: &Kind) -> bool {
    kind.is_stored() && kind.kind != "Event"
}

fn key(kind: &Kind, object: &PartialObject) -> AnyKey {
    AnyKey { storage: kind.storage, namespace: object.namespace.clone(), name: object.name.clone() }
}

/// Whether the collector may have to do with an object.
fn has_to_be_seen(object: &PartialObject) -> bool {
    !object.owners.is_empty() || object.is_terminating
}

/// All that the collector decides by.
fn tied(object: &PartialObject) -> (&str, &[OwnerRef], &[String], bool) {
    (&object.uid, &object.owners, &object.finalizers, object.is_terminating)
}
