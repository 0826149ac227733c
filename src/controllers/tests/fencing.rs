//! What a controller still writes when its term has ended (invariant R9).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kontiki_storage::kv::{
    CompareTarget, Kv, KvError, Proposal, RangeRequest, RangeResponse, Revision, Term, TxnResponse,
    WatchRequest, Watcher,
};
use kontiki_storage::local::LocalKv;
use serde_json::json;

use super::cluster::Cluster;
use crate::leader_context::Settings;

/// Never reached.
const FOR_GOOD: u64 = u64::MAX;

/// A store whose term ends when the test says, or after so many pods were created under it.
struct Terms {
    store: LocalKv,
    term: AtomicU64,
    /// How many pods may still be created in this term.
    pods_left: AtomicU64,
    refused: AtomicU64,
}

impl Terms {
    fn new(pods_left: u64) -> Arc<Self> {
        Arc::new(Self {
            store: LocalKv::in_memory(),
            term: AtomicU64::new(1),
            pods_left: AtomicU64::new(pods_left),
            refused: AtomicU64::new(0),
        })
    }

    fn end(&self) {
        self.term.fetch_add(1, Ordering::SeqCst);
        self.pods_left.store(FOR_GOOD, Ordering::SeqCst);
    }

    fn creates_pod(proposal: &Proposal) -> bool {
        let missing = CompareTarget::ModRevision(Revision::ZERO);
        proposal.txn.compare.iter().any(|compare| {
            compare.range.start.starts_with(b"/registry/pods/") && compare.target == missing
        })
    }
}

#[async_trait]
impl Kv for Terms {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.store.range(request).await
    }

    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError> {
        if Self::creates_pod(&proposal) && self.pods_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.end();
        }
        let current = Term(self.term.load(Ordering::SeqCst));
        if let Some(term) = proposal.fence.filter(|term| *term != current) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(KvError::Fenced { term, current });
        }
        self.store.txn(Proposal { fence: None, ..proposal }).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        self.store.watch(request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.store.compact(revision).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }
}

fn three() -> ReplicaSet {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "web:1" }] },
            },
        },
    }))
    .unwrap()
}

async fn refused(cluster: &Cluster, terms: &Terms) {
    cluster
        .until("a write of the past term is refused", async || {
            (terms.refused.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_under_a_past_term_is_refused() {
    let terms = Terms::new(FOR_GOOD);
    let mut cluster =
        Cluster::over(Arc::clone(&terms) as Arc<dyn Kv>, &[], Settings::default()).await;
    terms.end();
    let late = cluster.client.fenced(Term(1));
    let map: ConfigMap = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "late", "namespace": "default" },
    }))
    .unwrap();
    assert!(late.create(&map).await.unwrap_err().is_fenced());
    cluster.create(&three()).await;
    refused(&cluster, &terms).await;
    assert!(cluster.list::<Pod>("default").await.is_empty());
    cluster.stop_leading().await;
    cluster.lead_in(Term(2));
    until_three(&cluster).await;
    cluster.stop().await;
}

/// The term ends after the first of the pods that one reconcile creates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_that_ends_between_two_writes_of_a_reconcile_leaves_the_rest_to_the_next() {
    let terms = Terms::new(1);
    let mut cluster =
        Cluster::over(Arc::clone(&terms) as Arc<dyn Kv>, &[], Settings::default()).await;
    cluster.create(&three()).await;
    refused(&cluster, &terms).await;
    assert_eq!(cluster.list::<Pod>("default").await.len(), 1, "only the first was in its term");
    cluster.stop_leading().await;
    cluster.lead_in(Term(2));
    until_three(&cluster).await;
    cluster
        .until("the nodes have seen them too", async || {
            (cluster.created.lock().len() >= 3).then_some(())
        })
        .await;
    assert_eq!(cluster.created.lock().len(), 3, "none was created twice");
    cluster.stop().await;
}

async fn until_three(cluster: &Cluster) {
    cluster
        .until("the next leader has made three", async || {
            let set = cluster.client.get::<ReplicaSet>("default", "web").await.ok()?;
            let pods = cluster.list::<Pod>("default").await.len();
            (set.status?.replicas == 3 && pods == 3).then_some(())
        })
        .await;
}
