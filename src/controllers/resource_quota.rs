//! Counts what the objects of a namespace use of its quotas, and writes it into their status. What is
//! created is charged by admission already; what is freed is found out here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::admission::quota::usage::{self, Usage, matches, usage};
use kontiki_api::client::Client;
use kontiki_api::informer::{Informer, PartialObject};
use kontiki_api::object::Object;
use kontiki_api::quantity::Quantity;
use kontiki_api::registry::options::{ListOptions, Part};
use kontiki_api::registry::strategy::Kind;
use kontiki_api::resources::resource_quota::KIND;
use kontiki_api::resources::{persistent_volume_claim, pod, service};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::owners;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use crate::leader_context::LeaderContext;

/// How often a quota is counted anew though nothing is known to have changed.
const RESYNC: Duration = Duration::from_mins(5);

/// A quota.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    namespace: String,
    name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Counts.
pub struct Quotas {
    client: Client,
    quotas: Arc<Informer<Object>>,
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Quotas> {
    let quotas = context.informers.objects(&KIND);
    let reconciler = Quotas {
        client: context.client_of("resourcequota-controller"),
        quotas: Arc::clone(&quotas),
    };
    let mut controller = Controller::new("resourcequota", context, begin, reconciler)
        .watch(&quotas, |quota| vec![key(quota)]);
    controller = controller
        .watch_changes(&context.informers.of::<Pod>(), measured(&quotas, &pod::KIND))
        .watch_changes(&context.informers.of::<Service>(), measured(&quotas, &service::KIND))
        .watch_changes(
            &context.informers.of::<PersistentVolumeClaim>(),
            measured(&quotas, &persistent_volume_claim::KIND),
        );
    for kind in context.client.stored_kinds() {
        if !kind.is_namespaced() || kind.kind == "Event" || is_measured(kind) {
            continue;
        }
        let all = Arc::clone(&quotas);
        let informer = context.informers.partial(kind);
        controller = controller.watch_changes(&informer, move |seen| counted(&all, &seen));
    }
    controller
}

/// Whether objects of a kind use more than one another; of the others it only matters how many there
/// are.
fn is_measured(kind: &Kind) -> bool {
    kind.group.is_empty() && ["pods", "services", "persistentvolumeclaims"].contains(&kind.plural)
}

/// The quotas of the namespace where an object uses something else than before. What is new was
/// charged when it was created.
fn measured<K: Serialize + Metadata<Ty = ObjectMeta>>(
    quotas: &Arc<Informer<Object>>,
    kind: &'static Kind,
) -> impl Fn(Seen<'_, K>) -> Vec<Key> + use<K> {
    let quotas = Arc::clone(quotas);
    move |seen| {
        let Some(old) = seen.old else { return Vec::new() };
        let concerned = keys(&quotas, owners::namespace(old.metadata()));
        // Most namespaces have no quota, and to see what an object uses is not free.
        if concerned.is_empty() {
            return concerned;
        }
        let used = |object: &K| Object::from_typed(object).ok().map(|object| usage(kind, &object));
        if seen.new.is_some_and(|new| used(new) == used(old)) {
            return Vec::new();
        }
        concerned
    }
}

/// The same for objects that are only counted.
fn counted(quotas: &Informer<Object>, seen: &Seen<'_, PartialObject>) -> Vec<Key> {
    match (seen.old, seen.new) {
        (Some(old), None) => keys(quotas, &old.namespace),
        _ => Vec::new(),
    }
}

fn keys(quotas: &Informer<Object>, namespace: &str) -> Vec<Key> {
    quotas.list_in(namespace).iter().map(|quota| key(quota)).collect()
}

fn key(quota: &Object) -> Key {
    Key { namespace: quota.namespace().to_owned(), name: quota.name().to_owned() }
}

#[async_trait]
impl Reconcile for Quotas {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Next, ReconcileError> {
        // The status is written on the condition that the quota is still as it was before the
        // objects were listed: whatever was charged meanwhile is counted the next time.
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        let hard = usage::amounts(quota.at("/spec/hard"));
        let used = self.count(&quota, &hard).await?;
        let said = usage::amounts(quota.at("/status/used"));
        let is_known = quota.at("/status/hard") == quota.at("/spec/hard");
        if !is_known || said != used {
            let mut counted = (*quota).clone();
            let spec = quota.at("/spec/hard").cloned().unwrap_or_else(|| json!({}));
            counted.set(&["status"], json!({ "hard": spec, "used": list(&used) }));
            let written = self.client.update_object(&KIND, Part::Status, counted).await;
            match written {
                Err(status) if status.is_not_found() => return Ok(Next::OnChange),
                outcome => drop(outcome.during(|| format!("writing what quota {key} has used"))?),
            }
        }
        Ok(Next::After(RESYNC))
    }
}

impl Quotas {
    /// What is used of what the quota limits.
    async fn count(&self, quota: &Object, hard: &Usage) -> Result<Usage, ReconcileError> {
        let mut used: Usage = hard.keys().map(|name| (name.clone(), Quantity::default())).collect();
        for kind in self.client.stored_kinds() {
            if !kind.is_namespaced() || !usage::counts(hard, kind) {
                continue;
            }
            let options = ListOptions::default();
            let list = self.client.list_objects(kind, quota.namespace(), &options).await;
            let list = list.during(|| format!("listing {}", kind.plural))?;
            for object in list.items.iter().filter(|object| matches(quota, kind, object)) {
                for (name, amount) in usage(kind, object) {
                    if let Some(sum) = used.get_mut(&name) {
                        *sum = *sum + amount;
                    }
                }
            }
        }
        Ok(used)
    }
}

fn list(used: &Usage) -> Value {
    let amount = |(name, amount): (&String, &Quantity)| (name.clone(), amount.to_string().into());
    Value::Object(used.iter().map(amount).collect::<Map<_, _>>())
}
