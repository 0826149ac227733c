//! One task for each pod: observes, plans, does the steps of the plan beside each other, tells
//! the API, and waits for the next reason to do so again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::allocations::Allocations;
use crate::api::{ApiError, PodApi, name, namespace, uid};
use crate::catalog::Catalog;
use crate::checkpoint::Checkpoint;
use crate::config::Timers;
use crate::env::References;
use crate::events::{Kind, Recorder};
use crate::evict::pressure::Pressure;
use crate::node::KnownNode;
use crate::paths::Paths;
use crate::plan::{
    Eviction, Failure, Input, Memory, Observed, Plan, Step, Volumes, is_ending, plan as make_plan,
};
use crate::probes::{Question, Report};
use crate::restarts::{BackoffRule, Backoffs};
use crate::runtime::Runtime;
use crate::spec::NodeFacts;
use crate::static_pods::is_static;
use crate::status::conditions::RESIZE;
use crate::status::{is_final, pod_status, stands};
use crate::volumes;

mod claims;
mod entry;
mod health;
mod observe;
mod resize;
mod start;
mod steps;
mod tokens;

use start::StartError;
use tokens::Held;

/// Reports of probes that may wait; probes wait when it is full.
const REPORTS: usize = 32;
/// Wait after the runtime or the API did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Waits between tries to make a sandbox or to mount volumes.
const SETUP_BACKOFF: BackoffRule = BackoffRule {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(15),
    reset: Duration::from_secs(60),
};
/// Longest time without a look, whatever happens.
const RESYNC: Duration = Duration::from_secs(60);

/// What all workers of an agent share.
pub struct Context {
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The API.
    pub api: Arc<dyn PodApi>,
    /// Where events go.
    pub recorder: Recorder,
    /// Where files go.
    pub paths: Paths,
    /// The node.
    pub node: NodeFacts,
    /// Services, for the variables that name them.
    pub catalog: Arc<RwLock<Catalog>>,
    /// What pods were promised.
    pub allocations: Allocations,
    /// What the node is short of.
    pub pressure: Pressure,
    /// The Node as the API shows it.
    pub known_node: KnownNode,
    /// Last known pods.
    pub checkpoint: Checkpoint,
    /// Periods and deadlines.
    pub timers: Timers,
    /// Bounds pulls at the same time.
    pub pulls: Semaphore,
    /// Names of images from archives, which stand in for a registry: no pull fetches anything newer.
    pub archived: BTreeSet<String>,
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The pod as the API last showed it.
    pub pod: Arc<Pod>,
    /// The API no longer has it.
    pub gone: bool,
    /// The node ends it.
    pub eviction: Option<Eviction>,
    /// For a static pod, the UID of the pod that shows it in the API.
    pub mirror: Option<String>,
}

/// A step that ended.
#[derive(Debug)]
struct Done {
    key: String,
    outcome: Outcome,
}

/// What came of a step.
#[derive(Debug)]
enum Outcome {
    Volumes(Result<References, String>),
    Sandbox(Result<(), String>),
    Start { pod: Arc<Pod>, name: String, result: Result<(), StartError> },
    Resized { pod: Arc<Pod>, name: String, result: Result<(), String> },
    Runtime(Result<(), String>),
    TornDown(Result<(), String>),
    Deleted(Result<(), ApiError>),
    Status(Box<PodStatus>, Box<Result<Pod, ApiError>>),
}

/// The task of one pod.
pub struct Worker {
    context: Arc<Context>,
    desired: watch::Receiver<Desired>,
    nudge: Arc<Notify>,
    memory: Memory,
    observed: Observed,
    references: Arc<References>,
    tokens: Arc<Mutex<Held>>,
    /// Labels and annotations that the volumes' files were last written with.
    written_meta: Option<Meta>,
    /// Steps under way; dropped with the worker, which ends them.
    steps: JoinSet<Done>,
    busy: BTreeSet<String>,
    /// Ends pulls when the pod shall go away.
    starting: CancellationToken,
    setup: Backoffs,
    pulls: Backoffs,
    probes: JoinSet<()>,
    probing: HashMap<(String, Question), AbortHandle>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// The status the API has from us.
    written: Option<PodStatus>,
    /// For a static pod, who shows it, and whether that shows what was written.
    mirror: Option<String>,
    is_shown: bool,
    /// The API said that the pod is gone before the watch did.
    gone: bool,
    /// Containers whose waiting was made an event.
    waiting: BTreeMap<String, String>,
}

