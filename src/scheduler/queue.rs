//! The pods that wait for a node.
//!
//! ```text
//!   new ──► active ──pop()──► in a cycle ──► bound: deleted
//!             ▲                   │
//!             │ after its backoff ▼ no node
//!          backoff ◄──wake()── unschedulable ──after 5 min──► active
//! ```
//!
//! The active are taken by priority, then by age. An unschedulable pod waits until something happens
//! that can help it against the filters that rejected it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cache::PodInfo;
use super::framework::{ClusterEvent, Filter};

/// The wait after the first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two tries that events ask for.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After that long a pod is tried again though nothing has happened.
const UNSCHEDULABLE_MAX: Duration = Duration::from_mins(5);

/// The order of the active: by priority, then by arrival.
type Rank = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// At that rank.
    Active(Rank),
    /// Until its backoff is over.
    Backoff { until: Instant },
    /// Until something helps.
    Unschedulable { since: Instant },
    /// Being scheduled or bound.
    InCycle,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    wait: Wait,
    arrival: u64,
    failures: u32,
    rejected_by: Vec<&'static str>,
    /// What happened since its cycle began.
    missed: Vec<ClusterEvent>,
}

/// The pods that wait, by uid.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    entries: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    /// Those that time alone makes active, by when.
    due: BTreeSet<(Instant, String)>,
    /// Those that an event concerns: being scheduled or bound, and unschedulable.
    listening: HashSet<String>,
    arrivals: u64,
}

impl SchedulingQueue {
    /// Takes a new pod, or a new state of one. A pod whose wishes changed is tried again.
    pub fn apply(&mut self, pod: Arc<PodInfo>) {
        let uid = pod.uid().to_owned();
        let Some(entry) = self.entries.get_mut(&uid) else {
            self.arrivals += 1;
            let entry = Entry {
                pod,
                wait: Wait::InCycle,
                arrival: self.arrivals,
                failures: 0,
                rejected_by: Vec::new(),
                missed: Vec::new(),
            };
            self.entries.insert(uid.clone(), entry);
            self.activate(&uid);
            return;
        };
        let changed = wishes_differ(&entry.pod, &pod);
        entry.pod = pod;
        match entry.wait {
            Wait::Unschedulable { .. } | Wait::Backoff { .. } if changed => self.activate(&uid),
            Wait::Active(_) => self.activate(&uid),
            _ => {}
        }
    }

    /// Forgets a pod.
    pub fn delete(&mut self, uid: &str) {
        self.place(uid, Wait::InCycle);
        self.entries.remove(uid);
        self.listening.remove(uid);
    }

    /// Moves a pod from where it waits to another place.
    fn place(&mut self, uid: &str, wait: Wait) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if let Some(due) = entry.due() {
            self.due.remove(&(due, uid.to_owned()));
        }
        if let Wait::Active(rank) = entry.wait {
            self.active.remove(&rank);
        }
        entry.wait = wait;
        if let Some(due) = entry.due() {
            self.due.insert((due, uid.to_owned()));
        }
        if let Wait::Active(rank) = wait {
            self.active.insert(rank, uid.to_owned());
        }
        match wait {
            Wait::InCycle | Wait::Unschedulable { .. } => self.listening.insert(uid.to_owned()),
            Wait::Active(_) | Wait::Backoff { .. } => self.listening.remove(uid),
        };
    }

    /// Forgets all pods but those that `keep`.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.entries.keys().filter(|uid| !keep(uid)).cloned().collect();
        for uid in gone {
            self.delete(&uid);
        }
    }

    /// The next pod to schedule. [`SchedulingQueue::failed`], [`SchedulingQueue::unschedulable`] or
    /// [`SchedulingQueue::delete`] must follow.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.release(now);
        let uid = self.active.first_key_value()?.1.clone();
        self.place(&uid, Wait::InCycle);
        let entry = self.entries.get_mut(&uid).expect("an active pod must be known");
        entry.missed.clear();
        Some(Arc::clone(&entry.pod))
    }

    /// Puts a pod back that no node could take.
    pub fn unschedulable(
        &mut self,
        uid: &str,
        rejected_by: Vec<&'static str>,
        filters: &[&dyn Filter],
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.rejected_by = rejected_by;
        let missed = std::mem::take(&mut entry.missed);
        let wait = if missed.into_iter().any(|event| helps(entry, event, filters)) {
            Wait::Backoff { until: now + backoff(entry.failures) }
        } else {
            Wait::Unschedulable { since: now }
        };
        self.place(uid, wait);
    }

    /// Puts a pod back whose binding failed.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.failures = entry.failures.saturating_add(1);
        let until = now + backoff(entry.failures);
        self.place(uid, Wait::Backoff { until });
    }

    /// Wakes the pods that the event can help; each still sits out its backoff.
    pub fn wake(&mut self, event: ClusterEvent, filters: &[&dyn Filter], now: Instant) {
        let mut woken = Vec::new();
        for uid in &self.listening {
            let Some(entry) = self.entries.get_mut(uid) else { continue };
            match entry.wait {
                Wait::InCycle if !entry.missed.contains(&event) => entry.missed.push(event),
                Wait::Unschedulable { since } if helps(entry, event, filters) => {
                    woken.push((uid.clone(), since + backoff(entry.failures)));
                }
                _ => {}
            }
        }
        for (uid, until) in woken {
            if until <= now {
                self.activate(&uid);
            } else {
                self.place(&uid, Wait::Backoff { until });
            }
        }
    }

    /// When a pod becomes active by time alone.
    pub fn next_wake(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn release(&mut self, now: Instant) {
        while let Some((due, uid)) = self.due.first().filter(|(due, _)| *due <= now).cloned() {
            self.activate(&uid);
            // Gone from there with its wait, whether or not it is known any more.
            self.due.remove(&(due, uid));
        }
    }

    fn activate(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        let rank = (Reverse(entry.pod.priority()), entry.arrival);
        self.place(uid, Wait::Active(rank));
    }
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        match self.wait {
            Wait::Backoff { until } => Some(until),
            Wait::Unschedulable { since } => Some(since + UNSCHEDULABLE_MAX),
            Wait::Active(_) | Wait::InCycle => None,
        }
    }
}

