//! What a pod asks for of a resource: the most that runs at the same time. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::plan::{is_sidecar, main_containers};

/// Reads a quantity, such as `quantity::milli`.
type Read = fn(&Quantity) -> Option<i64>;

/// Chooses requests or limits.
type Bound = fn(&ResourceRequirements) -> Option<&BTreeMap<String, Quantity>>;

/// What a pod asks for of the resource `name`.
pub(crate) fn of_pod(pod: &Pod, name: &str, read: Read) -> i64 {
    most(pod, name, read, |own| own.requests.as_ref())
}

/// What a pod may have of it at most, by those of its containers that say so.
pub(crate) fn limit_of_pod(pod: &Pod, name: &str, read: Read) -> i64 {
    most(pod, name, read, |own| own.limits.as_ref())
}

fn most(pod: &Pod, name: &str, read: Read, bound: Bound) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let amount = |list: Option<&BTreeMap<String, Quantity>>| {
        list.and_then(|list| list.get(name)).and_then(read)
    };
    let overhead = amount(spec.overhead.as_ref()).unwrap_or(0);
    let whole = amount(spec.resources.as_ref().and_then(bound));
    if let Some(whole) = whole {
        return whole.saturating_add(overhead);
    }
    let of =
        |container: &Container| amount(container.resources.as_ref().and_then(bound)).unwrap_or(0);
    let main = main_containers(pod).map(of).fold(0, i64::saturating_add);
    let (mut sidecars, mut starting) = (0_i64, 0_i64);
    for container in spec.init_containers.iter().flatten() {
        let now = sidecars.saturating_add(of(container));
        starting = starting.max(now);
        if is_sidecar(container) {
            sidecars = now;
        }
    }
    main.saturating_add(sidecars).max(starting).saturating_add(overhead)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::quantity;

    #[test]
    fn a_pod_asks_for_the_most_that_runs_at_once() {
        let of = |cpu: &str| json!({ "name": cpu, "resources": { "requests": { "cpu": cpu } } });
        let mut sidecar = of("1");
        sidecar["restartPolicy"] = json!("Always");
        let mut pod: Pod = serde_json::from_value(json!({ "spec": {
            "initContainers": [sidecar, of("4")], "containers": [of("2")],
            "overhead": { "cpu": "250m" },
        }}))
        .unwrap();
        assert_eq!(of_pod(&pod, "cpu", quantity::milli), 5250);
        assert_eq!(of_pod(&pod, "memory", quantity::whole), 0);
        let whole = json!({ "requests": { "cpu": "3" } });
        pod.spec.as_mut().unwrap().resources = Some(serde_json::from_value(whole).unwrap());
        assert_eq!(of_pod(&pod, "cpu", quantity::milli), 3250);
    }
}
