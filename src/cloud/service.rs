//! Balancers for Services: what upstream's service controller does.
//!
//! ```text
//!   type LoadBalancer, no class ──► finalizer ──► provider.ensure ──► checked ──► status, annotation
//!   deleted, or another type    ──► provider.delete, and gone indeed ──► finalizer away
//! ```

pub mod plan;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{Part, Patch};
use kontiki_node_agent::network::answers::ANSWERED_BY;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::bare_metal::{answered_by, is_local, service_of};
use super::provider::{Balancer, CloudError, LoadBalancers, Outcome, Provider};
use crate::controllers::events::EventRecorder;
use crate::controllers::own_writes::OwnWrites;
use crate::controllers::owners::{self, ObjectKey};
use crate::controllers::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use crate::leader_context::LeaderContext;
use plan::{FINALIZER, Wish};

/// How often a cloud is asked about a balancer though nothing changed: it may have forgotten.
const RESYNC: Duration = Duration::from_mins(5);

/// What a cloud was last asked for, and what it said.
struct Settled {
    service: u64,
    nodes: u64,
    ingress: Vec<LoadBalancerIngress>,
    at: Instant,
}

/// Sees to balancers.
pub struct Balancers {
    client: Client,
    provider: Arc<dyn Provider>,
    services: Arc<Informer<Service>>,
    nodes: Arc<Informer<Node>>,
    own: OwnWrites<ObjectKey, Service>,
    settled: Mutex<HashMap<ObjectKey, Settled>>,
    backoff: Backoff<ObjectKey>,
    events: EventRecorder,
}

/// The controller, ready to run. The provider must have balancers.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
    provider: Arc<dyn Provider>,
) -> Controller<Balancers> {
    let services = context.informers.of::<Service>();
    let nodes = context.informers.of::<Node>();
    let is_local = provider.load_balancers().is_some_and(LoadBalancers::is_local);
    let reconciler = Balancers {
        client: context.client_of("service-controller"),
        provider,
        services: Arc::clone(&services),
        nodes: Arc::clone(&nodes),
        own: OwnWrites::new(Arc::clone(&services)),
        settled: Mutex::default(),
        backoff: Backoff::default(),
        events: events.of("service-controller"),
    };
    let (waiting, of_nodes) = (Arc::clone(&services), Arc::clone(&services));
    let controller = Controller::new("service", context, begin, reconciler)
        .watch_changes(&services, move |seen| concerned(&seen, &waiting))
        .watch_changes(&nodes, move |seen| {
            if is_news(&seen) { balanced(&of_nodes, |_| true) } else { Vec::new() }
        });
    if !is_local {
        return controller;
    }
    // What is decided for one Service must be seen by the decision for the next.
    controller.workers(1).watch(&context.informers.of::<EndpointSlice>(), move |slice| {
        let key = ObjectKey::new(
            owners::namespace(&slice.metadata),
            service_of(slice).unwrap_or_default(),
        );
        let service = services.get(&key.namespace, &key.name);
        service.filter(|service| self::is_local(service)).map(|_| key).into_iter().collect()
    })
}

/// The Services of a change: itself, and where it lets go of an address all that wait for one.
fn concerned(seen: &Seen<'_, Service>, services: &Informer<Service>) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> =
        seen.old.iter().chain(&seen.new).map(|service| ObjectKey::of(*service)).collect();
    let had = |service: &Service| !plan::ingress(service).is_empty();
    if seen.old.is_some_and(had) && !seen.new.is_some_and(had) {
        keys.extend(balanced(services, |service| !had(service)));
    }
    keys
}

/// The Services that shall have a balancer, of those.
fn balanced(services: &Informer<Service>, which: impl Fn(&Service) -> bool) -> Vec<ObjectKey> {
    let all = services.list().into_iter();
    let wanted = all.filter(|service| plan::wish(service) == Wish::Balance && which(service));
    wanted.map(|service| ObjectKey::of(&*service)).collect()
}

