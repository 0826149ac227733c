//! Empties namespaces that are being deleted, pods first, and then lets them go.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, ListOptions, Part, Propagation};
use kontiki_api::registry::strategy::Kind;

use super::owners;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// How soon a namespace that is not empty yet is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// Empties namespaces.
pub struct Namespaces {
    client: Client,
    informer: Arc<Informer<Namespace>>,
}

/// The controller, ready to run. Its keys are names of namespaces.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Namespaces> {
    let informer = context.informers.of::<Namespace>();
    let reconciler = Namespaces {
        client: context.client_of("namespace-controller"),
        informer: Arc::clone(&informer),
    };
    Controller::new("namespace", context, begin, reconciler)
        .watch(&informer, |namespace| vec![owners::name(&namespace.metadata).to_owned()])
}

#[async_trait]
impl Reconcile for Namespaces {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        let Some(namespace) = self.informer.get("", name) else { return Ok(Next::OnChange) };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Next::OnChange);
        }
        let (pods, others): (Vec<&'static Kind>, Vec<&'static Kind>) = self
            .client
            .kinds()
            .iter()
            .copied()
            .filter(|kind| kind.is_namespaced() && kind.is_stored())
            .partition(|kind| kind.group.is_empty() && kind.kind == "Pod");
        for kinds in [pods, others] {
            let mut left = 0;
            for kind in kinds {
                left += self.empty(kind, name).await?;
            }
            if left > 0 {
                return Ok(Next::After(AGAIN));
            }
        }
        self.finalize(name).await
    }
}

impl Namespaces {
    /// Deletes the objects of a kind; how many there were.
    async fn empty(&self, kind: &'static Kind, namespace: &str) -> Result<usize, ReconcileError> {
        let list = self
            .client
            .list_objects(kind, namespace, &ListOptions::default())
            .await
            .during(|| format!("listing {} of namespace {namespace}", kind.plural))?;
        for object in list.items.iter().filter(|object| !object.is_terminating()) {
            let options = DeleteOptions::of_uid(object.uid()).propagate(Propagation::Background);
            match self.client.delete_object(kind, namespace, object.name(), &options).await {
                Err(status) if !status.is_not_found() && !status.is_conflict() => {
                    return Err(status)
                        .during(|| format!("deleting {} {}", kind.kind, object.name()));
                }
                _ => {}
            }
        }
        Ok(list.items.len())
    }

    async fn finalize(&self, name: &str) -> Result<Next, ReconcileError> {
        let Some(kind) = self
            .client
            .kinds()
            .iter()
            .find(|kind| kind.group.is_empty() && kind.kind == "Namespace")
        else {
            return Ok(Next::OnChange);
        };
        let mut object = match self.client.get_object(kind, "", name).await {
            Err(status) if status.is_not_found() => return Ok(Next::OnChange),
            outcome => outcome.during(|| format!("reading namespace {name}"))?,
        };
        let kept = object
            .at("/spec/finalizers")
            .and_then(|list| list.as_array().cloned())
            .unwrap_or_default();
        let kept: Vec<_> = kept.into_iter().filter(|one| one != "kubernetes").collect();
        object.set(&["spec", "finalizers"], kept);
        match self.client.update_object(kind, Part::Finalize, object).await {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("finalizing namespace {name}"))
            }
            _ => Ok(Next::OnChange),
        }
    }
}
