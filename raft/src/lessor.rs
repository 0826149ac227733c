//! [`Lessor`]: when leases run out, as the leader keeps it in memory.
//!
//! Which leases there are is replicated (`storage/src/lease.rs`); how long each still has is known
//! to the leader alone, so that a renewal costs no entry of the log: a round of heartbeats, shared by
//! all that wait, confirms that it leads. A leader that has just come
//! gives each lease what was last noted of it. To bound what a change of leaders adds, the leader
//! notes what is left of a lease in the log once it has not been renewed for a while.
//!
//! That a lease has run out is said through the log under the leader's term (R7): if that is past,
//! the lease lives on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use kontiki_storage::kv::Term;
use kontiki_storage::lease::{Lease, LeaseTerms};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What is left of a lease is noted this long after its last renewal, or after half its time, if
/// that is earlier; and as often again. A lease that is renewed in time is never noted.
const NOTE_AFTER_MAX: Duration = Duration::from_secs(300);
const NOTE_AFTER_MIN: Duration = Duration::from_secs(5);

/// After a lease could not be ended it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How many leases one look at what is due returns at most.
const DUE_MAX: usize = 1024;

/// The deadlines of all leases, while this member leads.
#[derive(Debug, Default)]
pub(crate) struct Lessor {
    office: Mutex<Option<Office>>,
}

#[derive(Debug)]
struct Office {
    term: Term,
    held: HashMap<i64, Held>,
    /// When to look at which lease. An entry counts if it is that lease's own `alarm`.
    alarms: BinaryHeap<Reverse<(Instant, i64)>>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    grant: u64,
    ttl: Duration,
    deadline: Instant,
    note_at: Instant,
    alarm: Instant,
    /// It was said to have run out: no renewal brings it back.
    is_ending: bool,
}

/// Whether a lease that is asked for is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// It has its whole time again.
    Renew,
    /// It stays as it is.
    Look,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// The term under which it counts.
    pub(crate) term: Term,
    /// Leases that have run out, each with its grant.
    pub(crate) ended: Vec<(i64, u64)>,
    /// What is left of others, in seconds.
    pub(crate) left: Vec<(i64, Option<i64>)>,
    /// When to look again.
    pub(crate) next: Option<Instant>,
}

/// A time in seconds as a duration; none where it is not positive.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn note_after(ttl: Duration) -> Duration {
    (ttl / 2).clamp(NOTE_AFTER_MIN, NOTE_AFTER_MAX)
}

impl Held {
    fn new(terms: &LeaseTerms, now: Instant) -> Self {
        let ttl = seconds(terms.ttl_seconds);
        let deadline = now + seconds(terms.left_seconds());
        let note_at = now + note_after(ttl);
        let alarm = deadline.min(note_at);
        Self { grant: terms.grant, ttl, deadline, note_at, alarm, is_ending: false }
    }

    fn left_seconds(&self, now: Instant) -> i64 {
        let left = self.deadline.saturating_duration_since(now).as_secs();
        i64::try_from(left).unwrap_or(i64::MAX)
    }
}

impl Office {
    fn hold(&mut self, id: i64, held: Held) {
        self.alarms.push(Reverse((held.alarm, id)));
        self.held.insert(id, held);
    }

    /// The lease as it is held; one that is new, or granted anew, begins now.
    fn current(&mut self, id: i64, terms: &LeaseTerms, now: Instant) -> &mut Held {
        if self.held.get(&id).is_none_or(|held| held.grant != terms.grant) {
            self.hold(id, Held::new(terms, now));
        }
        self.held.get_mut(&id).expect("a lease must be held once it has been put there")
    }
}

impl Lessor {
    /// This member leads in `term`. Again in the same term it changes nothing.
    pub(crate) fn take_office(&self, term: Term) {
        let mut office = self.office.lock();
        if office.as_ref().is_none_or(|office| office.term != term) {
            *office = Some(Office { term, held: HashMap::new(), alarms: BinaryHeap::new() });
        }
    }