/// Whether the event can change the mind of a filter that rejected the pod. A pod that no filter
/// rejected found no node at all: a new one helps.
fn helps(entry: &Entry, event: ClusterEvent, filters: &[&dyn Filter]) -> bool {
    if entry.rejected_by.is_empty() {
        return event == ClusterEvent::NodeGrew;
    }
    filters
        .iter()
        .any(|filter| entry.rejected_by.contains(&filter.name()) && filter.wakes_on(event))
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(BACKOFF_MAX)
}

fn wishes_differ(a: &PodInfo, b: &PodInfo) -> bool {
    a.pod.spec != b.pod.spec || a.pod.metadata.labels != b.pod.metadata.labels
}

#[cfg(test)]
mod tests {
    use super::super::plugins::FILTERS;
    use super::super::testing::pod;
    use super::*;

    fn popped(queue: &mut SchedulingQueue, now: Instant) -> Option<String> {
        queue.pop(now).map(|pod| pod.uid().to_owned())
    }

    fn reject(queue: &mut SchedulingQueue, uid: &str, by: &'static str, now: Instant) {
        queue.unschedulable(uid, vec![by], FILTERS, now);
    }

    #[tokio::test]
    async fn higher_priority_goes_first_and_then_who_came_first() {
        let now = Instant::now();
        let mut queue = SchedulingQueue::default();
        queue.apply(pod("low").priority(-1).info());
        queue.apply(pod("first").info());
        queue.apply(pod("second").info());
        queue.apply(pod("high").priority(1000).info());
        let order: Vec<String> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["high", "first", "second", "low"]);
    }

    #[tokio::test]
    async fn an_unschedulable_pod_wakes_only_on_what_can_help_it() {
        let now = Instant::now();
        let later = now + Duration::from_secs(30);
        let mut queue = SchedulingQueue::default();
        queue.apply(pod("p").info());
        assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
        reject(&mut queue, "p", "NodeResourcesFit", now);
        queue.wake(ClusterEvent::NodeLabels, FILTERS, later);
        assert_eq!(popped(&mut queue, later), None);
        queue.wake(ClusterEvent::PodLeft, FILTERS, later);
        assert_eq!(popped(&mut queue, later).as_deref(), Some("p"));
    }

    #[tokio::test]
    async fn a_pod_sits_out_its_backoff_which_grows() {
        let mut now = Instant::now();
        let mut queue = SchedulingQueue::default();
        queue.apply(pod("p").info());
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
            reject(&mut queue, "p", "NodeResourcesFit", now);
            queue.wake(ClusterEvent::NodeGrew, FILTERS, now);
            assert_eq!(
                popped(&mut queue, now + Duration::from_secs(seconds) - Duration::from_millis(1)),
                None
            );
            assert_eq!(queue.next_wake(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
    }

    #[tokio::test]
    async fn what_happens_during_a_pods_cycle_is_not_missed() {
        let now = Instant::now();
        let mut queue = SchedulingQueue::default();
        queue.apply(pod("p").info());
        assert!(popped(&mut queue, now).is_some());
        queue.wake(ClusterEvent::PodLeft, FILTERS, now);
        reject(&mut queue, "p", "NodeResourcesFit", now);
        assert_eq!(queue.next_wake(), Some(now + BACKOFF_FIRST));
    }

    #[tokio::test]
    async fn after_five_minutes_a_pod_is_tried_again_anyway() {
        let now = Instant::now();
        let mut queue = SchedulingQueue::default();
        queue.apply(pod("p").info());
        assert!(popped(&mut queue, now).is_some());
        reject(&mut queue, "p", "NodeAffinity", now);
        assert_eq!(popped(&mut queue, now + UNSCHEDULABLE_MAX).as_deref(), Some("p"));
    }

    #[tokio::test]
    async fn a_changed_pod_is_tried_again_and_a_deleted_one_is_not() {
        let now = Instant::now();
        let mut queue = SchedulingQueue::default();
        queue.apply(pod("p").info());
        assert!(popped(&mut queue, now).is_some());
        reject(&mut queue, "p", "NodeAffinity", now);
        queue.apply(pod("p").info());
        assert_eq!(popped(&mut queue, now), None, "nothing changed");
        queue.apply(pod("p").label("disk", "ssd").info());
        assert_eq!(popped(&mut queue, now).as_deref(), Some("p"));
        queue.failed("p", now);
        queue.delete("p");
        assert_eq!(popped(&mut queue, now + UNSCHEDULABLE_MAX), None);
        assert!(queue.is_empty());
    }
}
