//! What a DaemonSet needs done next, decided from its nodes and pods.
//!
//! ```text
//!   manage   a pod where one is missing; none where none belongs, that has ended, or is one too many
//!   roll     when nothing is left to manage: replace pods of old revisions, as far as the
//!            strategy's bounds allow
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::backoff::Backoff;
use super::placement::{self, Wish};
use super::roll;
use crate::controllers::history::REVISION_HASH;
use crate::controllers::share::{Round, count_i32, nonzero, resolve};
use crate::controllers::{owners, pods};

/// The most pods one reconcile creates, and the most it deletes.
pub const BURST: usize = 250;

/// What there is.
#[derive(Debug, Clone)]
pub struct View {
    /// The DaemonSet.
    pub set: DaemonSet,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// The pods it controls.
    pub pods: Vec<Arc<Pod>>,
    /// The hash of its latest revision.
    pub hash: String,
}

/// A pod that came to its end by itself, on which node.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// It failed.
    Failed(Arc<Pod>, String),
    /// It succeeded, which a daemon should not.
    Succeeded(Arc<Pod>, String),
}

/// The writes, the status, and when to look again though nothing has changed.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The nodes to create a pod for.
    pub create: Vec<String>,
    /// The pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Those among them that ended by themselves.
    pub ended: Vec<Ended>,
    /// The status to write, where it differs.
    pub status: DaemonSetStatus,
    /// When to look again.
    pub again_after: Option<Duration>,
}

/// How far an update may go at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Pods are replaced when somebody deletes them.
    OnDelete,
    /// So many may be missing.
    Unavailable(usize),
    /// So many nodes may have two.
    Surge(usize),
}

/// The DaemonSet's update strategy, for `nodes` that should have its pod.
pub fn update(set: &DaemonSet, nodes: usize) -> Update {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.clone());
    let strategy = strategy.unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return Update::OnDelete;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let share = |value: Option<IntOrString>, default: i32| {
        let value = value.unwrap_or(IntOrString::Int(default));
        usize::try_from(resolve(&value, count_i32(nodes), Round::Up)).unwrap_or(0)
    };
    match (share(rolling.max_surge, 0), share(rolling.max_unavailable, 1)) {
        (0, unavailable) => Update::Unavailable(unavailable.max(1)),
        (surge, _) => Update::Surge(surge),
    }
}

/// Whether the strategy lets a node have two pods for a while, whatever their number is.
fn surges(set: &DaemonSet) -> bool {
    matches!(update(set, 100), Update::Surge(_))
}

/// Decides.
pub fn plan(view: &View, backoff: &Backoff, now: Timestamp) -> Plan {
    let field = Field::new(view, now);
    let mut plan = Plan { status: status(&field), ..Plan::default() };
    manage(&field, backoff, &mut plan);
    if plan.create.is_empty() && plan.delete.is_empty() {
        roll::roll(&field, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan.wait(field.next_available());
    plan
}

impl Plan {
    fn wait(&mut self, after: Option<Duration>) {
        self.again_after = self.again_after.into_iter().chain(after).min();
    }
}

/// The nodes with what is wanted and what is there.
pub(super) struct Field<'a> {
    pub(super) view: &'a View,
    pub(super) min_ready_seconds: i32,
    pub(super) now: Timestamp,
    /// Every node, and every other that a pod is for.
    pub(super) spots: BTreeMap<&'a str, Spot<'a>>,
}

/// One node.
#[derive(Default)]
pub(super) struct Spot<'a> {
    /// Nothing is wished for on a node that does not exist.
    pub(super) wish: Option<Wish>,
    /// By age, those with a node first.
    pub(super) pods: Vec<&'a Arc<Pod>>,
}

impl<'a> Field<'a> {
    fn new(view: &'a View, now: Timestamp) -> Self {
        let sample = placement::new_pod(&view.set, &view.hash);
        let mut spots: BTreeMap<&str, Spot<'_>> = view
            .nodes
            .iter()
            .map(|node| {
                let wish = Some(placement::wish(&sample, node));
                (owners::name(&node.metadata), Spot { wish, pods: Vec::new() })
            })
            .collect();
        // One that has ended and is being deleted only waits for its finalizers.
        let there =
            view.pods.iter().filter(|pod| !(pods::is_terminal(pod) && pods::is_terminating(pod)));
        for pod in there {
            if let Some(node) = placement::node_of(pod) {
                spots.entry(node).or_default().pods.push(pod);
            }
        }
        for spot in spots.values_mut() {
            spot.pods.sort_by(|a, b| age(a).cmp(&age(b)));
        }
        let min_ready_seconds =
            view.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        Self { view, min_ready_seconds, now, spots }
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds, self.now)
    }

    /// Whether a pod is of the latest revision.
    pub(super) fn is_updated(&self, pod: &Pod) -> bool {
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).map(String::as_str);
        let generation = placement::template_generation(&self.view.set);
        (!self.view.hash.is_empty() && label(REVISION_HASH) == Some(&self.view.hash))
            || (generation.is_some() && label("pod-template-generation") == generation)
    }

    /// On how many nodes a pod is wanted.
    pub(super) fn wanted(&self) -> usize {
        self.spots.values().filter(|spot| spot.wish == Some(Wish::Run)).count()
    }

    /// When the next ready pod becomes available by time alone.
    fn next_available(&self) -> Option<Duration> {
        let pods = self.view.pods.iter().map(|pod| &**pod);
        pods::next_available(pods, self.min_ready_seconds, self.now)
    }
}

