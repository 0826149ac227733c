//! What a StatefulSet does next: which pods to create and delete, in which order, and its status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::identity::{self, revision_of};
use crate::controllers::share::{Round, count_i32, nonzero, resolve};
use crate::controllers::{owners, pods};

/// A template of the set's, with the name of its ControllerRevision.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The name.
    pub name: String,
    /// The template.
    pub template: PodTemplateSpec,
}

/// All that is decided by.
#[derive(Debug, Clone)]
pub struct View {
    /// The set.
    pub set: StatefulSet,
    /// Its pods.
    pub pods: Vec<Arc<Pod>>,
    /// What its pods were brought to last.
    pub current: Revision,
    /// What they shall be brought to.
    pub update: Revision,
}

/// Why a pod is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There are fewer replicas now.
    ScaledDown,
    /// It has come to its end, and another takes its place.
    Ended,
    /// It is of an old revision.
    Outdated,
}

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The pods to create, in this order.
    pub create: Vec<Pod>,
    /// The pods to delete, in this order.
    pub delete: Vec<(Arc<Pod>, Why)>,
    /// The status.
    pub status: StatefulSetStatus,
    /// When to look again.
    pub again_after: Option<Duration>,
}

/// Whether something may follow in the same round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Stop,
}

/// Decides.
pub fn plan(view: &View, now: Timestamp) -> Plan {
    let field = Field::new(view, now);
    let mut plan = Plan { status: field.status(), ..Plan::default() };
    let pods = view.pods.iter().map(|pod| &**pod);
    plan.again_after = pods::next_available(pods, field.min_ready_seconds(), now);
    if view.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let grown = field.grow(&mut plan);
    if grown == Flow::GoOn && field.shrink(&mut plan) == Flow::GoOn {
        field.roll(&mut plan);
    }
    plan
}

struct Field<'a> {
    view: &'a View,
    spec: StatefulSetSpec,
    now: Timestamp,
    /// By ordinal; a place without a pod is one to be filled.
    replicas: Vec<(i32, Option<&'a Arc<Pod>>)>,
    /// Beyond the replicas, from the highest ordinal down.
    condemned: Vec<&'a Arc<Pod>>,
}

impl<'a> Field<'a> {
    fn new(view: &'a View, now: Timestamp) -> Self {
        let spec = view.set.spec.clone().unwrap_or_default();
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let wanted = start..start + spec.replicas.unwrap_or(1);
        let name = owners::name(&view.set.metadata);
        let ordinal = |pod: &Pod| identity::ordinal(name, owners::name(&pod.metadata));
        let at = |wanted: i32| view.pods.iter().find(|pod| ordinal(pod) == Some(wanted));
        let replicas = wanted.clone().map(|one| (one, at(one))).collect();
        let mut condemned: Vec<_> = view
            .pods
            .iter()
            .filter(|pod| ordinal(pod).is_some_and(|ordinal| !wanted.contains(&ordinal)))
            .collect();
        condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
        Self { view, spec, now, replicas, condemned }
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    /// One after the other, in order.
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_running_and_available(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        self.is_running_and_available(pod) && !pods::is_terminating(pod)
    }

    /// `None` where pods are replaced when somebody deletes them.
    fn partition(&self) -> Option<i32> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        Some(rolling.and_then(|rolling| rolling.partition).unwrap_or(0))
    }

    fn most_unavailable(&self) -> usize {
        let rolling =
            self.spec.update_strategy.as_ref().and_then(|one| one.rolling_update.as_ref());
        let most = rolling.and_then(|rolling| rolling.max_unavailable.clone());
        let most = most.unwrap_or(IntOrString::Int(1));
        let replicas = count_i32(self.replicas.len());
        usize::try_from(resolve(&most, replicas, Round::Up)).unwrap_or(1).max(1)
    }

    /// The pod of an ordinal; below the partition it is of the revision of before.
    fn make(&self, ordinal: i32) -> Pod {
        let start = self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let is_held_back =
            self.partition().is_some_and(|partition| ordinal < start.max(0) + partition);
        let revision = if is_held_back { &self.view.current } else { &self.view.update };
        identity::pod(&self.view.set, &revision.template, &revision.name, ordinal)
    }

