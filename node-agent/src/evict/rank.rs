//! Which pod goes first, and what is said of it. Pure.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::signal::{Observations, Resource};
use super::threshold::Threshold;
use crate::plan::all_containers;
use crate::static_pods::{MIRROR, annotation, is_static};
use crate::{quantity, requests};

/// From this priority on a pod is the system's own.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of memory that cannot be given back.
    pub memory: i64,
    /// Bytes on the disk that is short.
    pub disk: i64,
    /// Files there.
    pub inodes: i64,
    /// Processes.
    pub processes: i64,
    /// Its containers.
    pub containers: Vec<ContainerFigures>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFigures {
    /// Its name.
    pub name: String,
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Bytes of its own layer and its log.
    pub disk: Option<i64>,
}

/// A pod that may have to go.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it uses; none where nobody knows, which is suspicious.
    pub figures: Option<Figures>,
}

/// True for pods without which the node, or the cluster, does not work: they are never ended.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || annotation(pod, MIRROR).is_some() || priority(pod) >= SYSTEM_CRITICAL
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// The pods in the order in which they must go: first those that use more than they asked for, then
/// by priority, then by how much more they use. For process ids only the last two count.
pub fn rank(resource: Resource, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let exceeds = |one: &Candidate| over(resource, one).is_none_or(|over| over > 0);
    candidates.sort_by(|a, b| {
        let is_unseen = |one: &Candidate| one.figures.is_none();
        let by_requests = match resource {
            Resource::Pids => Ordering::Equal,
            _ => (is_unseen(b), exceeds(b)).cmp(&(is_unseen(a), exceeds(a))),
        };
        let most_first = |one: &Candidate| Reverse(over(resource, one).unwrap_or(i64::MAX));
        by_requests
            .then_with(|| priority(&a.pod).cmp(&priority(&b.pod)))
            .then_with(|| most_first(a).cmp(&most_first(b)))
    });
    candidates
}

/// How much more a pod uses than it asked for.
fn over(resource: Resource, one: &Candidate) -> Option<i64> {
    let figures = one.figures.as_ref()?;
    let asked = |name: &str| requests::of_pod(&one.pod, name, quantity::whole);
    Some(match resource {
        Resource::Memory => figures.memory.saturating_sub(asked("memory")),
        Resource::EphemeralStorage => figures.disk.saturating_sub(asked("ephemeral-storage")),
        Resource::Inodes => figures.inodes,
        Resource::Pids => figures.processes,
    })
}

