//! [`NodeNetwork`]: what the agent of one node must know of the others to lead and to judge its pods'
//! packets: the way to each node's pods, and what network policies say of its own pods. Selectors are
//! resolved here, so that a node learns addresses, and nothing else of another node's pods.
//!
//! ```text
//! nodes, namespaces, pods, policies ──▶ does it matter? ──▶ one task ──▶ Told ──▶ every agent's question
//! ```
//!
//! What all nodes are told is worked out once for each change that matters to any of them
//! ([`changes`]), however many agents wait.

mod changes;
mod policies;
mod told;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::informer::{Change, Informer, Informers};
use crate::status::Status;

use policies::Policed;
use told::Told;

/// Longest wait for something to change before a call is answered as things are; agents give up on
/// a server that is silent for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Changes that come together are answered together.
const GATHERING: Duration = Duration::from_millis(50);
/// How long a server may take that has just begun to know anything.
const BEGINNING: Duration = Duration::from_secs(30);

/// What one node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeNetwork {
    /// Differs whenever anything else does.
    pub tag: String,
    /// The other nodes.
    pub nodes: Vec<OtherNode>,
    /// This node's pods that a policy selects.
    pub pods: Vec<Policed>,
}

/// Where another node's pods are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct OtherNode {
    /// The ranges of their addresses.
    pub ranges: Vec<String>,
    /// The node's own address.
    pub address: String,
}

/// Knows what every node must be told.
pub(crate) struct NodeNetworks {
    told: watch::Receiver<Option<Arc<Told>>>,
}

impl NodeNetworks {
    pub(crate) fn new(informers: &Informers) -> Self {
        let (changes, changed) = watch::channel(());
        let changes = Arc::new(changes);
        let sources = Sources {
            nodes: informers.of::<Node>(),
            namespaces: informers.of::<Namespace>(),
            pods: informers.of::<Pod>(),
            policies: informers.of::<NetworkPolicy>(),
        };
        let (policies, others) = (Arc::clone(&sources.policies), Arc::clone(&sources.policies));
        let follow = Follow { informers, changes };
        follow.matter(&sources.nodes, changes::of_node);
        follow.matter(&sources.policies, changes::of_policy);
        // Only policies look at pods and namespaces.
        follow.matter(&sources.pods, move |c| !policies.is_empty() && changes::of_pod(c));
        follow.matter(&sources.namespaces, move |c| !others.is_empty() && changes::of_namespace(c));
        let (tell, told) = watch::channel(None);
        informers.attend(|stop| async move {
            stop.run_until_cancelled(keep(sources, changed, tell)).await;
        });
        Self { told }
    }

    /// What a node is told, once it is something else than what had the tag `after`, or after a while.
    pub(crate) async fn of(&self, node: &str, after: &str) -> Result<NodeNetwork, Status> {
        let mut told = self.told.clone();
        let begun = tokio::time::timeout(BEGINNING, told.wait_for(Option::is_some));
        // What it gives holds a lock: it ends with the line.
        let is_known = matches!(begun.await, Ok(Ok(_)));
        if !is_known {
            return Err(Status::unavailable("the network is not known yet"));
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = told.borrow_and_update().clone();
            let now = now.ok_or_else(|| Status::internal("what was known is not any more"))?;
            if now.tag(node) != after {
                return Ok(now.of(node));
            }
            // The sender lives in the informers' tasks; when they end, the server does.
            let change = tokio::time::timeout_at(until, told.changed()).await;
            if !matches!(change, Ok(Ok(()))) {
                return Ok(now.of(node));
            }
        }
    }
}

/// What it is worked out from.
struct Sources {
    nodes: Arc<Informer<Node>>,
    namespaces: Arc<Informer<Namespace>>,
    pods: Arc<Informer<Pod>>,
    policies: Arc<Informer<NetworkPolicy>>,
}

/// Works out what nodes are told, again after every change that matters.
async fn keep(
    sources: Sources,
    mut changed: watch::Receiver<()>,
    tell: watch::Sender<Option<Arc<Told>>>,
) {
    let Sources { nodes, namespaces, pods, policies } = sources;
    nodes.synced().await;
    namespaces.synced().await;
    pods.synced().await;
    policies.synced().await;
    loop {
        changed.mark_unchanged();
        let (nodes, policies) = (nodes.list(), policies.list());
        let (pods, namespaces) = if policies.is_empty() {
            (Vec::new(), Vec::new())
        } else {
            (pods.list(), namespaces.list())
        };
        let working = move || Told::new(&nodes, &pods, &namespaces, &policies);
        if let Ok(told) = tokio::task::spawn_blocking(working).await {
            // Nobody is woken by what says the same.
            tell.send_if_modified(|last| {
                let is_news = last.as_ref().is_none_or(|last| !last.is_as(&told));
                if is_news {
                    *last = Some(Arc::new(told));
                }
                is_news
            });
        }
        if changed.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHERING).await;
    }
}

/// Hears of changes.
struct Follow<'a> {
    informers: &'a Informers,
    changes: Arc<watch::Sender<()>>,
}

impl Follow<'_> {
    /// Has changes told that matter, until the server stops.
    fn matter<T: Send + Sync + 'static>(
        &self,
        informer: &Informer<T>,
        matters: impl Fn(&Change<T>) -> bool + Send + 'static,
    ) {
        // Subscribed at once: what changes after the lists are read is told.
        let (events, changes) = (informer.subscribe(), Arc::clone(&self.changes));
        self.informers.attend(|stop| follow(events, matters, changes, stop));
    }
}

async fn follow<T: Send + Sync + 'static>(
    mut events: mpsc::Receiver<Change<T>>,
    matters: impl Fn(&Change<T>) -> bool + Send + 'static,
    changes: Arc<watch::Sender<()>>,
    stop: CancellationToken,
) {
    while let Some(Some(change)) = stop.run_until_cancelled(events.recv()).await {
        if matters(&change) {
            changes.send_replace(());
        }
    }
}
