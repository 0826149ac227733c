//! What every controller runs on: changes become keys, keys wait in a [`WorkQueue`], workers
//! reconcile them.
//!
//! A controller only says which keys a change concerns, and how to reconcile a key. A reconcile that
//! fails, panics or takes too long is counted and tried again after its key's backoff, and takes no
//! other with it. All ends with the context's token.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use kontiki_api::informer::{Change, Informer, Informers};
use kontiki_api::status::Status;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::ControllerMetrics;
use super::queue::WorkQueue;
use crate::leader_context::LeaderContext;

/// The longest a reconcile may take before it is given up and tried again.
const RECONCILE_DEADLINE: Duration = Duration::from_mins(1);
/// Computing that a reconcile may do without a rest afterwards.
const BUSY_FREE: Duration = Duration::from_millis(1);
/// How many times as long as it computed a key rests, so that none takes more than a quarter of a
/// thread: a ReplicaSet of 5,000 pods was reconciled at each change of each, 17 % of two cores.
const REST_FACTOR: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(100);
/// How often it is told that informers have not reached the revision at which the term began.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(10);

/// When to look at a key again though nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Only on a change.
    OnChange,
    /// After that time.
    After(Duration),
}

impl From<Option<Duration>> for Next {
    fn from(after: Option<Duration>) -> Self {
        after.map_or(Self::OnChange, Self::After)
    }
}

/// Why a reconcile did not come to its end.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The API refused.
    #[error("{act}")]
    Api {
        /// What was tried, on what.
        act: String,
        /// What the API said.
        #[source]
        status: Status,
    },
    /// The informers have not yet seen what was written before.
    #[error("the cache has not reached revision {revision} within its deadline")]
    Stale {
        /// The revision awaited.
        revision: u64,
    },
    /// It took too long.
    #[error("no end after {} s", RECONCILE_DEADLINE.as_secs())]
    TimedOut,
    /// It panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl ReconcileError {
    /// Whether the term is past: whatever is tried again under it fails too.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Api { status, .. } if status.is_fenced())
    }
}

/// Names the act in front of what the API said about it.
pub trait During<T> {
    /// `act` is called for its words only where the call failed.
    fn during(self, act: impl FnOnce() -> String) -> Result<T, ReconcileError>;
}

impl<T> During<T> for Result<T, Status> {
    fn during(self, act: impl FnOnce() -> String) -> Result<T, ReconcileError> {
        self.map_err(|status| ReconcileError::Api { act: act(), status })
    }
}

/// Brings what a key names to what it shall be. Must be idempotent and take no input but the key
/// and what the informers hold.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    /// What is reconciled.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;

    /// Reconciles.
    async fn reconcile(&self, key: &Self::Key) -> Result<Next, ReconcileError>;
}

/// An object before and after a change; one of them may be missing, not both.
#[derive(Debug)]
pub struct Seen<'a, K> {
    /// Before; `None` where the object is new, or was there when the controller began.
    pub old: Option<&'a K>,
    /// After; `None` where it was deleted.
    pub new: Option<&'a K>,
}

type Feed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A controller being put together: sources first, then [`Controller::run`].
pub struct Controller<R: Reconcile> {
    name: &'static str,
    reconciler: Arc<R>,
    queue: Arc<WorkQueue<R::Key>>,
    feeds: Vec<Feed>,
    workers: usize,
    begin: u64,
    metrics: Arc<ControllerMetrics>,
    informers: Arc<Informers>,
    token: CancellationToken,
}

impl<R: Reconcile> Controller<R> {
    /// A controller of that name, which starts to act once its sources have reached the revision
    /// `begin`.
    pub fn new(name: &'static str, context: &LeaderContext, begin: u64, reconciler: R) -> Self {
        Self {
            name,
            reconciler: Arc::new(reconciler),
            queue: Arc::default(),
            feeds: Vec::new(),
            workers: context.settings.workers.max(1),
            begin,
            metrics: context.metrics.controller(name),
            informers: Arc::clone(&context.informers),
            token: context.token.child_token(),
        }
    }

