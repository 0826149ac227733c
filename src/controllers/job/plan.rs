//! What a Job needs now: which pods to create and to delete, which terminated pods to count, and
//! whether it has come to its end.
//!
//! A terminated pod is counted in three steps, so that it is counted once whatever happens between
//! them: its uid goes into `uncountedTerminatedPods`; its finalizer is taken off; its uid becomes one
//! in the count ([`settle`]). A succeeded index is its own record and needs no uid.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff;
use super::failure::{self, Verdict};
use super::indexes::{self, Indexes};
use crate::controllers::node_lifecycle::health::seconds;
use crate::controllers::share::count_i32;
use crate::controllers::{owners, pods};

/// The finalizer that keeps a pod until it is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// How many pods are created or deleted in one reconcile at most.
pub const BURST: usize = 500;
/// How many pods are counted in one reconcile at most.
const UNCOUNTED_MAX: usize = 500;

/// A pod to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPod {
    /// Its index, in an Indexed Job.
    pub index: Option<i32>,
    /// How often its index has failed, counted and not, where that is kept.
    pub failures: Option<(i32, i32)>,
}

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The pods to create.
    pub create: Vec<NewPod>,
    /// The pods whose finalizer to take off once `status` is written.
    pub release: Vec<Arc<Pod>>,
    /// The status before any of that; `active` and `ready` follow from what comes of it.
    pub status: JobStatus,
    /// The condition with which the Job ends once nothing is left to count and to wait for.
    pub end: Option<JobCondition>,
    /// Whether all that ended could be taken in.
    pub is_whole: bool,
    /// Whether the Job has begun (true) or ceased (false) to rest.
    pub rests: Option<bool>,
    /// When to look again.
    pub again_after: Option<Duration>,
}

impl Plan {
    fn wait(&mut self, after: Option<Duration>) {
        self.again_after = self.again_after.into_iter().chain(after).min();
    }
}

/// A condition that holds since now.
pub fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(seconds(now))),
        last_transition_time: Some(Time(seconds(now))),
    }
}

/// The Job's condition of a type, where it holds.
pub fn holding<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition with which the Job has ended.
pub fn ended(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holding(status, "Complete").or_else(|| holding(status, "Failed"))
}

/// Whether a pod waits to be counted.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Decides about a Job that has not ended. `all` are its pods.
pub fn plan(job: &Job, all: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let mut field = Field::new(job, &spec, all, now);
    let mut plan =
        Plan { status: job.status.clone().unwrap_or_default(), is_whole: true, ..Plan::default() };
    if plan.status.start_time.is_none() && !field.rests() {
        plan.status.start_time = Some(Time(seconds(now)));
    }
    let mut target = target(&field, &mut plan);
    if target.is_some() {
        plan.delete.clone_from(&field.active);
    } else {
        if job.metadata.deletion_timestamp.is_none() {
            manage(&field, &mut plan);
        }
        if plan.create.is_empty() && field.is_complete(plan.delete.len()) {
            let reached = "Reached expected number of succeeded pods";
            target = Some(condition("SuccessCriteriaMet", "CompletionsReached", reached, now));
        } else {
            rest(&field, &mut plan);
        }
    }
    count(&mut field, &mut plan, target.as_ref());
    plan.status.terminating = Some(field.terminating);
    plan.end = target.map(|target| announce(&mut plan.status, &target, now));
    plan
}

/// The Job and its pods as they are.
struct Field<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    all: &'a [Arc<Pod>],
    now: Timestamp,
    active: Vec<Arc<Pod>>,
    terminating: i32,
    /// What was counted, and what is now to be.
    succeeded: i32,
    failed: i32,
    /// In an Indexed Job, with those that succeed now.
    succeeded_indexes: Indexes,
    /// Where each index may fail so often.
    failed_indexes: Option<Indexes>,
    /// The failed pods whose finalizer stays until another takes their place, by index.
    delayed: BTreeMap<i32, Arc<Pod>>,
}

