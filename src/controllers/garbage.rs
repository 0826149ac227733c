//! The garbage collector: what all its owners have left goes too; orphans are set free; foreground
//! deletion waits for the dependents.
//!
//! ```text
//!   every kind's metadata ──► Graph (uid → object, owner's uid → dependents)
//!        │ an object without an owner, or an owner that ends
//!        ▼
//!   collect(): are its owners there?    finish(): what do its finalizers ask for?
//! ```
//!
//! That an owner is gone is believed only from the store itself, never from a cache.

pub mod graph;
pub mod plan;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kontiki_api::client::Client;
use kontiki_api::informer::{Informers, PartialObject};
use kontiki_api::object::OwnerRef;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch, Propagation};
use kontiki_api::registry::strategy::Kind;
use kontiki_api::registry::{FOREGROUND, ORPHAN};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::events::{EventRecorder, EventType};
use super::queue::WorkQueue;
use super::runtime::{self, Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;
use graph::{AnyKey, Found, Graph, Source};
use plan::{Collect, Finish, Standing};

/// How soon an object that waits for its dependents is looked at again, should nothing happen.
const AGAIN: Duration = Duration::from_secs(5);
/// How soon an owner is looked for again whose kind is not known.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(30);
/// How often a write to an object that changes meanwhile is tried at once.
const ATTEMPTS: usize = 5;
/// How soon such an object is looked at again.
const BUSY_AGAIN: Duration = Duration::from_millis(50);
/// How often it is looked whether there are new kinds.
const KINDS_PERIOD: Duration = Duration::from_secs(1);
/// How many dependents of one owner are worked on at the same time.
const DEPENDENTS_AT_ONCE: usize = 16;
/// How many owners are remembered to be gone.
const GONE_MAX: usize = 4096;

/// Collects garbage.
pub struct Garbage {
    client: Client,
    graph: Arc<Graph>,
    events: EventRecorder,
    /// Owners that the store has said are gone, with the namespace in which they were looked for. A
    /// uid is never used again, so they stay gone.
    gone: Mutex<HashSet<(Box<str>, OwnerRef)>>,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<Garbage> {
    let graph = Arc::new(Graph::default());
    let reconciler = Garbage {
        client: context.client_of("generic-garbage-collector"),
        graph: Arc::clone(&graph),
        events: events.of("garbage-collector-controller"),
        gone: Mutex::default(),
    };
    let (client, informers) = (context.client.clone(), Arc::clone(&context.informers));
    Controller::new("garbage", context, begin, reconciler)
        .feed_by(move |queue, begin| follow_kinds(graph, client, informers, queue, begin))
}

/// Follows every kind there is, and those that come.
async fn follow_kinds(
    graph: Arc<Graph>,
    client: Client,
    informers: Arc<Informers>,
    queue: Arc<WorkQueue<AnyKey>>,
    begin: u64,
) {
    let mut feeds = FuturesUnordered::new();
    let mut tick = tokio::time::interval(KINDS_PERIOD);
    loop {
        for Source { kind, informer } in graph.extend(&client, &informers) {
            let (seeing, missing) = (Arc::clone(&graph), Arc::clone(&graph));
            let keys = move |seen: runtime::Seen<'_, PartialObject>| seeing.concerned(kind, &seen);
            let missed = move || missing.owned();
            feeds.push(runtime::feed(&informer, Arc::clone(&queue), begin, keys, missed));
        }
        // Both arms are cancel-safe; a feed that ends does so with the informers.
        tokio::select! {
            _ = tick.tick() => {}
            Some(()) = feeds.next() => {}
        }
    }
}

#[async_trait]
impl Reconcile for Garbage {
    type Key = AnyKey;

    async fn reconcile(&self, key: &AnyKey) -> Result<Next, ReconcileError> {
        let Some(found) = self.graph.get(key) else { return Ok(Next::OnChange) };
        if found.object.is_terminating {
            self.finish(&found).await
        } else {
            self.collect(&found).await
        }
    }
}

impl Garbage {
    /// Does what the finalizers of a terminating object ask for.
    async fn finish(&self, found: &Found) -> Result<Next, ReconcileError> {
        let object = &found.object;
        if plan::finish(object, &[]) == Finish::Nothing {
            return Ok(Next::OnChange);
        }
        self.graph.reached(object.revision).await?;
        let dependents = self.graph.dependents(&object.uid);
        let objects: Vec<_> = dependents.iter().map(|one| Arc::clone(&one.object)).collect();
        match plan::finish(object, &objects) {
            Finish::Nothing => Ok(Next::OnChange),
            Finish::Orphan => {
                let uid = [object.uid.to_string()];
                let released = dependents.iter().map(|one| self.release(one, &uid)).collect();
                few_at_once(released).await?;
                self.take_off(found, ORPHAN).await
            }
            Finish::Wait(staying) => {
                self.collect_all(&dependents, &staying).await?;
                Ok(Next::After(AGAIN))
            }
            Finish::LetGo(staying) => {
                self.collect_all(&dependents, &staying).await?;
                self.take_off(found, FOREGROUND).await
            }
        }
    }

    async fn collect_all(
        &self,
        dependents: &[Found],
        staying: &[Arc<PartialObject>],
    ) -> Result<(), ReconcileError> {
        let stays = |one: &&Found| staying.iter().any(|object| Arc::ptr_eq(object, &one.object));
        let collected = dependents.iter().filter(stays).map(|one| self.collect(one)).collect();
        few_at_once(collected).await
    }

    /// Deletes an object all of whose owners are gone, or takes off those that are.
    async fn collect(&self, found: &Found) -> Result<Next, ReconcileError> {
        let mut standings = Vec::with_capacity(found.object.owners.len());
        for owner in &found.object.owners {
            standings.push(self.standing(found, owner).await?);
        }
        let dependents: Vec<_> =
            self.graph.dependents(&found.object.uid).into_iter().map(|one| one.object).collect();
        match plan::collect(&found.object, &standings, &dependents) {
            Collect::Keep => Ok(Next::OnChange),
            Collect::LookAgain => Ok(Next::After(UNKNOWN_AGAIN)),
            Collect::Release(uids) => self.release(found, &uids).await.map(|()| Next::OnChange),
            Collect::Delete(propagation) => {
                self.delete(found, found.object.revision, propagation).await
            }
            Collect::UnblockAndDelete => match self.unblock(found).await? {
                Some(revision) => self.delete(found, revision, Propagation::Foreground).await,
                None => Ok(Next::OnChange),
            },
        }
    }

    async fn standing(&self, found: &Found, owner: &OwnerRef) -> Result<Standing, ReconcileError> {
        let Some(kind) = self.kind_of(owner) else { return Ok(Standing::Unknown) };
        let namespace = &found.object.namespace;
        if kind.is_namespaced() && namespace.is_empty() {
            return Ok(Standing::OutOfReach);
        }
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        if let Some(known) = self.graph.with_uid(kind, &owner.uid) {
            if *known.namespace == *namespace && *known.name == *owner.name {
                let waits = plan::deletes_dependents(&known);
                return Ok(if waits { Standing::Waiting } else { Standing::There });
            }
            self.tell_of_namespace(found, owner, &known);
        }
        let asked = (namespace.into(), owner.clone());
        if self.gone.lock().contains(&asked) {
            return Ok(Standing::Gone);
        }
        match self.client.get_object(kind, namespace, &owner.name).await {
            Ok(there) if there.uid() == owner.uid => {
                let waits = there.is_terminating() && there.finalizers().contains(&FOREGROUND);
                Ok(if waits { Standing::Waiting } else { Standing::There })
            }
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("looking for owner {}", owner.name))
            }
            _ => {
                self.remember_gone(asked);
                Ok(Standing::Gone)
            }
        }
    }

    fn remember_gone(&self, asked: (Box<str>, OwnerRef)) {
        let mut gone = self.gone.lock();
        if gone.len() >= GONE_MAX {
            gone.clear();
        }
        gone.insert(asked);
    }

    fn kind_of(&self, owner: &OwnerRef) -> Option<&'static Kind> {
        let is_it = |kind: &&Kind| {
            kind.is_stored() && kind.kind == owner.kind && kind.api_version() == owner.api_version
        };
        self.client.kinds().into_iter().find(is_it)
    }

    /// An owner in another namespace is none; who wrote so should know.
    fn tell_of_namespace(&self, found: &Found, owner: &OwnerRef, known: &PartialObject) {
        let object = &found.object;
        if known.namespace.is_empty() || known.namespace == object.namespace {
            return;
        }
        let reference = ObjectReference {
            api_version: Some(found.kind.api_version()),
            kind: Some(found.kind.kind.to_owned()),
            namespace: Some(object.namespace.to_string()),
            name: Some(object.name.to_string()),
            uid: Some(object.uid.to_string()),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version,
            owner.kind,
            object.namespace,
            owner.name,
            owner.uid,
            object.namespace
        );
        self.events.record(reference, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Deletes an object as it is at that revision, or as it is now where its ties are the same. One
    /// that has others since, let go by its owner perhaps, is looked at again when that is seen.
    async fn delete(
        &self,
        found: &Found,
        mut revision: u64,
        propagation: Propagation,
    ) -> Result<Next, ReconcileError> {
        let object = &found.object;
        for _ in 0..ATTEMPTS {
            let options = DeleteOptions {
                resource_version: Some(revision.to_string()),
                ..DeleteOptions::of_uid(&*object.uid).propagate(propagation)
            };
            let (namespace, name) = (&object.namespace, &object.name);
            match self.client.delete_object(found.kind, namespace, name, &options).await {
                Err(status) if status.is_conflict() => match self.unchanged(found).await? {
                    Some(now) => revision = now,
                    None => return Ok(Next::OnChange),
                },
                Err(status) if !status.is_not_found() => {
                    return Err(status).during(|| format!("deleting {} {name}", found.kind.kind));
                }
                _ => return Ok(Next::OnChange),
            }
        }
        Ok(Next::After(BUSY_AGAIN))
    }

    /// The revision of the object as it is now, if its ties are those that were decided about: who
    /// changes all the time otherwise, a ReplicaSet whose pods come and go, is always another.
    async fn unchanged(&self, found: &Found) -> Result<Option<u64>, ReconcileError> {
        let object = &found.object;
        let name = &object.name;
        let now = match self.client.get_object(found.kind, &object.namespace, name).await {
            Ok(now) => PartialObject::of(&now),
            Err(status) if status.is_not_found() => return Ok(None),
            Err(status) => {
                return Err(status).during(|| format!("reading {} {name}", found.kind.kind));
            }
        };
        Ok(object.has_ties_of(&now).then_some(now.revision))
    }

    /// Takes the owners of these uids off the object.
    async fn release(&self, found: &Found, uids: &[String]) -> Result<(), ReconcileError> {
        let owners = &found.object.owners;
        let left: Vec<&OwnerRef> = owners.iter().filter(|one| !uids.contains(&one.uid)).collect();
        if left.len() == owners.len() {
            return Ok(());
        }
        self.patch(found, json!({ "ownerReferences": left })).await.map(drop)
    }

    /// Lets the object hold up none of its owners. Gives its revision then, if it is still there.
    async fn unblock(&self, found: &Found) -> Result<Option<u64>, ReconcileError> {
        let free =
            |owner: &OwnerRef| OwnerRef { block_owner_deletion: Some(false), ..owner.clone() };
        let owners: Vec<OwnerRef> = found.object.owners.iter().map(free).collect();
        self.patch(found, json!({ "ownerReferences": owners })).await
    }

    async fn take_off(&self, found: &Found, finalizer: &str) -> Result<Next, ReconcileError> {
        let left: Vec<&String> =
            found.object.finalizers.iter().filter(|one| *one != finalizer).collect();
        self.patch(found, json!({ "finalizers": left })).await.map(|_| Next::OnChange)
    }

    /// Changes the metadata of an object whose ties are those that were decided about. Gives its
    /// revision then, if it is still there.
    async fn patch(&self, found: &Found, mut meta: Value) -> Result<Option<u64>, ReconcileError> {
        let object = &found.object;
        let (namespace, name) = (&object.namespace, &object.name);
        let act = || format!("freeing {} {name}", found.kind.kind);
        meta["uid"] = (*object.uid).into();
        let mut revision = object.revision;
        let mut attempts = 1..ATTEMPTS;
        loop {
            meta["resourceVersion"] = revision.to_string().into();
            let patch = Patch::Merge(json!({ "metadata": meta }));
            match self.client.patch_object(found.kind, namespace, name, Part::Main, &patch).await {
                Ok(patched) => return Ok(patched.resource_version().parse().ok()),
                Err(status) if status.is_not_found() => return Ok(None),
                Err(status) if status.is_conflict() && attempts.next().is_some() => {
                    match self.unchanged(found).await? {
                        Some(now) => revision = now,
                        None => return Err(status).during(act),
                    }
                }
                Err(status) => return Err(status).during(act),
            }
        }
    }
}

/// Works on a few at the same time; ends with the first failure.
async fn few_at_once<T, F>(work: Vec<F>) -> Result<(), ReconcileError>
where
    F: Future<Output = Result<T, ReconcileError>>,
{
    let all = stream::iter(work).buffer_unordered(DEPENDENTS_AT_ONCE);
    all.try_for_each(|_| std::future::ready(Ok(()))).await
}