/// Whether a node's change says anything about where clients may be led: heartbeats do not.
fn is_news(seen: &Seen<'_, Node>) -> bool {
    let look = |node: &Node| {
        let id = node.spec.as_ref().and_then(|spec| spec.provider_id.clone());
        (plan::is_eligible(node, false), plan::is_eligible(node, true), id)
    };
    seen.old.map(look) != seen.new.map(look)
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What of a Service a balancer depends on.
fn digest_of(service: &Service) -> u64 {
    let mut annotations = service.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(ANSWERED_BY);
    let spec = serde_json::to_string(&service.spec).unwrap_or_default();
    digest(&(owners::uid(&service.metadata), annotations, spec))
}

#[async_trait]
impl Reconcile for Balancers {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(&self.turn(key)).await?;
        let service = self.services.get(&key.namespace, &key.name);
        let Some(service) = service.filter(|service| plan::wish(service) != Wish::Nothing) else {
            self.forget(key);
            return Ok(Next::OnChange);
        };
        let outcome = match plan::wish(&service) {
            Wish::Release => self.release(key, &service).await?,
            _ => self.balance(key, &service).await?,
        };
        match outcome {
            Ok(next) => {
                self.backoff.reset(key);
                Ok(next)
            }
            Err(error) => {
                let message = format!("Error syncing load balancer: {error}");
                self.events.warning(&*service, "SyncLoadBalancerFailed", message);
                let wait = self.backoff.failed(key, &error);
                tracing::debug!(%key, %error, ?wait, "a balancer is tried again");
                Ok(Next::After(wait))
            }
        }
    }
}

impl Balancers {
    fn cloud(&self) -> &dyn LoadBalancers {
        self.provider.load_balancers().expect("the controller runs only where there are balancers")
    }

    /// Under whose name writes are noted: where decisions see each other, all under one.
    fn turn(&self, key: &ObjectKey) -> ObjectKey {
        if self.cloud().is_local() { ObjectKey::new("", "") } else { key.clone() }
    }

    fn forget(&self, key: &ObjectKey) {
        self.settled.lock().remove(key);
        self.backoff.reset(key);
    }

    async fn balance(
        &self,
        key: &ObjectKey,
        service: &Arc<Service>,
    ) -> Result<Outcome<Next>, ReconcileError> {
        let nodes = plan::eligible(service, self.nodes.list());
        let names: Vec<_> = nodes.iter().map(|node| owners::name(&node.metadata)).collect();
        let (of_service, of_nodes) = (digest_of(service), digest(&names));
        let news = self.news(key, service, of_service, of_nodes);
        if let News::None(next) = news {
            return Ok(Ok(next));
        }
        if news == News::Service {
            self.events.normal(&**service, "EnsuringLoadBalancer", "Ensuring load balancer");
        }
        // Before the cloud is asked: what it makes must not be forgotten with the Service.
        let service = &self.with_finalizer(key, service).await?;
        let asked = self.cloud().ensure(service, &nodes).await;
        let said = asked
            .and_then(|said| plan::check(service, &said, &self.services.list()).map(|()| said));
        let said = match said {
            Ok(said) => said,
            Err(error) => return Ok(Err(during("ensure", error))),
        };
        self.tell(key, service, &said, news).await?;
        if nodes.is_empty() && news != News::Age {
            let message = "There are no available nodes for LoadBalancer";
            self.events.warning(&**service, "UnAvailableLoadBalancer", message);
        }
        let settled = Settled {
            service: of_service,
            nodes: of_nodes,
            ingress: said.ingress,
            at: Instant::now(),
        };
        self.settled.lock().insert(key.clone(), settled);
        Ok(Ok(if self.cloud().is_local() { Next::OnChange } else { Next::After(RESYNC) }))
    }

    /// Why the provider must be asked.
    fn news(&self, key: &ObjectKey, service: &Service, of_service: u64, of_nodes: u64) -> News {
        let has = plan::ingress(service);
        let settled = self.settled.lock();
        let Some(known) = settled.get(key) else {
            return if has.is_empty() { News::Service } else { News::Age };
        };
        if known.service != of_service || has.is_empty() {
            return News::Service;
        }
        if known.nodes != of_nodes {
            return News::Nodes;
        }
        let rest = RESYNC.saturating_sub(known.at.elapsed());
        if self.cloud().is_local() || has != known.ingress || rest.is_zero() {
            return News::Age;
        }
        News::None(Next::After(rest))
    }

