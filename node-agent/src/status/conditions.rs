//! The conditions of a pod. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole_second;
use crate::plan::{Input, init_containers, is_sidecar};

/// Conditions that go when they no longer hold.
pub(crate) const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What the agent says about a condition.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn holds(kind: &'static str) -> Self {
        Self { kind, holds: true, reason: None, message: None }
    }

    fn fails(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self { kind, holds: false, reason: Some(reason), message }
    }
}

pub(super) fn conditions(
    input: &Input<'_>,
    old: &PodStatus,
    phase: &str,
    init_done: bool,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Vec<PodCondition> {
    let old = old.conditions.clone().unwrap_or_default();
    let containers_ready = containers_ready(input, phase, init_statuses, statuses);
    let verdicts = [
        sandbox(input),
        initialized(input, phase, init_done, init_statuses),
        ready(input, &old, &containers_ready),
        containers_ready,
        Verdict::holds("PodScheduled"),
    ];
    let own: Vec<PodCondition> =
        verdicts.into_iter().map(|verdict| condition(input, &old, verdict)).collect();
    let own: Vec<_> =
        own.into_iter().chain(resizing(input, &old)).chain(disruption(input, &old)).collect();
    // Conditions of others (readiness gates, disruption) stay as they are.
    let others = old.iter().filter(|old| {
        !RESIZE.contains(&old.type_.as_str()) && own.iter().all(|own| own.type_ != old.type_)
    });
    let others: Vec<_> = others.cloned().collect();
    own.into_iter().chain(others).collect()
}

/// The time of the last change stays as long as the status does.
fn condition(input: &Input<'_>, old: &[PodCondition], verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = old.iter().find(|old| old.type_ == verdict.kind && old.status == status);
    PodCondition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: before
            .and_then(|before| before.last_transition_time.clone())
            .or(Some(Time(whole_second(input.now)))),
        observed_generation: input.pod.metadata.generation,
        ..Default::default()
    }
}

/// That the node ends the pod.
fn disruption(input: &Input<'_>, old: &[PodCondition]) -> Option<PodCondition> {
    let eviction = input.memory.eviction.as_ref()?;
    let message = Some(eviction.message.clone());
    let reason = Some("TerminationByKubelet");
    let verdict = Verdict { reason, message, ..Verdict::holds("DisruptionTarget") };
    Some(condition(input, old, verdict))
}

/// What the pod asks for is not promised to it, or what was promised is not yet given.
fn resizing(input: &Input<'_>, old: &[PodCondition]) -> Vec<PodCondition> {
    let resize = &input.memory.resize;
    let [pending, in_progress] = RESIZE;
    let mut verdicts = Vec::new();
    if let Some(why) = &resize.pending {
        let message = Some(why.message.clone());
        verdicts.push(Verdict { reason: Some(why.reason), message, ..Verdict::holds(pending) });
    }
    if input.resizes() {
        let reason = resize.failure.as_ref().map(|_| "Error");
        let message = resize.failure.as_ref().map(|failure| failure.message.clone());
        verdicts.push(Verdict { reason, message, ..Verdict::holds(in_progress) });
    }
    verdicts.into_iter().map(|verdict| condition(input, old, verdict)).collect()
}

fn sandbox(input: &Input<'_>) -> Verdict {
    let kind = "PodReadyToStartContainers";
    if input.observed.sandbox().is_some() {
        return Verdict::holds(kind);
    }
    Verdict { kind, holds: false, reason: None, message: None }
}

fn initialized(
    input: &Input<'_>,
    phase: &str,
    init_done: bool,
    statuses: &[ContainerStatus],
) -> Verdict {
    let kind = "Initialized";
    if phase == "Succeeded" {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::holds(kind) };
    }
    if init_done || statuses.is_empty() {
        return Verdict::holds(kind);
    }
    let incomplete = init_containers(input.pod).zip(statuses).filter(|(container, status)| {
        if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
    });
    let names: Vec<_> = incomplete.map(|(container, _)| container.name.as_str()).collect();
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    Verdict::fails(kind, "ContainersNotInitialized", Some(message))
}

fn containers_ready(
    input: &Input<'_>,
    phase: &str,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Verdict {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return Verdict::fails(kind, "PodCompleted", None),
        "Failed" => return Verdict::fails(kind, "PodFailed", None),
        _ => {}
    }
    let sidecars = init_containers(input.pod)
        .zip(init_statuses)
        .filter(|(container, _)| is_sidecar(container))
        .map(|(_, status)| status);
    let unready: Vec<_> = sidecars
        .chain(statuses)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::holds(kind);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::fails(kind, "ContainersNotReady", Some(message))
}

/// Ready is ContainersReady and every readiness gate.
fn ready(input: &Input<'_>, old: &[PodCondition], containers: &Verdict) -> Verdict {
    let kind = "Ready";
    if !containers.holds {
        return Verdict {
            kind,
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    let gates = input.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let mut unmet = Vec::new();
    for gate in gates {
        let kind = &gate.condition_type;
        match old.iter().find(|condition| condition.type_ == *kind) {
            None => unmet.push(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => unmet.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if unmet.is_empty() {
        return Verdict::holds(kind);
    }
    Verdict::fails(kind, "ReadinessGatesNotReady", Some(unmet.join(", ")))
}