    /// This member does not lead: it says nothing of leases any more.
    pub(crate) fn leave_office(&self) {
        *self.office.lock() = None;
    }

    /// Takes note of which leases there are now.
    pub(crate) fn sync(&self, leases: &[Lease], now: Instant) {
        let mut office = self.office.lock();
        let Some(office) = office.as_mut() else { return };
        for Lease { id, terms } in leases {
            office.current(*id, terms, now);
        }
        if office.held.len() > leases.len() {
            let is_there = |id: &i64| leases.binary_search_by_key(id, |lease| lease.id).is_ok();
            office.held.retain(|id, _| is_there(id));
        }
    }

    /// Sorts leases by when they run out, where this member leads.
    pub(crate) fn sort(&self, leases: &mut [Lease], now: Instant) {
        let mut office = self.office.lock();
        let Some(office) = office.as_mut() else { return };
        leases.sort_by_key(|lease| office.current(lease.id, &lease.terms, now).deadline);
    }

    /// What is left of a lease of which the store says `terms`, in seconds, with the term in which
    /// that counts; none where it does not exist or has run out.
    pub(crate) fn left_seconds(
        &self,
        id: i64,
        terms: Option<LeaseTerms>,
        ask: Ask,
        now: Instant,
    ) -> Result<(Term, Option<i64>), NotLeader> {
        let mut office = self.office.lock();
        let office = office.as_mut().ok_or(NotLeader)?;
        let term = office.term;
        let Some(terms) = terms else { return Ok((term, None)) };
        let held = office.current(id, &terms, now);
        if held.is_ending || held.deadline <= now {
            return Ok((term, None));
        }
        if ask == Ask::Renew {
            held.deadline = now + held.ttl;
            held.note_at = now + note_after(held.ttl);
        }
        Ok((term, Some(held.left_seconds(now))))
    }

    /// What is due by now. `None` where this member does not lead.
    pub(crate) fn due(&self, now: Instant) -> Option<Due> {
        let mut office = self.office.lock();
        let office = office.as_mut()?;
        let mut due = Due { term: office.term, ended: Vec::new(), left: Vec::new(), next: None };
        while let Some(Reverse((alarm, id))) = office.alarms.peek().copied() {
            if alarm > now || due.ended.len() + due.left.len() >= DUE_MAX {
                due.next = Some(alarm);
                break;
            }
            office.alarms.pop();
            let Some(held) = office.held.get_mut(&id).filter(|held| held.alarm == alarm) else {
                continue;
            };
            if held.deadline <= now {
                held.is_ending = true;
                held.alarm = now + RETRY;
                due.ended.push((id, held.grant));
            } else {
                if held.note_at <= now {
                    held.note_at = now + note_after(held.ttl);
                    due.left.push((id, Some(held.left_seconds(now).max(1))));
                }
                held.alarm = held.deadline.min(held.note_at);
            }
            let alarm = held.alarm;
            office.alarms.push(Reverse((alarm, id)));
        }
        Some(due)
    }
}

