//! Desired and observed meet here (N2): what must be done now for one pod. Pure; the worker does
//! it and asks again. Every step is idempotent and may be planned again while it is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerDef, EphemeralContainer, Pod};

use crate::admit::Refusal;
use crate::restarts::Backoffs;
use crate::runtime::{Container, ContainerState, Sandbox};

mod containers;
pub mod ephemeral;
pub mod outcome;
pub mod resize;

use outcome::{Outcome, is_evicted, outcome, told_outcome};
use resize::Resize;

/// Instances kept of each container: the current one, and the one before for its log and end.
const INSTANCES_KEPT: usize = 2;
/// A failure is shown in its own words for this long, then as waiting for the next try.
pub(crate) const FAILURE_SHOWN: Duration = Duration::from_secs(2);
/// Least grace of containers that are stopped after others, as upstream.
const LAST_GRACE_MIN: Duration = Duration::from_secs(2);
/// Grace of a pod that does not say.
const GRACE_DEFAULT_SECONDS: i64 = 30;

/// What the runtime has of one pod.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All sandboxes, with addresses.
    pub sandboxes: Vec<Sandbox>,
    /// All containers.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The sandbox that containers are made in.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().filter(|sandbox| sandbox.ready).max_by_key(|sandbox| sandbox.attempt)
    }

    /// Instances of one container, newest first.
    pub fn instances(&self, name: &str) -> Vec<&Container> {
        let mut found: Vec<_> = self.containers.iter().filter(|c| c.name == name).collect();
        found.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
        found
    }

    /// The newest instance of one container.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.instances(name).into_iter().next()
    }

    /// True if some process of the pod may still run.
    pub fn any_running(&self) -> bool {
        self.containers
            .iter()
            .any(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
    }
}

/// What the worker remembers and the runtime cannot tell.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Waits of containers that ended.
    pub restarts: Backoffs,
    /// Why a container could not be started, by its name.
    pub starts: BTreeMap<String, Failure>,
    /// Why there is no sandbox.
    pub sandbox: Option<Failure>,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// When files that come from the API are written anew.
    pub refresh_at: Option<Timestamp>,
    /// What probes found, by the container's id.
    pub probes: BTreeMap<String, ProbeState>,
    /// Where resizing stands.
    pub resize: Resize,
    /// Why the pod was not taken in when the node saw it first.
    pub refusal: Option<Refusal>,
    /// Why the node ends the pod.
    pub eviction: Option<Eviction>,
    /// The API knows how every container ended.
    pub final_status_written: bool,
    /// Volumes, cgroup and logs are gone.
    pub torn_down: bool,
    /// The API has let go of the pod.
    pub deleted: bool,
}

impl Memory {
    /// Remembers nothing.
    pub fn new(restarts: Backoffs) -> Self {
        Self {
            restarts,
            starts: BTreeMap::new(),
            sandbox: None,
            volumes: Volumes::Unknown,
            refresh_at: None,
            probes: BTreeMap::new(),
            resize: Resize::default(),
            refusal: None,
            eviction: None,
            final_status_written: false,
            torn_down: false,
            deleted: false,
        }
    }
}

/// That the node ends a pod, for want of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Why, for users.
    pub message: String,
    /// The most its containers get for their ends.
    pub grace: Duration,
}

/// Something that did not work and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One word for statuses.
    pub reason: String,
    /// What a user should know.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

/// Whether a pod's volumes can be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// Nobody looked since the agent started.
    Unknown,
    /// All are there.
    Ready,
    /// One is not.
    Failed(Failure),
}

/// What the probes of one instance found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// It has started, as its startup probe sees it.
    pub started: bool,
    /// It can take requests, as its readiness probe sees it.
    pub ready: bool,
    /// It must be restarted, and why.
    pub unhealthy: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring volumes and files of the pod in place, or what the API says of them up to date.
    PrepareVolumes,
    /// Make a sandbox.
    RunSandbox {
        /// How many there were before.
        attempt: u32,
    },
    /// See to the image, then make and start a container.
    StartContainer {
        /// Its name.
        name: String,
        /// How many instances there were before.
        attempt: u32,
        /// The sandbox it goes into.
        sandbox_id: String,
    },
    /// Ask a container to end.
    StopContainer {
        /// Its identity.
        id: String,
        /// Its name.
        name: String,
        /// How long it may take.
        grace: Duration,
        /// Why, for the event.
        why: String,
    },
    /// Move the bounds of a running container.
    ResizeContainer {
        /// Its identity.
        id: String,
        /// Its name.
        name: String,
    },
    /// Remove an ended container and its log.
    RemoveContainer {
        /// Its identity.
        id: String,
    },
    /// End a sandbox and give its network back.
    StopSandbox {
        /// Its identity.
        id: String,
    },
    /// Remove an ended sandbox.
    RemoveSandbox {
        /// Its identity.
        id: String,
    },
    /// Remove volumes, cgroup and logs.
    TearDown,
    /// Let the API forget the pod.
    DeletePod,
}

