//! The service `kubernetes` in `default`: how pods reach the API. It has no selector; its endpoints
//! are the members of the control plane that take connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::registry::options::{DeleteOptions, ListOptions};
use kontiki_api::status::Status;
use kontiki_raft::node::Node;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::pki::KUBERNETES_SERVICE_IP;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// The label that names the service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The port of the service.
const PORT: i32 = 443;
/// Between two looks at the members and whether they take connections.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a member may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// After so many looks in a row that found it silent, pods are no longer led to a member.
const SILENT_LOOKS: u32 = 2;
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Where an API server is reached.
type Address = (IpAddr, u16);

/// Keeps the service and its endpoints as they must be. Never ends by itself.
pub(super) async fn keep(client: &Client, node: &Node) {
    let mut written: Option<Vec<Address>> = None;
    let mut silence = Silence::default();
    loop {
        let looks = addresses(&members(node)).into_iter().map(|address| async move {
            let opened = timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await;
            (address, matches!(opened, Ok(Ok(_))))
        });
        let addresses = silence.listed(&join_all(looks).await);
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

/// In how many looks in a row a member took no connection.
#[derive(Default)]
struct Silence(BTreeMap<Address, u32>);

impl Silence {
    /// Those that pods shall be led to, after one more look. Where nobody answers the fault may be
    /// ours: then all stay.
    fn listed(&mut self, looks: &[(Address, bool)]) -> Vec<Address> {
        let count = |(address, answers): &(Address, bool)| {
            let before = self.0.get(address).copied().unwrap_or(0);
            (*address, if *answers { 0 } else { before.saturating_add(1) })
        };
        self.0 = looks.iter().map(count).collect();
        let heard = self.0.iter().filter(|(_, looks)| **looks < SILENT_LOOKS);
        let heard: Vec<Address> = heard.map(|(address, _)| *address).collect();
        if heard.is_empty() { self.0.keys().copied().collect() } else { heard }
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
    let wanted = slices(addresses);
    for slice in &wanted {
        put(client, slice).await?;
    }
    // Each port has a slice of its own: those of members that are gone would lead pods nowhere.
    for slice in client.list::<EndpointSlice>(NAMESPACE, &ListOptions::default()).await? {
        let is_wanted = wanted.iter().any(|wanted| wanted.metadata.name == slice.metadata.name);
        if is_wanted || !is_ours(&slice) {
            continue;
        }
        let name = slice.metadata.name.unwrap_or_default();
        match client.delete::<EndpointSlice>(NAMESPACE, &name, &DeleteOptions::default()).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(SERVICE_NAME)).is_some_and(|name| name == NAME)
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
            labels: Some([(SERVICE_NAME.to_owned(), NAME.to_owned())].into()),
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
    fn a_member_that_stays_silent_is_left_out_until_it_answers() {
        let [one, two]: [Address; 2] = [6444, 6445].map(|port| ([192, 0, 2, 2].into(), port));
        let mut silence = Silence::default();
        assert_eq!(silence.listed(&[(one, true), (two, false)]), [one, two], "once is chance");
        assert_eq!(silence.listed(&[(one, true), (two, false)]), [one]);
        assert_eq!(silence.listed(&[(one, true), (two, true)]), [one, two]);
        silence.listed(&[(one, false), (two, false)]);
        assert_eq!(silence.listed(&[(one, false), (two, false)]), [one, two], "then it is us");
        assert_eq!(silence.listed(&[(one, true)]), [one], "no member any more");
    }

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
