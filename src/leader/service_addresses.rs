//! The block that Services' addresses come from, as people see it, and an IPAddress for every address
//! that a Service has. These are written with their Service; here they are put right where somebody
//! took one away, or an older release wrote none.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use kontiki_api::allocate::SERVICE_BLOCK;
use kontiki_api::client::Client;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, ListOptions, Part};
use kontiki_api::registry::seconds;
use kontiki_api::resources::service;
use kontiki_api::resources::service_network::{IP_ADDRESS, SERVICE_CIDR, of_service};
use kontiki_api::status::Status;
use serde_json::json;
use tokio::time::sleep;
use tracing::warn;

/// How often they are looked at.
const PERIOD: Duration = Duration::from_mins(1);
/// The block's name, as every cluster has it.
const BLOCK: &str = "kubernetes";
/// Keeps a block while there are addresses of it: of this one there is always one.
const BLOCK_FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Keeps them as they should be.
pub(super) async fn keep(client: &Client) {
    loop {
        if let Err(status) = block(client).await {
            warn!(%status, "keeping the service CIDR {BLOCK}");
        }
        if let Err(status) = addresses(client).await {
            warn!(%status, "keeping the IP addresses of services");
        }
        sleep(PERIOD).await;
    }
}

async fn block(client: &Client) -> Result<(), Status> {
    let found = match client.get_object(&SERVICE_CIDR, "", BLOCK).await {
        Err(status) if status.is_not_found() => {
            let mut block = Object::empty(&SERVICE_CIDR.api_version(), SERVICE_CIDR.kind);
            block.set_meta("name", BLOCK);
            block.set_meta("finalizers", json!([BLOCK_FINALIZER]));
            block.set(&["spec"], json!({"cidrs": [SERVICE_BLOCK.to_string()]}));
            client.create_object(&SERVICE_CIDR, block).await?
        }
        found => found?,
    };
    let conditions = found.at("/status/conditions").and_then(|list| list.as_array());
    if conditions.into_iter().flatten().any(|one| one["type"] == "Ready") {
        return Ok(());
    }
    let mut ready = found;
    let condition = json!({
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": seconds(Timestamp::now()),
    });
    ready.set(&["status"], json!({"conditions": [condition]}));
    client.update_object(&SERVICE_CIDR, Part::Status, ready).await.map(drop)
}

async fn addresses(client: &Client) -> Result<(), Status> {
    // First the addresses: what a service gets meanwhile is then not taken for left behind.
    let known = client.list_objects(&IP_ADDRESS, "", &ListOptions::default()).await?.items;
    let services = client.list_objects(&service::KIND, "", &ListOptions::default()).await?.items;
    let plan = plan(&services, &known);
    for address in plan.missing {
        match client.create_object(&IP_ADDRESS, address).await {
            Err(status) if !status.is_already_exists() => return Err(status),
            _ => {}
        }
    }
    for address in plan.left_behind {
        let options = DeleteOptions::of_uid(address.uid());
        match client.delete_object(&IP_ADDRESS, "", address.name(), &options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

struct Plan<'a> {
    missing: Vec<Object>,
    left_behind: Vec<&'a Object>,
}

fn plan<'a>(services: &[Object], known: &'a [Object]) -> Plan<'a> {
    let mut owners: BTreeMap<Ipv4Addr, (&str, &str)> = BTreeMap::new();
    for service in services {
        let own = service::addresses(&service.value()["spec"]).into_iter();
        let own = own.filter_map(|address| address.parse().ok());
        let owner = (service.namespace(), service.name());
        owners.extend(own.filter(|one| SERVICE_BLOCK.holds(*one)).map(|one| (one, owner)));
    }
    let is_known = |address: &Ipv4Addr| known.iter().any(|one| one.name() == address.to_string());
    let missing = owners.iter().filter(|(address, _)| !is_known(address));
    let is_left_behind = |address: &&Object| {
        let name = address.name().parse();
        let owner = name.ok().and_then(|name: Ipv4Addr| owners.get(&name));
        let is_ours =
            address.label("ipaddress.kubernetes.io/managed-by") == Some("ipallocator.k8s.io");
        is_ours && owner.is_none()
    };
    Plan {
        missing: missing.map(|(address, owner)| of_service(*owner, *address)).collect(),
        left_behind: known.iter().filter(is_left_behind).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_service_is_seen_and_no_other_of_ours() {
        let service = |name: &str, address: &str| {
            Object::new(json!({
                "metadata": {"namespace": "a", "name": name},
                "spec": {"clusterIPs": [address]},
            }))
            .expect("an object")
        };
        let services =
            [service("one", "10.96.0.9"), service("two", "10.96.0.10"), service("no", "None")];
        let mut foreign = of_service(("a", "x"), Ipv4Addr::new(10, 96, 0, 12));
        foreign.remove(&["metadata", "labels"]);
        let known = [
            of_service(("a", "one"), Ipv4Addr::new(10, 96, 0, 9)),
            of_service(("a", "gone"), Ipv4Addr::new(10, 96, 0, 11)),
            foreign,
        ];
        let plan = plan(&services, &known);
        let names = |list: &[&Object]| -> Vec<String> {
            list.iter().map(|object| object.name().to_owned()).collect()
        };
        assert_eq!(names(&plan.missing.iter().collect::<Vec<_>>()), ["10.96.0.10"]);
        assert_eq!(plan.missing[0].str_at("/spec/parentRef/name"), "two");
        assert_eq!(names(&plan.left_behind), ["10.96.0.11"]);
    }
}
