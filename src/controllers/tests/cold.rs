//! A leader whose list of some kind is still being read when its term begins.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kontiki_api::registry::options::{Part, Patch};
use kontiki_storage::kv::{
    Kv, KvError, Proposal, RangeRequest, RangeResponse, Revision, TxnResponse, WatchRequest,
    Watcher,
};
use kontiki_storage::local::LocalKv;
use serde_json::json;
use tokio::sync::watch;

use super::cluster::Cluster;
use crate::leader_context::Settings;

/// How long the leader has for a wrong decision.
const TEMPTATION: Duration = Duration::from_millis(500);

/// A store that does not answer about Jobs until it is told to.
struct Reluctant {
    store: Arc<LocalKv>,
    answers: watch::Sender<bool>,
}

#[async_trait]
impl Kv for Reluctant {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        if request.range.start.starts_with(b"/registry/jobs/") {
            self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
        }
        self.store.range(request).await
    }

    async fn txn(&self, proposal: Proposal) -> Result<TxnResponse, KvError> {
        self.store.txn(proposal).await
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

/// Found by conformance under kills: a CronJob's three Jobs ran, and its status knew of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_a_new_leader_has_not_yet_read_are_not_taken_for_gone() {
    let store = Arc::new(LocalKv::in_memory());
    let active = async |cluster: &Cluster| {
        let cron = cluster.client.get::<CronJob>("default", "tick").await.ok()?;
        cron.status?.active.filter(|active| active.len() == 1)
    };
    let cluster = Cluster::over(Arc::clone(&store) as _, &["n1"], Settings::default()).await;
    let cron: CronJob = serde_json::from_value(json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": "tick", "namespace": "default" },
        "spec": {
            "schedule": "@yearly",
            "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "main", "image": "work:1" }],
            } } } },
        },
    }))
    .unwrap();
    cluster.create(&cron).await;
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 366);
    let status = Patch::Merge(json!({ "status": { "lastScheduleTime": Time(long_ago) } }));
    cluster.client.patch::<CronJob>("default", "tick", Part::Status, &status).await.unwrap();
    let known = cluster.until("its job is noted", async || active(&cluster).await).await;
    cluster.stop().await;

    let answers = watch::Sender::new(false);
    let reluctant = Arc::new(Reluctant { store, answers });
    let cluster = Cluster::over(Arc::clone(&reluctant) as _, &[], Settings::default()).await;
    tokio::time::sleep(TEMPTATION).await;
    reluctant.answers.send_replace(true);
    tokio::time::sleep(TEMPTATION).await;
    assert_eq!(active(&cluster).await, Some(known));
    cluster.stop().await;
}
