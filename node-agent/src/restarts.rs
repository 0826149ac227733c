//! How long a thing that keeps failing waits before it is tried again. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// First wait, longest wait, and the quiet time after which it begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffRule {
    /// First wait.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
    /// A thing that held this long starts over with the first wait.
    pub reset: Duration,
}

/// Waits of several things, each by its name. The first failure of a thing costs no wait.
#[derive(Clone, Debug)]
pub struct Backoffs {
    rule: BackoffRule,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    noted: Timestamp,
}

impl Backoffs {
    /// Knows of no failure yet.
    pub fn new(rule: BackoffRule) -> Self {
        Self { rule, entries: BTreeMap::new() }
    }

    /// Until when `name`, which ended at `ended`, must wait, and how long that is in all; none if
    /// it may be tried now.
    pub fn wait(
        &self,
        name: &str,
        ended: Timestamp,
        now: Timestamp,
    ) -> Option<(Timestamp, Duration)> {
        let entry = self.entries.get(name)?;
        if self.held_long(entry, ended) {
            return None;
        }
        let until = ended + entry.wait;
        (now < until).then_some((until, entry.wait))
    }

    /// Notes that `name`, which ended at `ended`, is tried again now: the next wait is longer.
    pub fn note(&mut self, name: &str, ended: Timestamp, now: Timestamp) {
        let wait = match self.entries.get(name) {
            Some(entry) if !self.held_long(entry, ended) => (entry.wait * 2).min(self.rule.max),
            _ => self.rule.initial,
        };
        self.entries.insert(name.to_owned(), Entry { wait, noted: now });
    }

    /// Forgets `name`: it worked.
    pub fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }

    fn held_long(&self, entry: &Entry, ended: Timestamp) -> bool {
        let held = ended.duration_since(entry.noted);
        Duration::try_from(held).is_ok_and(|held| held >= self.rule.reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BackoffRule = BackoffRule {
        initial: Duration::from_secs(10),
        max: Duration::from_secs(300),
        reset: Duration::from_secs(600),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_failure_waits_for_nothing_and_each_next_one_twice_as_long() {
        let mut backoffs = Backoffs::new(RULE);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = backoffs.wait("c", now, now).map_or(0, |(_, wait)| wait.as_secs());
            waits.push(wait);
            now += Duration::from_secs(wait);
            backoffs.note("c", now, now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn the_wait_counts_from_the_end_and_ends() {
        let mut backoffs = Backoffs::new(RULE);
        backoffs.note("c", at(0), at(0));
        assert_eq!(backoffs.wait("c", at(5), at(6)), Some((at(15), Duration::from_secs(10))));
        assert_eq!(backoffs.wait("c", at(5), at(15)), None);
        assert_eq!(backoffs.wait("other", at(5), at(6)), None);
    }

    #[test]
    fn ten_good_minutes_are_a_new_beginning() {
        let mut backoffs = Backoffs::new(RULE);
        backoffs.note("c", at(0), at(0));
        backoffs.note("c", at(10), at(20));
        assert_eq!(backoffs.wait("c", at(30), at(31)).unwrap().1.as_secs(), 20);
        assert_eq!(backoffs.wait("c", at(20 + 600), at(620)), None);
        backoffs.note("c", at(620), at(620));
        assert_eq!(backoffs.wait("c", at(621), at(621)).unwrap().1.as_secs(), 10);
    }
}
