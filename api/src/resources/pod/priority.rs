//! Which pods give way to which: the number behind a priority class.

use serde_json::Value;

use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::Registry;
use crate::status::Status;

const BUILT_IN: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREEMPT: &str = "PreemptLowerPriority";

/// Gives a pod the number and the policy of its class; without a class, those of an ordinary pod.
pub async fn admit(
    ctx: &RequestContext,
    registry: &Registry,
    pod: &mut Object,
) -> Result<(), Status> {
    let class = pod.str_at("/spec/priorityClassName").to_owned();
    let (priority, policy) = if class.is_empty() {
        (0, PREEMPT.to_owned())
    } else if let Some((_, priority)) = BUILT_IN.iter().find(|(name, _)| *name == class) {
        (*priority, PREEMPT.to_owned())
    } else {
        of_class(ctx, registry, pod, &class).await?
    };
    if let Some(said) = pod.i64_at("/spec/priority").filter(|said| *said != priority) {
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority \
             admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(refusal(pod, why));
    }
    pod.set(&["spec", "priority"], priority);
    pod.set_default(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

async fn of_class(
    ctx: &RequestContext,
    registry: &Registry,
    pod: &Object,
    class: &str,
) -> Result<(i64, String), Status> {
    let missing = || refusal(pod, format!("no PriorityClass with name {class} was found"));
    let kind =
        registry.scheme().kind("scheduling.k8s.io", "v1", "PriorityClass").ok_or_else(missing)?;
    let found = registry.get(ctx, kind, "", class).await;
    let found = found.map_err(|error| if error.is_not_found() { missing() } else { error })?;
    let policy = found.at("/preemptionPolicy").and_then(Value::as_str).unwrap_or(PREEMPT);
    Ok((found.i64_at("/value").unwrap_or(0), policy.to_owned()))
}

fn refusal(pod: &Object, why: String) -> Status {
    Status::forbidden("", "pods", pod.name(), why)
}
