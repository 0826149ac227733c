//! What is done about a container whose resources changed while it runs: its bounds are moved, or it
//! is started anew where its policy for that resource wants it so. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as ContainerDef, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Failure, Input, Plan, Step, all_containers, grace};
use crate::quantity;
use crate::runtime::{Container, ContainerState};

/// The resources that can be changed.
const RESIZED: [&str; 2] = ["cpu", "memory"];

/// Where the resizing of one pod stands. The pod that is planned for has what its node promised it,
/// which is not what it asks for while that is pending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resize {
    /// What each container was given, by its name.
    pub given: BTreeMap<String, ResourceRequirements>,
    /// Why what the pod asks for was not promised to it.
    pub pending: Option<Pending>,
    /// Why what was promised could not be given.
    pub failure: Option<Failure>,
}

/// A resize that the node does not take on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Resize {
    /// The resources of a container that are not as promised.
    fn changed(&self, container: &ContainerDef) -> Vec<&'static str> {
        let Some(given) = self.given.get(&container.name) else { return Vec::new() };
        let nothing = ResourceRequirements::default();
        let wanted = container.resources.as_ref().unwrap_or(&nothing);
        let differs = |name: &&&str| {
            let amount = |list: &Option<BTreeMap<String, Quantity>>| {
                list.as_ref().and_then(|list| list.get(**name)).and_then(quantity::milli)
            };
            amount(&wanted.requests) != amount(&given.requests)
                || amount(&wanted.limits) != amount(&given.limits)
        };
        RESIZED.iter().filter(differs).copied().collect()
    }

    /// Whether a container, running or just ended, must start anew to get what was promised.
    pub(super) fn wants_restart(&self, container: &ContainerDef) -> bool {
        let policies = container.resize_policy.as_deref().unwrap_or_default();
        self.changed(container).iter().any(|name| {
            policies.iter().any(|policy| {
                policy.resource_name == *name && policy.restart_policy == "RestartContainer"
            })
        })
    }

    /// Whether some running container does not have what was promised.
    pub fn is_in_progress(&self, pod: &Pod, is_running: impl Fn(&str) -> bool) -> bool {
        all_containers(pod).any(|c| is_running(&c.name) && !self.changed(c).is_empty())
    }
}

impl Input<'_> {
    /// Whether some running container does not have what was promised.
    pub fn resizes(&self) -> bool {
        let is_running = |name: &str| {
            self.observed.latest(name).is_some_and(|c| c.state == ContainerState::Running)
        };
        self.memory.resize.is_in_progress(self.pod, is_running)
    }
}

/// Plans what a running container needs to get what was promised.
pub(super) fn run(
    input: &Input<'_>,
    container: &ContainerDef,
    latest: &Container,
    plan: &mut Plan,
) {
    let resize = &input.memory.resize;
    if resize.changed(container).is_empty() {
        return;
    }
    if resize.wants_restart(container) {
        return plan.step(Step::StopContainer {
            id: latest.id.clone(),
            name: container.name.clone(),
            grace: grace(input.pod),
            why: format!("Container {} resize requires restart", container.name),
        });
    }
    match &resize.failure {
        Some(failure) if input.now < failure.retry_at => plan.wake(failure.retry_at),
        _ => {
            plan.step(Step::ResizeContainer {
                id: latest.id.clone(),
                name: container.name.clone(),
            });
        }
    }
}