    /// Writes what the provider said, where it is something new, and says so.
    async fn tell(
        &self,
        key: &ObjectKey,
        service: &Arc<Service>,
        said: &Balancer,
        news: News,
    ) -> Result<(), ReconcileError> {
        let moved = answered_by(service) != said.node.as_deref();
        let is_same = plan::ingress(service) == said.ingress && !moved;
        if !is_same {
            let change = json!({
                "metadata": { "annotations": { ANSWERED_BY: said.node } },
                "status": { "loadBalancer": { "ingress": said.ingress } },
            });
            self.write(key, service, change).await?;
        }
        match news {
            News::Service => {
                self.events.normal(&**service, "EnsuredLoadBalancer", "Ensured load balancer");
            }
            News::Nodes if !self.cloud().is_local() => {
                let message = "Updated load balancer with new hosts";
                self.events.normal(&**service, "UpdatedLoadBalancer", message);
            }
            _ => {}
        }
        if let Some(node) = said.node.as_ref().filter(|_| moved) {
            let message = format!("Node {node} answers for the load balancer's address");
            self.events.normal(&**service, "NodeAssigned", message);
        }
        Ok(())
    }

    async fn with_finalizer(
        &self,
        key: &ObjectKey,
        service: &Arc<Service>,
    ) -> Result<Arc<Service>, ReconcileError> {
        if plan::has_finalizer(service) {
            return Ok(Arc::clone(service));
        }
        let mut all = service.metadata.finalizers.clone().unwrap_or_default();
        all.push(FINALIZER.to_owned());
        let change = json!({ "metadata": { "finalizers": all } });
        self.write(key, service, change).await.map(Arc::new)
    }

    async fn release(
        &self,
        key: &ObjectKey,
        service: &Arc<Service>,
    ) -> Result<Outcome<Next>, ReconcileError> {
        self.events.normal(&**service, "DeletingLoadBalancer", "Deleting load balancer");
        let gone = match self.cloud().delete(service).await {
            Ok(()) => self.cloud().find(service).await,
            Err(error) => Err(error),
        };
        let left = "it is deleted and still there";
        let gone = gone.and_then(|found| match found {
            None => Ok(()),
            Some(_) => Err(CloudError::Untrue(left.to_owned())),
        });
        if let Err(error) = gone {
            return Ok(Err(during("delete", error)));
        }
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|name| name != FINALIZER);
        let change = json!({
            "metadata": { "finalizers": finalizers, "annotations": { ANSWERED_BY: null } },
            "status": { "loadBalancer": { "ingress": null } },
        });
        self.write(key, service, change).await?;
        self.forget(key);
        self.events.normal(&**service, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(Ok(Next::OnChange))
    }

    /// Writes by way of the status, as upstream: it is what the controller may write. Only if the
    /// Service is as it was seen: what was decided on may have changed.
    async fn write(
        &self,
        key: &ObjectKey,
        service: &Service,
        mut change: Value,
    ) -> Result<Service, ReconcileError> {
        change["metadata"]["resourceVersion"] = json!(service.metadata.resource_version);
        let patch = Patch::Merge(change);
        let written =
            self.client.patch::<Service>(&key.namespace, &key.name, Part::Status, &patch).await;
        let written = written.during(|| format!("writing the balancer of service {key}"))?;
        self.own.wrote(&self.turn(key), &written);
        Ok(written)
    }
}

/// Why a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// The Service is another, or new.
    Service,
    /// The nodes are others.
    Nodes,
    /// Nothing that a client would notice: a new term, or it was long ago.
    Age,
    /// It needs not be asked.
    None(Next),
}

fn during(act: &str, error: CloudError) -> CloudError {
    match error {
        CloudError::Refused(why) => {
            CloudError::Refused(format!("failed to {act} load balancer: {why}"))
        }
        other => other,
    }
}
