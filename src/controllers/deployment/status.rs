//! The status of a Deployment: counts, and the conditions that `kubectl rollout status` waits for.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::bounds::Bounds;
use super::scaling::{available, size, total};
use crate::controllers::owners;
use crate::controllers::share::nonzero;

/// The condition that says whether enough pods are available.
const AVAILABLE: &str = "Available";
/// The condition that says whether the rollout gets on.
pub const PROGRESSING: &str = "Progressing";
/// The condition that says that pods cannot be created or deleted.
const REPLICA_FAILURE: &str = "ReplicaFailure";
/// `Progressing` is done.
const DONE: &str = "NewReplicaSetAvailable";
/// `Progressing` has failed.
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// The deadline that means none.
const NO_DEADLINE: i32 = i32::MAX;

/// A condition as it is at `now`.
pub fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
    }
}

/// Sets a condition. One of the same status and reason stays as it was; one of the same status
/// keeps the time of its transition.
pub fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let all = status.conditions.get_or_insert_default();
    if let Some(position) = all.iter().position(|old| old.type_ == new.type_) {
        let old = &all[position];
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
        all.remove(position);
    }
    all.push(new);
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|condition| condition.type_ != kind);
    }
}

/// The condition of a type.
pub fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// The seconds after which a rollout without progress has failed, if there is such a deadline.
pub fn deadline_seconds(deployment: &Deployment) -> Option<i32> {
    let spec = deployment.spec.as_ref()?;
    Some(spec.progress_deadline_seconds.unwrap_or(600)).filter(|seconds| *seconds != NO_DEADLINE)
}

/// The counts, and the condition `Available`.
pub fn counts(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let all = || old.iter().chain(new);
    let bounds = Bounds::of(deployment);
    let have = total(all(), available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(total(all(), actual)),
        updated_replicas: nonzero(total(new, actual)),
        ready_replicas: nonzero(total(all(), ready)),
        available_replicas: nonzero(have),
        unavailable_replicas: nonzero((total(all(), size) - have).max(0)),
        terminating_replicas: terminating(all()),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let minimum = if have >= bounds.least() {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            now,
        )
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        )
    };
    set_condition(&mut status, minimum);
    status
}

/// The status during and after a rollout: the counts, and `Progressing` and `ReplicaFailure`.
pub fn rollout(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counts(deployment, new, old, now);
    let Some(deadline) = deadline_seconds(deployment) else {
        remove_condition(&mut status, PROGRESSING);
        return with_failure(status, new, old, now);
    };
    let current = find(&status, PROGRESSING).cloned();
    let was_done = current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(DONE));
    if was_done && status.replicas == status.updated_replicas {
        return with_failure(status, new, old, now);
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", owners::name(&set.metadata)),
        None => format!("Deployment \"{}\"", owners::name(&deployment.metadata)),
    };
    let before = deployment.status.clone().unwrap_or_default();
    if is_complete(deployment, &status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(&mut status, condition(PROGRESSING, "True", DONE, message, now));
    } else if has_progressed(&before, &status) {
        let message = format!("{subject} is progressing.");
        let mut progressing = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(current) = current.filter(|current| current.status == "True") {
            progressing.last_transition_time = current.last_transition_time;
        }
        // Removed first: its time of update must move even where nothing else does.
        remove_condition(&mut status, PROGRESSING);
        set_condition(&mut status, progressing);
    } else if has_timed_out(current.as_ref(), deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        set_condition(&mut status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
    }
    with_failure(status, new, old, now)
}

/// Carries over the condition `ReplicaFailure` of the new ReplicaSet, or of an old one.
fn with_failure(
    mut status: DeploymentStatus,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let failure = new.into_iter().chain(old).find_map(|set| {
        set.status
            .as_ref()?
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == REPLICA_FAILURE)
    });
    match failure {
        None => remove_condition(&mut status, REPLICA_FAILURE),
        Some(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            let message = failure.message.clone().unwrap_or_default();
            set_condition(
                &mut status,
                condition(REPLICA_FAILURE, &failure.status, &reason, message, now),
            );
        }
    }
    status
}

/// Whether all the pods wanted are of the new template and available, and no others exist.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Bounds::of(deployment).replicas;
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |of: Option<i32>| of.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || outdated(now) < outdated(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

fn has_timed_out(
    current: Option<&DeploymentCondition>,
    deadline_seconds: i32,
    now: Timestamp,
) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some(DONE) => false,
        Some(TIMED_OUT) => true,
        _ => current.last_update_time.as_ref().is_some_and(|updated| {
            now.duration_since(updated.0) > SignedDuration::from_secs(deadline_seconds.into())
        }),
    }
}

/// When a rollout that now stands still will have failed.
pub fn until_deadline(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline_seconds(deployment)?;
    let current = find(status, PROGRESSING)?;
    if matches!(current.reason.as_deref(), Some(DONE | TIMED_OUT)) {
        return None;
    }
    let updated = current.last_update_time.as_ref()?.0;
    let left = SignedDuration::from_secs(i64::from(deadline) + 1) - now.duration_since(updated);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO).max(Duration::from_secs(1)))
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

/// How many pods are being deleted, where all ReplicaSets say how many theirs are. One that was
/// never looked at has none.
fn terminating<'a>(sets: impl Iterator<Item = &'a ReplicaSet>) -> Option<i32> {
    sets.filter_map(|set| set.status.as_ref())
        .filter(|status| status.observed_generation.is_some())
        .map(|status| status.terminating_replicas)
        .sum()
}
