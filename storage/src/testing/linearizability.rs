//! Whether what clients saw of a store is what one machine, doing one thing at a time, could have
//! shown them.
//!
//! The search is that of Wing and Gong, with what Lowe added to it: take some operation that may
//! have been first, as nothing had ended before it began; see whether its answer fits; go on with
//! the rest, and come back where that leads nowhere. A set of operations that was tried in one order
//! and left the store in the same state need not be tried in another. Operations on different keys
//! do not concern one another, so each group of keys that are touched together is searched alone.
//!
//! An operation whose outcome is unknown may have happened at any time after it began, or never.

use std::collections::{BTreeMap, HashSet};

/// One thing that a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Reads a key.
    Get(String),
    /// Sets a key.
    Put(String, String),
    /// Removes a key.
    Delete(String),
}

/// A request, as a transaction: a put, a read and a compare-and-set are small ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Keys with what they must hold, `None` for nothing at all, for `success` to be done.
    pub compare: Vec<(String, Option<String>)>,
    /// What is done where all compares hold.
    pub success: Vec<Do>,
    /// What is done where one does not.
    pub failure: Vec<Do>,
}

/// What a client was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the compares held.
    pub succeeded: bool,
    /// Of each [`Do::Get`] that was done, in order, what the key held.
    pub read: Vec<Option<String>>,
}

/// A request with its answer and the time that it took, on one clock for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub request: Request,
    /// When it was sent.
    pub called: u64,
    /// When the answer was there, and the answer; `None` where it is not known whether it was done.
    pub returned: Option<(u64, Answer)>,
}

/// Why a history cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No order of the operations explains the answers.
    #[error("no order of the {} operations on {keys:?} explains them; as far as any order goes, the next would be {next:?}", .operations)]
    NotLinearizable {
        /// The keys that they are about.
        keys: Vec<String>,
        /// How many there are.
        operations: usize,
        /// An operation that ends before any that could be done instead.
        next: Box<Operation>,
    },
    /// The search was given up.
    #[error("the operations on {keys:?} are too many to be judged")]
    TooHard {
        /// The keys that they are about.
        keys: Vec<String>,
    },
}

/// How many steps a search may take.
const STEPS_MAX: u64 = 20_000_000;

type State = BTreeMap<String, String>;

impl Operation {
    fn may_be_told(&self, answer: &Answer) -> bool {
        self.returned.as_ref().is_none_or(|(_, told)| told == answer)
    }
}

impl Request {
    fn keys(&self) -> impl Iterator<Item = &String> {
        let acts = self.success.iter().chain(&self.failure);
        let acts = acts.map(|act| match act {
            Do::Get(key) | Do::Put(key, _) | Do::Delete(key) => key,
        });
        self.compare.iter().map(|(key, _)| key).chain(acts)
    }

    /// What it does to `state` and what it answers.
    fn apply(&self, state: &State) -> (State, Answer) {
        let succeeded = self.compare.iter().all(|(key, value)| state.get(key) == value.as_ref());
        let mut after = state.clone();
        let mut read = Vec::new();
        for act in if succeeded { &self.success } else { &self.failure } {
            match act {
                Do::Get(key) => read.push(after.get(key).cloned()),
                Do::Put(key, value) => {
                    after.insert(key.clone(), value.clone());
                }
                Do::Delete(key) => {
                    after.remove(key);
                }
            }
        }
        (after, Answer { succeeded, read })
    }
}

/// Judges a history that begins with an empty store.
pub fn check(history: &[Operation]) -> Result<(), Failure> {
    for (keys, operations) in groups(history) {
        Search::new(&operations).run(keys)?;
    }
    Ok(())
}

/// Operations by the keys that they touch, directly or through one another.
fn groups(history: &[Operation]) -> Vec<(Vec<String>, Vec<&Operation>)> {
    let mut group_of: BTreeMap<&String, usize> = BTreeMap::new();
    let mut members: Vec<Vec<&String>> = Vec::new();
    for operation in history {
        let mut joined: Option<usize> = None;
        for key in operation.request.keys() {
            let found = *group_of.entry(key).or_insert_with(|| {
                members.push(vec![key]);
                members.len() - 1
            });
            let into = *joined.get_or_insert(found);
            if found != into {
                let moved = std::mem::take(&mut members[found]);
                for key in &moved {
                    group_of.insert(key, into);
                }
                members[into].extend(moved);
            }
        }
    }
    let mut operations: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if let Some(key) = operation.request.keys().next() {
            operations.entry(group_of[key]).or_default().push(operation);
        }
    }
    let named = |group: usize| members[group].iter().map(|key| (*key).clone()).collect();
    operations.into_iter().map(|(group, all)| (named(group), all)).collect()
}

/// The beginnings and ends of operations in the order of time, as a list from which what has been
/// placed is lifted, and to which it returns.
struct Timeline {
    /// Of each place, which operation begins or ends there. Place 0 is the list's head.
    marks: Vec<Mark>,
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where each operation ends, where it does.
    end_of: Vec<Option<usize>>,
}