fn age(pod: &Pod) -> (bool, Option<Timestamp>, &str) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (pods::node_name(pod).is_none(), created, owners::name(&pod.metadata))
}

fn manage(field: &Field<'_>, backoff: &Backoff, plan: &mut Plan) {
    for (node, spot) in &field.spots {
        let present = spot.pods.iter().filter(|pod| !pods::is_terminating(pod));
        match spot.wish {
            Some(Wish::Run) if spot.pods.is_empty() => plan.create.push((*node).to_owned()),
            Some(Wish::Run | Wish::Keep) => {
                let running = replace_ended(field, node, spot, backoff, plan);
                plan.delete.extend(surplus(field, &running).into_iter().map(Arc::clone));
            }
            Some(Wish::Leave) => plan.delete.extend(present.map(|pod| Arc::clone(pod))),
            // No such node: those that were never on it must not wait for it.
            None => plan.delete.extend(
                present.filter(|pod| pods::node_name(pod).is_none()).map(|pod| Arc::clone(pod)),
            ),
        }
    }
}

/// Deletes the pods that have come to their end, failed ones no sooner than their backoff allows.
/// Returns those that have not.
fn replace_ended<'a>(
    field: &Field<'_>,
    node: &str,
    spot: &Spot<'a>,
    backoff: &Backoff,
    plan: &mut Plan,
) -> Vec<&'a Arc<Pod>> {
    let mut running = Vec::new();
    for pod in spot.pods.iter().filter(|pod| !pods::is_terminating(pod)) {
        match (pods::phase(pod), backoff.left(node, field.now)) {
            ("Failed", Some(left)) => plan.wait(Some(left)),
            ("Failed", None) => {
                plan.ended.push(Ended::Failed(Arc::clone(pod), node.to_owned()));
                plan.delete.push(Arc::clone(pod));
            }
            ("Succeeded", _) => {
                plan.ended.push(Ended::Succeeded(Arc::clone(pod), node.to_owned()));
                plan.delete.push(Arc::clone(pod));
            }
            _ => running.push(*pod),
        }
    }
    running
}

/// The pods of a node that are too many: all but the oldest; with surge, all but the oldest of the
/// latest revision and the oldest of the others, as long as that one serves and the new one does
/// not yet.
fn surplus<'a>(field: &Field<'_>, running: &[&'a Arc<Pod>]) -> Vec<&'a Arc<Pod>> {
    if running.len() <= 1 {
        return Vec::new();
    }
    if !surges(&field.view.set) {
        return running[1..].to_vec();
    }
    let of =
        |updated: bool| running.iter().copied().filter(move |pod| field.is_updated(pod) == updated);
    let (new, old) = (of(true).next(), of(false).next());
    let mut surplus: Vec<_> = of(true).skip(1).chain(of(false).skip(1)).collect();
    if let (Some(new), Some(old)) = (new, old)
        && (!pods::is_ready(old) || field.is_available(new))
    {
        surplus.push(old);
    }
    surplus
}

fn status(field: &Field<'_>) -> DaemonSetStatus {
    let old = field.view.set.status.clone().unwrap_or_default();
    let wanted: Vec<&Spot<'_>> =
        field.spots.values().filter(|spot| spot.wish == Some(Wish::Run)).collect();
    let first: Vec<&Arc<Pod>> =
        wanted.iter().filter_map(|spot| spot.pods.first().copied()).collect();
    let count =
        |holds: &dyn Fn(&Pod) -> bool| count_i32(first.iter().filter(|pod| holds(pod)).count());
    let desired = count_i32(wanted.len());
    let available = count(&|pod| field.is_available(pod));
    let misplaced = field.spots.values().filter(|spot| {
        matches!(spot.wish, Some(Wish::Keep | Wish::Leave)) && !spot.pods.is_empty()
    });
    DaemonSetStatus {
        collision_count: old.collision_count,
        conditions: old.conditions,
        current_number_scheduled: count_i32(first.len()),
        desired_number_scheduled: desired,
        number_available: nonzero(available),
        number_misscheduled: count_i32(misplaced.count()),
        number_ready: count(&pods::is_ready),
        number_unavailable: nonzero(desired - available),
        observed_generation: field.view.set.metadata.generation,
        updated_number_scheduled: nonzero(count(&|pod| field.is_updated(pod))),
    }
}
