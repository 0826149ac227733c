//! Amounts of resources: what a pod asks for, what a node has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kontiki_api::quantity::Quantity as Amount;

/// What a pod that asks for no CPU counts as when nodes are compared, in thousandths.
const DEFAULT_CPU_MILLI: i64 = 100;
/// The same for memory, in bytes.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// The quantities of a list by the name of the resource.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Amounts of each resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// CPU in thousandths.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Local storage in bytes.
    pub ephemeral_bytes: i64,
    /// Whatever else has a name.
    pub others: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list; what is no quantity counts as nothing. The number of pods is not a
    /// part of it.
    pub fn of(list: &ResourceList) -> Self {
        let mut all = Self::default();
        for (name, quantity) in list {
            let Ok(amount) = quantity.0.parse::<Amount>() else { continue };
            match name.as_str() {
                "cpu" => all.cpu_milli = amount.milli_value(),
                "memory" => all.memory_bytes = amount.value(),
                "ephemeral-storage" => all.ephemeral_bytes = amount.value(),
                "pods" => {}
                _ => {
                    all.others.insert(name.clone(), amount.value());
                }
            }
        }
        all
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes `other` away.
    pub fn sub(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// Whether any amount is less than in `other`.
    pub fn lacks_some_of(&self, other: &Self) -> bool {
        let named = |(name, amount): (&String, &i64)| {
            self.others.get(name).copied().unwrap_or_default() < *amount
        };
        self.cpu_milli < other.cpu_milli
            || self.memory_bytes < other.memory_bytes
            || self.ephemeral_bytes < other.ephemeral_bytes
            || other.others.iter().any(named)
    }

    fn at_least(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    fn merge(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu_milli = with(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = with(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.others {
            let own = self.others.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }

    /// With the defaults for CPU and memory where nothing is asked for.
    #[must_use]
    pub fn or_default(&self) -> Self {
        let or = |amount: i64, default: i64| if amount == 0 { default } else { amount };
        Self {
            cpu_milli: or(self.cpu_milli, DEFAULT_CPU_MILLI),
            memory_bytes: or(self.memory_bytes, DEFAULT_MEMORY_BYTES),
            ..self.clone()
        }
    }
}

/// What a pod asks for: the most that runs at the same time, with its overhead. Init containers run
/// one after another before the others; those that restart go on beside them.
pub fn requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut all = Resources::default();
    for container in &spec.containers {
        all.add(&of_container(pod, container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(pod, container);
        if container.restart_policy.as_deref() == Some("Always") {
            all.add(&own);
            sidecars.add(&own);
            starting.at_least(&sidecars);
        } else {
            let mut now = own;
            now.add(&sidecars);
            starting.at_least(&now);
        }
    }
    all.at_least(&starting);
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let whole_amounts = Resources::of(whole);
        if whole.contains_key("cpu") {
            all.cpu_milli = whole_amounts.cpu_milli;
        }
        if whole.contains_key("memory") {
            all.memory_bytes = whole_amounts.memory_bytes;
        }
    }
    if let Some(overhead) = &spec.overhead {
        all.add(&Resources::of(overhead));
    }
    all
}

/// What a container asks for, or what its node has given it where that is more: a pod that is
/// resized down has what it had until its node has taken it back, and one that its node can never
/// give more keeps what it has.
fn of_container(pod: &Pod, container: &Container) -> Resources {
    let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = asked.map(Resources::of).unwrap_or_default();
    let Some(status) = given(pod, &container.name) else { return asked };
    let actual = status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let mut all = actual.map(Resources::of).unwrap_or_default();
    all.at_least(&status.allocated_resources.as_ref().map(Resources::of).unwrap_or_default());
    if !is_infeasible(pod) {
        all.at_least(&asked);
    }
    all
}

/// What the node says of a container, where it says what that has.
fn given<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let main = status.container_statuses.iter().flatten();
    let all = main.chain(status.init_container_statuses.iter().flatten());
    all.filter(|status| status.resources.is_some()).find(|status| status.name == name)
}

fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "PodResizePending")
        .any(|condition| condition.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

    use super::*;

    fn list(pairs: &[(&str, &str)]) -> ResourceList {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Quantity((*text).to_owned())))
            .collect()
    }

    fn container(cpu: &str, restart: Option<&str>) -> Container {
        Container {
            resources: Some(ResourceRequirements {
                requests: Some(list(&[("cpu", cpu)])),
                ..ResourceRequirements::default()
            }),
            restart_policy: restart.map(str::to_owned),
            ..Container::default()
        }
    }

    fn cpu(containers: Vec<Container>, init: Vec<Container>) -> i64 {
        let spec = PodSpec { containers, init_containers: Some(init), ..PodSpec::default() };
        requests(&Pod { spec: Some(spec), ..Pod::default() }).cpu_milli
    }

    #[test]
    fn units_are_read() {
        let all = Resources::of(&list(&[
            ("cpu", "1500m"),
            ("memory", "1Gi"),
            ("pods", "110"),
            ("example.com/gpu", "2"),
            ("bad", "much"),
        ]));
        assert_eq!((all.cpu_milli, all.memory_bytes), (1500, 1 << 30));
        assert_eq!(all.others, BTreeMap::from([("example.com/gpu".to_owned(), 2)]));
    }

    #[test]
    fn a_pod_asks_for_the_most_that_runs_at_once() {
        assert_eq!(cpu(vec![container("1", None), container("2", None)], vec![]), 3000);
        assert_eq!(cpu(vec![container("1", None)], vec![container("5", None)]), 5000);
        let sidecar = || container("2", Some("Always"));
        assert_eq!(cpu(vec![container("1", None)], vec![sidecar()]), 3000);
        assert_eq!(cpu(vec![container("1", None)], vec![sidecar(), container("5", None)]), 7000);
        assert_eq!(cpu(vec![container("1", None)], vec![container("5", None), sidecar()]), 5000);
    }

    #[test]
    fn a_pod_counts_with_what_its_node_has_given_it_until_that_is_taken_back() {
        let asks = |asked: &str, allocated: &str, pending: Option<&str>| {
            let mut asking = container(asked, None);
            asking.name = "c".into();
            let conditions: Vec<_> = pending
                .map(|reason| serde_json::json!({ "type": "PodResizePending", "status": "True", "reason": reason }))
                .into_iter()
                .collect();
            let status = serde_json::json!({
                "conditions": conditions,
                "containerStatuses": [{
                    "name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                    "allocatedResources": { "cpu": allocated },
                    "resources": { "requests": { "cpu": "1" } },
                }],
            });
            let spec = PodSpec { containers: vec![asking], ..PodSpec::default() };
            let status = serde_json::from_value(status).unwrap();
            requests(&Pod { spec: Some(spec), status: Some(status), ..Pod::default() }).cpu_milli
        };
        assert_eq!(asks("500m", "500m", None), 1000, "not yet taken back");
        assert_eq!(asks("2", "1", Some("Deferred")), 2000, "kept for it");
        assert_eq!(asks("64", "1", Some("Infeasible")), 1000, "never given");
    }

    #[test]
    fn requests_of_the_whole_pod_stand_for_those_of_its_containers() {
        let spec = PodSpec {
            containers: vec![container("3", None)],
            resources: Some(ResourceRequirements {
                requests: Some(list(&[("cpu", "4")])),
                ..ResourceRequirements::default()
            }),
            overhead: Some(list(&[("cpu", "250m")])),
            ..PodSpec::default()
        };
        assert_eq!(requests(&Pod { spec: Some(spec), ..Pod::default() }).cpu_milli, 4250);
    }
}