    /// The queue, for reconcilers that find out about other keys.
    pub fn queue(&self) -> Arc<WorkQueue<R::Key>> {
        Arc::clone(&self.queue)
    }

    /// How many keys are worked on at the same time, instead of the setting.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Adds a source: the keys of an object are reconciled when it changes, those before the change
    /// and those after it.
    #[must_use]
    pub fn watch<K, F>(self, informer: &Arc<Informer<K>>, keys: F) -> Self
    where
        K: Send + Sync + 'static,
        F: Fn(&K) -> Vec<R::Key> + Send + 'static,
    {
        self.watch_changes(informer, move |seen| {
            let mut all: Vec<R::Key> = seen.old.map(&keys).unwrap_or_default();
            all.extend(seen.new.map(&keys).unwrap_or_default());
            all
        })
    }

    /// The same for who must see the whole change to know whom it concerns.
    #[must_use]
    pub fn watch_changes<K, F>(mut self, informer: &Arc<Informer<K>>, keys: F) -> Self
    where
        K: Send + Sync + 'static,
        F: Fn(Seen<'_, K>) -> Vec<R::Key> + Send + 'static,
    {
        let feed = feed(informer, Arc::clone(&self.queue), self.begin, keys, Vec::new);
        self.feeds.push(Box::pin(feed));
        self
    }

    /// The same for who finds its sources itself: `feed` is given the queue and the revision to begin
    /// with, and fills the queue for as long as it is polled.
    #[must_use]
    pub fn feed_by<F>(mut self, feed: impl FnOnce(Arc<WorkQueue<R::Key>>, u64) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let feed = feed(Arc::clone(&self.queue), self.begin);
        self.feeds.push(Box::pin(feed));
        self
    }

    /// Runs until the token is cancelled; all tasks are joined then.
    pub async fn run(mut self) {
        let mut tasks = JoinSet::new();
        for feed in std::mem::take(&mut self.feeds) {
            let token = self.token.clone();
            // Dropping a feed loses nothing: the queue it feeds ends with it.
            tasks.spawn(async move {
                let _ended = token.run_until_cancelled(feed).await;
            });
        }
        // A reconcile looks at more than what wakes it: a CronJob was told that its Jobs were gone
        // while the list of them was still being read.
        if self.token.run_until_cancelled(caught_up(&self.informers, self.begin)).await.is_some() {
            self.begin_work(&mut tasks);
        }
        while tasks.join_next().await.is_some() {}
    }

    fn begin_work(&self, tasks: &mut JoinSet<()>) {
        for _ in 0..self.workers {
            let worker = Worker {
                name: self.name,
                reconciler: Arc::clone(&self.reconciler),
                queue: Arc::clone(&self.queue),
                metrics: Arc::clone(&self.metrics),
                token: self.token.clone(),
            };
            tasks.spawn(worker.run());
        }
    }
}

/// Waits until all informers of a view have what was written before the term: nothing may be decided
/// on less.
pub async fn caught_up(informers: &Informers, begin: u64) {
    while tokio::time::timeout(CATCH_UP_PATIENCE, informers.caught_up(begin)).await.is_err() {
        tracing::warn!(begin, "the informers are behind: nothing is decided until they are not");
    }
}

/// Turns changes into keys. `missed` says what to look at beside all objects when changes were left
/// out, among them perhaps deletions.
pub(super) fn feed<K, Key, F, M>(
    informer: &Arc<Informer<K>>,
    queue: Arc<WorkQueue<Key>>,
    begin: u64,
    keys: F,
    missed: M,
) -> impl Future<Output = ()> + use<K, Key, F, M>
where
    K: Send + Sync + 'static,
    Key: Clone + Eq + Hash,
    F: Fn(Seen<'_, K>) -> Vec<Key>,
    M: Fn() -> Vec<Key>,
{
    // Subscribed before the list is read, so that nothing falls between.
    let changes = informer.subscribe();
    follow(Arc::clone(informer), changes, queue, begin, keys, missed)
}

async fn follow<K, Key, F, M>(
    informer: Arc<Informer<K>>,
    mut changes: mpsc::Receiver<Change<K>>,
    queue: Arc<WorkQueue<Key>>,
    begin: u64,
    keys: F,
    missed: M,
) where
    K: Send + Sync + 'static,
    Key: Clone + Eq + Hash,
    F: Fn(Seen<'_, K>) -> Vec<Key>,
    M: Fn() -> Vec<Key>,
{
    informer.synced().await;
    informer.reached(begin).await;
    let mut change = Some(Change::Resync);
    while let Some(this) = change {
        let found: Vec<Key> = match &this {
            Change::Added(new) => keys(Seen { old: None, new: Some(new) }),
            Change::Updated { old, new } => keys(Seen { old: Some(old), new: Some(new) }),
            Change::Deleted(old) => keys(Seen { old: Some(old), new: None }),
            Change::Resync => informer
                .list()
                .iter()
                .flat_map(|object| keys(Seen { old: None, new: Some(object) }))
                .chain(missed())
                .collect(),
        };
        for key in found {
            queue.add(key).await;
        }
        change = changes.recv().await;
    }
}

struct Worker<R: Reconcile> {
    name: &'static str,
    reconciler: Arc<R>,
    queue: Arc<WorkQueue<R::Key>>,
    metrics: Arc<ControllerMetrics>,
    token: CancellationToken,
}

impl<R: Reconcile> Worker<R> {
    async fn run(self) {
        // Waiting for a key is cancel-safe; a reconcile under way is dropped with the term, whose
        // successor begins from the whole state.
        while let Some(key) = self.token.run_until_cancelled(self.queue.next()).await {
            self.metrics.set_depth(self.queue.depth());
            let mut busy = Duration::ZERO;
            let work = timed(&mut busy, self.reconcile(&key));
            let Some(outcome) = self.token.run_until_cancelled(work).await else {
                return;
            };
            self.queue.done_for(&key, rest_after(busy));
            self.conclude(key, outcome);
            // A reconcile with nothing to wait for never lets others run: thousands of keys at the
            // begin of a term held their thread for seconds.
            tokio::task::yield_now().await;
        }
    }

    async fn reconcile(&self, key: &R::Key) -> Result<Next, ReconcileError> {
        let began = Instant::now();
        let work = AssertUnwindSafe(self.reconciler.reconcile(key)).catch_unwind();
        let outcome = match tokio::time::timeout(RECONCILE_DEADLINE, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(ReconcileError::Panicked(panic_text(&*panic))),
            Err(_) => Err(ReconcileError::TimedOut),
        };
        self.metrics.record(began.elapsed(), &outcome);
        outcome
    }

    fn conclude(&self, key: R::Key, outcome: Result<Next, ReconcileError>) {
        match outcome {
            Ok(next) => {
                self.queue.forget(&key);
                if let Next::After(delay) = next {
                    self.queue.add_after(key, delay);
                }
            }
            Err(error) if error.is_fenced() => {
                tracing::debug!(controller = self.name, %key, "the term is past");
            }
            Err(error) => {
                let status =
                    std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                let delay = self.queue.retry(key.clone());
                if delay >= Duration::from_secs(1) || matches!(error, ReconcileError::Panicked(_)) {
                    tracing::warn!(controller = self.name, %key, %error, status, ?delay, "trying again");
                } else {
                    tracing::debug!(controller = self.name, %key, %error, status, ?delay, "trying again");
                }
            }
        }
    }
}

/// The future, which adds to `busy` how long it computes; not how long it waits.
async fn timed<T>(busy: &mut Duration, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let began = Instant::now();
        let polled = work.as_mut().poll(context);
        *busy += began.elapsed();
        polled
    })
    .await
}

fn rest_after(busy: Duration) -> Duration {
    if busy < BUSY_FREE { Duration::ZERO } else { (busy * REST_FACTOR).min(REST_MAX) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