impl Step {
    /// What two plans of the same step have in common. A shorter grace is another step.
    pub fn key(&self) -> String {
        match self {
            Self::PrepareVolumes => "volumes".to_owned(),
            Self::RunSandbox { .. } => "sandbox".to_owned(),
            Self::StartContainer { name, .. } => start_key(name),
            Self::StopContainer { id, grace, .. } => format!("stop {id} {}", grace.as_secs()),
            Self::ResizeContainer { id, .. } => format!("resize {id}"),
            Self::RemoveContainer { id } => format!("remove {id}"),
            Self::StopSandbox { id } => format!("stop sandbox {id}"),
            Self::RemoveSandbox { id } => format!("remove sandbox {id}"),
            Self::TearDown => "tear down".to_owned(),
            Self::DeletePod => "delete".to_owned(),
        }
    }
}

/// The key of starting a container.
pub fn start_key(name: &str) -> String {
    format!("start {name}")
}

/// Why a container does not run yet, in the API's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// One word.
    pub reason: String,
    /// A sentence; may be empty.
    pub message: String,
}

/// Everything a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The pod as it shall be, with the status last known.
    pub pod: &'a Pod,
    /// The API no longer has the pod.
    pub gone: bool,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What the worker remembers.
    pub memory: &'a Memory,
    /// Keys of steps under way.
    pub busy: &'a BTreeSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Independent of each other: they may be done at the same time.
    pub steps: Vec<Step>,
    /// When to plan again at the latest.
    pub wake_at: Option<Timestamp>,
    /// Why containers wait, by name.
    pub waiting: BTreeMap<String, Waiting>,
    /// Nothing is left of the pod: the worker can go.
    pub finished: bool,
}

impl Input<'_> {
    /// Something of the pod is being started, and may run soon.
    pub fn is_starting(&self) -> bool {
        self.busy.iter().any(|key| key == "sandbox" || key.starts_with("start "))
    }

    /// The node has ended the pod: nothing of it runs, or will.
    pub fn evicted(&self) -> Option<&Eviction> {
        let is_over = !self.observed.any_running() && !self.is_starting();
        self.memory.eviction.as_ref().filter(|_| is_over)
    }
}

impl Plan {
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// Plans the next steps for a pod.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    if is_ending(input.pod, input.gone) {
        end(input, &mut plan);
    } else if is_evicted(input.pod) {
        clear(input, &mut plan);
    } else if let Some(grace) = cut_short(input) {
        rest(input, grace, "Stopping container", &mut plan);
    } else if let Some(outcome) = outcome(input.pod, input.observed, &input.memory.resize) {
        rest_after(input, outcome, &mut plan);
    } else if let Some(deadline) = active_deadline(input.pod)
        && deadline <= input.now
    {
        rest_after(input, Outcome::Failed, &mut plan);
    } else {
        if let Some(deadline) = active_deadline(input.pod) {
            plan.wake(deadline);
        }
        containers::run(input, &mut plan);
        sweep(input, &mut plan);
    }
    plan
}

/// True if the pod shall go away.
pub fn is_ending(pod: &Pod, gone: bool) -> bool {
    gone || pod.metadata.deletion_timestamp.is_some()
}

/// A pod that is deleted: stop, report, remove, and let the API forget it.
fn end(input: &Input<'_>, plan: &mut Plan) {
    let grace = grace(input.pod);
    if !stopped(input, grace, plan) {
        return;
    }
    // What is removed can no longer be reported, so the report comes first. A pod that the API no
    // longer has needs none.
    if !input.gone && !input.memory.final_status_written {
        return;
    }
    remove(input, plan);
    if !plan.steps.is_empty() {
        return;
    }
    if !input.gone && !input.memory.deleted {
        plan.step(Step::DeletePod);
    } else {
        plan.finished = true;
    }
}

/// A pod that was evicted: the API knows, and the node keeps nothing of it, to have room.
fn clear(input: &Input<'_>, plan: &mut Plan) {
    if stopped(input, grace(input.pod), plan) {
        remove(input, plan);
    }
}

/// Stops what runs, then the sandboxes; true if nothing is left to be stopped.
fn stopped(input: &Input<'_>, grace: Duration, plan: &mut Plan) -> bool {
    stop_running(input, grace, "Stopping container", plan);
    if input.is_starting() || input.observed.any_running() {
        return false;
    }
    let ready = input.observed.sandboxes.iter().filter(|sandbox| sandbox.ready);
    let steps = ready.map(|sandbox| Step::StopSandbox { id: sandbox.id.clone() });
    let steps: Vec<_> = steps.collect();
    let is_done = steps.is_empty();
    plan.steps.extend(steps);
    is_done
}

