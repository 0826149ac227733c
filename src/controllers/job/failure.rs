//! What a failed pod means to its Job: counted or not, the end of its index or of the Job.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::controllers::{owners, pods};

/// How often an index has failed before this pod.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often it has failed without being counted.
pub const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What follows from the failure of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Count,
    /// It does not.
    Ignore,
    /// Its index is given up.
    FailIndex,
    /// The Job is given up; this is why.
    FailJob(String),
}

/// Whether a pod is only replaced once it has come to its end.
pub fn only_replaces_ended(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_failure_policy.is_some()
            || spec.pod_replacement_policy.as_deref() == Some("Failed")
    })
}

/// Whether a pod counts as failed: also one that is being deleted, unless the Job waits for its end.
pub fn is_failed(pod: &Pod, job: &Job) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pods::is_terminating(pod) && !only_replaces_ended(job),
    }
}

/// What the Job's pod failure policy says of a failed pod.
pub fn verdict(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    for (position, rule) in policy.iter().flat_map(|policy| policy.rules.iter().enumerate()) {
        if let Some(why) = matching(rule, pod) {
            return match rule.action.as_str() {
                "Ignore" => Verdict::Ignore,
                "FailIndex" => Verdict::FailIndex,
                "FailJob" => {
                    Verdict::FailJob(format!("{why} matching FailJob rule at index {position}"))
                }
                _ => Verdict::Count,
            };
        }
    }
    Verdict::Count
}

/// In which words the rule is met.
fn matching(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) = (owners::namespace(&pod.metadata), owners::name(&pod.metadata));
    if let Some(codes) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let all = [&status.container_statuses, &status.init_container_statuses];
        let mut containers = all.into_iter().flatten().flatten();
        let (container, code) =
            containers.find_map(|container| Some((container, exit_code(container, codes)?)))?;
        return Some(format!(
            "Container {} for pod {namespace}/{name} failed with exit code {code}",
            container.name
        ));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let pattern = patterns.iter().find(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
    })?;
    Some(format!("Pod {namespace}/{name} has condition {}", pattern.type_))
}

fn exit_code(
    container: &ContainerStatus,
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<i32> {
    if codes.container_name.as_ref().is_some_and(|name| *name != container.name) {
        return None;
    }
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let is_in = codes.values.contains(&code);
    let matches = if codes.operator == "In" { is_in } else { !is_in };
    (code != 0 && matches).then_some(code)
}

/// How often the pod's index has failed before it: counted, and not counted.
pub fn index_failures(pod: &Pod) -> (i32, i32) {
    let number = |name: &str| {
        let annotations = pod.metadata.annotations.as_ref()?;
        annotations.get(name)?.parse::<i32>().ok()
    };
    (number(INDEX_FAILURES).unwrap_or(0), number(INDEX_IGNORED).unwrap_or(0))
}

/// The same for the pod that takes the place of this failed one.
pub fn next_index_failures(job: &Job, pod: &Pod) -> (i32, i32) {
    let (counted, ignored) = index_failures(pod);
    match verdict(job, pod) {
        Verdict::Ignore => (counted, ignored + 1),
        _ => (counted + 1, ignored),
    }
}

/// Whether with this failed pod its index is given up.
pub fn ends_index(job: &Job, pod: &Pod, limit: i32) -> bool {
    match verdict(job, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        Verdict::Count | Verdict::FailJob(_) => index_failures(pod).0 >= limit,
    }
}

/// When a pod came to its end, as well as that can be told.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = statuses
        .filter_map(|container| {
            Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
        })
        .max();
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let unready = || Some(pods::condition(pod, "Ready")?.last_transition_time.as_ref()?.0);
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ended.or_else(unready).or_else(deleted).or_else(created)
}
