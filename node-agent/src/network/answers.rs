//! The addresses of load balancers that this node answers for.
//!
//! ```text
//!   Service: annotation names this node ──► wanted ──► link `kl-…` (a bridge without ports)
//!                                                        │ ADDRESS/32, for half a minute each
//!   clients on the node's link ◄── ARP: the kernel answers for what it has on any link
//! ```
//!
//! An address goes by itself when nobody renews it: a node whose agent is dead has let go of it before
//! the control plane holds the node for dead and gives the address to another. An agent that is only
//! cut off from the control plane holds on to it, as nobody else could be told to take it. Whoever
//! takes an address says so to all on the link, so that packets follow at once.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::routes::ip;
use crate::catalog::Catalog;
use crate::proxy::ports::balancer_ips;

/// Names the node that answers for the addresses of a Service. The control plane writes it.
pub const ANSWERED_BY: &str = "kontiki.dev/load-balancer-node";
/// How long an address lives without being renewed; less than a silent node is waited for.
const LIFETIME_S: &str = "30";
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(10);
/// A neighbour that nobody has: asking for it tells everybody who asks. Link-local, so that no
/// router is meant.
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 77, 1), 9);

/// The addresses of all Services that `node` shall answer for.
pub fn wanted(catalog: &Catalog, node: &str) -> BTreeSet<Ipv4Addr> {
    let services = catalog.keys().filter_map(|key| catalog.service(key));
    let ours = services.filter(|service| {
        let annotations = service.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(ANSWERED_BY)).is_some_and(|name| name == node)
    });
    ours.flat_map(|service| balancer_ips(service)).collect()
}

/// What must be done so that the link has `wanted`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// New ones.
    take: BTreeSet<Ipv4Addr>,
    /// Those that stay, and live on.
    renew: BTreeSet<Ipv4Addr>,
    /// Those that are another's now.
    leave: BTreeSet<Ipv4Addr>,
}

fn changes(held: &BTreeSet<Ipv4Addr>, wanted: &BTreeSet<Ipv4Addr>) -> Changes {
    Changes { take: wanted - held, renew: wanted & held, leave: held - wanted }
}

/// Keeps the link as it shall be.
#[derive(Debug)]
pub struct Answers {
    link: String,
    node_ip: IpAddr,
}

impl Answers {
    /// Of the node with that address. `link` is this agent's own.
    pub fn new(link: String, node_ip: IpAddr) -> Self {
        Self { link, node_ip }
    }

    /// Works until `shutdown`. Before anything is `wanted`, what is held lives on.
    pub async fn run(
        self,
        mut wanted: watch::Receiver<Option<BTreeSet<Ipv4Addr>>>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(RENEW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Both arms are cancel-safe: the latest state stays in its channel.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
            let now = wanted.borrow_and_update().clone();
            if let Err(why) = self.sync(now).await {
                tracing::warn!(link = self.link, why, "addresses of load balancers");
            }
        }
    }

    async fn sync(&self, wanted: Option<BTreeSet<Ipv4Addr>>) -> Result<(), String> {
        // `/sys` may show another network namespace than the one that the agent is in.
        let shown = ip(&["-o", "-4", "addr", "show", "dev", &self.link]).await;
        let is_there = shown.is_ok();
        let held = shown.map(|text| listed(&text)).unwrap_or_default();
        let wanted = wanted.unwrap_or_else(|| held.clone());
        if !is_there && !wanted.is_empty() {
            ip(&["link", "add", &self.link, "type", "bridge"]).await?;
            ip(&["link", "set", &self.link, "up"]).await?;
        }
        let Changes { take, renew, leave } = changes(&held, &wanted);
        for address in leave {
            ip(&["addr", "delete", &format!("{address}/32"), "dev", &self.link]).await?;
            tracing::info!(%address, "another node answers for a load balancer's address");
        }
        for address in renew.iter().chain(&take) {
            let address = format!("{address}/32");
            let lives = ["valid_lft", LIFETIME_S, "preferred_lft", LIFETIME_S];
            let replace = ["addr", "replace", &address, "dev", &self.link];
            ip(&[&replace[..], &lives[..]].concat()).await?;
        }
        for address in take {
            tracing::info!(%address, "this node answers for a load balancer's address");
            if let Err(why) = self.announce(address).await {
                tracing::warn!(%address, why, "neighbours learn of it only when they ask again");
            }
        }
        Ok(())
    }

