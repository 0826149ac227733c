//! What the API is told about a pod: computed anew from what is observed, with the kubelet's
//! words, and compared with what was told before. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::admit::{self, Refusal};
use crate::cgroups::Qos;
use crate::plan::ephemeral::described;
use crate::plan::outcome::{Outcome, is_evicted, outcome, told_outcome};
use crate::plan::{
    Input, Observed, Plan, active_deadline, ephemeral_containers, init_containers, is_ending,
    is_sidecar, main_containers,
};
use crate::runtime::ContainerState;

pub(crate) mod conditions;
mod containers;

/// What is said of a pod that was active for too long.
const LATE: &str = "Pod was active on the node longer than the specified deadline";

/// The status of a pod on the node with address `node_ip`, given the plan made from the same input.
pub fn pod_status(input: &Input<'_>, plan: &Plan, node_ip: IpAddr) -> PodStatus {
    let old = input.pod.status.clone().unwrap_or_default();
    let ended = (is_ending(input.pod, input.gone) && !input.observed.any_running())
        || input.evicted().is_some();
    let init_done = init_done(input);
    let container_status =
        |container: &Container, kind| containers::status(input, plan, container, kind, ended);
    let init_statuses: Vec<_> = init_containers(input.pod)
        .map(|container| container_status(container, containers::Kind::Init))
        .collect();
    let statuses: Vec<_> = main_containers(input.pod)
        .map(|container| container_status(container, containers::Kind::Main { init_done }))
        .collect();
    let ephemeral_statuses: Vec<_> = ephemeral_containers(input.pod)
        .map(|container| container_status(&described(container), containers::Kind::Ephemeral))
        .collect();
    let phase = phase(input, ended, init_done);
    let conditions =
        conditions::conditions(input, &old, phase, init_done, &init_statuses, &statuses);
    let ips = pod_ips(input, &old, node_ip);
    let refusal = admit::refusal(input.pod).or_else(|| input.memory.refusal.clone());
    // As the kubelet: a pod that is refused has no containers to tell of, or clients would show that
    // they are still being created.
    let is_refused = refusal.is_some();
    let told =
        |statuses: Vec<ContainerStatus>| (!is_refused && !statuses.is_empty()).then_some(statuses);
    let (reason, message) = why(input, &old, refusal);
    PodStatus {
        observed_generation: input.pod.metadata.generation,
        reason,
        message,
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: (!is_refused).then_some(statuses),
        ephemeral_container_statuses: told(ephemeral_statuses),
        init_container_statuses: told(init_statuses),
        host_ip: Some(node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: node_ip.to_string() }]),
        pod_ip: ips.first().map(ToString::to_string),
        pod_ips: (!ips.is_empty())
            .then(|| ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        qos_class: old.qos_class.clone().or_else(|| Some(Qos::of(input.pod).name().to_owned())),
        start_time: old.start_time.clone().or(Some(Time(whole_second(input.now)))),
        ..old
    }
}

/// Why the pod ended, if it did before its containers had done their part.
fn why(
    input: &Input<'_>,
    old: &PodStatus,
    refusal: Option<Refusal>,
) -> (Option<String>, Option<String>) {
    // What was told stands.
    if told_outcome(input.pod).is_some() {
        return (old.reason.clone(), old.message.clone());
    }
    if let Some(refusal) = refusal {
        return (Some(refusal.reason.into_owned()), Some(refusal.message));
    }
    if let Some(eviction) = input.evicted() {
        return (Some("Evicted".to_owned()), Some(eviction.message.clone()));
    }
    if is_late(input) {
        return (Some("DeadlineExceeded".to_owned()), Some(LATE.to_owned()));
    }
    (old.reason.clone(), old.message.clone())
}

/// True if the pod was active longer than it may and has not ended otherwise.
fn is_late(input: &Input<'_>) -> bool {
    !is_ending(input.pod, input.gone)
        && outcome(input.pod, input.observed, &input.memory.resize).is_none()
        && active_deadline(input.pod).is_some_and(|deadline| deadline <= input.now)
}

/// Times in statuses carry whole seconds.
pub(crate) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The kubelet's phase, from the containers' states.
fn phase(input: &Input<'_>, ended: bool, init_done: bool) -> &'static str {
    let is_cut_short = input.memory.refusal.is_some() || input.evicted().is_some();
    if is_cut_short && told_outcome(input.pod).is_none() {
        return Outcome::Failed.phase();
    }
    if let Some(outcome) = outcome(input.pod, input.observed, &input.memory.resize) {
        return outcome.phase();
    }
    if is_late(input) {
        return Outcome::Failed.phase();
    }
    if ended {
        // Stopped by a deletion: a well ended pod has succeeded, any other one has failed.
        let all_well = main_containers(input.pod).all(|container| {
            input.observed.latest(&container.name).is_some_and(|latest| {
                latest.state == ContainerState::Exited && latest.exit_code == 0
            })
        });
        return if all_well { Outcome::Succeeded } else { Outcome::Failed }.phase();
    }
    if !init_done {
        return "Pending";
    }
    let (mut began, mut never_ran) = (false, false);
    for container in main_containers(input.pod) {
        match input.observed.latest(&container.name).map(|latest| latest.state) {
            Some(ContainerState::Running | ContainerState::Exited) => began = true,
            _ => never_ran = true,
        }
    }
    if never_ran || !began { "Pending" } else { "Running" }
}

/// True if nothing keeps the main containers from starting.
fn init_done(input: &Input<'_>) -> bool {
    let main_ran = main_containers(input.pod)
        .any(|container| input.observed.latest(&container.name).is_some());
    main_ran
        || init_containers(input.pod).all(|container| {
            input.observed.latest(&container.name).is_some_and(|latest| {
                if is_sidecar(container) {
                    input.memory.probes.get(&latest.id).is_some_and(|probe| probe.started)
                } else {
                    latest.state == ContainerState::Exited && latest.exit_code == 0
                }
            })
        })
}

fn pod_ips(input: &Input<'_>, old: &PodStatus, node_ip: IpAddr) -> Vec<IpAddr> {
    let host_network = input.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    match input.observed.sandbox() {
        Some(_) if host_network => vec![node_ip],
        Some(sandbox) => sandbox.ips.clone(),
        // A pod that ended keeps the address it had, for whoever reads its record.
        None => old.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect(),
    }
}

/// True if what was told of a pod that has ended stands: of what the node has removed since then,
/// nothing could be told any more.
pub fn stands(pod: &Pod, observed: &Observed) -> bool {
    is_evicted(pod) || (told_outcome(pod).is_some() && observed.containers.is_empty())
}

/// True if the pod's last status is written and nothing of it runs.
pub fn is_final(pod: &Pod, gone: bool, observed: &Observed) -> bool {
    is_ending(pod, gone) && !observed.any_running()
}

#[cfg(test)]
mod tests;
