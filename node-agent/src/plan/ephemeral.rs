//! Plans the containers that were added to a pod while it runs. Each is started once, beside
//! whatever else the pod is at, and never again.

use k8s_openapi::api::core::v1::{Container as ContainerDef, EphemeralContainer};

use super::containers::start;
use super::{Input, Plan, Step, ephemeral_containers, start_key};
use crate::runtime::{ContainerState, Sandbox};

pub(super) fn run(input: &Input<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    for container in ephemeral_containers(input.pod) {
        let name = &container.name;
        if input.busy.contains(&start_key(name)) {
            continue;
        }
        match input.observed.latest(name) {
            // Made but not started, and nobody is at it: the agent went away in between.
            Some(latest) if latest.state == ContainerState::Created => {
                plan.step(Step::RemoveContainer { id: latest.id.clone() });
            }
            Some(_) => {}
            None if ran(input, name) => {}
            None => start(input, sandbox, name, plan),
        }
    }
}

/// Whether the API was told of an instance that the runtime has forgotten.
fn ran(input: &Input<'_>, name: &str) -> bool {
    let statuses = input.pod.status.iter();
    let mut statuses =
        statuses.flat_map(|status| status.ephemeral_container_statuses.iter().flatten());
    statuses.any(|status| status.name == name && status.container_id.is_some())
}

/// An ephemeral container in the words of the others.
pub fn described(container: &EphemeralContainer) -> ContainerDef {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = container.clone();
    ContainerDef {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    }
}
