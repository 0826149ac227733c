//! Jobs: pods that run to an end, counted once each.
//!
//! ```text
//!   plan() ──► create, delete pods ──► status with uids ──► finalizers off ──► settle(): counts ──► end()
//! ```
//!
//! Each arrow may be the last thing a leader does; its successor goes on from what is stored.

pub mod backoff;
pub mod failure;
pub mod indexes;
mod make;
pub mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::status::Status;
use serde_json::json;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::PodControl;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use super::share::{count_i32, nonzero};
use super::{labels, pods};
use crate::leader_context::LeaderContext;
use plan::{Plan, TRACKING};

const ACCOUNT: &str = "job-controller";
/// Who is named in `managedBy` where it is this controller.
const OURSELVES: &str = "kubernetes.io/job-controller";
/// How many finalizers are taken off at the same time.
const RELEASES_AT_ONCE: usize = 16;

/// Reconciles Jobs.
pub struct Jobs {
    client: Client,
    informer: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    control: PodControl,
    own: OwnWrites<ObjectKey, Job>,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64, events: &EventRecorder) -> Controller<Jobs> {
    let jobs = context.informers.of::<Job>();
    let pods = context.informers.of::<Pod>();
    pods::index_by_controller(&pods);
    let client = context.client_of(ACCOUNT);
    let events = events.of(ACCOUNT);
    let reconciler = Jobs {
        client: client.clone(),
        informer: Arc::clone(&jobs),
        pods: Arc::clone(&pods),
        control: PodControl::new(client, &pods, events.clone()),
        own: OwnWrites::new(Arc::clone(&jobs)),
        events,
    };
    let all = Arc::clone(&jobs);
    Controller::new("job", context, begin, reconciler)
        .watch(&jobs, |job| vec![ObjectKey::of(job)])
        .watch_changes(&pods, move |seen| {
            owners::concerned::<Job, Pod>(seen.old, seen.new, |orphan| adopters(&all, orphan))
        })
}

fn adopters(jobs: &Informer<Job>, orphan: &Pod) -> Vec<ObjectKey> {
    let selects = |job: &Arc<Job>| labels::matches(&selector(job), orphan.metadata.labels.as_ref());
    let jobs = jobs.list_in(owners::namespace(&orphan.metadata)).into_iter().filter(selects);
    jobs.map(|job| ObjectKey::of(&*job)).collect()
}

/// The Job's selector; one that selects nothing where it has none.
fn selector(job: &Job) -> LabelSelector {
    let nothing = || LabelSelector {
        match_labels: Some([(TRACKING.to_owned(), String::new())].into()),
        match_expressions: None,
    };
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone());
    selector.filter(|selector| !labels::is_empty(selector)).unwrap_or_else(nothing)
}

#[async_trait]
impl Reconcile for Jobs {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        self.control.seen(key).await?;
        let all = pods::claimable::<Job>(&self.pods, key);
        let job = self.informer.get(&key.namespace, &key.name);
        let strays: Vec<_> = all.iter().filter(|pod| is_stray(key, job.as_deref(), pod)).collect();
        self.release(key, strays).await?;
        let Some(job) = job else { return Ok(Next::OnChange) };
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if plan::ended(&job).is_some() || manager.is_some_and(|manager| manager != OURSELVES) {
            return Ok(Next::OnChange);
        }
        let claimed = self.control.claim(key, &*job, &selector(&job), all).await?;
        let own = self.track(key, claimed).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&job, &own, now);
        let again = plan.again_after;
        self.carry_out(key, &job, &own, plan).await?;
        Ok(again.into())
    }
}

/// Whether a pod waits in vain to be counted: its Job is gone, has ended, or is no longer its own.
fn is_stray(key: &ObjectKey, job: Option<&Job>, pod: &Pod) -> bool {
    if !plan::is_tracked(pod) {
        return false;
    }
    let Some(owner) = owners::controller_of(&pod.metadata) else {
        return !job
            .is_some_and(|job| labels::matches(&selector(job), pod.metadata.labels.as_ref()));
    };
    if owners::controller_key::<Job>(&pod.metadata).as_ref() != Some(key) {
        return false;
    }
    job.is_none_or(|job| owner.uid != owners::uid(&job.metadata) || plan::ended(job).is_some())
}

