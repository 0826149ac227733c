//! Tells of each APIService whether its version can be asked for: the condition `Available`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::object::Object;
use kontiki_api::registry::options::Part;
use kontiki_api::registry::seconds;
use kontiki_api::resources::api_service::{Availability, KIND, is_remote, set_availability};

use crate::controllers::endpoints::SERVICE_NAME;
use crate::controllers::owners;
use crate::controllers::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// How often a server is asked that answers, as upstream has it.
const PERIOD: Duration = Duration::from_secs(30);
/// How soon again one that does not.
const AGAIN: Duration = Duration::from_secs(2);
/// APIServices by the Service that they name.
const BY_SERVICE: &str = "service";
/// Slices by the Service that they belong to.
const OF_SERVICE: &str = "availability/service";

/// Asks aggregated API servers whether they answer.
#[async_trait]
pub trait DiscoveryCheck: Send + Sync {
    /// The error says why not. Must bound its own waits.
    async fn check(&self, service: &Object) -> Result<(), String>;
}

/// Tells who is available.
pub struct Watching {
    client: Client,
    api_services: Arc<Informer<Object>>,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    check: Arc<dyn DiscoveryCheck>,
}

/// The controller, ready to run. Its keys are names of APIServices.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Watching> {
    let api_services = context.informers.objects(&KIND);
    api_services.index_by(BY_SERVICE, |one| place(one).into_iter().collect());
    let services = context.informers.of::<Service>();
    let slices = context.informers.of::<EndpointSlice>();
    slices.index_by(OF_SERVICE, |slice| service_of(slice).into_iter().collect());
    let reconciler = Watching {
        client: context.client.clone(),
        api_services: Arc::clone(&api_services),
        services: Arc::clone(&services),
        slices: Arc::clone(&slices),
        check: Arc::clone(&context.aggregated),
    };
    let named = |all: &Informer<Object>, place: &str| -> Vec<String> {
        let found = all.indexed(BY_SERVICE, place);
        found.iter().map(|one| one.name().to_owned()).collect()
    };
    let (by_service, by_slice) = (Arc::clone(&api_services), Arc::clone(&api_services));
    Controller::new("apiservice-availability", context, begin, reconciler)
        .watch(&api_services, |one| vec![one.name().to_owned()])
        .watch(&services, move |service| {
            let metadata = &service.metadata;
            named(&by_service, &path(owners::namespace(metadata), owners::name(metadata)))
        })
        .watch(&slices, move |slice| {
            service_of(slice).map(|place| named(&by_slice, &place)).unwrap_or_default()
        })
}

fn path(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The Service that an APIService names.
fn place(one: &Object) -> Option<String> {
    let text = |pointer| one.str_at(pointer);
    is_remote(one).then(|| path(text("/spec/service/namespace"), text("/spec/service/name")))
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(path(owners::namespace(&slice.metadata), name))
}

#[async_trait]
impl Reconcile for Watching {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        let Some(one) = self.api_services.get("", name) else { return Ok(Next::OnChange) };
        let (is, next) = self.look(&one).await;
        let mut told = (*one).clone();
        set_availability(&mut told, &seconds(Timestamp::now()), &is);
        if told.at("/status") == one.at("/status") {
            return Ok(next);
        }
        tracing::info!(api_service = name, status = is.status, reason = is.reason, is.message);
        match self.client.update_object(&KIND, Part::Status, told).await {
            // The change that was in the way comes by the watch.
            Err(status) if status.is_conflict() || status.is_not_found() => Ok(next),
            outcome => outcome.during(|| format!("telling how {name} is")).map(|_| next),
        }
    }
}

