//! The task that hears from the control plane where the other nodes' pods are and what policies say
//! of this node's, and brings routes and rules up to that.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::is_cidr;
use super::routes::{Routes, Ways};
use crate::api::chain;
use crate::policy::{Policed, Policies};

/// Where that is told; the answer waits for news.
const PATH: &str = "/kontiki/v1/network";
/// Between two looks whether the policies' table is still there.
const CHECK_PERIOD: Duration = Duration::from_secs(10);
/// Wait after no server answered.
const RETRY: Duration = Duration::from_secs(1);
/// Wait after the API answered that it knows no such thing: it is another one than Kontiki's.
const FOREIGN_RETRY: Duration = Duration::from_secs(60);

/// What a node is told of the others.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Told {
    tag: String,
    nodes: Vec<OtherNode>,
    pods: Vec<Policed>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct OtherNode {
    ranges: Vec<String>,
    address: String,
}

impl Told {
    fn ways(&self) -> Ways {
        let of = |node: &OtherNode| {
            let by: Option<IpAddr> = node.address.parse().ok();
            let ranges = node.ranges.iter().filter(|range| is_cidr(range)).cloned();
            ranges.filter_map(|range| Some((range, by?))).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }
}

/// Hears and acts.
pub struct Peers {
    /// The ways to other nodes' pods; none where that is somebody else's business.
    pub routes: Option<Routes>,
    /// The rules of policies; none where that is somebody else's business.
    pub policies: Option<Policies>,
    /// Where the ranges of other nodes' pods go.
    pub ranges: watch::Sender<BTreeSet<String>>,
}

impl Peers {
    /// Works until `shutdown`. Routes and rules stay in force after that.
    pub async fn run(mut self, client: kube::Client, shutdown: CancellationToken) {
        let mut known = Told::default();
        let mut checked_at = Instant::now();
        loop {
            let asked = tokio::select! {
                asked = ask(&client, &known.tag) => asked,
                () = shutdown.cancelled() => return,
            };
            let wait = match asked {
                Ok(told) => {
                    // Whoever flushed the table took the rules along, though nothing else is new.
                    let is_whole = match &mut self.policies {
                        Some(policies) if checked_at.elapsed() >= CHECK_PERIOD => {
                            checked_at = Instant::now();
                            policies.check().await
                        }
                        _ => true,
                    };
                    if told.tag != known.tag || !is_whole {
                        self.act(&told).await;
                    }
                    known = told;
                    continue;
                }
                Err(kube::Error::Api(status)) if status.code == 404 => FOREIGN_RETRY,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "not told of other nodes");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn act(&mut self, told: &Told) {
        let ways = told.ways();
        if let Some(policies) = &mut self.policies {
            policies.sync(&told.pods).await;
        }
        if let Some(routes) = &mut self.routes {
            routes.sync(&ways).await;
        }
        let ranges: BTreeSet<String> = ways.into_keys().collect();
        self.ranges.send_if_modified(|known| {
            let is_new = *known != ranges;
            *known = ranges;
            is_new
        });
    }
}

async fn ask(client: &kube::Client, after: &str) -> Result<Told, kube::Error> {
    let request = http::Request::get(format!("{PATH}?after={after}"));
    let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_control_plane_tells_is_understood() {
        let told: Told = serde_json::from_value(json!({
            "tag": "00ff",
            "nodes": [
                { "ranges": ["10.42.1.0/24", "nonsense"], "address": "192.0.2.2" },
                { "ranges": ["10.42.2.0/24"], "address": "no address" },
            ],
            "pods": [{ "uid": "u", "ips": ["10.42.0.5"], "ingress": [
                { "peers": [{ "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] }] },
            ] }],
        }))
        .unwrap();
        let by = "192.0.2.2".parse().unwrap();
        assert_eq!(told.ways(), Ways::from([("10.42.1.0/24".to_owned(), by)]));
        let rule = &told.pods[0].ingress.as_ref().unwrap()[0];
        assert_eq!(rule.peers.as_ref().unwrap()[0].except, ["10.1.0.0/16"]);
        assert_eq!((&rule.ports, &told.pods[0].egress), (&None, &None));
    }
}
