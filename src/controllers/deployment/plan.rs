//! What a Deployment needs done next, decided from its ReplicaSets.
//!
//! ```text
//!   deleted ──────► status only
//!   paused ───────► take over a resize, trim the history, counts
//!   resized ──────► spread the change over the ReplicaSets in use
//!   RollingUpdate ► new ReplicaSet up as far as surge allows, then old ones down as far as
//!                   availability allows
//!   Recreate ─────► old ones to 0; when their pods are gone, the new one up
//! ```

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::bounds::Bounds;
use super::status::{self, PROGRESSING};
use super::{revision, scaling};
use crate::controllers::owners;

/// What there is.
#[derive(Debug, Clone)]
pub struct View {
    /// The Deployment.
    pub deployment: Deployment,
    /// The ReplicaSets it controls.
    pub sets: Vec<ReplicaSet>,
    /// The uids of ReplicaSets that have pods which have not come to their end.
    pub running: Vec<String>,
}

/// One write, in the order in which they are done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Create the new ReplicaSet; where it has pods, say so.
    Create(Box<ReplicaSet>),
    /// Write a ReplicaSet, changed from what it was.
    Update(Box<ReplicaSet>),
    /// The same where its size changes from `from`, which is an event.
    Scale {
        /// As it shall be.
        set: Box<ReplicaSet>,
        /// Its size before.
        from: i32,
    },
    /// Delete an old ReplicaSet.
    Delete(String),
    /// Note the revision at the Deployment.
    SetRevision(i64),
}

/// The writes, the status after them, and when to look again though nothing has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to write.
    pub steps: Vec<Step>,
    /// The status to write, where it differs.
    pub status: DeploymentStatus,
    /// When to look again.
    pub again_after: Option<Duration>,
}

/// Decides.
pub fn plan(view: View, now: Timestamp) -> Plan {
    let mut draft = Draft::new(view, now);
    let spec = draft.deployment.spec.clone().unwrap_or_default();
    if draft.deployment.metadata.deletion_timestamp.is_some() {
        let status = draft.counts();
        return draft.finish(status);
    }
    let paused = spec.paused == Some(true);
    draft.note_pause(paused);
    if paused || draft.is_resized() {
        draft.adopt_new();
        draft.resize();
        if paused {
            draft.trim_history();
        }
        let status = draft.counts();
        return draft.finish(status);
    }
    if draft.rolling {
        draft.roll();
    } else {
        draft.recreate();
    }
    let status = draft.rollout_status();
    if status::is_complete(&draft.deployment, &status) {
        draft.trim_history();
    }
    draft.finish(status)
}

/// The view as it becomes, step by step.
struct Draft {
    deployment: Deployment,
    bounds: Bounds,
    rolling: bool,
    new: Option<ReplicaSet>,
    /// By age.
    old: Vec<ReplicaSet>,
    running: Vec<String>,
    steps: Vec<Step>,
    now: Timestamp,
}

impl Draft {
    fn new(view: View, now: Timestamp) -> Self {
        let View { deployment, mut sets, running } = view;
        sets.sort_by(revision::by_age);
        let new =
            revision::position_of_new(&deployment, &sets).map(|position| sets.remove(position));
        let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        let bounds = Bounds::of(&deployment);
        Self { deployment, bounds, rolling, new, old: sets, running, steps: Vec::new(), now }
    }

    /// A paused rollout makes no progress and so cannot miss its deadline.
    fn note_pause(&mut self, paused: bool) {
        if status::deadline_seconds(&self.deployment).is_none() {
            return;
        }
        let now = self.now;
        let status = self.deployment.status.get_or_insert_default();
        let current = status::find(status, PROGRESSING).and_then(|current| current.reason.clone());
        let (reason, message) = match (paused, current.as_deref()) {
            (_, Some("ProgressDeadlineExceeded")) => return,
            (true, reason) if reason != Some("DeploymentPaused") => {
                ("DeploymentPaused", "Deployment is paused")
            }
            (false, Some("DeploymentPaused")) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return,
        };
        status::set_condition(
            status,
            status::condition(PROGRESSING, "Unknown", reason, message, now),
        );
    }

