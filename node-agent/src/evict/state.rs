//! What is to be done about what was observed, given what was before. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::signal::{Condition, Observations, Signal};
use super::threshold::Threshold;

/// What is remembered from one look to the next; thresholds by their place among all.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Since when each is crossed without a break.
    crossed_since: BTreeMap<usize, Instant>,
    /// Those that were due when looked last.
    due: BTreeSet<usize>,
    /// When each condition held last.
    held_at: BTreeMap<Condition, Instant>,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What the node is under.
    pub conditions: BTreeSet<Condition>,
    /// The thresholds for which pods must be ended, by their place among all; memory first.
    pub due: Vec<usize>,
}

impl State {
    /// Takes in what was observed at `now`. A condition holds on for `transition`.
    pub fn step(
        &mut self,
        thresholds: &[Threshold],
        transition: Duration,
        seen: &Observations,
        now: Instant,
    ) -> Verdict {
        let crossed: Vec<usize> = thresholds
            .iter()
            .enumerate()
            .filter(|(place, threshold)| {
                let Some(seen) = seen.get(&threshold.signal) else { return false };
                threshold.is_crossed(*seen)
                    // One that was due stays so until enough was won back.
                    || (self.due.contains(place) && threshold.is_unresolved(*seen))
            })
            .map(|(place, _)| place)
            .collect();
        let since = |place: &usize| self.crossed_since.get(place).copied().unwrap_or(now);
        self.crossed_since = crossed.iter().map(|place| (*place, since(place))).collect();
        for place in &crossed {
            self.held_at.insert(thresholds[*place].signal.condition(), now);
        }
        self.held_at.retain(|_, at| *at == now || now.duration_since(*at) < transition);
        let is_due = |(place, since): (&usize, &Instant)| {
            let grace = thresholds[*place].grace.unwrap_or_default();
            (now.duration_since(*since) >= grace).then_some(*place)
        };
        self.due = self.crossed_since.iter().filter_map(is_due).collect();
        let mut due: Vec<usize> = self.due.iter().copied().collect();
        due.sort_by_key(|place| thresholds[*place].signal != Signal::MemoryAvailable);
        Verdict { conditions: self.held_at.keys().copied().collect(), due }
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::Observation;
    use super::super::threshold::{Flags, parse};
    use super::*;

    const TRANSITION: Duration = Duration::from_secs(300);

    fn seen(memory: i64, disk: i64) -> Observations {
        let of = |available| Observation { available, capacity: 1000 };
        [(Signal::MemoryAvailable, of(memory)), (Signal::NodeFsAvailable, of(disk))].into()
    }

    fn thresholds() -> Vec<Threshold> {
        let flags = Flags {
            hard: "nodefs.available<10%,memory.available<100",
            soft: "memory.available<200",
            soft_grace: "memory.available=30s",
            min_reclaim: "nodefs.available=50",
        };
        parse(&flags).unwrap()
    }

    #[test]
    fn nothing_is_done_while_there_is_enough() {
        let verdict =
            State::default().step(&thresholds(), TRANSITION, &seen(500, 500), Instant::now());
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn a_soft_threshold_is_told_at_once_and_due_after_its_grace() {
        let (all, mut state, begin) = (thresholds(), State::default(), Instant::now());
        let mut at = |second, memory| {
            let now = begin + Duration::from_secs(second);
            let verdict = state.step(&all, TRANSITION, &seen(memory, 500), now);
            (verdict.conditions.contains(&Condition::Memory), verdict.due)
        };
        assert_eq!(at(0, 150), (true, vec![]));
        assert_eq!(at(20, 150), (true, vec![]));
        assert_eq!(at(25, 300), (true, vec![]), "it begins anew");
        assert_eq!(at(40, 150), (true, vec![]));
        assert_eq!(at(70, 150), (true, vec![2]));
        assert_eq!(at(80, 50), (true, vec![0, 2]), "the hard one at once");
    }

    #[test]
    fn a_condition_goes_after_its_time_and_memory_is_seen_to_first() {
        let (all, mut state, begin) = (thresholds(), State::default(), Instant::now());
        let mut at = |second, disk, memory| {
            let now = begin + Duration::from_secs(second);
            state.step(&all, TRANSITION, &seen(memory, disk), now)
        };
        let both = at(0, 50, 50);
        assert_eq!(both.conditions, [Condition::Memory, Condition::Disk].into());
        let signals: Vec<_> = both.due.iter().map(|place| all[*place].signal).collect();
        assert_eq!(signals, [Signal::MemoryAvailable, Signal::NodeFsAvailable]);
        assert_eq!(at(10, 120, 500).due.len(), 1, "too little of the disk was won back");
        assert_eq!(at(20, 200, 500).due.len(), 0);
        assert_eq!(at(299, 200, 500).conditions.len(), 2);
        assert_eq!(at(301, 200, 500).conditions, [Condition::Disk].into());
        assert_eq!(at(400, 200, 500), Verdict::default());
    }
}