impl Jobs {
    /// Sees to it that all pods that have not ended are counted when they have: an adopted one may
    /// lack the finalizer.
    async fn track(
        &self,
        key: &ObjectKey,
        own: Vec<Arc<Pod>>,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let mut tracked = Vec::with_capacity(own.len());
        for pod in own {
            if !pods::is_active(&pod) || plan::is_tracked(&pod) {
                tracked.push(pod);
                continue;
            }
            let patch =
                json!({ "metadata": { "uid": pod.metadata.uid, "finalizers": [TRACKING] } });
            let patched = self.control.patch(key, &pod, patch).await;
            tracked.extend(patched.during(|| format!("tracking a pod of job {key}"))?);
        }
        Ok(tracked)
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        job: &Job,
        own: &[Arc<Pod>],
        plan: Plan,
    ) -> Result<(), ReconcileError> {
        let Plan { delete, create, release, mut status, end, is_whole, rests, .. } = plan;
        let deleted = self.control.delete_all(key, job, &delete).await;
        let wanted: Vec<Pod> = create.iter().map(|pod| make::pod(job, *pod)).collect();
        let created = self.control.create_all(key, job, &wanted).await;
        let is_still = delete.is_empty() && created.pods.is_empty();
        let active: Vec<&Arc<Pod>> = own
            .iter()
            .filter(|pod| pods::is_active(pod))
            .filter(|pod| deleted.is_err() || !delete.iter().any(|one| Arc::ptr_eq(one, pod)))
            .collect();
        let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
        status.active = nonzero(count_i32(active.len() + created.pods.len()));
        status.ready = Some(count_i32(ready));
        let job = self.write_status(key, job, status.clone()).await?;
        self.tell_of_rest(&job, rests);

        let mut tracked: BTreeSet<String> = own
            .iter()
            .filter(|pod| plan::is_tracked(pod))
            .map(|pod| owners::uid(&pod.metadata).to_owned())
            .collect();
        self.release(key, release.iter().collect()).await?;
        for pod in &release {
            tracked.remove(owners::uid(&pod.metadata));
        }
        plan::settle(&mut status, &tracked);
        let end = end.filter(|_| is_still && is_whole);
        let ended = end.filter(|end| plan::end(&mut status, end, Timestamp::now()));
        self.write_status(key, &job, status).await?;
        if let Some(condition) = ended {
            self.tell_of_end(&job, &condition);
        }
        let failed = |status: Status| Err(status);
        deleted
            .and(created.refused.map_or(Ok(()), failed))
            .during(|| format!("creating and deleting the pods of job {key}"))
    }

    /// Takes the finalizer off pods that are counted, or need not be.
    async fn release(&self, key: &ObjectKey, pods: Vec<&Arc<Pod>>) -> Result<(), ReconcileError> {
        let patches: Vec<_> = pods
            .into_iter()
            .map(|pod| async move {
                let patch = json!({ "metadata": {
                    "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING],
                } });
                self.control.patch(key, pod, patch).await
            })
            .collect();
        let outcomes: Vec<_> =
            stream::iter(patches).buffer_unordered(RELEASES_AT_ONCE).collect().await;
        let all: Result<Vec<_>, Status> = outcomes.into_iter().collect();
        all.map(drop).during(|| format!("letting go pods of job {key}"))
    }

    fn tell_of_rest(&self, job: &Job, rests: Option<bool>) {
        match rests {
            Some(true) => self.events.normal(job, "Suspended", "Job suspended"),
            Some(false) => self.events.normal(job, "Resumed", "Job resumed"),
            None => {}
        }
    }

    fn tell_of_end(&self, job: &Job, condition: &JobCondition) {
        if condition.type_ == "Complete" {
            return self.events.normal(job, "Completed", "Job completed");
        }
        let message = condition.message.clone().unwrap_or_default();
        // Reasons of failed Jobs are few and known.
        let reason = match condition.reason.as_deref() {
            Some("PodFailurePolicy") => "PodFailurePolicy",
            Some("DeadlineExceeded") => "DeadlineExceeded",
            Some("MaxFailedIndexesExceeded") => "MaxFailedIndexesExceeded",
            Some("FailedIndexes") => "FailedIndexes",
            _ => "BackoffLimitExceeded",
        };
        self.events.warning(job, reason, message);
    }

    /// Writes the status, if nobody has written the Job since it was read.
    async fn write_status(
        &self,
        key: &ObjectKey,
        job: &Job,
        status: JobStatus,
    ) -> Result<Job, ReconcileError> {
        if job.status.as_ref() == Some(&status) {
            return Ok(job.clone());
        }
        let job = Job { status: Some(status), ..job.clone() };
        match self.client.update_status(&job).await {
            Ok(written) => {
                self.own.wrote(key, &written);
                Ok(written)
            }
            Err(status) if status.is_not_found() => Ok(job),
            Err(status) => Err(status).during(|| format!("writing the status of job {key}")),
        }
    }
}

#[cfg(test)]
mod tests;