impl Watching {
    async fn look(&self, one: &Object) -> (Availability, Next) {
        let Some(place) = place(one) else { return (Availability::local(), Next::OnChange) };
        let text = |pointer| one.str_at(pointer);
        let service =
            self.services.get(text("/spec/service/namespace"), text("/spec/service/name"));
        let slices = self.slices.indexed(OF_SERVICE, &place);
        if let Some(missing) = plan(one, service.as_deref(), &slices) {
            return (missing, Next::After(PERIOD));
        }
        match self.check.check(one).await {
            Ok(()) => (is("True", "Passed", "all checks passed".to_owned()), Next::After(PERIOD)),
            Err(why) => (is("False", "FailedDiscoveryCheck", why), Next::After(AGAIN)),
        }
    }
}

fn is(status: &'static str, reason: &'static str, message: String) -> Availability {
    Availability { status, reason, message }
}

/// What is missing for the server to be asked at all.
fn plan(
    one: &Object,
    service: Option<&Service>,
    slices: &[Arc<EndpointSlice>],
) -> Option<Availability> {
    let text = |pointer| one.str_at(pointer);
    let (name, namespace) = (text("/spec/service/name"), text("/spec/service/namespace"));
    let no = |reason, message| Some(is("False", reason, message));
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return no("ServiceNotFound", message);
    };
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref().is_some_and(|kind| kind != "ClusterIP") {
        return None;
    }
    let wanted = one.i64_at("/spec/service/port").unwrap_or_default();
    let mut ports = spec.ports.iter().flatten();
    let Some(port) = ports.find(|port| i64::from(port.port) == wanted) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {wanted}");
        return no("ServicePortError", message);
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return no("EndpointsNotFound", message);
    }
    let port = port.name.as_deref().unwrap_or_default();
    if !slices.iter().any(|slice| serves(slice, port)) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name \
             {port:?}"
        );
        return no("MissingEndpoints", message);
    }
    None
}

/// Whether a slice has a ready endpoint for the port of a name.
fn serves(slice: &EndpointSlice, port: &str) -> bool {
    let is_ready = slice.endpoints.iter().any(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    });
    let mut ports = slice.ports.iter().flatten();
    is_ready
        && ports.any(|one| one.name.as_deref().unwrap_or_default() == port && one.port.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn reason(service: Option<Value>, slices: &[Value]) -> Option<(&'static str, String)> {
        let spec = json!({ "service": { "namespace": "ns", "name": "api", "port": 443 } });
        let one = Object::new(json!({ "spec": spec })).unwrap();
        let service: Option<Service> = service.map(typed);
        let slices: Vec<_> = slices.iter().cloned().map(|one| Arc::new(typed(one))).collect();
        plan(&one, service.as_ref(), &slices).map(|is| (is.reason, is.message))
    }

    #[test]
    fn what_is_missing_is_said_in_upstream_s_words() {
        let service = |port: u16| json!({ "spec": { "type": "ClusterIP", "ports": [{ "name": "https", "port": port }] } });
        let slice = |ready: bool, port: &str| {
            json!({
                "metadata": {}, "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }],
                "ports": [{ "name": port, "port": 8443 }],
            })
        };
        let said = |reason: &'static str, message: &str| Some((reason, message.to_owned()));
        assert_eq!(
            reason(None, &[]),
            said("ServiceNotFound", r#"service/api in "ns" is not present"#)
        );
        assert_eq!(
            reason(Some(service(80)), &[]),
            said("ServicePortError", r#"service/api in "ns" is not listening on port 443"#)
        );
        assert_eq!(
            reason(Some(service(443)), &[]),
            said("EndpointsNotFound", r#"cannot find endpointslices for service/api in "ns""#)
        );
        let missing = said(
            "MissingEndpoints",
            r#"endpointslices for service/api in "ns" have no addresses with port name "https""#,
        );
        for bad in [slice(false, "https"), slice(true, "http")] {
            assert_eq!(reason(Some(service(443)), &[bad]), missing);
        }
        assert_eq!(reason(Some(service(443)), &[slice(true, "https")]), None);
        assert_eq!(reason(Some(json!({ "spec": { "type": "ExternalName" } })), &[]), None);
    }
}