/// This member does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotLeader;

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(3);

    fn lease(id: i64, ttl_seconds: i64, remaining_seconds: Option<i64>) -> Lease {
        Lease { id, terms: LeaseTerms { ttl_seconds, remaining_seconds, grant: 1 } }
    }

    fn office(leases: &[Lease], now: Instant) -> Lessor {
        let lessor = Lessor::default();
        lessor.take_office(TERM);
        lessor.sync(leases, now);
        lessor
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_runs_out_after_its_last_renewal_and_not_before() {
        let (now, one) = (Instant::now(), lease(1, 10, None));
        let lessor = office(&[one], now);
        let ask = |ask, at| lessor.left_seconds(1, Some(one.terms), ask, after(now, at));
        assert_eq!(ask(Ask::Renew, 9), Ok((TERM, Some(10))));
        assert!(lessor.due(after(now, 18)).unwrap().ended.is_empty());
        assert_eq!(ask(Ask::Look, 18), Ok((TERM, Some(1))));
        let due = lessor.due(after(now, 19)).unwrap();
        assert_eq!((due.term, due.ended), (TERM, vec![(1, 1)]));
        assert_eq!(ask(Ask::Renew, 19), Ok((TERM, None)));
        assert_eq!(ask(Ask::Look, 19), Ok((TERM, None)));
    }

    #[test]
    fn an_end_that_did_not_come_through_is_tried_again_until_the_lease_is_gone() {
        let now = Instant::now();
        let lessor = office(&[lease(1, 10, None)], now);
        assert_eq!(lessor.due(after(now, 10)).unwrap().ended.len(), 1);
        assert_eq!(lessor.due(after(now, 10)).unwrap().ended.len(), 0);
        assert_eq!(lessor.due(after(now, 11)).unwrap().ended.len(), 1);
        lessor.sync(&[], after(now, 11));
        assert_eq!(lessor.due(after(now, 99)).unwrap().next, None);
    }

    #[test]
    fn leases_are_told_in_the_order_in_which_they_run_out() {
        let now = Instant::now();
        let mut leases = [lease(1, 30, None), lease(2, 10, None), lease(3, 20, None)];
        let lessor = office(&leases, now);
        lessor.sort(&mut leases, now);
        assert_eq!(leases.map(|lease| lease.id), [2, 3, 1]);
        lessor.left_seconds(2, Some(leases[0].terms), Ask::Renew, after(now, 9)).unwrap();
        lessor.sort(&mut leases, after(now, 9));
        assert_eq!(leases.map(|lease| lease.id), [2, 3, 1]);
        lessor.left_seconds(2, Some(leases[0].terms), Ask::Renew, after(now, 15)).unwrap();
        lessor.sort(&mut leases, after(now, 15));
        assert_eq!(leases.map(|lease| lease.id), [3, 2, 1]);
    }

    #[test]
    fn a_new_leader_begins_with_what_was_noted() {
        let now = Instant::now();
        let noted = lease(1, 3600, Some(20));
        let lessor = office(&[noted], now);
        let left = lessor.left_seconds(1, Some(noted.terms), Ask::Look, now);
        assert_eq!(left, Ok((TERM, Some(20))));
        assert_eq!(lessor.due(after(now, 20)).unwrap().ended, [(1, 1)]);
    }

    #[test]
    fn what_is_left_is_noted_once_a_lease_was_not_renewed_for_half_its_time() {
        let (now, one) = (Instant::now(), lease(1, 60, None));
        let lessor = office(&[one], now);
        lessor.left_seconds(1, Some(one.terms), Ask::Renew, after(now, 20)).unwrap();
        assert!(lessor.due(after(now, 49)).unwrap().left.is_empty());
        assert_eq!(lessor.due(after(now, 50)).unwrap().left, [(1, Some(30))]);
        assert!(lessor.due(after(now, 51)).unwrap().left.is_empty());
    }

    #[test]
    fn a_lease_granted_anew_begins_anew() {
        let now = Instant::now();
        let lessor = office(&[lease(1, 10, None)], now);
        assert_eq!(lessor.due(after(now, 10)).unwrap().ended.len(), 1);
        let again = LeaseTerms { grant: 2, ..lease(1, 10, None).terms };
        let renewed = lessor.left_seconds(1, Some(again), Ask::Renew, after(now, 11));
        assert_eq!(renewed, Ok((TERM, Some(10))));
        assert!(lessor.due(after(now, 20)).unwrap().ended.is_empty());
        assert_eq!(lessor.due(after(now, 21)).unwrap().ended, [(1, 2)]);
    }

    #[test]
    fn who_does_not_lead_ends_and_renews_nothing() {
        let (now, one) = (Instant::now(), lease(1, 10, None));
        let lessor = office(&[one], now);
        lessor.leave_office();
        lessor.sync(&[one], now);
        assert_eq!(lessor.due(after(now, 99)), None);
        assert_eq!(lessor.left_seconds(1, Some(one.terms), Ask::Renew, now), Err(NotLeader));
    }
}
