//! Gives each node its part of the pods' addresses, and no part twice.
//!
//! What is taken is what the nodes say: nothing is kept beside them. One worker allocates, and only
//! after the informer has seen its last allocation.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// The index of nodes by the part they have.
const BY_PART: &str = "pod-cidr";
/// Before a node for which no part was left is looked at again.
const EXHAUSTED_RETRY: Duration = Duration::from_secs(30);

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

    /// How many parts there are.
    fn len(self) -> u64 {
        1 << u32::from(self.part_len - self.prefix_len)
    }

    fn part(self, number: u64) -> String {
        let shift = u32::from(32 - self.part_len);
        let offset = u32::try_from(number << shift).unwrap_or(0);
        format!("{}/{}", Ipv4Addr::from_bits(self.base | offset), self.part_len)
    }

    /// The parts from that number on, then those before it.
    fn parts_from(self, first: u64) -> impl Iterator<Item = (u64, String)> {
        let number = move |step| (first + step) % self.len();
        (0..self.len()).map(move |step| (number(step), self.part(number(step))))
    }
}

/// The part for a node: nothing to do where it has one already. The search begins at the part
/// `next`, behind the last one given: to begin at the first each time costs as much as there are
/// nodes, for each of them.
fn plan(pool: Pool, next: u64, node: &Node, is_taken: impl Fn(&str) -> bool) -> Plan {
    if cidr(node).is_some() {
        return Plan::Keep;
    }
    let free = pool.parts_from(next).find(|(_, part)| !is_taken(part));
    free.map_or(Plan::Exhausted, |(number, part)| Plan::Assign { number, part })
}

/// What to do about a node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It has some.
    Keep,
    /// Give it these.
    Assign {
        /// The place of the part among all.
        number: u64,
        /// The part.
        part: String,
    },
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
    /// Behind the part that was given last.
    next: AtomicU64,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<NodeIpam> {
    let nodes = context.informers.of::<Node>();
    nodes.index_by(BY_PART, |node| cidr(node).map(str::to_owned).into_iter().collect());
    let reconciler = NodeIpam {
        client: context.client_of("node-controller"),
        nodes: Arc::clone(&nodes),
        own: OwnWrites::new(Arc::clone(&nodes)),
        pool: Pool::new(context.settings.cluster_cidr, context.settings.node_cidr_mask),
        next: AtomicU64::new(0),
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
        let next = self.next.load(Ordering::Relaxed);
        match plan(self.pool, next, &node, |part| self.nodes.is_indexed(BY_PART, part)) {
            Plan::Keep => {}
            Plan::Exhausted => {
                let message = format!("Node {key} status is now: CIDRNotAvailable");
                self.events.warning(&*node, "CIDRNotAvailable", message);
                return Ok(Next::After(EXHAUSTED_RETRY));
            }
            Plan::Assign { number, part: cidr } => {
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
                self.next.store(number + 1, Ordering::Relaxed);
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

    fn planned(pool: Pool, next: u64, node: &Node, all: &[Arc<Node>]) -> Plan {
        plan(pool, next, node, |part| all.iter().any(|node| cidr(node) == Some(part)))
    }

    fn assign(number: u64, part: &str) -> Plan {
        Plan::Assign { number, part: part.to_owned() }
    }

    #[test]
    fn each_node_gets_a_part_that_nobody_has() {
        let pool = Pool::new((Ipv4Addr::new(10, 244, 0, 0), 16), 24);
        let all = [node(Some("10.244.0.0/24")), node(Some("10.244.2.0/24")), node(None)];
        assert_eq!(planned(pool, 0, &all[2], &all), assign(1, "10.244.1.0/24"));
        assert_eq!(planned(pool, 2, &all[2], &all), assign(3, "10.244.3.0/24"));
        assert_eq!(planned(pool, 0, &all[0], &all), Plan::Keep);
    }

    #[test]
    fn behind_the_last_part_comes_the_first() {
        let pool = Pool::new((Ipv4Addr::new(10, 244, 0, 0), 22), 24);
        let all = [node(Some("10.244.0.0/24")), node(Some("10.244.3.0/24"))];
        assert_eq!(planned(pool, 3, &node(None), &all), assign(1, "10.244.1.0/24"));
        assert_eq!(planned(pool, 4, &node(None), &all), assign(1, "10.244.1.0/24"));
    }

    #[test]
    fn when_all_parts_are_taken_none_is_given_twice() {
        let pool = Pool::new((Ipv4Addr::new(192, 168, 7, 9), 30), 31);
        let mut all = Vec::new();
        for (number, part) in [(0, "192.168.7.8/31"), (1, "192.168.7.10/31")] {
            assert_eq!(planned(pool, 0, &node(None), &all), assign(number, part));
            all.push(node(Some(part)));
        }
        assert_eq!(planned(pool, 0, &node(None), &all), Plan::Exhausted);
    }
}
