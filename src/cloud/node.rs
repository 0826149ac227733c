//! Nodes as the cloud knows them: a new one gets its identity, its labels and its addresses from the
//! cloud, one whose machine is gone goes, too.
//!
//! A node that is heard from is never deleted, whatever the cloud says. One that is silent is deleted
//! when the cloud has said several times in a row that there is no such machine, and only if it has
//! not been heard from since it was last looked at.

pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::provider::{CloudError, Instance, Instances, Outcome, Provider, Zone};
use crate::controllers::events::EventRecorder;
use crate::controllers::node_lifecycle::health::Readiness;
use crate::controllers::own_writes::OwnWrites;
use crate::controllers::owners;
use crate::controllers::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use crate::leader_context::LeaderContext;

/// How often a node's addresses and kind are asked for again, as upstream.
const REFRESH: Duration = Duration::from_mins(5);
/// How often in a row the cloud must say that a silent node's machine is gone.
const CONFIRMATIONS: u32 = 3;

/// Sees to nodes.
pub struct Machines {
    client: Client,
    provider: Arc<dyn Provider>,
    nodes: Arc<Informer<Node>>,
    own: OwnWrites<String, Node>,
    /// How often in a row each node's machine was said to be gone.
    missed: Mutex<HashMap<String, u32>>,
    backoff: Backoff<String>,
    period: Duration,
    events: EventRecorder,
}

/// The controller, ready to run. The provider must have instances.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
    provider: Arc<dyn Provider>,
) -> Controller<Machines> {
    let nodes = context.informers.of::<Node>();
    let reconciler = Machines {
        client: context.client_of("node-controller"),
        provider,
        nodes: Arc::clone(&nodes),
        own: OwnWrites::new(Arc::clone(&nodes)),
        missed: Mutex::default(),
        backoff: Backoff::default(),
        period: context.settings.node_monitor_period,
        events: events.of("cloud-node-controller"),
    };
    Controller::new("cloud-node", context, begin, reconciler).watch_changes(&nodes, |seen| {
        let name = |node: &Node| owners::name(&node.metadata).to_owned();
        if is_news(&seen) { seen.new.or(seen.old).map(name).into_iter().collect() } else { vec![] }
    })
}

/// Whether a node's change says anything to a cloud: heartbeats do not.
fn is_news(seen: &Seen<'_, Node>) -> bool {
    let look = |node: &Node| {
        let id = plan::provider_id(node).map(str::to_owned);
        let uid = node.metadata.uid.clone();
        (Readiness::of(node).is_down(), plan::is_uninitialized(node), id, uid)
    };
    seen.old.map(look) != seen.new.map(look)
}

#[async_trait]
impl Reconcile for Machines {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        self.own.seen(name).await?;
        let Some(node) = self.nodes.get("", name) else {
            self.missed.lock().remove(name);
            self.backoff.reset(name);
            return Ok(Next::OnChange);
        };
        let outcome = if plan::is_uninitialized(&node) {
            self.initialize(name, &node).await?
        } else if plan::provider_id(&node).is_none() {
            // It is none of this cloud's.
            return Ok(Next::OnChange);
        } else if Readiness::of(&node).is_down() {
            self.look_for(name, &node).await?
        } else {
            self.missed.lock().remove(name);
            self.refresh(name, &node).await?
        };
        match outcome {
            Ok(next) => {
                self.backoff.reset(name);
                Ok(next)
            }
            Err(error) => {
                let wait = self.backoff.failed(name, &error);
                tracing::warn!(node = name, %error, ?wait, "the cloud is asked again about a node");
                Ok(Next::After(wait))
            }
        }
    }
}

impl Machines {
    fn cloud(&self) -> &dyn Instances {
        self.provider.instances().expect("the controller runs only where there are instances")
    }

    /// A new node: all that the cloud knows of it, and pods may come.
    async fn initialize(
        &self,
        name: &String,
        node: &Node,
    ) -> Result<Outcome<Next>, ReconcileError> {
        let (said, zone) = match self.ask(node).await {
            Ok(said) => said,
            Err(error) => return Ok(Err(error)),
        };
        let node = &self.tell_addresses(name, node, &said).await?;
        let spec = json!({ "providerID": said.provider_id, "taints": plan::initialized(node) });
        self.write(
            name,
            node,
            Part::Main,
            json!({
                "metadata": { "labels": plan::labels(&said, &zone) }, "spec": spec,
            }),
        )
        .await?;
        self.events.normal(node, "Synced", "Node synced successfully");
        Ok(Ok(Next::After(REFRESH)))
    }

