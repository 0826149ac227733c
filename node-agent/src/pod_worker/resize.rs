//! A worker's part in resizing: it asks the node for what its pod wants, and gives it to containers.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::steps::Job;
use super::{RETRY, Worker};
use crate::allocations::Verdict;
use crate::api::uid;
use crate::cgroups::{self, Qos};
use crate::events::Kind;
use crate::plan::outcome::outcome;
use crate::plan::resize::Pending;
use crate::plan::{Failure, all_containers, definition, is_ending};
use crate::runtime::{ContainerState, Resources};

/// Between two looks whether there is room for a resize that waits.
const DEFERRED_LOOK: std::time::Duration = std::time::Duration::from_secs(2);

impl Worker {
    /// The pod with what the node promises it, and when to ask again for the rest.
    pub(super) async fn allocate(
        &mut self,
        asking: Pod,
        gone: bool,
        now: Timestamp,
    ) -> (Pod, Option<Timestamp>) {
        let context = Arc::clone(&self.context);
        let allocations = &context.allocations;
        if outcome(&asking, &self.observed, &self.memory.resize).is_some() {
            allocations.forget(uid(&asking)).await;
            return (asking, None);
        }
        if is_ending(&asking, gone) {
            return (allocations.promised(asking), None);
        }
        if !self.takes_in(&asking).await {
            return (asking, None);
        }
        let verdict = allocations.admit(&asking).await;
        let pod = allocations.promised(asking.clone());
        self.memory.resize.given = allocations.given(uid(&pod));
        let pending = match verdict {
            Verdict::Pending(pending) => Some(pending),
            Verdict::Promised => {
                self.memory.resize.failure = None;
                self.tell_resize(&pod, Kind::Normal, "ResizeStarted", "started", None);
                None
            }
            Verdict::Same => None,
        };
        if pending != self.memory.resize.pending {
            if let Some(pending) = &pending {
                self.tell_pending(&asking, pending);
            }
            self.memory.resize.pending = pending;
        }
        let is_deferred =
            self.memory.resize.pending.as_ref().is_some_and(|p| p.reason == "Deferred");
        (pod, is_deferred.then(|| now + DEFERRED_LOOK))
    }

    fn tell_pending(&self, pod: &Pod, pending: &Pending) {
        let Pending { reason, message } = pending;
        let event = format!("Resize{reason}");
        self.tell_resize(pod, Kind::Warning, &event, &reason.to_lowercase(), Some(message));
    }

    /// An event with what the containers shall have, for whoever reads events by program.
    fn tell_resize(&self, pod: &Pod, kind: Kind, reason: &str, verb: &str, why: Option<&str>) {
        let containers: Vec<_> = all_containers(pod)
            .map(|container| json!({ "name": container.name, "resources": container.resources }))
            .collect();
        let mut told = json!({ "containers": containers, "generation": pod.metadata.generation });
        if let Some(why) = why {
            told["error"] = why.into();
        }
        self.context.recorder.pod(pod, None, kind, reason, format!("Pod resize {verb}: {told}"));
    }

    pub(super) async fn note_resized(
        &mut self,
        pod: &Pod,
        name: &str,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        let Err(message) = result else {
            self.memory.resize.failure = None;
            return self.note_given(pod, name).await;
        };
        let text = format!("Error resizing container {name}: {message}");
        self.context.recorder.pod(pod, Some(name), Kind::Warning, "ResizeError", text);
        let retry_at = now + RETRY * 10;
        let reason = "Error".to_owned();
        self.memory.resize.failure = Some(Failure { reason, message, at: now, retry_at });
    }

    /// A container has what `pod` says.
    pub(super) async fn note_given(&mut self, pod: &Pod, name: &str) {
        let is_running = |name: &str| {
            self.observed.latest(name).is_some_and(|c| c.state == ContainerState::Running)
        };
        let was_in_progress = self.memory.resize.is_in_progress(pod, is_running);
        self.context.allocations.give(pod, name).await;
        self.memory.resize.given = self.context.allocations.given(uid(pod));
        if was_in_progress && !self.memory.resize.is_in_progress(pod, is_running) {
            self.tell_resize(pod, Kind::Normal, "ResizeCompleted", "completed", None);
        }
    }
}

/// Moves the bounds of a running container to what the pod says.
pub(super) async fn resize(job: &Job, id: &str, name: &str) -> Result<(), String> {
    let definition = definition(&job.pod, name).ok_or("the pod has no such container")?;
    let bounds = cgroups::resources(&definition, Qos::of(&job.pod), job.context.node.memory_bytes);
    check_memory(job, id, name, &bounds).await?;
    let runtime = &job.context.runtime;
    runtime.update_container(id, &bounds).await.map_err(|error| error.message)
}

/// Less memory than it uses would kill it at once.
async fn check_memory(job: &Job, id: &str, name: &str, bounds: &Resources) -> Result<(), String> {
    let Ok(limit) = u64::try_from(bounds.memory_limit_bytes) else { return Ok(()) };
    let used = job.context.runtime.memory_used(id).await.map_err(|error| error.message)?;
    match used {
        Some(used) if limit > 0 && used > limit => Err(format!(
            "attempting to set pod memory limits below current usage: container {name:?} would have \
             {limit} bytes and uses {used}"
        )),
        _ => Ok(()),
    }
}
