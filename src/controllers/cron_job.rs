//! CronJobs: a Job again and again, at the moments of a schedule.

pub mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Propagation};

use super::events::{self, EventRecorder};
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control::is_namespace_terminating;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// The annotation of a Job that says for which moment it was created.
pub const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Reconciles CronJobs.
pub struct CronJobs {
    client: Client,
    informer: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    own: OwnWrites<ObjectKey, CronJob>,
    own_jobs: OwnWrites<ObjectKey, Job>,
    events: EventRecorder,
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<CronJobs> {
    let informer = context.informers.of::<CronJob>();
    let jobs = context.informers.of::<Job>();
    let reconciler = CronJobs {
        client: context.client_of("cronjob-controller"),
        informer: Arc::clone(&informer),
        jobs: Arc::clone(&jobs),
        own: OwnWrites::new(Arc::clone(&informer)),
        own_jobs: OwnWrites::new(Arc::clone(&jobs)),
        events: events.of("cronjob-controller"),
    };
    Controller::new("cronjob", context, begin, reconciler)
        .watch(&informer, |cron| vec![ObjectKey::of(cron)])
        .watch(&jobs, |job| owners::controller_key::<CronJob>(&job.metadata).into_iter().collect())
}

#[async_trait]
impl Reconcile for CronJobs {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        self.own_jobs.seen(key).await?;
        let Some(cron) = self.informer.get(&key.namespace, &key.name) else {
            return Ok(Next::OnChange);
        };
        let uid = owners::uid(&cron.metadata);
        let all = self.jobs.list_in(&key.namespace).into_iter();
        let own: Vec<_> = all.filter(|job| owners::is_controlled_by(&job.metadata, uid)).collect();
        let plan = plan::plan(&cron, &own, Timestamp::now());
        for (kind, reason, message) in plan.news {
            self.events.record(events::reference(&*cron), kind, reason, message);
        }
        for job in plan.replace.iter().chain(&plan.forget) {
            self.delete(key, &cron, job).await?;
        }
        let mut status = plan.status;
        if let Some(at) = plan.create
            && let Some(job) = self.create(key, &cron, at).await?
        {
            plan::note_created(&mut status, &job, at);
        }
        self.write_status(key, &cron, status).await?;
        Ok(plan.again_after.into())
    }
}

/// The Job of a moment.
fn new_job(cron: &CronJob, at: Timestamp) -> Job {
    let template = cron.spec.as_ref().map(|spec| spec.job_template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let shown = plan::zone(cron)
        .map(|zone| at.to_zoned(zone))
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
        .unwrap_or_default();
    let shown = shown.strip_suffix("+00:00").map_or(shown.clone(), |utc| format!("{utc}Z"));
    annotations.insert(SCHEDULED_AT.to_owned(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(plan::job_name(cron, at)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

impl CronJobs {
    /// `None` where the namespace goes away. One that is there already is taken for the one wanted,
    /// if it is the CronJob's own.
    async fn create(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        at: Timestamp,
    ) -> Result<Option<Job>, ReconcileError> {
        let job = new_job(cron, at);
        let name = owners::name(&job.metadata).to_owned();
        let act = || format!("creating job {}/{name}", key.namespace);
        match self.client.create(&job).await {
            Ok(created) => {
                self.own_jobs.wrote(key, &created);
                self.events.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                Ok(Some(created))
            }
            Err(status) if is_namespace_terminating(&status) => Ok(None),
            Err(status) if status.is_already_exists() => {
                let there = self.client.get::<Job>(&key.namespace, &name).await.during(act)?;
                if owners::is_controlled_by(&there.metadata, owners::uid(&cron.metadata)) {
                    return Ok(Some(there));
                }
                Err(status).during(act)
            }
            Err(status) => {
                let message = format!("Error creating job: {}", status.message());
                self.events.warning(cron, "FailedCreate", message);
                Err(status).during(act)
            }
        }
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        job: &Job,
    ) -> Result<(), ReconcileError> {
        let name = owners::name(&job.metadata);
        let options =
            DeleteOptions::of_uid(owners::uid(&job.metadata)).propagate(Propagation::Background);
        match self.client.delete::<Job>(&key.namespace, name, &options).await {
            Ok(deleted) => {
                self.own_jobs.deleted(key, &deleted);
                self.events.normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => {
                let message = format!("Deleted job: {}", status.message());
                self.events.warning(cron, "FailedDelete", message);
                Err(status).during(|| format!("deleting job {}/{name}", key.namespace))
            }
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        status: CronJobStatus,
    ) -> Result<(), ReconcileError> {
        if cron.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let cron = CronJob { status: Some(status), ..cron.clone() };
        match self.client.update_status(&cron).await {
            Ok(written) => {
                self.own.wrote(key, &written);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status).during(|| format!("writing the status of cron job {key}")),
        }
    }
}

#[cfg(test)]
mod tests;