    /// Fills the places, in order; an ordered set waits at the first pod that does not serve.
    fn grow(&self, plan: &mut Plan) -> Flow {
        for (ordinal, pod) in &self.replicas {
            let Some(pod) = pod else {
                plan.create.push(self.make(*ordinal));
                if self.is_ordered() {
                    return Flow::Stop;
                }
                continue;
            };
            if pods::is_terminal(pod) {
                if !pods::is_terminating(pod) {
                    plan.delete.push((Arc::clone(pod), Why::Ended));
                }
                return Flow::Stop;
            }
            if self.is_ordered() && !self.is_healthy(pod) {
                return Flow::Stop;
            }
        }
        Flow::GoOn
    }

    /// Deletes what is beyond the replicas; an ordered set one after the other, and while another
    /// does not serve only that one.
    fn shrink(&self, plan: &mut Plan) -> Flow {
        let own = self.replicas.iter().filter_map(|(_, pod)| *pod);
        let lowest_first = self.condemned.iter().rev().copied();
        let unhealthy = own.chain(lowest_first).find(|pod| !self.is_healthy(pod));
        for pod in &self.condemned {
            if pods::is_terminating(pod) {
                if self.is_ordered() {
                    return Flow::Stop;
                }
                continue;
            }
            let is_first = unhealthy.is_some_and(|first| Arc::ptr_eq(first, pod));
            if self.is_ordered() && !self.is_running_and_available(pod) && !is_first {
                return Flow::Stop;
            }
            plan.delete.push((Arc::clone(pod), Why::ScaledDown));
            if self.is_ordered() {
                return Flow::Stop;
            }
        }
        Flow::GoOn
    }

    /// Replaces pods of old revisions from the highest ordinal down, as many as may be missing.
    fn roll(&self, plan: &mut Plan) {
        let Some(partition) = self.partition() else { return };
        let most = self.most_unavailable();
        let there = |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| self.is_healthy(pod));
        let mut missing = self.replicas.iter().filter(|(_, pod)| !there(*pod)).count();
        let mut under_way = 0;
        let least = usize::try_from(partition).unwrap_or(0);
        for (_, pod) in self.replicas.iter().skip(least).rev() {
            if under_way >= most {
                return;
            }
            let Some(pod) = pod else { continue };
            let is_outdated = revision_of(pod) != self.view.update.name;
            if !is_outdated || pods::is_terminating(pod) {
                under_way += usize::from(!self.is_healthy(pod));
                continue;
            }
            // One that does not serve is missing already.
            if self.is_healthy(pod) {
                if missing >= most && most > 1 {
                    continue;
                }
                missing += 1;
            }
            under_way += 1;
            plan.delete.push((Arc::clone(pod), Why::Outdated));
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let old = self.view.set.status.clone().unwrap_or_default();
        let count = |holds: &dyn Fn(&Pod) -> bool| {
            count_i32(self.view.pods.iter().filter(|pod| holds(pod)).count())
        };
        let is_created = |pod: &Pod| !pods::phase(pod).is_empty();
        let of = |name: &str| {
            count(&|pod: &Pod| {
                is_created(pod) && !pods::is_terminating(pod) && revision_of(pod) == name
            })
        };
        let ready = count(&|pod| pods::phase(pod) == "Running" && pods::is_ready(pod));
        let (mut current_name, mut current) =
            (&self.view.current.name, of(&self.view.current.name));
        let updated = of(&self.view.update.name);
        let wanted = count_i32(self.replicas.len());
        if self.partition().is_some() && updated == wanted && ready == wanted {
            (current_name, current) = (&self.view.update.name, updated);
        }
        StatefulSetStatus {
            available_replicas: Some(count(&|pod| self.is_running_and_available(pod))),
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions,
            current_replicas: nonzero(current),
            current_revision: Some(current_name.clone()),
            observed_generation: self.view.set.metadata.generation,
            ready_replicas: nonzero(ready),
            replicas: count(&is_created),
            update_revision: Some(self.view.update.name.clone()),
            updated_replicas: nonzero(updated),
        }
    }
}
