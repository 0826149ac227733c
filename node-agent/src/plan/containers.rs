//! Plans a pod that shall run: volumes, sandbox, init containers in order, then all others.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as ContainerDef, Probe};

use super::outcome::restarts;
use super::{
    FAILURE_SHOWN, Failure, Input, Plan, Step, Volumes, Waiting, definition, ephemeral, grace,
    init_containers, is_sidecar, main_containers, resize, start_key,
};
use crate::runtime::{Container, ContainerState, Sandbox};

/// Where an init container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The next one may start.
    Done,
    /// The next one must wait.
    Pending,
}

pub(super) fn run(input: &Input<'_>, plan: &mut Plan) {
    let Some(sandbox) = input.observed.sandbox() else {
        make_sandbox(input, plan);
        return;
    };
    refresh_volumes(input, plan);
    ephemeral::run(input, sandbox, plan);
    let main_began = main_containers(input.pod).any(|container| {
        input.observed.latest(&container.name).is_some_and(|latest| latest.sandbox_id == sandbox.id)
    });
    for container in init_containers(input.pod) {
        if main_began && !is_sidecar(container) {
            continue;
        }
        let progress = init_container(input, sandbox, container, plan);
        if progress == Progress::Pending && !main_began {
            return;
        }
    }
    for container in main_containers(input.pod) {
        keep_running(input, sandbox, container, plan);
    }
}

fn make_sandbox(input: &Input<'_>, plan: &mut Plan) {
    if let Some(failure) = &input.memory.sandbox
        && input.now < failure.retry_at
    {
        plan.wake(failure.retry_at);
        return;
    }
    if !volumes_ready(input, plan) {
        return;
    }
    let next = input.observed.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max();
    plan.step(Step::RunSandbox { attempt: next.unwrap_or(0) });
}

/// Plans what the API says of the volumes' files anew, in its time.
fn refresh_volumes(input: &Input<'_>, plan: &mut Plan) {
    let (Volumes::Ready, Some(at)) = (&input.memory.volumes, input.memory.refresh_at) else {
        return;
    };
    if input.now < at {
        plan.wake(at);
    } else {
        plan.step(Step::PrepareVolumes);
    }
}

/// Plans the volumes unless they are there.
fn volumes_ready(input: &Input<'_>, plan: &mut Plan) -> bool {
    match &input.memory.volumes {
        Volumes::Ready => return true,
        Volumes::Failed(failure) if input.now < failure.retry_at => plan.wake(failure.retry_at),
        Volumes::Failed(_) | Volumes::Unknown => {
            if !plan.steps.contains(&Step::PrepareVolumes) {
                plan.step(Step::PrepareVolumes);
            }
        }
    }
    false
}

fn init_container(
    input: &Input<'_>,
    sandbox: &Sandbox,
    container: &ContainerDef,
    plan: &mut Plan,
) -> Progress {
    if is_sidecar(container) {
        keep_running(input, sandbox, container, plan);
        let started = input.observed.latest(&container.name).is_some_and(|latest| {
            latest.state == ContainerState::Running
                && input.memory.probes.get(&latest.id).is_some_and(|probe| probe.started)
        });
        return if started { Progress::Done } else { Progress::Pending };
    }
    let here =
        input.observed.latest(&container.name).filter(|latest| latest.sandbox_id == sandbox.id);
    if let Some(latest) = here
        && latest.state == ContainerState::Exited
        && latest.exit_code == 0
    {
        return Progress::Done;
    }
    keep_running(input, sandbox, container, plan);
    Progress::Pending
}

/// Sees to it that a container runs, as its restart policy wants.
fn keep_running(input: &Input<'_>, sandbox: &Sandbox, container: &ContainerDef, plan: &mut Plan) {
    let name = &container.name;
    if input.busy.contains(&start_key(name)) {
        return;
    }
    let Some(latest) = input.observed.latest(name) else {
        return start(input, sandbox, name, plan);
    };
    let here = latest.sandbox_id == sandbox.id;
    match latest.state {
        ContainerState::Running if here => {
            heal(input, container, latest, plan);
            if plan
                .steps
                .iter()
                .all(|step| !matches!(step, Step::StopContainer { id, .. } if *id == latest.id))
            {
                resize::run(input, container, latest, plan);
            }
        }
        // Its sandbox is gone: it cannot be reached any more.
        ContainerState::Running | ContainerState::Unknown => plan.step(Step::StopContainer {
            id: latest.id.clone(),
            name: name.clone(),
            grace: grace(input.pod),
            why: format!("Stopping container {name}"),
        }),
        // Made but not started, and nobody is at it: the agent went away in between.
        ContainerState::Created => plan.step(Step::RemoveContainer { id: latest.id.clone() }),
        ContainerState::Exited => {
            if input.memory.resize.wants_restart(container) {
                start(input, sandbox, name, plan);
            } else if restarts(input.pod, container, latest.exit_code) {
                restart(input, sandbox, latest, plan);
            } else if !here && is_init(input, name) {
                start(input, sandbox, name, plan);
            }
        }
    }
}