/// Removes what was stopped, then the pod's files.
fn remove(input: &Input<'_>, plan: &mut Plan) {
    for container in &input.observed.containers {
        plan.step(Step::RemoveContainer { id: container.id.clone() });
    }
    if input.observed.containers.is_empty() {
        for sandbox in &input.observed.sandboxes {
            plan.step(Step::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
    if plan.steps.is_empty() && !input.memory.torn_down {
        plan.step(Step::TearDown);
    }
}

/// How long the containers of a pod get that the node ends, or never took in.
fn cut_short(input: &Input<'_>) -> Option<Duration> {
    if told_outcome(input.pod).is_some() {
        return None;
    }
    let own = grace(input.pod);
    match (&input.memory.refusal, &input.memory.eviction) {
        (Some(_), _) => Some(own),
        (None, Some(eviction)) => Some(eviction.grace.min(own)),
        (None, None) => None,
    }
}

fn rest_after(input: &Input<'_>, outcome: Outcome, plan: &mut Plan) {
    rest(input, grace(input.pod), &format!("Pod has {}", outcome.phase()), plan);
}

/// A pod that ran to its end: nothing runs any more, logs and ends stay readable.
fn rest(input: &Input<'_>, grace: Duration, why: &str, plan: &mut Plan) {
    stop_running(input, grace, why, plan);
    if !input.observed.any_running() {
        for sandbox in input.observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            plan.step(Step::StopSandbox { id: sandbox.id.clone() });
        }
    }
}

/// Stops all containers but sidecars at once; then the sidecars, the last one first, each in what
/// is left of the pod's grace.
fn stop_running(input: &Input<'_>, grace: Duration, why: &str, plan: &mut Plan) {
    let sidecars: Vec<&str> = init_containers(input.pod)
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let place = |name: &str| sidecars.iter().position(|sidecar| *sidecar == name);
    let running = || {
        input.observed.containers.iter().filter(|container| {
            matches!(container.state, ContainerState::Running | ContainerState::Unknown)
        })
    };
    let mut stop = |container: &Container, grace| {
        plan.step(Step::StopContainer {
            id: container.id.clone(),
            name: container.name.clone(),
            grace,
            why: format!("{why} {}", container.name),
        });
    };
    let mut waits_for_others = false;
    for container in running().filter(|container| place(&container.name).is_none()) {
        waits_for_others = true;
        stop(container, grace);
    }
    if waits_for_others {
        return;
    }
    if let Some(last) = running().max_by_key(|container| place(&container.name))
        && !input.busy.iter().any(|key| key.starts_with(&format!("stop {} ", last.id)))
    {
        stop(last, grace_left(input, grace));
    }
}

/// What is left of a deleted pod's grace for those that are stopped last.
fn grace_left(input: &Input<'_>, grace: Duration) -> Duration {
    let Some(end) = &input.pod.metadata.deletion_timestamp else { return grace };
    let left = Duration::try_from(end.0.duration_since(input.now)).unwrap_or_default();
    left.max(LAST_GRACE_MIN).min(grace)
}

/// When a pod that may be active only so long must end.
pub(crate) fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(started + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// How long the pod's containers may take to end.
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(GRACE_DEFAULT_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Removes instances and sandboxes that nobody will ask for again.
fn sweep(input: &Input<'_>, plan: &mut Plan) {
    let mut kept = BTreeSet::new();
    for container in all_containers(input.pod) {
        for (age, instance) in input.observed.instances(&container.name).into_iter().enumerate() {
            if age < INSTANCES_KEPT {
                kept.insert(instance.id.as_str());
            } else if instance.state == ContainerState::Exited {
                plan.step(Step::RemoveContainer { id: instance.id.clone() });
            }
        }
    }
    let current = input.observed.sandbox().map(|sandbox| sandbox.id.as_str());
    for sandbox in &input.observed.sandboxes {
        if current.is_none() || current == Some(sandbox.id.as_str()) {
            continue;
        }
        let needed = input
            .observed
            .containers
            .iter()
            .any(|c| c.sandbox_id == sandbox.id && kept.contains(c.id.as_str()));
        if sandbox.ready {
            plan.step(Step::StopSandbox { id: sandbox.id.clone() });
        } else if !needed {
            plan.step(Step::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

/// Init containers, then the others.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &ContainerDef> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// Containers added to a pod that runs, as the others are described.
pub fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten())
}

/// A container of any sort, by its name.
pub fn definition(pod: &Pod, name: &str) -> Option<ContainerDef> {
    let lasting = all_containers(pod).find(|container| container.name == name);
    lasting.cloned().or_else(|| {
        ephemeral_containers(pod).find(|container| container.name == name).map(ephemeral::described)
    })
}

/// Init containers.
pub fn init_containers(pod: &Pod) -> impl Iterator<Item = &ContainerDef> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten())
}

/// Containers that are not init containers.
pub fn main_containers(pod: &Pod) -> impl Iterator<Item = &ContainerDef> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

/// An init container that goes on beside the main ones.
pub fn is_sidecar(container: &ContainerDef) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests;
