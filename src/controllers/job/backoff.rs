//! How long a Job waits before it creates pods again after some have failed: ten seconds, then twice
//! as long each time, up to ten minutes. It follows from the pods that are there, so a new leader
//! waits as long as the old one would have.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::failure;
use crate::controllers::pods;

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_mins(10);

/// How long to wait still after the failures since the last success.
pub fn left(job: &Job, all: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let ended = |pods: &mut dyn Iterator<Item = &Arc<Pod>>| -> Vec<Timestamp> {
        pods.filter_map(|pod| failure::ended_at(pod)).collect()
    };
    let succeeded = ended(&mut all.iter().filter(|pod| pods::phase(pod) == "Succeeded"));
    let last_success = succeeded.into_iter().max();
    let counts = |pod: &&Arc<Pod>| {
        failure::is_failed(pod, job) && failure::verdict(job, pod) != failure::Verdict::Ignore
    };
    let mut failures = ended(&mut all.iter().filter(counts));
    failures.retain(|at| last_success.is_none_or(|success| *at > success));
    let last = failures.iter().max()?;
    after(failures.len(), *last, now)
}

/// How long to wait still, `failures` having happened and the last one at `last`.
pub fn after(failures: usize, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).unwrap_or(u32::MAX).min(10);
    let wait = FIRST.saturating_mul(1 << doublings).min(MAX);
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    Duration::try_from(wait - now.duration_since(last)).ok().filter(|left| !left.is_zero())
}
