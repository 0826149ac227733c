//! Empties namespaces that are being deleted, pods first, tells in their conditions what is left,
//! and then lets them go.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, Deleted, ListOptions, Part, Propagation};
use kontiki_api::registry::strategy::Kind;
use kontiki_api::status::Status;

use super::own_writes::OwnWrites;
use super::owners;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;
use plan::{Left, Step};

/// How soon a namespace that is not empty yet is looked at again.
const AGAIN: Duration = Duration::from_millis(500);
/// How many objects are read at once: what is deleted need not be in memory all together.
const PAGE: u64 = 500;
/// How many objects of a kind are deleted at the same time.
const DELETIONS_AT_ONCE: usize = 16;
/// The finalizer that is this controller's to take off.
const FINALIZER: &str = "kubernetes";

/// Empties namespaces.
pub struct Namespaces {
    client: Client,
    informer: Arc<Informer<Namespace>>,
    own: OwnWrites<String, Namespace>,
}

/// The controller, ready to run. Its keys are names of namespaces.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Namespaces> {
    let informer = context.informers.of::<Namespace>();
    let reconciler = Namespaces {
        client: context.client_of("namespace-controller"),
        informer: Arc::clone(&informer),
        own: OwnWrites::new(Arc::clone(&informer)),
    };
    Controller::new("namespace", context, begin, reconciler)
        .watch(&informer, |namespace| vec![owners::name(&namespace.metadata).to_owned()])
}

#[async_trait]
impl Reconcile for Namespaces {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        self.own.seen(name).await?;
        let Some(namespace) = self.informer.get("", name) else { return Ok(Next::OnChange) };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Next::OnChange);
        }
        let (pods, others): (Vec<&'static Kind>, Vec<&'static Kind>) = self
            .client
            .stored_kinds()
            .into_iter()
            .filter(|kind| kind.is_namespaced())
            .partition(|kind| kind.group.is_empty() && kind.kind == "Pod");
        let mut left = Left::default();
        for kinds in [pods, others] {
            for kind in kinds {
                self.empty(kind, name, &mut left).await?;
            }
            if left.step() == Step::Wait {
                break;
            }
        }
        let plan = plan::plan(&namespace, &left, Timestamp::now());
        self.tell(name, &namespace, plan.conditions).await?;
        match plan.step {
            Step::Wait => Ok(Next::After(AGAIN)),
            Step::GoOn => self.finalize(name).await,
        }
    }
}

impl Namespaces {
    /// Deletes the objects of a kind, and notes those that were not gone at once. A kind that
    /// refuses keeps no other from going; a term that is past ends everything.
    async fn empty(
        &self,
        kind: &'static Kind,
        namespace: &str,
        left: &mut Left,
    ) -> Result<(), ReconcileError> {
        let resource = format!("{}.{}", kind.plural, kind.group);
        let mut page = ListOptions { limit: PAGE, ..ListOptions::default() };
        loop {
            let list = match self.client.list_objects(kind, namespace, &page).await {
                Ok(list) => list,
                Err(status) => return note(status, kind, left),
            };
            let deletions = list.items.into_iter().map(|object| self.remove(kind, object));
            let mut ended = stream::iter(deletions).buffer_unordered(DELETIONS_AT_ONCE);
            while let Some((kept, refusal)) = ended.next().await {
                if let Some(kept) = kept {
                    left.add(&resource, kept.finalizers());
                }
                if let Some(status) = refusal {
                    note(status, kind, left)?;
                }
            }
            if list.continue_token.is_empty() {
                return Ok(());
            }
            page.continue_token = list.continue_token;
        }
    }

    /// Deletes an object. Gives what is left of it, and why where it was refused.
    async fn remove(
        &self,
        kind: &'static Kind,
        object: Object,
    ) -> (Option<Object>, Option<Status>) {
        if object.is_terminating() {
            return (Some(object), None);
        }
        let options = DeleteOptions::of_uid(object.uid()).propagate(Propagation::Background);
        let (namespace, name) = (object.namespace(), object.name());
        match self.client.delete_object(kind, namespace, name, &options).await {
            Ok(Deleted::Gone(_)) => (None, None),
            Ok(Deleted::Terminating(object)) => (Some(object), None),
            Err(status) if status.is_not_found() => (None, None),
            Err(status) => (Some(object), Some(status)),
        }
    }

    async fn tell(
        &self,
        name: &String,
        namespace: &Namespace,
        conditions: Option<Vec<NamespaceCondition>>,
    ) -> Result<(), ReconcileError> {
        let Some(conditions) = conditions else { return Ok(()) };
        let mut changed = namespace.clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        match self.client.update_status(&changed).await {
            Ok(written) => {
                self.own.wrote(name, &written);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => {
                Err(status).during(|| format!("writing the conditions of namespace {name}"))
            }
        }
    }

    async fn finalize(&self, name: &str) -> Result<Next, ReconcileError> {
        let mut namespace = match self.client.get::<Namespace>("", name).await {
            Err(status) if status.is_not_found() => return Ok(Next::OnChange),
            outcome => outcome.during(|| format!("reading namespace {name}"))?,
        };
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        finalizers.retain(|one| one != FINALIZER);
        let object = kontiki_api::object::Object::from_typed(&namespace)
            .during(|| format!("encoding namespace {name}"))?;
        let kind = self.client.kind_of::<Namespace>().during(|| "finding namespaces".to_owned())?;
        match self.client.update_object(kind, Part::Finalize, object).await {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("finalizing namespace {name}"))
            }
            _ => Ok(Next::OnChange),
        }
    }
}

fn note(status: Status, kind: &Kind, left: &mut Left) -> Result<(), ReconcileError> {
    if status.is_fenced() || status.is_retryable() {
        return Err(status).during(|| format!("emptying a namespace of {}", kind.plural));
    }
    left.failures.push(status.message().to_owned());
    Ok(())
}
