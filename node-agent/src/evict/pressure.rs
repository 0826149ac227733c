//! What the node is under, for whoever tells of it or takes pods in.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Taint};
use parking_lot::RwLock;

use super::rank::is_critical;
use super::signal::Condition;
use crate::admit::Refusal;
use crate::cgroups::Qos;
use crate::fit::taints::tolerates;

/// The taint of a node that is short of memory.
const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// What a node is under now.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<RwLock<BTreeSet<Condition>>>);

impl Pressure {
    /// From now on this.
    pub fn set(&self, conditions: BTreeSet<Condition>) {
        *self.0.write() = conditions;
    }

    /// All there is.
    pub fn now(&self) -> BTreeSet<Condition> {
        self.0.read().clone()
    }

    /// Why a pod is not taken in, if it is not.
    pub fn refusal(&self, pod: &Pod) -> Option<Refusal> {
        refusal(pod, &self.0.read())
    }
}

/// A node short of memory takes no pod in that asked for none, unless it tolerates that; one short of
/// anything else takes in none but those it could not do without.
fn refusal(pod: &Pod, under: &BTreeSet<Condition>) -> Option<Refusal> {
    if under.is_empty() || is_critical(pod) {
        return None;
    }
    if under.iter().eq([&Condition::Memory])
        && (Qos::of(pod) != Qos::BestEffort || tolerates_memory_pressure(pod))
    {
        return None;
    }
    let names: Vec<_> = under.iter().map(|condition| condition.name()).collect();
    Some(Refusal::of("Evicted", &format!("The node had condition: [{}]. ", names.join(" "))))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let taint =
        Taint { key: MEMORY_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    tolerates(pod, &taint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn taken_in(under: &[Condition], more: &Value) -> Result<(), String> {
        let mut spec = json!({ "containers": [{ "name": "c" }] });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        refusal(&pod, &under.iter().copied().collect()).map_or(Ok(()), |why| Err(why.message))
    }

    #[test]
    fn a_node_short_of_memory_refuses_those_that_asked_for_none() {
        let memory = [Condition::Memory];
        let why = "Pod was rejected: The node had condition: [MemoryPressure]. ";
        assert_eq!(taken_in(&memory, &json!({})), Err(why.into()));
        assert_eq!(taken_in(&[], &json!({})), Ok(()));
        let asks = json!({ "containers": [
            { "name": "c", "resources": { "requests": { "memory": "1Mi" } } },
        ]});
        assert_eq!(taken_in(&memory, &asks), Ok(()));
        let tolerates = |toleration: Value| json!({ "tolerations": [toleration] });
        for (toleration, expected) in [
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": MEMORY_TAINT, "operator": "Exists", "effect": "NoSchedule" }), true),
            (json!({ "key": MEMORY_TAINT, "effect": "NoExecute" }), false),
            (json!({ "key": MEMORY_TAINT, "operator": "Equal", "value": "x" }), false),
            (json!({ "key": "node.kubernetes.io/disk-pressure", "operator": "Exists" }), false),
        ] {
            assert_eq!(
                taken_in(&memory, &tolerates(toleration.clone())).is_ok(),
                expected,
                "{toleration}"
            );
        }
    }

    #[test]
    fn a_node_short_of_disk_refuses_all_but_the_critical() {
        let both = [Condition::Memory, Condition::Disk];
        let asks = json!({ "containers": [
            { "name": "c", "resources": { "requests": { "memory": "1Mi" } } },
        ]});
        let why = "Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. ";
        assert_eq!(taken_in(&both, &asks), Err(why.into()));
        assert!(taken_in(&[Condition::Disk], &asks).is_err());
        assert!(taken_in(&[Condition::Pid], &asks).is_err());
        assert_eq!(taken_in(&both, &json!({ "priority": 2_000_000_000 })), Ok(()));
    }
}
