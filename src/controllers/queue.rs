//! The work queue of a controller: keys, each at most once, in order of arrival, with a wait that
//! grows for a key that keeps failing.
//!
//! ```text
//!   add ──► waiting ──► next() ──► in work ──► done() ──► gone, or waiting again if added meanwhile
//!              ▲                                 │
//!              └────────── delayed ◄─────────────┘ retry() after 5 ms, 10 ms, … ; add_after()
//! ```
//!
//! A key whose work took long may be told to rest: to the queue it is in work until that is over.
//!
//! A key is never in work twice at the same time. [`WorkQueue::add`] waits while the queue is full,
//! so a flood of changes holds up its source (whose subscription then resyncs) and not the memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many keys wait at most; who adds another waits too.
pub const QUEUE_CAPACITY: usize = 65_536;
/// The wait after a key's first failure; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The longest wait between two tries of a key.
pub const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// A deduplicating queue of keys with per-key backoff. Shared by reference among its workers.
#[derive(Debug)]
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    /// Wakes one worker, which wakes the next while there is work.
    work: Notify,
    /// Wakes who waits for room.
    room: Notify,
    capacity: usize,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// All that must be worked on: what is in `ready`, and what was added while in work.
    dirty: HashSet<K>,
    in_work: HashSet<K>,
    /// At most one wake-up a key counts: the one `wakes` names. Others are skipped when due.
    delayed: BinaryHeap<Reverse<Delayed<K>>>,
    wakes: HashMap<K, Instant>,
    /// Keys whose work is over, and when they have rested.
    resting: BinaryHeap<Reverse<Delayed<K>>>,
    failures: HashMap<K, u32>,
}

#[derive(Debug)]
struct Delayed<K> {
    at: Instant,
    key: K,
}

impl<K> PartialEq for Delayed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Delayed<K> {}

