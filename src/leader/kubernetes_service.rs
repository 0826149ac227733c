//! The service `kubernetes` in `default`: how pods reach the API. It has no selector; its endpoints
//! are the members of the control plane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::status::Status;
use kontiki_raft::node::Node;
use reqwest::Url;
use tokio::time::sleep;
use tracing::warn;

use crate::pki::KUBERNETES_SERVICE_IP;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// The port of the service.
const PORT: i32 = 443;
/// Between two looks at whether the members have changed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Where an API server is reached.
type Address = (IpAddr, u16);

/// Keeps the service and its endpoints as they must be. Never ends by itself.
pub(super) async fn keep(client: &Client, node: &Node) {
    let mut written: Option<Vec<Address>> = None;
    loop {
        let addresses = addresses(&members(node));
        if written.as_ref() == Some(&addresses) {
            sleep(LOOK_EVERY).await;
            continue;
        }
        match write(client, &addresses).await {
            Ok(()) => {
                written = Some(addresses);
                sleep(LOOK_EVERY).await;
            }
            Err(status) => {
                warn!(%status, "writing the service kubernetes");
                sleep(RETRY).await;
            }
        }
    }
}

fn members(node: &Node) -> Vec<String> {
    node.status().members.into_iter().map(|member| member.member.api_url).collect()
}

/// Addresses that pods can reach: by number, and not loopback, which is another one in each pod.
fn addresses(urls: &[String]) -> Vec<Address> {
    let mut addresses: Vec<Address> = urls
        .iter()
        .filter_map(|url| {
            let url = Url::parse(url).ok()?;
            let host = url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
            Some((host, url.port_or_known_default()?))
        })
        .filter(|(host, _)| !host.is_loopback())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

async fn write(client: &Client, addresses: &[Address]) -> Result<(), Status> {
    // A service is created once and never changed: its address is its identity.
    // Asked for first, since creating it again would fail for its address before its name.
    match client.get::<Service>(NAMESPACE, NAME).await {
        Err(status) if status.is_not_found() => drop(client.create(&service()).await?),
        found => drop(found?),
    }
    put(client, &endpoints(addresses)).await?;
    for slice in slices(addresses) {
        put(client, &slice).await?;
    }
    Ok(())
}

/// Creates an object, or replaces whatever is there under its name.
async fn put<K: ApiType>(client: &Client, object: &K) -> Result<(), Status> {
    match client.create(object).await {
        Err(status) if status.is_already_exists() => client.update(object).await.map(drop),
        created => created.map(drop),
    }
}

fn metadata(name: String) -> ObjectMeta {
    ObjectMeta { name: Some(name), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() }
}

fn service() -> Service {
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let address = KUBERNETES_SERVICE_IP.to_string();
    Service {
        metadata: ObjectMeta { labels: Some(labels), ..metadata(NAME.into()) },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some(address.clone()),
            cluster_ips: Some(vec![address]),
            ports: Some(vec![ServicePort {
                name: Some("https".into()),
                port: PORT,
                protocol: Some("TCP".into()),
                target_port: Some(IntOrString::Int(PORT)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn endpoints(addresses: &[Address]) -> Endpoints {
    let subset = |(port, hosts): (u16, Vec<IpAddr>)| EndpointSubset {
        addresses: Some(
            hosts
                .into_iter()
                .map(|host| EndpointAddress { ip: host.to_string(), ..EndpointAddress::default() })
                .collect(),
        ),
        ports: Some(vec![EndpointPort {
            name: Some("https".into()),
            port: port.into(),
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        }]),
        ..EndpointSubset::default()
    };
    // Marked as upstream's is: nothing must mirror it into slices, which are written here.
    let labels = [("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned())].into();
    Endpoints {
        metadata: ObjectMeta { labels: Some(labels), ..metadata(NAME.into()) },
        subsets: Some(by_port(addresses).into_iter().map(subset).collect()),
    }
}

/// One slice for each port, since a slice has the same ports for all its addresses.
fn slices(addresses: &[Address]) -> Vec<EndpointSlice> {
    let slice = |(port, hosts): (u16, Vec<IpAddr>)| EndpointSlice {
        metadata: ObjectMeta {
            labels: Some([("kubernetes.io/service-name".to_owned(), NAME.to_owned())].into()),
            ..metadata(format!("{NAME}-{port}"))
        },
        address_type: "IPv4".into(),
        endpoints: hosts
            .into_iter()
            .map(|host| Endpoint {
                addresses: vec![host.to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(true),
                    ..EndpointConditions::default()
                }),
                ..Endpoint::default()
            })
            .collect(),
        ports: Some(vec![SlicePort {
            name: Some("https".into()),
            port: Some(port.into()),
            protocol: Some("TCP".into()),
            ..SlicePort::default()
        }]),
    };
    let v4: Vec<Address> = addresses.iter().copied().filter(|(host, _)| host.is_ipv4()).collect();
    by_port(&v4).into_iter().map(slice).collect()
}

fn by_port(addresses: &[Address]) -> BTreeMap<u16, Vec<IpAddr>> {
    let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for (host, port) in addresses {
        ports.entry(*port).or_default().push(*host);
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_names_are_no_endpoints_and_ports_are_kept_apart() {
        let urls = [
            "https://192.0.2.2:6444",
            "https://192.0.2.2:6445",
            "https://127.0.0.1:6446",
            "https://node.example:6443",
        ];
        let addresses = addresses(&urls.map(String::from));
        assert_eq!(addresses.len(), 2);
        assert_eq!(endpoints(&addresses).subsets.unwrap().len(), 2);
        let names: Vec<_> =
            slices(&addresses).into_iter().filter_map(|slice| slice.metadata.name).collect();
        assert_eq!(names, ["kubernetes-6444", "kubernetes-6445"]);
    }
}