    /// Whether the Deployment's size is not the one its ReplicaSets in use were last scaled for.
    fn is_resized(&self) -> bool {
        self.all().filter(|set| scaling::size(set) > 0).any(|set| {
            revision::number(&set.metadata, revision::DESIRED)
                .is_some_and(|desired| desired != self.bounds.replicas)
        })
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// Takes the new ReplicaSet, where it exists, as the latest revision.
    fn adopt_new(&mut self) {
        let next = self.next_revision();
        let Some(new) = &mut self.new else { return };
        let mut changed = revision::annotate_as_new(&self.deployment, new, next);
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let spec = new.spec.get_or_insert_default();
        if spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            spec.min_ready_seconds = min_ready;
            changed = true;
        }
        let number = revision::revision(&new.metadata);
        let name = owners::name(&new.metadata).to_owned();
        if changed {
            self.steps.push(Step::Update(Box::new(new.clone())));
        }
        self.note_revision(number);
        if status::deadline_seconds(&self.deployment).is_none() {
            return;
        }
        let status = self.deployment.status.get_or_insert_default();
        if status::find(status, PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{name}\"");
            let found =
                status::condition(PROGRESSING, "True", "FoundNewReplicaSet", message, self.now);
            status::set_condition(status, found);
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| revision::revision(&set.metadata)).max().unwrap_or(0) + 1
    }

    fn note_revision(&mut self, number: i64) {
        if revision::revision(&self.deployment.metadata) != number {
            self.steps.push(Step::SetRevision(number));
        }
    }

    /// Takes the new ReplicaSet, or creates it.
    fn ensure_new(&mut self) {
        if self.new.is_some() {
            self.adopt_new();
            return;
        }
        let all = scaling::total(self.all(), scaling::size);
        let size = scaling::new_size(self.bounds, self.rolling, 0, all);
        let next = self.next_revision();
        let set = revision::new_set(&self.deployment, size, next);
        let name = owners::name(&set.metadata).to_owned();
        self.steps.push(Step::Create(Box::new(set.clone())));
        self.note_revision(next);
        if status::deadline_seconds(&self.deployment).is_some() {
            let message = format!("Created new replica set \"{name}\"");
            let created =
                status::condition(PROGRESSING, "True", "NewReplicaSetCreated", message, self.now);
            status::set_condition(self.deployment.status.get_or_insert_default(), created);
        }
        self.new = Some(set);
    }

    /// Brings a ReplicaSet to a size; whether that is another than it had.
    fn scale(&mut self, which: Which, to: i32) -> bool {
        let bounds = self.bounds;
        let set = match which {
            Which::New => self.new.as_mut(),
            Which::Old(position) => self.old.get_mut(position),
        };
        let Some(set) = set else { return false };
        let from = scaling::size(set);
        let noted = revision::note_size(set, bounds);
        if from == to && !noted {
            return false;
        }
        set.spec.get_or_insert_default().replicas = Some(to);
        let set = Box::new(set.clone());
        // One write a ReplicaSet: this one has what an earlier step changed.
        self.steps.retain(
            |step| !matches!(step, Step::Update(earlier) if earlier.metadata.uid == set.metadata.uid),
        );
        self.steps.push(if from == to { Step::Update(set) } else { Step::Scale { set, from } });
        from != to
    }

    fn roll(&mut self) {
        self.ensure_new();
        let created = matches!(self.steps.first(), Some(Step::Create(_)));
        if !created {
            let current = self.new.as_ref().map_or(0, scaling::size);
            let all = scaling::total(self.all(), scaling::size);
            let to = if current > self.bounds.replicas {
                self.bounds.replicas
            } else {
                scaling::new_size(self.bounds, true, current, all)
            };
            if current != self.bounds.replicas && self.scale(Which::New, to) {
                return;
            }
        }
        let sizes = scaling::shrink_old(self.bounds, &self.old, self.new.as_ref());
        for (position, size) in sizes.into_iter().enumerate() {
            if size != scaling::size(&self.old[position]) {
                self.scale(Which::Old(position), size);
            }
        }
    }

    fn recreate(&mut self) {
        self.adopt_new();
        let mut shrunk = false;
        for position in 0..self.old.len() {
            if scaling::size(&self.old[position]) > 0 {
                shrunk |= self.scale(Which::Old(position), 0);
            }
        }
        if shrunk || self.has_old_pods() {
            return;
        }
        if self.new.is_none() {
            self.ensure_new();
        } else {
            self.scale(Which::New, self.bounds.replicas);
        }
    }

    fn has_old_pods(&self) -> bool {
        self.old.iter().any(|set| self.running.iter().any(|uid| uid == owners::uid(&set.metadata)))
    }

    /// Takes over a changed `spec.replicas` outside of a rollout's steps.
    fn resize(&mut self) {
        if let Some(only) = self.active_or_latest() {
            self.scale(only, self.bounds.replicas);
            return;
        }
        if self.new_is_saturated() {
            for position in 0..self.old.len() {
                if scaling::size(&self.old[position]) > 0 {
                    self.scale(Which::Old(position), 0);
                }
            }
            return;
        }
        if self.rolling {
            self.resize_in_proportion();
        }
    }

    fn resize_in_proportion(&mut self) {
        let active: Vec<Which> = self
            .positions()
            .filter(|which| self.get(*which).is_some_and(|set| scaling::size(set) > 0))
            .collect();
        let sets: Vec<&ReplicaSet> = active.iter().filter_map(|which| self.get(*which)).collect();
        let fallback =
            self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let sizes = scaling::in_proportion(self.bounds, fallback, &sets);
        for (which, size) in active.into_iter().zip(sizes) {
            self.scale(which, size);
        }
    }

    fn positions(&self) -> impl Iterator<Item = Which> + use<> {
        let new = self.new.is_some().then_some(Which::New);
        (0..self.old.len()).map(Which::Old).chain(new)
    }

    fn get(&self, which: Which) -> Option<&ReplicaSet> {
        match which {
            Which::New => self.new.as_ref(),
            Which::Old(position) => self.old.get(position),
        }
    }

    /// The only ReplicaSet in use; where none is, the new one or else the youngest.
    fn active_or_latest(&self) -> Option<Which> {
        let mut active = self
            .positions()
            .filter(|which| self.get(*which).is_some_and(|set| scaling::size(set) > 0));
        match (active.next(), active.next()) {
            (None, _) if self.new.is_some() => Some(Which::New),
            (None, _) => self.old.len().checked_sub(1).map(Which::Old),
            (only, None) => only,
            _ => None,
        }
    }

    /// Whether the new ReplicaSet is the whole Deployment already.
    fn new_is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|new| {
            let desired = revision::number(&new.metadata, revision::DESIRED);
            scaling::size(new) == self.bounds.replicas
                && desired == Some(self.bounds.replicas)
                && scaling::available(new) == self.bounds.replicas
        })
    }

    fn trim_history(&mut self) {
        let old: Vec<&ReplicaSet> = self.old.iter().collect();
        let beyond: Vec<Step> = revision::beyond_history(&self.deployment, &old)
            .into_iter()
            .map(|set| Step::Delete(owners::name(&set.metadata).to_owned()))
            .collect();
        self.steps.extend(beyond);
    }

    fn counts(&self) -> DeploymentStatus {
        status::counts(&self.deployment, self.new.as_ref(), &self.old, self.now)
    }

    fn rollout_status(&self) -> DeploymentStatus {
        status::rollout(&self.deployment, self.new.as_ref(), &self.old, self.now)
    }

    fn finish(self, status: DeploymentStatus) -> Plan {
        let again_after = status::until_deadline(&self.deployment, &status, self.now);
        Plan { steps: self.steps, status, again_after }
    }
}

/// Which ReplicaSet of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    New,
    Old(usize),
}
