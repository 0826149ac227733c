//! The endpoints of `default/kubernetes`: the API servers themselves, who are no pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::status::Status;

use super::SERVICE_NAME;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const PORT_NAME: &str = "https";

/// Writes where the API servers are, as Endpoints and as a slice. Idempotent; the leader calls it
/// whenever the servers change.
pub async fn publish_api_servers(
    client: &Client,
    addresses: &[IpAddr],
    port: u16,
) -> Result<(), Status> {
    let mut addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let endpoints = endpoints(&addresses, port);
    write(client, &endpoints, |old: &Endpoints| old.subsets == endpoints.subsets).await?;
    let slice = slice(&addresses, port);
    write(client, &slice, |old: &v1::EndpointSlice| {
        old.endpoints == slice.endpoints && old.ports == slice.ports
    })
    .await
}

/// Creates the object, or updates the one that is there where it differs.
async fn write<K: ApiType>(
    client: &Client,
    wanted: &K,
    is_same: impl Fn(&K) -> bool,
) -> Result<(), Status> {
    match client.get::<K>(NAMESPACE, NAME).await {
        Ok(old) if is_same(&old) => Ok(()),
        Ok(old) => {
            let mut new = wanted.clone();
            new.metadata_mut().resource_version.clone_from(&old.metadata().resource_version);
            client.update(&new).await.map(drop)
        }
        Err(status) if status.is_not_found() => client.create(wanted).await.map(drop),
        Err(status) => Err(status),
    }
}

fn meta() -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    }
}

fn endpoints(addresses: &[String], port: u16) -> Endpoints {
    // Nobody mirrors these into slices: the slice is written here.
    let labels =
        BTreeMap::from([("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned())]);
    let subset = EndpointSubset {
        addresses: Some(
            addresses
                .iter()
                .map(|ip| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() })
                .collect(),
        ),
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: i32::from(port),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
        not_ready_addresses: None,
    };
    Endpoints {
        metadata: ObjectMeta { labels: Some(labels), ..meta() },
        subsets: Some(vec![subset]).filter(|_| !addresses.is_empty()),
    }
}

fn slice(addresses: &[String], port: u16) -> v1::EndpointSlice {
    let is_v6 = addresses.first().is_some_and(|address| address.contains(':'));
    v1::EndpointSlice {
        metadata: ObjectMeta {
            labels: Some(BTreeMap::from([(SERVICE_NAME.to_owned(), NAME.to_owned())])),
            ..meta()
        },
        address_type: if is_v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: addresses
            .iter()
            .map(|address| v1::Endpoint {
                addresses: vec![address.clone()],
                conditions: Some(v1::EndpointConditions {
                    ready: Some(true),
                    ..v1::EndpointConditions::default()
                }),
                ..v1::Endpoint::default()
            })
            .collect(),
        ports: Some(vec![v1::EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(i32::from(port)),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    }
}