/// Why this pod is ended, in the kubelet's words (each sentence ends with a blank, as there).
pub fn message(
    resource: Resource,
    one: &Candidate,
    due: &[&Threshold],
    seen: &Observations,
) -> String {
    let name = resource.name();
    let mut text = format!("The node was low on resource: {name}. ");
    let met = due.iter().find(|threshold| threshold.signal.resource() == resource);
    if let Some((threshold, seen)) = met.and_then(|met| Some((met, seen.get(&met.signal)?))) {
        let least = threshold.shown(seen.capacity);
        let left = threshold.signal.shown(seen.available);
        text += &format!("Threshold quantity: {least}, available: {left}. ");
    }
    let Some(figures) = &one.figures else { return text };
    let whole = one.pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let whole = whole.and_then(|own| own.requests.as_ref()?.get(name));
    if let Some(request) = whole.filter(|_| resource == Resource::Memory) {
        let (pod, used) = (crate::api::name(&one.pod), quantity::binary(figures.memory));
        let request = &request.0;
        text += &format!(
            "Pod {pod} was using {used}, request is {request}, has larger consumption of {name}. "
        );
    }
    for container in &figures.containers {
        let Some(definition) = all_containers(&one.pod).find(|c| c.name == container.name) else {
            continue;
        };
        let requests = definition.resources.as_ref().and_then(|own| own.requests.as_ref());
        let request = requests.and_then(|requests| requests.get(name));
        let used = match resource {
            Resource::Memory => container.memory,
            Resource::EphemeralStorage => container.disk,
            Resource::Inodes | Resource::Pids => None,
        };
        let Some(used) = used.filter(|used| *used > request.and_then(quantity::whole).unwrap_or(0))
        else {
            continue;
        };
        text += &format!(
            "Container {} was using {}, request is {}, has larger consumption of {name}. ",
            container.name,
            quantity::binary(used),
            request.map_or("0", |request| request.0.as_str()),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::signal::{Observation, Signal};
    use super::super::threshold::{Flags, parse};
    use super::*;
    use crate::static_pods::SOURCE;

    const MIB: i64 = 1 << 20;

    /// A pod that asks for so much and uses so much, in MiB.
    fn one(name: &str, priority: i32, asks: i64, uses: Option<i64>) -> Candidate {
        let requests = json!({ "memory": format!("{asks}Mi") });
        let resources = if asks > 0 { json!({ "requests": requests }) } else { json!({}) };
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name },
            "spec": { "priority": priority, "containers": [
                { "name": "c", "resources": resources },
            ] },
        }))
        .unwrap();
        let figures = uses.map(|mib| Figures {
            memory: mib * MIB,
            processes: mib,
            containers: vec![ContainerFigures {
                name: "c".into(),
                memory: Some(mib * MIB),
                disk: None,
            }],
            ..Figures::default()
        });
        Candidate { pod: Arc::new(pod), figures }
    }

    fn names(all: &[Candidate]) -> Vec<&str> {
        all.iter().map(|one| crate::api::name(&one.pod)).collect()
    }

    #[test]
    fn those_above_their_requests_go_first_then_by_priority_then_by_how_much() {
        let ranked = rank(
            Resource::Memory,
            vec![
                one("modest", 0, 100, Some(90)),
                one("important", 1000, 10, Some(500)),
                one("greedy", 0, 10, Some(300)),
                one("a bit", 0, 200, Some(220)),
                one("best effort", 0, 0, Some(50)),
                one("unseen", 5000, 10, None),
                one("modest, unimportant", -1, 100, Some(10)),
            ],
        );
        assert_eq!(
            names(&ranked),
            [
                "unseen",
                "greedy",
                "best effort",
                "a bit",
                "important",
                "modest, unimportant",
                "modest"
            ]
        );
    }

    #[test]
    fn for_process_ids_priority_comes_first() {
        let all =
            vec![one("many", 1, 1, Some(9)), one("few", 0, 1, Some(1)), one("b", 1, 1, Some(99))];
        assert_eq!(names(&rank(Resource::Pids, all)), ["few", "b", "many"]);
    }

    #[test]
    fn pods_of_the_system_and_of_files_are_critical() {
        assert!(is_critical(&one("s", SYSTEM_CRITICAL, 0, None).pod));
        assert!(!is_critical(&one("s", SYSTEM_CRITICAL - 1, 0, None).pod));
        for (key, value, expected) in
            [(SOURCE, "file", true), (SOURCE, "api", false), (MIRROR, "hash", true)]
        {
            let mut pod = Pod::default();
            pod.metadata.annotations = Some([(key.to_owned(), value.to_owned())].into());
            assert_eq!(is_critical(&pod), expected, "{key} {value}");
        }
    }

    #[test]
    fn the_message_says_what_was_short_and_who_used_more_than_asked_for() {
        let all = parse(&Flags { hard: "memory.available<100Mi", ..Flags::default() }).unwrap();
        let due: Vec<_> = all.iter().collect();
        let left = Observation { available: 5028 << 10, capacity: 1 << 34 };
        let seen = [(Signal::MemoryAvailable, left)].into();
        let text = |asks, uses| message(Resource::Memory, &one("p", 0, asks, uses), &due, &seen);
        let begin =
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 5028Ki. ";
        assert_eq!(text(20, Some(10)), begin);
        assert_eq!(text(20, None), begin);
        assert_eq!(
            text(0, Some(10)),
            format!(
                "{begin}Container c was using 10Mi, request is 0, has larger consumption of memory. "
            )
        );
        assert_eq!(
            text(5, Some(10)),
            format!(
                "{begin}Container c was using 10Mi, request is 5Mi, has larger consumption of memory. "
            )
        );
    }
}
