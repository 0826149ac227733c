//! Between objects of the API and the messages of `cloud.proto`.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, NodeAddress, Service};

use crate::cloud::bare_metal::is_local;
use crate::cloud::node::plan::{addresses, provider_id};
use crate::cloud::proto;
use crate::cloud::provider::{Balancer, Instance};
use crate::controllers::owners;

/// A balancer's name as upstream makes it: a letter, then the Service's uid, 32 characters in all.
pub(super) fn balancer_name(service: &Service) -> String {
    let uid = owners::uid(&service.metadata).replace('-', "");
    format!("a{uid}").chars().take(32).collect()
}

pub(super) fn node(node: &Node) -> proto::Node {
    let address = |address: &NodeAddress| proto::Address {
        r#type: address.type_.clone(),
        address: address.address.clone(),
    };
    proto::Node {
        name: owners::name(&node.metadata).to_owned(),
        provider_id: provider_id(node).unwrap_or_default().to_owned(),
        addresses: addresses(node).iter().map(address).collect(),
        labels: node.metadata.labels.clone().unwrap_or_default().into_iter().collect(),
    }
}

pub(super) fn instance(said: proto::Instance) -> Instance {
    let address =
        |address: proto::Address| NodeAddress { type_: address.r#type, address: address.address };
    Instance {
        provider_id: said.provider_id,
        instance_type: said.instance_type,
        addresses: said.addresses.into_iter().map(address).collect(),
        is_shut_down: said.shut_down,
    }
}

pub(super) fn service(service: &Service) -> proto::Service {
    let meta = &service.metadata;
    let spec = service.spec.clone().unwrap_or_default();
    let port = |port: k8s_openapi::api::core::v1::ServicePort| proto::Port {
        name: port.name.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
        port: port.port,
        node_port: port.node_port.unwrap_or_default(),
    };
    proto::Service {
        namespace: owners::namespace(meta).to_owned(),
        name: owners::name(meta).to_owned(),
        uid: owners::uid(meta).to_owned(),
        annotations: meta.annotations.clone().unwrap_or_default().into_iter().collect(),
        ports: spec.ports.unwrap_or_default().into_iter().map(port).collect(),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        local: is_local(service),
        health_check_node_port: spec.health_check_node_port.unwrap_or_default(),
        load_balancer_ip: spec.load_balancer_ip.unwrap_or_default(),
        sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
    }
}

/// The mode belongs to an address: names have none.
pub(super) fn balancer(said: proto::LoadBalancer) -> Balancer {
    let way = |way: proto::Ingress| {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let ip = text(way.ip);
        let mode = if way.proxy { "Proxy" } else { "VIP" };
        LoadBalancerIngress {
            ip_mode: ip.as_ref().map(|_| mode.to_owned()),
            ip,
            hostname: text(way.hostname),
            ..LoadBalancerIngress::default()
        }
    };
    Balancer { ingress: said.ingress.into_iter().map(way).collect(), node: None }
}