    async fn ask(&self, node: &Node) -> Outcome<(Instance, Zone)> {
        let said = self.cloud().instance(node).await?;
        let name = owners::name(&node.metadata);
        let gone = || CloudError::Refused(format!("there is no instance of node {name}"));
        let said = said.ok_or_else(gone)?;
        plan::check(node, &said, &self.nodes.list())?;
        let zone = match self.provider.zones() {
            Some(zones) => zones.zone(node).await?,
            None => Zone::default(),
        };
        Ok((said, zone))
    }

    /// A node that is heard from: what the cloud says of it may have changed.
    async fn refresh(&self, name: &String, node: &Node) -> Result<Outcome<Next>, ReconcileError> {
        let (said, zone) = match self.ask(node).await {
            Ok(said) => said,
            Err(error) => return Ok(Err(error)),
        };
        let node = &self.tell_addresses(name, node, &said).await?;
        let node = &self.tell_shutdown(name, node, false).await?;
        let wanted = plan::labels(&said, &zone);
        let has = node.metadata.labels.as_ref();
        let is_same = |(key, value): (&String, &Value)| {
            has.and_then(|has| has.get(key)).map(String::as_str) == value.as_str()
        };
        if !wanted.iter().all(is_same) {
            let change = json!({ "metadata": { "labels": wanted } });
            self.write(name, node, Part::Main, change).await?;
        }
        Ok(Ok(Next::After(REFRESH)))
    }

    /// A node that is silent: perhaps there is no such machine any more.
    async fn look_for(&self, name: &String, node: &Node) -> Result<Outcome<Next>, ReconcileError> {
        match self.cloud().instance(node).await {
            Err(error) => Ok(Err(error)),
            Ok(Some(said)) => {
                self.missed.lock().remove(name);
                self.tell_shutdown(name, node, said.is_shut_down).await?;
                Ok(Ok(Next::After(self.period)))
            }
            Ok(None) if self.miss(name) < CONFIRMATIONS => Ok(Ok(Next::After(self.period))),
            Ok(None) => self.delete(name, node).await.map(|()| Ok(Next::OnChange)),
        }
    }

    fn miss(&self, name: &str) -> u32 {
        let mut missed = self.missed.lock();
        let count = missed.entry(name.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    async fn delete(&self, name: &String, node: &Node) -> Result<(), ReconcileError> {
        let message =
            format!("Deleting node {name} because it does not exist in the cloud provider");
        self.events.normal(node, "DeletingNode", message);
        // Not if it was heard from meanwhile: that is another resourceVersion.
        let options = DeleteOptions {
            resource_version: node.metadata.resource_version.clone(),
            ..DeleteOptions::of_uid(owners::uid(&node.metadata))
        };
        match self.client.delete::<Node>("", name, &options).await {
            Ok(deleted) => {
                self.own.deleted(name, &deleted);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status).during(|| format!("deleting node {name}")),
        }
    }

    async fn tell_addresses(
        &self,
        name: &String,
        node: &Node,
        said: &Instance,
    ) -> Result<Node, ReconcileError> {
        if plan::addresses(node) == said.addresses {
            return Ok(node.clone());
        }
        let change = json!({ "status": { "addresses": said.addresses } });
        self.write(name, node, Part::Status, change).await
    }

    async fn tell_shutdown(
        &self,
        name: &String,
        node: &Node,
        is_shut_down: bool,
    ) -> Result<Node, ReconcileError> {
        let taints: Option<Vec<Taint>> = plan::shut_down(node, is_shut_down);
        let Some(taints) = taints else { return Ok(node.clone()) };
        self.write(name, node, Part::Main, json!({ "spec": { "taints": taints } })).await
    }

    async fn write(
        &self,
        name: &String,
        node: &Node,
        part: Part,
        mut change: Value,
    ) -> Result<Node, ReconcileError> {
        change["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
        let written = self.client.patch::<Node>("", name, part, &Patch::Merge(change)).await;
        let written = written.during(|| format!("writing what the cloud says of node {name}"))?;
        self.own.wrote(name, &written);
        Ok(written)
    }
}