impl<K> PartialOrd for Delayed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Delayed<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::with_capacity(QUEUE_CAPACITY)
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue in which at most `capacity` keys wait.
    ///
    /// # Panics
    /// Where there would be no room for a single key.
    pub fn with_capacity(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue must have room for one key");
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                in_work: HashSet::new(),
                delayed: BinaryHeap::new(),
                wakes: HashMap::new(),
                resting: BinaryHeap::new(),
                failures: HashMap::new(),
            }),
            work: Notify::new(),
            room: Notify::new(),
            capacity,
        }
    }

    /// Adds `key`, once there is room. A key that waits already is not added again; one in work is
    /// worked on again afterwards.
    pub async fn add(&self, key: K) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that room made in between is not missed.
            room.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.dirty.contains(&key) || state.ready.len() < self.capacity {
                    state.push(key);
                    break;
                }
            }
            room.await;
        }
        self.work.notify_one();
    }

    /// Adds `key` after `delay`; an earlier wake-up of the key stays. The delayed are no more than
    /// the keys there are, so this never waits.
    pub fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if state.wakes.get(&key).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        state.wakes.insert(key.clone(), at);
        state.delayed.push(Reverse(Delayed { at, key }));
        drop(state);
        self.work.notify_one();
    }

    /// Adds `key` again after its backoff and returns how long that is.
    pub fn retry(&self, key: K) -> Duration {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = backoff(*failures);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
        delay
    }

    /// Forgets how often `key` has failed.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// Waits for the next key to work on. [`WorkQueue::done`] must follow. Cancel-safe: a key is
    /// taken only when it is returned.
    pub async fn next(&self) -> K {
        loop {
            let work = self.work.notified();
            let wake = {
                let mut state = self.state.lock();
                state.release_due(Instant::now());
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty() || state.next_due().is_some();
                    drop(state);
                    self.room.notify_one();
                    if more {
                        self.work.notify_one();
                    }
                    return key;
                }
                state.next_due()
            };
            match wake {
                Some(at) => {
                    // Either way the state is looked at again.
                    let _ = tokio::time::timeout_at(at, work).await;
                }
                None => work.await,
            }
        }
    }

    /// Says that the work on `key` is over.
    ///
    /// # Panics
    /// Where `key` was not in work.
    pub fn done(&self, key: &K) {
        if self.state.lock().done(key) {
            self.work.notify_one();
        }
    }

    /// Says that the work on `key` is over, and that it is not to be worked on again for `rest`.
    ///
    /// # Panics
    /// Where `key` was not in work.
    pub fn done_for(&self, key: &K, rest: Duration) {
        if rest.is_zero() {
            return self.done(key);
        }
        let mut state = self.state.lock();
        assert!(state.in_work.contains(key), "only a key in work can be done");
        let at = Instant::now() + rest;
        state.resting.push(Reverse(Delayed { at, key: key.clone() }));
        drop(state);
        self.work.notify_one();
    }

    /// How many keys wait for a worker (the delayed not counted).
    pub fn depth(&self) -> usize {
        self.state.lock().ready.len()
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn push(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) || self.in_work.contains(&key) {
            return;
        }
        self.ready.push_back(key);
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        let new = self.in_work.insert(key.clone());
        assert!(new, "a key must not be in work twice");
        Some(key)
    }

    /// Whether the key is to be worked on again at once.
    fn done(&mut self, key: &K) -> bool {
        let was = self.in_work.remove(key);
        assert!(was, "only a key in work can be done");
        let is_wanted = self.dirty.contains(key);
        if is_wanted {
            self.ready.push_back(key.clone());
        }
        is_wanted
    }

    /// When the next of the delayed, or of those that rest, is to be looked at.
    fn next_due(&self) -> Option<Instant> {
        let first = [self.delayed.peek(), self.resting.peek()];
        first.into_iter().flatten().map(|Reverse(next)| next.at).min()
    }

    fn release_due(&mut self, now: Instant) {
        while self.resting.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(Delayed { key, .. })) = self.resting.pop() else { break };
            self.done(&key);
        }
        while self.delayed.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(Delayed { at, key })) = self.delayed.pop() else { return };
            if self.wakes.get(&key) == Some(&at) {
                self.wakes.remove(&key);
                self.push(key);
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_key_added_twice_is_worked_on_once() {
        let queue = WorkQueue::default();
        queue.add("a").await;
        queue.add("b").await;
        queue.add("a").await;
        assert_eq!(queue.depth(), 2);
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_is_not_given_to_a_second_worker_but_comes_again_when_done() {
        let queue = WorkQueue::default();
        queue.add("a").await;
        assert_eq!(queue.next().await, "a");
        queue.add("a").await;
        let second = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(second.is_err(), "the key is in work: {second:?}");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_rests_comes_again_when_it_has_and_holds_up_no_other() {
        let queue = WorkQueue::default();
        queue.add("a").await;
        assert_eq!(queue.next().await, "a");
        queue.add("a").await;
        queue.add("b").await;
        let begun = Instant::now();
        queue.done_for(&"a", Duration::from_millis(50));
        assert_eq!(queue.next().await, "b");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(queue.next().await, "a");
        assert!(begun.elapsed() >= Duration::from_millis(50));
        queue.done_for(&"a", Duration::from_millis(50));
        let again = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(again.is_err(), "nobody wanted it: {again:?}");
        queue.add("a").await;
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_key_waits_longer_each_time_until_forgotten() {
        let queue = WorkQueue::default();
        assert_eq!(queue.retry("a"), Duration::from_millis(5));
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert_eq!(queue.retry("a"), Duration::from_millis(10));
        queue.forget(&"a");
        assert_eq!(queue.retry("b"), Duration::from_millis(5));
        assert_eq!(queue.retry("a"), Duration::from_millis(5));
        assert_eq!(backoff(40), BACKOFF_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_wake_ups_counts_and_only_once() {
        let queue = WorkQueue::default();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(30));
        let before = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(before.elapsed().as_secs(), 1);
        queue.done(&"a");
        let again = tokio::time::timeout(Duration::from_secs(120), queue.next()).await;
        assert!(again.is_err(), "the later wake-ups are stale: {again:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn adding_to_a_full_queue_waits_for_room() {
        let queue = Arc::new(WorkQueue::with_capacity(1));
        queue.add(1).await;
        // Not a new key: no room needed.
        queue.add(1).await;
        let adder = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.add(2).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.depth(), 1);
        assert_eq!(queue.next().await, 1);
        adder.await.unwrap();
        assert_eq!(queue.next().await, 2);
    }

    #[tokio::test]
    async fn two_workers_share_the_keys_without_overlap() {
        let queue = Arc::new(WorkQueue::default());
        let busy = Arc::new(Mutex::new(HashSet::new()));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (queue, busy) = (Arc::clone(&queue), Arc::clone(&busy));
                tokio::spawn(async move {
                    for _ in 0..50 {
                        let key: u8 = queue.next().await;
                        assert!(busy.lock().insert(key), "key {key} is in work twice");
                        tokio::task::yield_now().await;
                        busy.lock().remove(&key);
                        queue.add_after(key, Duration::ZERO);
                        queue.done(&key);
                    }
                })
            })
            .collect();
        for key in 0..8 {
            queue.add(key).await;
        }
        for worker in workers {
            worker.await.unwrap();
        }
    }
}