    /// Has the kernel ask for a neighbour that nobody has, on behalf of `address`: whoever knows the
    /// address with another node's hardware address takes ours from the question. The kernel asks
    /// three times, a second apart.
    async fn announce(&self, address: Ipv4Addr) -> Result<(), String> {
        let all = ip(&["-o", "-4", "addr", "show"]).await?;
        let link = link_of(&all, self.node_ip).ok_or("no link has the node's address")?;
        let send = async {
            let socket = UdpSocket::bind((address, 0)).await?;
            socket.bind_device(Some(link.as_bytes()))?;
            rustix::net::sendto(&socket, b"", SendFlags::DONTROUTE, &NOBODY)?;
            Ok::<_, std::io::Error>(())
        };
        send.await.map_err(|error| error.to_string())
    }
}

/// The addresses that `ip -o addr show` lists.
fn listed(text: &str) -> BTreeSet<Ipv4Addr> {
    text.lines().filter_map(|line| address_of(line)?.parse().ok()).collect()
}

/// The link that has an address.
fn link_of(text: &str, address: IpAddr) -> Option<&str> {
    let address = address.to_string();
    let line = text.lines().find(|line| address_of(line) == Some(address.as_str()))?;
    // A cable's end is listed as `up0@if7`.
    line.split_whitespace().nth(1)?.split('@').next()
}

/// Of a line such as `2: up0    inet 198.18.7.11/24 scope global up0`.
fn address_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == "inet")?;
    words.next()?.split('/').next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addresses(all: &[&str]) -> BTreeSet<Ipv4Addr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_answers_for_the_services_that_name_it() {
        let mut catalog = Catalog::default();
        let mut add = |name: &str, node: Option<&str>, ingress: serde_json::Value| {
            let service = serde_json::from_value(json!({
                "metadata": {
                    "namespace": "shop", "name": name,
                    "annotations": node.map(|node| json!({ ANSWERED_BY: node })),
                },
                "spec": { "type": "LoadBalancer" },
                "status": { "loadBalancer": { "ingress": ingress } },
            }))
            .unwrap();
            catalog.apply_service(service);
        };
        add("ours", Some("n1"), json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]));
        add("theirs", Some("n2"), json!([{ "ip": "192.0.2.2" }]));
        add("a-clouds", None, json!([{ "ip": "192.0.2.3" }]));
        add("waits", Some("n1"), json!([]));
        add("passed-through", Some("n1"), json!([{ "ip": "192.0.2.4", "ipMode": "Proxy" }]));
        assert_eq!(wanted(&catalog, "n1"), addresses(&["192.0.2.1"]));
    }

    #[test]
    fn an_address_is_taken_once_renewed_while_wanted_and_left_to_another() {
        let held = addresses(&["192.0.2.1", "192.0.2.2"]);
        let expected = Changes {
            take: addresses(&["192.0.2.3"]),
            renew: addresses(&["192.0.2.2"]),
            leave: addresses(&["192.0.2.1"]),
        };
        assert_eq!(changes(&held, &addresses(&["192.0.2.2", "192.0.2.3"])), expected);
    }

    #[test]
    fn addresses_and_links_are_told_from_what_ip_prints() {
        let text = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
                    7: up0@if6    inet 198.18.7.11/24 scope global up0\\       valid_lft forever\n\
                    9: kl-0    inet 198.18.7.200/32 scope global dynamic kl-0\\       valid_lft 29sec\n";
        assert!(listed(text).contains(&"198.18.7.200".parse().unwrap()));
        assert_eq!(link_of(text, "198.18.7.11".parse().unwrap()), Some("up0"));
        assert_eq!(link_of(text, "198.18.7.1".parse().unwrap()), None);
    }
}
