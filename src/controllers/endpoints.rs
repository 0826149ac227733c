//! Where the pods of a Service are: as EndpointSlices, which everything reads, and as Endpoints, which
//! old clients read.

pub mod ports;
pub mod published;
pub mod slices;
pub mod subsets;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::DeleteOptions;
use kontiki_api::status::Status;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::is_namespace_terminating;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError, Seen};
use super::{labels, pods};
use crate::leader_context::LeaderContext;
use slices::Change;

/// The label of a slice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keeps the endpoints of Services.
pub struct EndpointsOfServices {
    client: Client,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    endpoints: Arc<Informer<Endpoints>>,
    own_slices: OwnWrites<ObjectKey, EndpointSlice>,
    own_endpoints: OwnWrites<ObjectKey, Endpoints>,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<EndpointsOfServices> {
    let services = context.informers.of::<Service>();
    let pods = context.informers.of::<Pod>();
    let slices = context.informers.of::<EndpointSlice>();
    let endpoints = context.informers.of::<Endpoints>();
    let reconciler = EndpointsOfServices {
        client: context.client_of("endpointslice-controller"),
        services: Arc::clone(&services),
        pods: Arc::clone(&pods),
        nodes: context.informers.of::<Node>(),
        slices: Arc::clone(&slices),
        endpoints: Arc::clone(&endpoints),
        own_slices: OwnWrites::new(Arc::clone(&slices)),
        own_endpoints: OwnWrites::new(Arc::clone(&endpoints)),
        events: events.of("endpoint-slice-controller"),
    };
    let all_services = Arc::clone(&services);
    Controller::new("endpoints", context, begin, reconciler)
        .watch(&services, |service| vec![ObjectKey::of(service)])
        .watch_changes(&pods, move |seen| services_of(&all_services, &seen))
        .watch(&slices, service_of_slice)
        .watch(&endpoints, |endpoints| vec![ObjectKey::of(endpoints)])
}

fn service_of_slice(slice: &EndpointSlice) -> Vec<ObjectKey> {
    let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    name.map(|name| ObjectKey::new(owners::namespace(&slice.metadata), name.clone()))
        .into_iter()
        .collect()
}

/// The Services that a change of a pod concerns: by its labels before and after. Changes that no
/// endpoint shows concern none.
fn services_of(services: &Informer<Service>, seen: &Seen<'_, Pod>) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (seen.old, seen.new)
        && shown(old) == shown(new)
    {
        return Vec::new();
    }
    let Some(any) = seen.new.or(seen.old) else { return Vec::new() };
    services
        .list_in(owners::namespace(&any.metadata))
        .into_iter()
        .filter(|service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let selects = |pod: &Pod| labels::pairs_match(selector, pod.metadata.labels.as_ref());
            seen.old.is_some_and(selects) || seen.new.is_some_and(selects)
        })
        .map(|service| ObjectKey::of(&*service))
        .collect()
}

/// All of a pod that its endpoint shows.
fn shown(pod: &Pod) -> impl PartialEq + '_ {
    let status = pod.status.as_ref();
    (
        pod.metadata.labels.as_ref(),
        (pods::is_terminating(pod), pods::is_terminal(pod), pods::is_ready(pod)),
        pods::node_name(pod),
        status.and_then(|status| status.pod_ip.as_ref()),
        status.and_then(|status| status.pod_ips.as_ref()),
        pod.spec.as_ref().and_then(|spec| spec.hostname.as_ref()),
    )
}

#[async_trait]
impl Reconcile for EndpointsOfServices {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own_slices.seen(key).await?;
        self.own_endpoints.seen(key).await?;
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.delete_endpoints(key).await?;
            return Ok(Next::OnChange);
        };
        if service.metadata.deletion_timestamp.is_some() || !has_endpoints(&service) {
            return Ok(Next::OnChange);
        }
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let members: Vec<Arc<Pod>> = self
            .pods
            .list_in(&key.namespace)
            .into_iter()
            .filter(|pod| labels::pairs_match(selector, pod.metadata.labels.as_ref()))
            .collect();
        self.write_slices(key, &service, &members).await?;
        self.write_endpoints(key, &service, &members).await?;
        Ok(Next::OnChange)
    }
}

/// Whether the Service selects pods. One that does not has its endpoints written by somebody else.
fn has_endpoints(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName")
            && spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
    })
}

impl EndpointsOfServices {
    async fn write_slices(
        &self,
        key: &ObjectKey,
        service: &Service,
        members: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .list_in(&key.namespace)
            .into_iter()
            .filter(|slice| {
                slices::is_ours(slice, &key.name) && slice.metadata.deletion_timestamp.is_none()
            })
            .collect();
        let zone = |node: &str| {
            let node = self.nodes.get("", node)?;
            node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
        };
        let wanted = slices::wanted(service, members, &zone);
        for change in slices::plan(service, wanted, &existing) {
            if let Err(status) = self.write_slice(key, &change).await {
                if is_namespace_terminating(&status) || status.is_not_found() {
                    continue;
                }
                let message = format!(
                    "Error updating Endpoint Slices for Service {key}: {}",
                    status.message()
                );
                self.events.warning(service, "FailedToUpdateEndpointSlices", message);
                return Err(status)
                    .during(|| format!("writing the endpoint slices of service {key}"));
            }
        }
        Ok(())
    }

    async fn write_slice(&self, key: &ObjectKey, change: &Change) -> Result<(), Status> {
        match change {
            Change::Create(slice) => {
                self.own_slices.wrote(key, &self.client.create(&**slice).await?);
            }
            Change::Update(slice) => {
                self.own_slices.wrote(key, &self.client.update(&**slice).await?);
            }
            Change::Delete(name) => {
                let deleted = self
                    .client
                    .delete::<EndpointSlice>(&key.namespace, name, &DeleteOptions::default())
                    .await?;
                self.own_slices.deleted(key, &deleted);
            }
        }
        Ok(())
    }

    async fn write_endpoints(
        &self,
        key: &ObjectKey,
        service: &Service,
        members: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let existing = self.endpoints.get(&key.namespace, &key.name);
        let Some(wanted) = subsets::plan(service, members, existing.as_deref()) else {
            return Ok(());
        };
        let outcome = match &existing {
            None => self.client.create(&wanted).await,
            Some(_) => self.client.update(&wanted).await,
        };
        match outcome {
            Ok(written) => {
                self.own_endpoints.wrote(key, &written);
                Ok(())
            }
            Err(status) if is_namespace_terminating(&status) || status.is_not_found() => Ok(()),
            Err(status) => Err(status).during(|| format!("writing the endpoints of service {key}")),
        }
    }

    /// The slices of a deleted Service go by their owner reference; Endpoints have none.
    async fn delete_endpoints(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(left) = self.endpoints.get(&key.namespace, &key.name) else { return Ok(()) };
        if !subsets::is_ours(&left) {
            return Ok(());
        }
        let options = DeleteOptions::of_uid(owners::uid(&left.metadata));
        match self.client.delete::<Endpoints>(&key.namespace, &key.name, &options).await {
            Ok(deleted) => {
                self.own_endpoints.deleted(key, &deleted);
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(status).during(|| format!("deleting the endpoints {key}")),
        }
    }
}