fn is_init(input: &Input<'_>, name: &str) -> bool {
    init_containers(input.pod).any(|container| container.name == name)
}

fn heal(input: &Input<'_>, container: &ContainerDef, latest: &Container, plan: &mut Plan) {
    let unhealthy =
        input.memory.probes.get(&latest.id).and_then(|probe| probe.unhealthy.as_deref());
    if let Some(why) = unhealthy {
        plan.step(Step::StopContainer {
            id: latest.id.clone(),
            name: container.name.clone(),
            grace: probe_grace(container).unwrap_or_else(|| grace(input.pod)),
            why: format!("Container {} {why}, will be restarted", container.name),
        });
    }
}

/// A liveness or startup probe may name a grace of its own.
fn probe_grace(container: &ContainerDef) -> Option<Duration> {
    let of = |probe: &Option<Probe>| probe.as_ref()?.termination_grace_period_seconds;
    let seconds = of(&container.liveness_probe).or_else(|| of(&container.startup_probe))?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn restart(input: &Input<'_>, sandbox: &Sandbox, ended: &Container, plan: &mut Plan) {
    let name = &ended.name;
    let finished = ended.finished_at.unwrap_or(ended.created_at);
    let Some((until, wait)) = input.memory.restarts.wait(name, finished, input.now) else {
        return start(input, sandbox, name, plan);
    };
    plan.wake(until);
    plan.waiting.insert(
        name.clone(),
        Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: format!(
                "back-off {} restarting failed container={name} pod={}_{}({})",
                go_duration(wait),
                crate::api::name(input.pod),
                crate::api::namespace(input.pod),
                crate::api::uid(input.pod)
            ),
        },
    );
}

pub(super) fn start(input: &Input<'_>, sandbox: &Sandbox, name: &str, plan: &mut Plan) {
    if let Some(failure) = input.memory.starts.get(name)
        && input.now < failure.retry_at
    {
        let (waiting, wake_at) = shown(failure, input, name);
        plan.waiting.insert(name.to_owned(), waiting);
        plan.wake(wake_at);
        return;
    }
    if !volumes_ready(input, plan) {
        return;
    }
    plan.step(Step::StartContainer {
        name: name.to_owned(),
        attempt: next_attempt(input, name),
        sandbox_id: sandbox.id.clone(),
    });
}

/// A failed pull is first shown as it is, then as waiting for the next try.
fn shown(failure: &Failure, input: &Input<'_>, name: &str) -> (Waiting, jiff::Timestamp) {
    let turns = failure.at + FAILURE_SHOWN;
    let waiting = |reason: &str, message: String| Waiting { reason: reason.to_owned(), message };
    if failure.reason != "ErrImagePull" {
        return (waiting(&failure.reason, failure.message.clone()), failure.retry_at);
    }
    if input.now < turns {
        return (waiting(&failure.reason, failure.message.clone()), turns.min(failure.retry_at));
    }
    let image = definition(input.pod, name).and_then(|container| container.image);
    let image = image.unwrap_or_default();
    let message = format!("Back-off pulling image {image:?}: ErrImagePull: {}", failure.message);
    (waiting("ImagePullBackOff", message), failure.retry_at)
}

/// One more than the instances seen, or than the restarts reported when the runtime forgot them.
fn next_attempt(input: &Input<'_>, name: &str) -> u32 {
    if let Some(latest) = input.observed.latest(name) {
        return latest.attempt + 1;
    }
    let status = input.pod.status.iter();
    let statuses = status.flat_map(|status| {
        status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten())
    });
    statuses
        .filter(|status| status.name == name && status.container_id.is_some())
        .map(|status| u32::try_from(status.restart_count).unwrap_or(0) + 1)
        .next()
        .unwrap_or(0)
}

/// `1m20s`, the way Go writes durations and users of `kubectl describe` know them.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{}ms", duration.as_millis()),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
