//! The status of one container. Pure.

use k8s_openapi::api::core::v1::{
    Container as ContainerDef, ContainerState as ApiState, ContainerStateRunning,
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole_second;
use crate::plan::{Input, Plan, Waiting, init_containers, is_sidecar};
use crate::runtime::{Container, ContainerState, annotations};

/// Which list of the status a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Init containers.
    Init,
    /// All others.
    Main {
        /// Nothing keeps them from starting.
        init_done: bool,
    },
    /// Those added while the pod runs.
    Ephemeral,
}

/// Longest termination message, as the API documents it.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Exit code for a container of which nothing is known any more.
const LOST_EXIT_CODE: i32 = 137;

pub(super) fn status(
    input: &Input<'_>,
    plan: &Plan,
    container: &ContainerDef,
    kind: Kind,
    ended: bool,
) -> ContainerStatus {
    let instances = input.observed.instances(&container.name);
    let latest = instances.first().copied();
    let previous = instances.iter().skip(1).find(|c| c.state == ContainerState::Exited).copied();
    let waiting = plan.waiting.get(&container.name);
    let (state, last_state) = states(latest, previous, waiting, kind, input, ended);
    let probe = latest.and_then(|latest| input.memory.probes.get(&latest.id));
    let running = latest.is_some_and(|latest| latest.state == ContainerState::Running);
    let init_succeeded = kind == Kind::Init
        && !is_sidecar(container)
        && latest.is_some_and(|l| l.state == ContainerState::Exited && l.exit_code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: latest
            .map(|latest| latest.image.clone())
            .filter(|image| !image.is_empty())
            .or_else(|| container.image.clone())
            .unwrap_or_default(),
        image_id: latest.map(|latest| latest.image_id.clone()).unwrap_or_default(),
        container_id: latest.map(|latest| format!("containerd://{}", latest.id)),
        ready: init_succeeded || (running && probe.is_some_and(|probe| probe.ready)),
        started: (kind != Kind::Ephemeral)
            .then_some(running && probe.is_some_and(|probe| probe.started)),
        restart_count: latest.map_or_else(
            || old_restart_count(input, &container.name),
            |latest| i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        ),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        allocated_resources: container.resources.as_ref().and_then(|own| own.requests.clone()),
        resources: Some(resources(input, container, running)),
        ..Default::default()
    }
}

/// What a container has: while it runs that may not yet be what was promised.
fn resources(input: &Input<'_>, container: &ContainerDef, running: bool) -> ResourceRequirements {
    let given = input.memory.resize.given.get(&container.name).filter(|_| running);
    given.or(container.resources.as_ref()).cloned().unwrap_or_default()
}

fn old_restart_count(input: &Input<'_>, name: &str) -> i32 {
    let statuses = input.pod.status.iter().flat_map(|status| {
        status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten())
            .chain(status.ephemeral_container_statuses.iter().flatten())
    });
    statuses
        .filter(|status| status.name == name)
        .map(|status| status.restart_count)
        .next()
        .unwrap_or(0)
}

/// The state now, and the state before it.
fn states(
    latest: Option<&Container>,
    previous: Option<&Container>,
    waiting: Option<&Waiting>,
    kind: Kind,
    input: &Input<'_>,
    ended: bool,
) -> (ApiState, Option<ApiState>) {
    match latest {
        Some(latest) if latest.state == ContainerState::Running => {
            let running = ContainerStateRunning {
                started_at: latest.started_at.map(|at| Time(whole_second(at))),
            };
            let state = ApiState { running: Some(running), ..Default::default() };
            (state, previous.map(terminated))
        }
        Some(latest) if latest.state == ContainerState::Exited => match waiting {
            Some(waiting) if !ended => (waiting_state(waiting), Some(terminated(latest))),
            _ => (terminated(latest), previous.map(terminated)),
        },
        _ if ended => (lost(latest.is_some()), previous.map(terminated)),
        _ => {
            let not_yet = not_yet(kind, input);
            (waiting_state(waiting.unwrap_or(&not_yet)), previous.map(terminated))
        }
    }
}

fn not_yet(kind: Kind, input: &Input<'_>) -> Waiting {
    let has_init = init_containers(input.pod).next().is_some();
    let reason = match kind {
        Kind::Main { init_done: false } if has_init => "PodInitializing",
        Kind::Init if input.observed.sandbox().is_some() => "PodInitializing",
        _ => "ContainerCreating",
    };
    Waiting { reason: reason.to_owned(), message: String::new() }
}

fn waiting_state(waiting: &Waiting) -> ApiState {
    let waiting = ContainerStateWaiting {
        reason: Some(waiting.reason.clone()),
        message: (!waiting.message.is_empty()).then(|| waiting.message.clone()),
    };
    ApiState { waiting: Some(waiting), ..Default::default() }
}

/// The pod is over and this container never ran, or was made and not started.
fn lost(made: bool) -> ApiState {
    let message = if made {
        "The container could not be started before the pod was terminated"
    } else {
        "The container could not be located when the pod was terminated"
    };
    let terminated = ContainerStateTerminated {
        exit_code: LOST_EXIT_CODE,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        ..Default::default()
    };
    ApiState { terminated: Some(terminated), ..Default::default() }
}

fn terminated(container: &Container) -> ApiState {
    let time = |at: jiff::Timestamp| Time(whole_second(at));
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let message = termination_message(container);
    let terminated = ContainerStateTerminated {
        exit_code: container.exit_code,
        signal: None,
        reason: Some(reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        started_at: container.started_at.or(Some(container.created_at)).map(time),
        finished_at: container.finished_at.map(time),
        container_id: Some(format!("containerd://{}", container.id)),
    };
    ApiState { terminated: Some(terminated), ..Default::default() }
}

/// What the process wrote for its end, else what the runtime says. The worker puts the file's
/// text into the annotation's place before statuses are computed.
fn termination_message(container: &Container) -> String {
    let text = container
        .annotations
        .get(annotations::TERMINATION_MESSAGE_TEXT)
        .filter(|text| !text.is_empty())
        .unwrap_or(&container.message);
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