impl<'a> Field<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, all: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let noted = noted(&status);
        let is_new =
            |pod: &&Arc<Pod>| is_tracked(pod) && !noted.contains(owners::uid(&pod.metadata));
        let new_failed = all.iter().filter(is_new).filter(|pod| {
            failure::is_failed(pod, job) && failure::verdict(job, pod) != Verdict::Ignore
        });
        let new_succeeded = all.iter().filter(is_new).filter(|pod| pods::phase(pod) == "Succeeded");
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let total = |counted: Option<i32>, uncounted: Option<Vec<String>>, new: usize| {
            counted.unwrap_or(0) + count_i32(uncounted.unwrap_or_default().len() + new)
        };
        let terminating =
            all.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod)).count();
        let mut field = Self {
            job,
            spec,
            all,
            now,
            active: all.iter().filter(|pod| pods::is_active(pod)).cloned().collect(),
            terminating: count_i32(terminating),
            succeeded: total(status.succeeded, uncounted.succeeded, new_succeeded.count()),
            failed: total(status.failed, uncounted.failed, new_failed.count()),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
        };
        if indexes::is_indexed(job) {
            field.find_indexes(&status);
        }
        field
    }

    fn find_indexes(&mut self, status: &JobStatus) {
        let completions = self.completions();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        self.succeeded_indexes = Indexes::parse(&text(&status.completed_indexes), completions);
        for pod in self.all.iter().filter(|pod| is_tracked(pod)) {
            if pods::phase(pod) == "Succeeded"
                && let Some(index) = self.index(pod)
            {
                self.succeeded_indexes.insert(index);
            }
        }
        self.succeeded = self.succeeded_indexes.len();
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let mut failed = Indexes::parse(&text(&status.failed_indexes), completions);
        let failures =
            || self.all.iter().filter(|pod| is_tracked(pod) && failure::is_failed(pod, self.job));
        for pod in failures() {
            if let Some(index) = self.index(pod)
                && !self.succeeded_indexes.has(index)
                && failure::ends_index(self.job, pod, limit)
            {
                failed.insert(index);
            }
        }
        let active: HashSet<i32> = self.active.iter().filter_map(|pod| self.index(pod)).collect();
        let mut delayed: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in failures() {
            let Some(index) = self.index(pod) else { continue };
            if self.succeeded_indexes.has(index) || failed.has(index) || active.contains(&index) {
                continue;
            }
            let failures = |pod: &Pod| {
                let (counted, ignored) = failure::index_failures(pod);
                counted + ignored
            };
            if delayed.get(&index).is_none_or(|other| failures(other) <= failures(pod)) {
                delayed.insert(index, Arc::clone(pod));
            }
        }
        self.delayed = delayed;
        self.failed_indexes = Some(failed);
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The pod's index, where the Job has it.
    fn index(&self, pod: &Pod) -> Option<i32> {
        indexes::of_pod(pod).filter(|index| *index < self.completions())
    }

    fn rests(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn parallelism(&self) -> i32 {
        self.spec.parallelism.unwrap_or(1)
    }

    fn is_complete(&self, deleted: usize) -> bool {
        let enough = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        enough && self.active.len() == deleted
    }
}

fn noted(status: &JobStatus) -> HashSet<&str> {
    let uncounted = status.uncounted_terminated_pods.iter();
    uncounted
        .flat_map(|one| one.succeeded.iter().chain(&one.failed))
        .flatten()
        .map(String::as_str)
        .collect()
}

/// Towards which end the Job goes, decided now or before.
fn target(field: &Field<'_>, plan: &mut Plan) -> Option<JobCondition> {
    for kind in ["SuccessCriteriaMet", "FailureTarget"] {
        if let Some(known) = holding(&plan.status, kind) {
            return Some(known.clone());
        }
    }
    let fail =
        |reason: &str, message: &str| Some(condition("FailureTarget", reason, message, field.now));
    let verdicts = field
        .all
        .iter()
        .filter(|pod| failure::is_failed(pod, field.job))
        .map(|pod| failure::verdict(field.job, pod));
    for verdict in verdicts {
        if let Verdict::FailJob(message) = verdict {
            return fail("PodFailurePolicy", &message);
        }
    }
    let limit = field.spec.backoff_limit.unwrap_or(6);
    if field.failed > limit || restarts_reach(field, limit) {
        return fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    match deadline_left(field, &plan.status) {
        Some(None) => {
            return fail("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        Some(left) => plan.wait(left),
        None => {}
    }
    target_of_indexes(field)
}

fn target_of_indexes(field: &Field<'_>) -> Option<JobCondition> {
    if !indexes::is_indexed(field.job) {
        return None;
    }
    let failed = field.failed_indexes.as_ref().map_or(0, Indexes::len);
    let fail =
        |reason: &str, message: &str| Some(condition("FailureTarget", reason, message, field.now));
    if field.spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return fail("MaxFailedIndexesExceeded", message);
    }
    if failed > 0 && failed + field.succeeded_indexes.len() >= field.completions() {
        return fail("FailedIndexes", "Job has failed indexes");
    }
    let policy = field.spec.success_policy.as_ref()?;
    let rule = indexes::met(policy, &field.succeeded_indexes, field.completions())?;
    let message = format!("Matched rules at index {rule}");
    Some(condition("SuccessCriteriaMet", "SuccessPolicy", &message, field.now))
}

/// Whether containers that are started again in their pods have failed often enough.
fn restarts_reach(field: &Field<'_>, limit: i32) -> bool {
    let restart = field.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if restart != Some("OnFailure") {
        return false;
    }
    let live = field.all.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = live.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
    });
    let restarts: i32 = statuses.map(|container| container.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// `None` without a deadline; the time left, which is none when it has passed.
#[allow(clippy::option_option, reason = "no deadline and none left are different answers")]
fn deadline_left(field: &Field<'_>, status: &JobStatus) -> Option<Option<Duration>> {
    let deadline = field.spec.active_deadline_seconds?;
    let begun = status.start_time.as_ref().filter(|_| !field.rests())?.0;
    let left = SignedDuration::from_secs(deadline) - field.now.duration_since(begun);
    Some(Duration::try_from(left).ok().filter(|left| !left.is_zero()))
}

/// Creates the pods that are missing, or deletes those that are too many.
fn manage(field: &Field<'_>, plan: &mut Plan) {
    let active = count_i32(field.active.len());
    if field.rests() {
        plan.delete.clone_from(&field.active);
        return;
    }
    let wanted = match field.spec.completions {
        None if field.succeeded > 0 => active,
        None => field.parallelism(),
        Some(completions) => (completions - field.succeeded).clamp(0, field.parallelism()),
    };
    plan.delete = surplus(field, usize::try_from(active - wanted).unwrap_or(0));
    plan.delete.truncate(BURST);
    if !plan.delete.is_empty() {
        return;
    }
    let leaving = if failure::only_replaces_ended(field.job) { field.terminating } else { 0 };
    let missing = usize::try_from(wanted - leaving - active).unwrap_or(0).min(BURST);
    if missing == 0 {
        return;
    }
    if field.failed_indexes.is_none()
        && let Some(left) = backoff::left(field.job, field.all, field.now)
    {
        return plan.wait(Some(left));
    }
    if indexes::is_indexed(field.job) {
        create_indexes(field, missing, plan);
    } else {
        plan.create = vec![NewPod { index: None, failures: None }; missing];
    }
}

fn create_indexes(field: &Field<'_>, missing: usize, plan: &mut Plan) {
    let mut taken: HashSet<i32> = field.active.iter().filter_map(|pod| field.index(pod)).collect();
    if failure::only_replaces_ended(field.job) {
        let leaving =
            field.all.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod));
        taken.extend(leaving.filter_map(|pod| field.index(pod)));
    }
    let is_open = |index: &i32| {
        !taken.contains(index)
            && !field.succeeded_indexes.has(*index)
            && !field.failed_indexes.as_ref().is_some_and(|failed| failed.has(*index))
    };
    for index in (0..field.completions()).filter(is_open).take(missing) {
        let before = field.delayed.get(&index);
        if let Some(pod) = before {
            let (counted, ignored) = failure::next_index_failures(field.job, pod);
            let failures = usize::try_from(counted + ignored).unwrap_or(0);
            let last = failure::ended_at(pod).unwrap_or(field.now);
            if let Some(left) = backoff::after(failures, last, field.now) {
                plan.wait(Some(left));
                continue;
            }
        }
        let failures = field
            .failed_indexes
            .as_ref()
            .map(|_| before.map_or((0, 0), |pod| failure::next_index_failures(field.job, pod)));
        plan.create.push(NewPod { index: Some(index), failures });
    }
}

/// At least `least` of the active pods that are too many: in an Indexed Job those without an index of
/// their own first, then those that have got least far.
fn surplus(field: &Field<'_>, least: usize) -> Vec<Arc<Pod>> {
    let mut left = field.active.clone();
    left.sort_by_cached_key(|pod| progress(pod));
    let mut surplus = Vec::new();
    if indexes::is_indexed(field.job) {
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        // From the one that has got farthest, which is the one of its index that stays.
        for pod in left.into_iter().rev() {
            match field.index(&pod) {
                Some(index) if seen.insert(index) => kept.push(pod),
                _ => surplus.push(pod),
            }
        }
        kept.reverse();
        left = kept;
    }
    let more = least.saturating_sub(surplus.len());
    surplus.extend(left.into_iter().take(more));
    surplus
}

/// How far a pod has got: bound, running, ready, and for how long.
fn progress(pod: &Pod) -> (bool, u8, bool, std::cmp::Reverse<Option<Timestamp>>, String) {
    let phase = match pods::phase(pod) {
        "Running" => 2,
        "Pending" | "" => 0,
        _ => 1,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let name = owners::name(&pod.metadata).to_owned();
    let bound = pods::node_name(pod).is_some();
    (bound, phase, pods::is_ready(pod), std::cmp::Reverse(created), name)
}

/// Says in the conditions whether the Job rests.
fn rest(field: &Field<'_>, plan: &mut Plan) {
    let known = plan.status.conditions.iter().flatten().find(|one| one.type_ == "Suspended");
    let (status, reason, message) = match (field.rests(), known.map(|one| one.status == "True")) {
        (true, Some(true)) | (false, None | Some(false)) => return,
        (true, _) => ("True", "JobSuspended", "Job suspended"),
        (false, _) => ("False", "JobResumed", "Job resumed"),
    };
    let mut changed = condition("Suspended", reason, message, field.now);
    status.clone_into(&mut changed.status);
    let conditions = plan.status.conditions.get_or_insert_default();
    conditions.retain(|one| one.type_ != "Suspended");
    conditions.push(changed);
    plan.rests = Some(field.rests());
    if !field.rests() {
        plan.status.start_time = Some(Time(seconds(field.now)));
    }
}

/// Takes the pods that have come to their end into the status, as far as there is room.
fn count(field: &mut Field<'_>, plan: &mut Plan, target: Option<&JobCondition>) {
    let status = &mut plan.status;
    let is_indexed = indexes::is_indexed(field.job);
    let fails = target.is_some_and(|target| target.type_ == "FailureTarget");
    let before = status.completed_indexes.clone().unwrap_or_default();
    let mut done = Indexes::parse(&before, field.completions());
    let known: HashSet<String> = noted(status).into_iter().map(str::to_owned).collect();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let mut new = 0;
    for pod in field.all.iter().filter(|pod| is_tracked(pod)) {
        let succeeded = pods::phase(pod) == "Succeeded";
        let failed = failure::is_failed(pod, field.job);
        let is_delayed = field.delayed.values().any(|delayed| Arc::ptr_eq(delayed, pod));
        let is_owner_going = field.job.metadata.deletion_timestamp.is_some();
        if !(succeeded || failed || is_owner_going) || (is_delayed && target.is_none()) {
            continue;
        }
        if new >= UNCOUNTED_MAX {
            plan.is_whole = false;
            break;
        }
        plan.release.push(Arc::clone(pod));
        let uid = owners::uid(&pod.metadata).to_owned();
        let is_own_index = !is_indexed || field.index(pod).is_some();
        if known.contains(&uid) || !is_own_index {
            continue;
        }
        if succeeded && is_indexed {
            new += usize::from(field.index(pod).is_some_and(|index| done.insert(index)));
        } else if succeeded {
            new += 1;
            uncounted.succeeded.get_or_insert_default().push(uid);
        } else if (failed || fails) && failure::verdict(field.job, pod) != Verdict::Ignore {
            new += 1;
            uncounted.failed.get_or_insert_default().push(uid);
        }
    }
    if is_indexed {
        status.succeeded = Some(done.len()).filter(|count| *count > 0);
        status.completed_indexes = Some(done.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = field.failed_indexes.as_ref().map(ToString::to_string);
    }
}

/// Notes in the conditions towards which end the Job goes; gives the condition of that end.
fn announce(status: &mut JobStatus, target: &JobCondition, now: Timestamp) -> JobCondition {
    if holding(status, &target.type_).is_none() {
        status.conditions.get_or_insert_default().push(target.clone());
    }
    let kind = if target.type_ == "FailureTarget" { "Failed" } else { "Complete" };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    condition(kind, &text(&target.reason), &text(&target.message), now)
}

/// Makes counts of the uncounted pods whose finalizer is off: those not among `tracked`.
pub fn settle(status: &mut JobStatus, tracked: &BTreeSet<String>) {
    let Some(uncounted) = status.uncounted_terminated_pods.take() else { return };
    let left = |uids: Option<Vec<String>>, count: &mut Option<i32>| {
        let (kept, gone): (Vec<_>, Vec<_>) =
            uids.unwrap_or_default().into_iter().partition(|uid| tracked.contains(uid));
        if !gone.is_empty() {
            *count = Some(count.unwrap_or(0) + count_i32(gone.len()));
        }
        Some(kept).filter(|kept| !kept.is_empty())
    };
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: left(uncounted.succeeded, &mut status.succeeded),
        failed: left(uncounted.failed, &mut status.failed),
    });
}

/// Ends the Job, where nothing is left to count and to wait for. Whether it has ended.
pub fn end(status: &mut JobStatus, condition: &JobCondition, now: Timestamp) -> bool {
    let busy = |count: Option<i32>| count.unwrap_or(0) > 0;
    if !noted(status).is_empty() || busy(status.active) || busy(status.terminating) {
        return false;
    }
    status.conditions.get_or_insert_default().push(condition.clone());
    if condition.type_ == "Complete" {
        status.completion_time = Some(Time(seconds(now)));
    }
    true
}
