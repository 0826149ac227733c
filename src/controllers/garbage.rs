//! The garbage collector: what all its owners have left goes too; orphans are set free; foreground
//! deletion waits for the dependents.
//!
//! That an owner is gone is believed only from the store itself, never from a cache.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::object::{Object, OwnerRef};
use kontiki_api::registry::options::{DeleteOptions, Part, Patch, Propagation};
use kontiki_api::registry::strategy::Kind;
use serde_json::json;

use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use crate::leader_context::LeaderContext;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How soon an object that waits for its dependents is looked at again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// An object of any kind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AnyKey {
    /// The position of its kind among the collector's.
    kind: usize,
    namespace: String,
    name: String,
}

impl fmt::Display for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kind {} {}/{}", self.kind, self.namespace, self.name)
    }
}

type Source = (&'static Kind, Arc<Informer<Object>>);

/// Collects garbage.
pub struct Garbage {
    client: Client,
    sources: Arc<Vec<Source>>,
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Garbage> {
    let kinds = context.client.kinds().iter().copied();
    // Events are owned by nobody and are many.
    let sources: Vec<Source> = kinds
        .filter(|kind| kind.is_stored() && kind.kind != "Event")
        .map(|kind| (kind, context.informers.objects(kind)))
        .collect();
    let sources = Arc::new(sources);
    let reconciler = Garbage {
        client: context.client_of("generic-garbage-collector"),
        sources: Arc::clone(&sources),
    };
    let mut controller = Controller::new("garbage", context, begin, reconciler);
    for (position, (_, informer)) in sources.iter().enumerate() {
        let all = Arc::clone(&sources);
        controller =
            controller.watch_changes(informer, move |seen| concerned(&all, position, &seen));
    }
    controller
}

/// The object itself where the collector may have to do with it, and with its end its dependents.
fn concerned(sources: &[Source], kind: usize, seen: &Seen<'_, Object>) -> Vec<AnyKey> {
    match (seen.new, seen.old) {
        (Some(new), _) if !new.owner_refs().is_empty() || new.is_terminating() => {
            vec![key(kind, new)]
        }
        (None, Some(old)) => {
            dependents(sources, old.uid()).iter().map(|(kind, one)| key(*kind, one)).collect()
        }
        _ => Vec::new(),
    }
}

fn key(kind: usize, object: &Object) -> AnyKey {
    AnyKey { kind, namespace: object.namespace().to_owned(), name: object.name().to_owned() }
}

fn dependents(sources: &[Source], owner: &str) -> Vec<(usize, Arc<Object>)> {
    let all = sources.iter().enumerate().flat_map(|(kind, (_, informer))| {
        informer.list().into_iter().map(move |object| (kind, object))
    });
    all.filter(|(_, object)| object.owner_refs().iter().any(|reference| reference.uid == owner))
        .collect()
}

#[async_trait]
impl Reconcile for Garbage {
    type Key = AnyKey;

    async fn reconcile(&self, key: &AnyKey) -> Result<Next, ReconcileError> {
        let (kind, informer) = &self.sources[key.kind];
        let Some(object) = informer.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        if object.is_terminating() {
            return self.finish(kind, &object).await;
        }
        self.collect(kind, &object).await
    }
}

impl Garbage {
    /// Does what the finalizers of a terminating object ask for.
    async fn finish(&self, kind: &'static Kind, object: &Object) -> Result<Next, ReconcileError> {
        let finalizers = object.finalizers();
        let which = [ORPHAN, FOREGROUND].into_iter().find(|one| finalizers.contains(one));
        let Some(which) = which else { return Ok(Next::OnChange) };
        let mut waits = false;
        for (position, dependent) in dependents(&self.sources, object.uid()) {
            let (dependent_kind, _) = self.sources[position];
            if which == ORPHAN {
                self.leave(dependent_kind, &dependent, &[object.uid()]).await?;
                continue;
            }
            let blocks =
                |one: &OwnerRef| one.uid == object.uid() && one.block_owner_deletion == Some(true);
            waits |= dependent.owner_refs().iter().any(blocks);
            if !dependent.is_terminating() {
                self.collect(dependent_kind, &dependent).await?;
            }
        }
        if waits {
            return Ok(Next::After(AGAIN));
        }
        let left: Vec<&str> = finalizers.into_iter().filter(|one| *one != which).collect();
        self.patch(kind, object, json!({ "finalizers": left })).await.map(|()| Next::OnChange)
    }

    /// Deletes an object all of whose owners are gone, or lets go those that are.
    async fn collect(&self, kind: &'static Kind, object: &Object) -> Result<Next, ReconcileError> {
        let references = object.owner_refs();
        let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
        for reference in &references {
            match self.owner(object, reference).await? {
                Owner::There => solid += 1,
                Owner::Gone => gone.push(reference.uid.as_str()),
                Owner::Waiting => waiting.push(reference.uid.as_str()),
            }
        }
        if solid > 0 {
            gone.extend(waiting);
            self.leave(kind, object, &gone).await?;
        } else if !references.is_empty() {
            let fate =
                if waiting.is_empty() { Propagation::Background } else { Propagation::Foreground };
            let options = DeleteOptions::of_uid(object.uid()).propagate(fate);
            match self.client.delete_object(kind, object.namespace(), object.name(), &options).await
            {
                Err(status) if !status.is_not_found() && !status.is_conflict() => {
                    return Err(status)
                        .during(|| format!("deleting {} {}", kind.kind, object.name()));
                }
                _ => {}
            }
        }
        Ok(Next::OnChange)
    }

    async fn owner(&self, object: &Object, reference: &OwnerRef) -> Result<Owner, ReconcileError> {
        let kinds = self.client.kinds();
        let named = |kind: &&&Kind| {
            kind.is_stored()
                && kind.kind == reference.kind
                && kind.api_version() == reference.api_version
        };
        // Of a kind that is not known nothing is known.
        let Some(kind) = kinds.iter().find(named) else { return Ok(Owner::There) };
        if kind.is_namespaced() && object.namespace().is_empty() {
            return Ok(Owner::There);
        }
        let namespace = if kind.is_namespaced() { object.namespace() } else { "" };
        match self.client.get_object(kind, namespace, &reference.name).await {
            Ok(owner) if owner.uid() != reference.uid => Ok(Owner::Gone),
            Ok(owner) if owner.is_terminating() && owner.finalizers().contains(&FOREGROUND) => {
                Ok(Owner::Waiting)
            }
            Ok(_) => Ok(Owner::There),
            Err(status) if status.is_not_found() => Ok(Owner::Gone),
            Err(status) => Err(status).during(|| format!("looking for owner {}", reference.name)),
        }
    }

    /// Takes the owners of these uids off the object.
    async fn leave(
        &self,
        kind: &'static Kind,
        object: &Object,
        uids: &[&str],
    ) -> Result<(), ReconcileError> {
        let all = object.owner_refs();
        let left: Vec<&OwnerRef> =
            all.iter().filter(|one| !uids.contains(&one.uid.as_str())).collect();
        if left.len() == all.len() {
            return Ok(());
        }
        self.patch(kind, object, json!({ "ownerReferences": left })).await
    }

    async fn patch(
        &self,
        kind: &'static Kind,
        object: &Object,
        mut meta: serde_json::Value,
    ) -> Result<(), ReconcileError> {
        meta["resourceVersion"] = object.str_at("/metadata/resourceVersion").into();
        let patch = Patch::Merge(json!({ "metadata": meta }));
        match self
            .client
            .patch_object(kind, object.namespace(), object.name(), Part::Main, &patch)
            .await
        {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("freeing {} {}", kind.kind, object.name()))
            }
            _ => Ok(()),
        }
    }
}

/// How it stands with an owner.
enum Owner {
    There,
    Gone,
    /// It waits for its dependents to go first.
    Waiting,
}