#[derive(Clone, Copy)]
enum Mark {
    Head,
    Begin(usize),
    End(usize),
}

const HEAD: usize = 0;

impl Timeline {
    fn new(operations: &[&Operation]) -> Self {
        // What begins as another ends is taken to overlap with it.
        let mut marks: Vec<(u64, u8, Mark)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            marks.push((operation.called, 0, Mark::Begin(number)));
            if let Some((returned, _)) = operation.returned {
                marks.push((returned, 1, Mark::End(number)));
            }
        }
        marks.sort_by_key(|(at, kind, _)| (*at, *kind));
        let marks: Vec<Mark> =
            [Mark::Head].into_iter().chain(marks.into_iter().map(|(_, _, mark)| mark)).collect();
        let mut end_of = vec![None; operations.len()];
        for (place, mark) in marks.iter().enumerate() {
            if let Mark::End(number) = mark {
                end_of[*number] = Some(place);
            }
        }
        let count = marks.len();
        let next = (1..=count).map(|place| place % count).collect();
        let before = (0..count).map(|place| (place + count - 1) % count).collect();
        Self { marks, next, before, end_of }
    }

    fn unlink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn relink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = place;
        self.before[next] = place;
    }

    fn lift(&mut self, begin: usize, number: usize) {
        self.unlink(begin);
        if let Some(end) = self.end_of[number] {
            self.unlink(end);
        }
    }

    fn put_back(&mut self, begin: usize, number: usize) {
        if let Some(end) = self.end_of[number] {
            self.relink(end);
        }
        self.relink(begin);
    }
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    timeline: Timeline,
    placed: Vec<u64>,
    tried: HashSet<(Vec<u64>, State)>,
    /// What was placed, with the state before it.
    done: Vec<(usize, usize, State)>,
    state: State,
    /// How many were placed in the best order so far, and what could not follow.
    furthest: (usize, usize),
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        Self {
            operations,
            timeline: Timeline::new(operations),
            placed: vec![0; operations.len().div_ceil(64)],
            tried: HashSet::new(),
            done: Vec::new(),
            state: State::new(),
            furthest: (0, 0),
        }
    }

    fn run(mut self, keys: Vec<String>) -> Result<(), Failure> {
        let mut place = self.timeline.next[HEAD];
        for _ in 0..STEPS_MAX {
            let mark = self.timeline.marks[place];
            place = match mark {
                // All that have ended are placed; of the rest it is not known that they were done.
                Mark::Head => return Ok(()),
                Mark::Begin(number) if self.place(place, number) => self.timeline.next[HEAD],
                Mark::Begin(_) => self.timeline.next[place],
                // It ended before all that are left began: something placed must have come later.
                Mark::End(number) => {
                    if self.done.len() >= self.furthest.0 {
                        self.furthest = (self.done.len(), number);
                    }
                    match self.take_back() {
                        Some(begin) => self.timeline.next[begin],
                        None => return Err(self.failure(keys)),
                    }
                }
            };
        }
        Err(Failure::TooHard { keys })
    }

    /// Places an operation next, if its answer fits and it leads to something new.
    fn place(&mut self, begin: usize, number: usize) -> bool {
        let operation = self.operations[number];
        let (after, answer) = operation.request.apply(&self.state);
        if !operation.may_be_told(&answer) || self.is_needless(operation, &after) {
            return false;
        }
        self.flip(number);
        if !self.tried.insert((self.placed.clone(), after.clone())) {
            self.flip(number);
            return false;
        }
        let before = std::mem::replace(&mut self.state, after);
        self.done.push((begin, number, before));
        self.timeline.lift(begin, number);
        true
    }

    /// Whether the operation placed last, of which it is not known that it was done, could as well
    /// be left out before this one, or come after it: then that is tried instead. Without this every
    /// such operation would double the search.
    fn is_needless(&self, operation: &Operation, after: &State) -> bool {
        let Some((_, last, before)) = self.done.last() else { return false };
        let last = self.operations[*last];
        if last.returned.is_some() {
            return false;
        }
        let (without, answer) = operation.request.apply(before);
        if !operation.may_be_told(&answer) {
            return false;
        }
        // Two of unknown outcome could be delayed behind one another for ever.
        let is_delayed = operation.returned.is_some() && last.request.apply(&without).0 == *after;
        without == *after || is_delayed
    }

    fn flip(&mut self, number: usize) {
        self.placed[number / 64] ^= 1 << (number % 64);
    }

    fn take_back(&mut self) -> Option<usize> {
        let (begin, number, before) = self.done.pop()?;
        self.state = before;
        self.flip(number);
        self.timeline.put_back(begin, number);
        Some(begin)
    }

    fn failure(self, keys: Vec<String>) -> Failure {
        let next = Box::new(self.operations[self.furthest.1].clone());
        Failure::NotLinearizable { keys, operations: self.operations.len(), next }
    }
}

#[cfg(test)]
mod tests;
