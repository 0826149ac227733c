//! Whether a pod has run to its end, and how. Pure.

use k8s_openapi::api::core::v1::{Container as ContainerDef, ContainerRestartRule, Pod};

use super::resize::Resize;
use super::{Observed, init_containers, is_sidecar, main_containers};
use crate::admit;
use crate::runtime::{Container, ContainerState};

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every container ended well and none will be restarted.
    Succeeded,
    /// Some container did not, and will not be restarted.
    Failed,
}

impl Outcome {
    /// Its name in the API.
    pub fn phase(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// When containers of a pod are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whenever they end.
    Always,
    /// When they end with an error.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// The pod's.
    pub fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// The container's own, or else the pod's.
    fn of_container(pod: &Pod, container: &ContainerDef) -> Self {
        match container.restart_policy.as_deref() {
            Some("Always") => Self::Always,
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::of(pod),
        }
    }

    /// True if a container that ended with `exit_code` is started again.
    fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// True if a container that ended with `exit_code` is started again: the first of its rules that is
/// for that code says so, or else its policy. An init container that ended well has done its part.
pub fn restarts(pod: &Pod, container: &ContainerDef, exit_code: i32) -> bool {
    let is_init = init_containers(pod).any(|init| init.name == container.name);
    if is_init && !is_sidecar(container) && exit_code == 0 {
        return false;
    }
    let is_for = |rule: &ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let is_listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            is_listed == (codes.operator == "In")
        })
    };
    let rule = container.restart_policy_rules.iter().flatten().find(|rule| is_for(rule));
    rule.is_some_and(|rule| rule.action == "Restart")
        || RestartPolicy::of_container(pod, container).restarts(exit_code)
}

/// How the pod ended, as the API was told; none if it was not. Such a pod never runs again.
pub fn told_outcome(pod: &Pod) -> Option<Outcome> {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Some(Outcome::Succeeded),
        Some("Failed") => Some(Outcome::Failed),
        _ => None,
    }
}

/// True if the API was told that the node ended the pod, or did not take it in, for want of
/// something.
pub fn is_evicted(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    reason == Some("Evicted") && told_outcome(pod) == Some(Outcome::Failed)
}

/// How the pod ended; none if it has not.
pub fn outcome(pod: &Pod, observed: &Observed, resize: &Resize) -> Option<Outcome> {
    if let Some(told) = told_outcome(pod) {
        return Some(told);
    }
    if admit::refusal(pod).is_some() {
        return Some(Outcome::Failed);
    }
    if an_init_container_failed(pod, observed) {
        return Some(Outcome::Failed);
    }
    let mut all_well = true;
    for container in main_containers(pod) {
        let ended = observed.latest(&container.name).filter(|latest| ended(latest))?;
        if restarts(pod, container, ended.exit_code) || resize.wants_restart(container) {
            return None;
        }
        all_well &= ended.exit_code == 0;
    }
    pod.spec.as_ref()?;
    Some(if all_well { Outcome::Succeeded } else { Outcome::Failed })
}

fn an_init_container_failed(pod: &Pod, observed: &Observed) -> bool {
    init_containers(pod).filter(|container| !is_sidecar(container)).any(|container| {
        observed
            .latest(&container.name)
            .filter(|latest| ended(latest) && latest.exit_code != 0)
            .is_some_and(|latest| !restarts(pod, container, latest.exit_code))
    })
}

fn ended(container: &Container) -> bool {
    container.state == ContainerState::Exited
}
