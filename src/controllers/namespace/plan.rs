//! What a namespace that is being deleted still holds, what follows from that, and how its
//! conditions tell it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::node_lifecycle::health::seconds;

/// The conditions in their order, each with its reason and message where all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (CONTENT, "ContentRemoved", "All content successfully removed"),
    (FINALIZERS, "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];
const CONTENT: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";
const FAILURE: &str = "NamespaceDeletionContentFailure";

/// What was found in the namespace after everything in it was told to go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Left {
    /// How many objects are left, by resource (`pods.`, `deployments.apps`).
    pub objects: BTreeMap<String, usize>,
    /// How many of them a finalizer holds, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// What to do after one kind of content, or all of it, was told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something is left: look again.
    Wait,
    /// Nothing is left of it: go on.
    GoOn,
}

impl Left {
    /// Takes note of an object that is left.
    pub fn add<'a>(&mut self, resource: &str, finalizers: impl IntoIterator<Item = &'a str>) {
        *self.objects.entry(resource.to_owned()).or_default() += 1;
        for finalizer in finalizers {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }

    /// What follows.
    pub fn step(&self) -> Step {
        if self.objects.is_empty() && self.failures.is_empty() { Step::GoOn } else { Step::Wait }
    }

    /// Reason and message of a condition that does not find all well.
    fn trouble(&self, kind: &str) -> Option<(&'static str, String)> {
        let join = |counts: &BTreeMap<String, usize>, verb: &str| {
            let parts = counts
                .iter()
                .map(|(what, count)| format!("{what} {verb} {count} resource instances"));
            parts.collect::<Vec<_>>().join(", ")
        };
        match kind {
            CONTENT if !self.objects.is_empty() => Some((
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", join(&self.objects, "has")),
            )),
            FINALIZERS if !self.finalizers.is_empty() => Some((
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    join(&self.finalizers, "in")
                ),
            )),
            FAILURE if !self.failures.is_empty() => {
                let mut failures = self.failures.clone();
                failures.sort();
                Some((
                    "ContentDeletionFailed",
                    format!(
                        "Failed to delete all resource types, {} remaining: {}",
                        failures.len(),
                        failures.join(", ")
                    ),
                ))
            }
            _ => None,
        }
    }
}

/// What a look at the namespace comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its conditions, where they must change.
    pub conditions: Option<Vec<NamespaceCondition>>,
    /// Whether it can go.
    pub step: Step,
}

/// Decides.
pub fn plan(namespace: &Namespace, left: &Left, now: Timestamp) -> Plan {
    Plan { conditions: conditions(namespace, left, now), step: left.step() }
}

fn conditions(
    namespace: &Namespace,
    left: &Left,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone());
    let old = old.unwrap_or_default();
    let mut new = old.clone();
    for (kind, reason, message) in CONDITIONS {
        let trouble = left.trouble(kind);
        let status = if trouble.is_some() { "True" } else { "False" };
        let (reason, message) = trouble.unwrap_or_else(|| (reason, message.to_owned()));
        let mut condition = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(seconds(now))),
        };
        match new.iter_mut().find(|known| known.type_ == kind) {
            None => new.push(condition),
            Some(known) => {
                if known.status == status {
                    condition.last_transition_time.clone_from(&known.last_transition_time);
                }
                *known = condition;
            }
        }
    }
    (new != old).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(left: &Left) -> Vec<[String; 3]> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let all = plan(&Namespace::default(), left, now).conditions.unwrap();
        let text = |text: Option<String>| text.unwrap_or_default();
        all.into_iter().map(|one| [one.status, text(one.reason), text(one.message)]).collect()
    }

    #[test]
    fn what_is_left_and_what_holds_it_is_told() {
        let mut left = Left::default();
        left.add("pods.", ["example.com/a"]);
        left.add("pods.", []);
        left.add("deployments.apps", ["example.com/a"]);
        left.failures.push("b".to_owned());
        left.failures.push("a".to_owned());
        assert_eq!(left.step(), Step::Wait);
        let told = told(&left);
        assert_eq!(told.len(), 5);
        assert_eq!(
            told[0],
            ["False", "ResourcesDiscovered", "All resources successfully discovered"]
        );
        assert_eq!(
            told[2],
            [
                "True",
                "ContentDeletionFailed",
                "Failed to delete all resource types, 2 remaining: a, b"
            ]
        );
        let remaining = "Some resources are remaining: deployments.apps has 1 resource instances, \
                         pods. has 2 resource instances";
        assert_eq!(told[3], ["True", "SomeResourcesRemain", remaining]);
        let holding = "Some content in the namespace has finalizers remaining: example.com/a in 2 \
                       resource instances";
        assert_eq!(told[4], ["True", "SomeFinalizersRemain", holding]);
    }

    #[test]
    fn conditions_that_say_the_same_are_not_written_again_and_a_change_has_its_time() {
        let mut left = Left::default();
        assert_eq!(left.step(), Step::GoOn);
        left.add("pods.", []);
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let late: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let mut namespace = Namespace::default();
        let first = conditions(&namespace, &left, early).unwrap();
        namespace.status.get_or_insert_default().conditions = Some(first);
        assert_eq!(conditions(&namespace, &left, late), None);
        let second = conditions(&namespace, &Left::default(), late).unwrap();
        let times: Vec<Timestamp> =
            second.iter().map(|one| one.last_transition_time.as_ref().unwrap().0).collect();
        assert_eq!(times, [early, early, early, late, early]);
    }
}