impl Worker {
    /// A worker for what `desired` says; `nudge` wakes it when the runtime changed.
    pub fn new(
        context: Arc<Context>,
        desired: watch::Receiver<Desired>,
        nudge: Arc<Notify>,
    ) -> Self {
        let rule = BackoffRule {
            initial: context.timers.backoff_initial,
            max: context.timers.backoff_max,
            reset: context.timers.backoff_reset,
        };
        Self {
            context,
            desired,
            nudge,
            memory: Memory::new(Backoffs::new(rule)),
            observed: Observed::default(),
            references: Arc::default(),
            tokens: Arc::default(),
            written_meta: None,
            steps: JoinSet::new(),
            busy: BTreeSet::new(),
            starting: CancellationToken::new(),
            setup: Backoffs::new(SETUP_BACKOFF),
            pulls: Backoffs::new(rule),
            probes: JoinSet::new(),
            probing: HashMap::new(),
            reports: mpsc::channel(REPORTS),
            written: None,
            mirror: None,
            is_shown: false,
            gone: false,
            waiting: BTreeMap::new(),
        }
    }

    /// Works until nothing is left of the pod, or until `shutdown`, which leaves it running (N1).
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wake_at = tokio::select! {
                wake_at = self.sync() => wake_at,
                () = shutdown.cancelled() => return,
            };
            let Some(wake_at) = wake_at else { return };
            let wait = Duration::try_from(wake_at.duration_since(Timestamp::now()));
            // Every arm is cancel-safe: what was not taken stays where it is.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.nudge.notified() => {}
                Some(done) = self.steps.join_next() => self.note_joined(done).await,
                Some(report) = self.reports.1.recv() => self.note_report(report),
                Some(_) = self.probes.join_next() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()) => {}
            }
            // Many steps may have ended by now: one look serves them all.
            while let Some(done) = self.steps.try_join_next() {
                self.note_joined(done).await;
            }
        }
    }

    /// One look at everything; answers when to look again, or none when the pod is no more.
    async fn sync(&mut self) -> Option<Timestamp> {
        let Desired { pod, gone, eviction, mirror } = self.desired.borrow_and_update().clone();
        self.memory.eviction = eviction;
        if self.mirror != mirror {
            // The new one shows nothing yet.
            self.mirror = mirror;
            self.is_shown = false;
        }
        let gone = gone || self.gone;
        let pod = self.with_status(&pod);
        if is_ending(&pod, gone) || self.memory.eviction.is_some() {
            self.starting.cancel();
        }
        let retry_at = Timestamp::now() + RETRY;
        if let Err(error) = self.observe(&pod).await {
            tracing::debug!(pod = name(&pod), %error, "the runtime does not answer");
            return Some(retry_at);
        }
        let now = Timestamp::now();
        let (pod, ask_at) = self.allocate(pod, gone, now).await;
        self.watch_health(&pod, gone);
        if self.written_meta.as_ref().is_some_and(|written| *written != meta(&pod)) {
            self.memory.refresh_at = self.memory.refresh_at.map(|_| now);
        }
        let plan = make_plan(&self.input(&pod, gone, now));
        if plan.finished {
            // In this order: a promise to a pod that nobody knows would never be taken back.
            self.context.allocations.forget(uid(&pod)).await;
            self.context.checkpoint.remove(uid(&pod));
            return None;
        }
        let wake_at = self.tell(&pod, gone, &plan, now);
        self.announce_waiting(&pod, &plan);
        let pod = Arc::new(pod);
        for step in plan.steps.clone() {
            self.begin(&pod, step);
        }
        let latest = now + RESYNC;
        Some([plan.wake_at, wake_at, ask_at].into_iter().flatten().fold(latest, Timestamp::min))
    }

    fn input<'a>(&'a self, pod: &'a Pod, gone: bool, now: Timestamp) -> Input<'a> {
        Input { pod, gone, observed: &self.observed, memory: &self.memory, busy: &self.busy, now }
    }

    /// The pod with the status we last wrote: the watch may be behind it. Conditions of others
    /// come from the watch.
    fn with_status(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let Some(written) = &self.written else { return pod };
        let mut status = written.clone();
        let seen = pod.status.take().unwrap_or_default();
        let own = status.conditions.get_or_insert_default();
        for condition in seen.conditions.into_iter().flatten() {
            match own.iter_mut().find(|own| own.type_ == condition.type_) {
                Some(own) if condition.type_ == "DisruptionTarget" => *own = condition,
                Some(_) => {}
                // Told by us, and over.
                None if RESIZE.contains(&condition.type_.as_str()) => {}
                None => own.push(condition),
            }
        }
        pod.status = Some(status);
        pod
    }

    /// Writes the status if it changed; answers when to try again.
    fn tell(&mut self, pod: &Pod, gone: bool, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
        const KEY: &str = "status";
        // What was reported as the end stays: containers removed since then would look lost.
        if gone || (self.memory.final_status_written && is_ending(pod, gone)) {
            return None;
        }
        if stands(pod, &self.observed) {
            self.memory.final_status_written = true;
            return is_ending(pod, gone).then_some(now);
        }
        let status = pod_status(&self.input(pod, gone, now), plan, self.context.node.ip);
        let known = self.written.as_ref().or(pod.status.as_ref());
        if is_static(pod) && self.mirror.is_none() {
            // Nobody is there to be told, but what happened is known here.
            if known != Some(&status) {
                self.context.checkpoint.save(&Pod { status: Some(status.clone()), ..pod.clone() });
                self.written = Some(status);
            }
            return None;
        }
        let unchanged = known == Some(&status) && (self.is_shown || !is_static(pod));
        let is_busy = self.busy.contains(KEY);
        self.memory.final_status_written =
            unchanged && is_final(pod, gone, &self.observed) && !is_busy;
        if self.memory.final_status_written {
            // What waited for it is planned at once: news of the write may have come before it ended.
            return Some(now);
        }
        if unchanged || is_busy {
            return None;
        }
        self.busy.insert(KEY.to_owned());
        let (context, mut pod) = (self.context.clone(), pod.clone());
        if let Some(mirror) = &self.mirror {
            pod.metadata.uid = Some(mirror.clone());
        }
        self.steps.spawn(async move {
            let result = context.api.write_status(&pod, &status).await;
            if result.is_err() {
                // The API is not asked again at once by whatever else happens to the pod.
                tokio::time::sleep(RETRY).await;
            }
            Done {
                key: KEY.to_owned(),
                outcome: Outcome::Status(Box::new(status), Box::new(result)),
            }
        });
        None
    }

    /// A container that begins to wait is worth an event.
    fn announce_waiting(&mut self, pod: &Pod, plan: &Plan) {
        for (container, waiting) in &plan.waiting {
            if self.waiting.get(container) == Some(&waiting.reason) {
                continue;
            }
            let recorder = &self.context.recorder;
            match waiting.reason.as_str() {
                "CrashLoopBackOff" => recorder.pod(
                    pod,
                    Some(container),
                    Kind::Warning,
                    "BackOff",
                    format!(
                        "Back-off restarting failed container {container} in pod {}_{}({})",
                        name(pod),
                        namespace(pod),
                        uid(pod)
                    ),
                ),
                "ImagePullBackOff" => {
                    let image = waiting.message.split(": ErrImagePull").next().unwrap_or_default();
                    recorder.pod(pod, Some(container), Kind::Normal, "BackOff", image);
                    let message = "Error: ImagePullBackOff";
                    recorder.pod(pod, Some(container), Kind::Warning, "Failed", message);
                }
                _ => {}
            }
        }
        self.waiting =
            plan.waiting.iter().map(|(name, w)| (name.clone(), w.reason.clone())).collect();
    }

    fn begin(&mut self, pod: &Arc<Pod>, step: Step) {
        let key = step.key();
        if !self.busy.insert(key.clone()) {
            return;
        }
        if let Step::StartContainer { name, .. } = &step
            && let Some(ended) = self.observed.latest(name)
        {
            let finished = ended.finished_at.unwrap_or(ended.created_at);
            self.memory.restarts.note(name, finished, Timestamp::now());
        }
        if step == Step::PrepareVolumes {
            self.written_meta = Some(meta(pod));
        }
        let job = steps::Job {
            context: self.context.clone(),
            pod: pod.clone(),
            ips: self.observed.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default(),
            references: self.references.clone(),
            tokens: self.tokens.clone(),
            cancel: self.starting.clone(),
        };
        self.steps.spawn(async move { Done { key, outcome: job.execute(step).await } });
    }

    async fn note_joined(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(done) => self.note(done).await,
            Err(error) => {
                // A step that panicked leaves no key; none may stay busy for ever.
                tracing::error!(%error, "a step of a pod broke");
                self.steps.abort_all();
                self.busy.clear();
            }
        }
    }

    async fn note(&mut self, done: Done) {
        self.busy.remove(&done.key);
        let now = Timestamp::now();
        let pod = self.desired.borrow().pod.clone();
        match done.outcome {
            Outcome::Volumes(Ok(references)) => {
                self.references = Arc::new(references);
                self.memory.volumes = Volumes::Ready;
                self.memory.refresh_at = self.refresh_at(&pod, now);
                self.setup.forget("volumes");
            }
            Outcome::Volumes(Err(message)) => {
                let recorder = &self.context.recorder;
                recorder.pod(&pod, None, Kind::Warning, "FailedMount", message.clone());
                let failure = self.setup_failure("volumes", "FailedMount", message, now);
                if self.memory.volumes == Volumes::Ready {
                    // What is there stays there.
                    self.memory.refresh_at = Some(failure.retry_at);
                } else {
                    self.memory.volumes = Volumes::Failed(failure);
                }
            }
            Outcome::Sandbox(Ok(())) => {
                self.memory.sandbox = None;
                self.setup.forget("sandbox");
            }
            Outcome::Sandbox(Err(message)) => {
                let text = format!("Failed to create pod sandbox: {message}");
                let reason = "FailedCreatePodSandBox";
                self.context.recorder.pod(&pod, None, Kind::Warning, reason, text.clone());
                self.memory.sandbox = Some(self.setup_failure("sandbox", reason, text, now));
            }
            Outcome::Start { pod, name, result } => {
                // It has what it was started with, also where it did not get far. Noted sooner, an
                // agent that dies in between would believe that it had been restarted.
                if matches!(result, Ok(()) | Err(StartError::Run(_))) {
                    self.note_given(&pod, &name).await;
                }
                self.note_start(&pod, name, result, now);
            }
            Outcome::Resized { pod, name, result } => {
                self.note_resized(&pod, &name, result, now).await;
            }
            Outcome::Runtime(Ok(())) => {}
            Outcome::Runtime(Err(error)) => {
                tracing::warn!(pod = name(&pod), error, "a step of a pod failed");
            }
            Outcome::TornDown(Ok(())) => self.memory.torn_down = true,
            Outcome::TornDown(Err(error)) => {
                tracing::warn!(pod = name(&pod), error, "files of a pod stay");
            }
            Outcome::Deleted(Ok(()) | Err(ApiError::Gone(_))) => self.memory.deleted = true,
            Outcome::Deleted(Err(error)) => {
                tracing::debug!(pod = name(&pod), %error, "the API keeps the pod");
            }
            Outcome::Status(status, result) => self.note_status(&pod, *status, *result),
        }
    }

    fn note_status(&mut self, pod: &Pod, status: PodStatus, result: Result<Pod, ApiError>) {
        match result {
            Ok(written) => {
                self.written = Some(status.clone());
                // The pod as we know it may be newer than the answer: only the status is new.
                let noted = Pod { status: Some(status), ..pod.clone() };
                if is_static(pod) {
                    self.is_shown = self.mirror == written.metadata.uid;
                } else {
                    let (written, noted) = (&written.metadata.uid, &noted.metadata.uid);
                    debug_assert_eq!(written, noted, "status of another pod");
                }
                self.context.checkpoint.save(&noted);
            }
            Err(ApiError::Gone(_)) if pod.metadata.deletion_timestamp.is_some() => self.gone = true,
            Err(error) => {
                tracing::debug!(pod = name(pod), %error, "the status was not taken");
            }
        }
    }

    /// When the volumes' files are written anew; never if nothing of them comes from the API.
    fn refresh_at(&self, pod: &Pod, now: Timestamp) -> Option<Timestamp> {
        if !volumes::is_refreshed(pod) {
            return None;
        }
        let renew_at = self.tokens.try_lock().ok().and_then(|held| held.renew_at());
        let at = now + self.context.timers.volume_refresh;
        Some(renew_at.map_or(at, |renew_at| renew_at.clamp(now + RETRY, at)))
    }

    fn setup_failure(
        &mut self,
        what: &str,
        reason: &str,
        message: String,
        now: Timestamp,
    ) -> Failure {
        self.setup.note(what, now, now);
        let retry_at = self.setup.wait(what, now, now).map_or(now, |(until, _)| until);
        Failure { reason: reason.to_owned(), message, at: now, retry_at }
    }

    fn note_start(
        &mut self,
        pod: &Pod,
        container: String,
        result: Result<(), StartError>,
        now: Timestamp,
    ) {
        let error = match result {
            Ok(()) => {
                self.memory.starts.remove(&container);
                self.pulls.forget(&container);
                return;
            }
            Err(StartError::Cancelled) => return,
            Err(error) => error,
        };
        let retry_at = if error.is_image() {
            self.pulls.note(&container, now, now);
            self.pulls.wait(&container, now, now).map_or(now, |(until, _)| until)
        } else {
            now + self.context.timers.backoff_initial
        };
        let (reason, message) = (error.reason().to_owned(), error.to_string());
        let recorder = &self.context.recorder;
        if error.is_image() {
            let short = format!("Error: {reason}");
            recorder.pod(pod, Some(&container), Kind::Warning, "Failed", short);
        } else {
            let text = format!("Error: {message}");
            recorder.pod(pod, Some(&container), Kind::Warning, "Failed", text);
        }
        // Once the runtime made the container, its end says more than this failure.
        if !matches!(error, StartError::Run(_)) {
            self.memory.starts.insert(container, Failure { reason, message, at: now, retry_at });
        }
    }
}

/// Labels and annotations, which the downward API shows.
type Meta = (Option<BTreeMap<String, String>>, Option<BTreeMap<String, String>>);

fn meta(pod: &Pod) -> Meta {
    (pod.metadata.labels.clone(), pod.metadata.annotations.clone())
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
