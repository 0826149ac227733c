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
/// First and longest wait before what could not be put in force is tried again; it doubles.
const ACT_RETRY: Duration = Duration::from_secs(1);
const ACT_RETRY_MAX: Duration = Duration::from_secs(60);
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
        let mut again: Option<Again> = None;
        loop {
            // Every arm is cancel-safe: a question cut off is asked again with the same tag.
            let asked = tokio::select! {
                asked = ask(&client, &known.tag) => asked,
                () = until(again) => {
                    again = self.act(&known, again).await;
                    continue;
                }
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
                        again = self.act(&told, None).await;
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

    /// Puts what was told in force. Where some of it is not, answers when it is tried again, after
    /// twice the wait of the time before.
    async fn act(&mut self, told: &Told, before: Option<Again>) -> Option<Again> {
        let ways = told.ways();
        let mut is_done = true;
        if let Some(policies) = &mut self.policies {
            is_done &= policies.sync(&told.pods).await;
        }
        if let Some(routes) = &mut self.routes {
            is_done &= routes.sync(&ways).await;
        }
        let ranges: BTreeSet<String> = ways.into_keys().collect();
        self.ranges.send_if_modified(|known| {
            let is_new = *known != ranges;
            *known = ranges;
            is_new
        });
        let wait = before.map_or(ACT_RETRY, |before| (before.wait * 2).min(ACT_RETRY_MAX));
        (!is_done).then(|| Again { at: Instant::now() + wait, wait })
    }
}

/// When something is tried again, and how long that was waited for.
#[derive(Clone, Copy, Debug)]
struct Again {
    at: Instant,
    wait: Duration,
}

/// Waits until then, or for ever.
async fn until(again: Option<Again>) {
    match again {
        Some(again) => tokio::time::sleep_until(again.at).await,
        None => std::future::pending().await,
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

    /// Answers the first question, and lets the others wait for news that never come.
    fn client(told: &'static str) -> kube::Client {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let is_first = request.uri().query() == Some("after=");
            async move {
                if !is_first {
                    std::future::pending::<()>().await;
                }
                let body = kube::client::Body::from(told.as_bytes().to_vec());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn what_could_not_be_put_in_force_is_tried_again_though_nothing_new_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        // Refuses the first transaction.
        let script = format!("echo x >> {0}; [ $(wc -l < {0}) -gt 1 ]", count.display());
        let nft = crate::proxy::nft::Nft::stand_in(dir.path(), &script);
        let policies = Some(Policies::with_setting(nft, dir.path().join("setting")));
        let (ranges, _) = watch::channel(BTreeSet::new());
        let peers = Peers { routes: None, policies, ranges };
        let told = r#"{ "tag": "1", "nodes": [], "pods": [
            { "uid": "u", "ips": ["10.42.0.5"], "ingress": [] }
        ] }"#;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(peers.run(client(told), shutdown.clone()));
        let tries = || std::fs::read_to_string(&count).unwrap_or_default().lines().count();
        let until = Instant::now() + Duration::from_secs(20);
        while tries() < 2 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(tries(), 2);
        shutdown.cancel();
        task.await.unwrap();
    }
}
