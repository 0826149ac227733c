//! Deletes Jobs some time after they have ended, where they say when.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Propagation};

use super::job::plan::ended;
use super::owners::{self, ObjectKey};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// Deletes Jobs whose time is over.
pub struct TtlAfterFinished {
    client: Client,
    jobs: Arc<Informer<Job>>,
}

/// What to do with a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It stays: it has not ended, or never goes by itself.
    Keep,
    /// Its time is not over yet.
    Wait(Duration),
    /// It goes.
    Delete,
}

/// Decides.
pub fn plan(job: &Job, now: Timestamp) -> Step {
    let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let since = ended(job).and_then(|condition| condition.last_transition_time.as_ref());
    let (Some(ttl), Some(since)) = (ttl, since) else { return Step::Keep };
    if job.metadata.deletion_timestamp.is_some() {
        return Step::Keep;
    }
    let left = SignedDuration::from_secs(ttl.into()) - now.duration_since(since.0);
    Duration::try_from(left).ok().filter(|left| !left.is_zero()).map_or(Step::Delete, Step::Wait)
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<TtlAfterFinished> {
    let jobs = context.informers.of::<Job>();
    let client = context.client_of("ttl-after-finished-controller");
    let reconciler = TtlAfterFinished { client, jobs: Arc::clone(&jobs) };
    Controller::new("ttl-after-finished", context, begin, reconciler)
        .watch(&jobs, |job| vec![ObjectKey::of(job)])
}

#[async_trait]
impl Reconcile for TtlAfterFinished {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        match plan(&job, Timestamp::now()) {
            Step::Keep => Ok(Next::OnChange),
            Step::Wait(left) => Ok(Next::After(left)),
            Step::Delete => self.delete(key, &job).await.map(|()| Next::OnChange),
        }
    }
}

impl TtlAfterFinished {
    /// Deletes the Job as it was looked at: one whose time was prolonged meanwhile stays.
    async fn delete(&self, key: &ObjectKey, job: &Job) -> Result<(), ReconcileError> {
        let options = DeleteOptions {
            resource_version: job.metadata.resource_version.clone(),
            ..DeleteOptions::of_uid(owners::uid(&job.metadata)).propagate(Propagation::Foreground)
        };
        match self.client.delete::<Job>(&key.namespace, &key.name, &options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => {
                Err(status).during(|| format!("deleting job {key}, whose time is over"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_goes_when_its_time_after_the_end_is_over() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let job = |ttl: Option<i32>, ended: bool| -> Job {
            let condition = json!([{
                "type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]);
            serde_json::from_value(json!({
                "metadata": { "name": "j" },
                "spec": { "ttlSecondsAfterFinished": ttl, "template": {} },
                "status": { "conditions": if ended { condition } else { json!([]) } },
            }))
            .unwrap()
        };
        assert_eq!(plan(&job(None, true), now), Step::Keep);
        assert_eq!(plan(&job(Some(0), false), now), Step::Keep);
        assert_eq!(plan(&job(Some(0), true), now), Step::Delete);
        assert_eq!(plan(&job(Some(60), true), now), Step::Delete);
        assert_eq!(plan(&job(Some(90), true), now), Step::Wait(Duration::from_secs(30)));
    }
}
