//! Where a Service is: one of the addresses that serve it now. For the server's own calls.

use std::net::SocketAddr;

use kontiki_storage::kv::{Consistency, KeyRange, RangeRequest};
use rand::seq::IndexedRandom as _;
use serde_json::Value;

use super::{Registry, key, stored};
use crate::object::Object;
use crate::resources::{endpoint_slice, service};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Registry {
    /// An address that serves a port of a Service. The error says why there is none.
    pub(crate) async fn endpoint(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<SocketAddr, String> {
        // By its bytes: what reads custom kinds calls webhooks, which this is for.
        let key = KeyRange::key(key::object(&service::KIND, namespace, name));
        let request =
            RangeRequest { consistency: Consistency::Serializable, ..RangeRequest::new(key) };
        let found = self.range(request).await.map_err(|error| error.to_string())?;
        let found = found.kvs.first().ok_or_else(|| format!("service {name:?} not found"))?;
        let service = stored::decode(&service::KIND, found).map_err(|error| error.to_string())?;
        if service.str_at("/spec/type") == "ExternalName" {
            return outside(service.str_at("/spec/externalName"), port).await;
        }
        let port = port_of(&service, |one| one["port"] == port)
            .ok_or_else(|| format!("service {name:?} has no port {port}"))?;
        self.endpoint_of_port(&service, &port).await
    }

    /// An address that serves the port of that name of a Service.
    pub(crate) async fn endpoint_of_port(
        &self,
        service: &Object,
        port: &str,
    ) -> Result<SocketAddr, String> {
        let range = KeyRange::prefix(key::folder(&endpoint_slice::KIND, service.namespace()));
        let request =
            RangeRequest { consistency: Consistency::Serializable, ..RangeRequest::new(range) };
        let slices = self.range(request).await.map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        for kv in &slices.kvs {
            let slice =
                stored::decode(&endpoint_slice::KIND, kv).map_err(|error| error.to_string())?;
            if slice.label(SERVICE_NAME) == Some(service.name()) {
                all.extend(addresses(&slice, port));
            }
        }
        all.choose(&mut rand::rng())
            .copied()
            .ok_or_else(|| format!("no endpoints available for service {:?}", service.name()))
    }
}

/// An address of a name outside the cluster.
async fn outside(name: &str, port: u16) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host((name, port)).await;
    let mut found = found.map_err(|error| format!("looking up {name:?}: {error}"))?;
    found.next().ok_or_else(|| format!("{name:?} has no address"))
}

/// The name of the first port of a Service that is wanted.
pub(crate) fn port_of(service: &Object, is_wanted: impl Fn(&Value) -> bool) -> Option<String> {
    let ports = service.at("/spec/ports").and_then(Value::as_array)?;
    let port = ports.iter().find(|port| is_wanted(port))?;
    Some(port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// The ready addresses of a slice for the port of a name.
fn addresses(slice: &Object, port: &str) -> Vec<SocketAddr> {
    let list = |pointer: &str| slice.at(pointer).and_then(Value::as_array).into_iter().flatten();
    let named = |one: &&Value| one.get("name").and_then(Value::as_str).unwrap_or_default() == port;
    let number = list("/ports").find(named).and_then(|one| one.get("port")?.as_u64());
    let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else {
        return Vec::new();
    };
    let is_ready = |one: &&Value| one.pointer("/conditions/ready") != Some(&Value::Bool(false));
    let address = |one: &Value| one.pointer("/addresses/0")?.as_str()?.parse().ok();
    let ready = list("/endpoints").filter(is_ready).filter_map(address);
    ready.map(|address| SocketAddr::new(address, number)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_endpoints_of_the_wanted_port_serve() {
        let slice = Object::new(json!({
            "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
                { "addresses": ["10.0.0.3"] },
            ],
        }))
        .unwrap();
        let found: Vec<String> = addresses(&slice, "b").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:81", "10.0.0.3:81"]);
        assert!(addresses(&slice, "c").is_empty());
    }
}
