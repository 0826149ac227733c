//! Gives each node its part of the pods' addresses, and no part twice.
//!
//! What is taken is what the nodes say: nothing is kept beside them. One worker allocates, and only
//! after the informer has seen its last allocation.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{Part, Patch};
use serde_json::json;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// The addresses of all pods, cut into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    base: u32,
    prefix_len: u8,
    part_len: u8,
}

impl Pool {
    /// Parts of `part_len` bits out of `base`/`prefix_len`.
    pub fn new((base, prefix_len): (Ipv4Addr, u8), part_len: u8) -> Self {
        let prefix_len = prefix_len.min(32);
        let part_len = part_len.clamp(prefix_len, 32);
        let mask = u32::MAX.checked_shl(u32::from(32 - prefix_len)).unwrap_or(0);
        Self { base: base.to_bits() & mask, prefix_len, part_len }
    }

    fn parts(self) -> impl Iterator<Item = String> {
        let bits = u32::from(self.part_len - self.prefix_len);
        let shift = u32::from(32 - self.part_len);
        (0..1_u64 << bits).map(move |number| {
            let offset = u32::try_from(number << shift).unwrap_or(0);
            format!("{}/{}", Ipv4Addr::from_bits(self.base | offset), self.part_len)
        })
    }
}

/// The part for a node: `None` where it has one already, or none is left.
pub fn plan(pool: Pool, node: &Node, all: &[Arc<Node>]) -> Plan {
    if cidr(node).is_some() {
        return Plan::Keep;
    }
    let taken: BTreeSet<&str> = all.iter().filter_map(|node| cidr(node)).collect();
    pool.parts().find(|part| !taken.contains(part.as_str())).map_or(Plan::Exhausted, Plan::Assign)
}

/// What to do about a node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It has some.
    Keep,
    /// Give it these.
    Assign(String),
    /// There are none left.
    Exhausted,
}

fn cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty())
}

/// Gives nodes their addresses.
pub struct NodeIpam {
    client: Client,
    nodes: Arc<Informer<Node>>,
    /// One key for all: each allocation must see all the others.
    own: OwnWrites<(), Node>,
    pool: Pool,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<NodeIpam> {
    let nodes = context.informers.of::<Node>();
    let reconciler = NodeIpam {
        client: context.client_of("node-controller"),
        nodes: Arc::clone(&nodes),
        own: OwnWrites::new(Arc::clone(&nodes)),
        pool: Pool::new(context.settings.cluster_cidr, context.settings.node_cidr_mask),
        events: events.of("cidrAllocator"),
    };
    Controller::new("node-ipam", context, begin, reconciler)
        .workers(1)
        .watch(&nodes, |node| vec![ObjectKey::of(node)])
}

#[async_trait]
impl Reconcile for NodeIpam {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(&()).await?;
        let Some(node) = self.nodes.get("", &key.name) else { return Ok(Next::OnChange) };
        match plan(self.pool, &node, &self.nodes.list()) {
            Plan::Keep => {}
            Plan::Exhausted => {
                let message = format!("Node {key} status is now: CIDRNotAvailable");
                self.events.warning(&*node, "CIDRNotAvailable", message);
                return Ok(Next::After(std::time::Duration::from_secs(30)));
            }
            Plan::Assign(cidr) => {
                let patch = Patch::Merge(json!({
                    "metadata": { "resourceVersion": node.metadata.resource_version },
                    "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
                }));
                let written = self
                    .client
                    .patch::<Node>("", owners::name(&node.metadata), Part::Main, &patch)
                    .await
                    .during(|| format!("giving node {key} the addresses {cidr}"))?;
                self.own.wrote(&(), &written);
            }
        }
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;

    use super::*;

    fn node(cidr: Option<&str>) -> Arc<Node> {
        Arc::new(Node {
            spec: Some(NodeSpec { pod_cidr: cidr.map(str::to_owned), ..NodeSpec::default() }),
            ..Node::default()
        })
    }

    #[test]
    fn each_node_gets_the_first_part_that_nobody_has() {
        let pool = Pool::new((Ipv4Addr::new(10, 244, 0, 0), 16), 24);
        let all = [node(Some("10.244.0.0/24")), node(Some("10.244.2.0/24")), node(None)];
        assert_eq!(plan(pool, &all[2], &all), Plan::Assign("10.244.1.0/24".to_owned()));
        assert_eq!(plan(pool, &all[0], &all), Plan::Keep);
        let without_second = [all[0].clone(), all[2].clone()];
        let Plan::Assign(part) = plan(pool, &all[2], &without_second) else { panic!() };
        assert_eq!(part, "10.244.1.0/24");
    }

    #[test]
    fn when_all_parts_are_taken_none_is_given_twice() {
        let pool = Pool::new((Ipv4Addr::new(192, 168, 7, 9), 30), 31);
        let mut all = Vec::new();
        for part in ["192.168.7.8/31", "192.168.7.10/31"] {
            assert_eq!(plan(pool, &node(None), &all), Plan::Assign(part.to_owned()));
            all.push(node(Some(part)));
        }
        assert_eq!(plan(pool, &node(None), &all), Plan::Exhausted);
    }
}
