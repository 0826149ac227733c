//! The turns of each priority level, and who waits for one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::deal::hand;

/// What a level does where it has no turn left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// It always has one.
    Exempt,
    /// It refuses.
    Refuse,
    /// It lets wait.
    Queue {
        /// In so many queues.
        queues: usize,
        /// Of which one flow may use so many.
        hand: usize,
        /// With so many in each.
        length: usize,
    },
}

/// A level as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LevelConfig {
    pub(super) name: Arc<str>,
    /// Its part of all turns, beside the others' shares.
    pub(super) shares: usize,
    /// How much of its part others may have while it needs it not.
    pub(super) lendable_percent: usize,
    /// How much it may have of others', in parts of its own; without one all they lend.
    pub(super) borrowing_percent: Option<usize>,
    pub(super) response: Response,
}

impl LevelConfig {
    /// One that has all turns, unless there are others.
    pub(super) fn whole(name: Arc<str>) -> Self {
        Self {
            name,
            shares: 5,
            lendable_percent: 0,
            borrowing_percent: None,
            response: Response::Queue { queues: 64, hand: 6, length: 50 },
        }
    }
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The level lets nobody wait.
    NoTurn,
    /// All queues of the flow are full.
    QueueFull,
    /// It took too long.
    TooLate,
}

impl Refused {
    /// As metrics have it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoTurn => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TooLate => "time-out",
        }
    }
}

/// All turns.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    total: usize,
    levels: BTreeMap<Arc<str>, Level>,
    /// Counts turns, so that queues take turns.
    clock: u64,
    next_id: u64,
}

#[derive(Debug)]
struct Level {
    config: LevelConfig,
    /// Its part of all turns.
    nominal: usize,
    under_way: usize,
    waiting: usize,
    queues: Vec<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    under_way: usize,
    /// When its last turn began.
    last: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    go: oneshot::Sender<()>,
}

/// A turn; others may have it when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    level: Arc<str>,
    queue: usize,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state.lock().end(&self.level, self.queue);
    }
}

/// Somebody who waits; gives up when dropped before that is over.
struct Waiting<'a> {
    turns: &'a Turns,
    level: &'a str,
    queue: usize,
    id: u64,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.turns.state.lock();
        // It may have been given the turn just now.
        if !state.forget(self.level, self.queue, self.id) {
            state.end(self.level, self.queue);
        }
    }
}

/// What comes of who wants a turn.
enum Arrival {
    Now { queue: usize },
    Later { queue: usize, id: u64, go: oneshot::Receiver<()> },
}

impl Turns {
    /// So many in all.
    pub(super) fn new(total: usize) -> Self {
        let levels = BTreeMap::new();
        let state = State { total: total.max(1), levels, clock: 0, next_id: 0 };
        let turns = Self { state: Mutex::new(state) };
        turns.configure(&[LevelConfig::whole("catch-all".into())]);
        turns
    }

    /// From now on these levels. Who waits at one that is gone waits on until there is room.
    pub(super) fn configure(&self, levels: &[LevelConfig]) {
        let mut state = self.state.lock();
        state.configure(levels);
        state.dispatch();
    }

    /// A turn of a level at once, or within `limit`.
    pub(super) async fn take(
        self: &Arc<Self>,
        level: &Arc<str>,
        flow: u64,
        limit: Duration,
    ) -> Result<Turn, Refused> {
        let arrival = self.state.lock().arrive(level, flow)?;
        let queue = match arrival {
            Arrival::Now { queue } => queue,
            Arrival::Later { queue, id, go } => {
                let mut waiting = Waiting { turns: self, level, queue, id, is_over: false };
                let Ok(Ok(())) = timeout(limit, go).await else { return Err(Refused::TooLate) };
                waiting.is_over = true;
                queue
            }
        };
        Ok(Turn { turns: Arc::clone(self), level: Arc::clone(level), queue })
    }
}

impl State {
    fn configure(&mut self, configs: &[LevelConfig]) {
        let shares: usize = configs.iter().map(|config| config.shares).sum();
        for level in self.levels.values_mut() {
            (level.nominal, level.config.lendable_percent) = (0, 0);
        }
        for config in configs {
            let nominal = (self.total * config.shares).div_ceil(shares.max(1));
            let level = self.levels.entry(Arc::clone(&config.name));
            let level = level.or_insert_with(|| Level::new(config.clone()));
            level.config = config.clone();
            level.nominal = nominal;
            let Response::Queue { queues, .. } = config.response else { continue };
            // More stay until they are empty: nobody is dealt them any more.
            level.queues.resize_with(queues.max(level.queues.len()), Queue::default);
        }
        let is_listed = |name: &str| configs.iter().any(|config| *config.name == *name);
        self.levels.retain(|name, level| is_listed(name) || level.under_way + level.waiting > 0);
    }

    /// Whether a level may have one more turn: of its own while the others leave any, of what no other
    /// may be asked to lend in any case, and beyond its own of what others lend.
    fn may_begin(&self, level: &Level) -> bool {
        if level.config.response == Response::Exempt {
            return true;
        }
        if level.under_way < level.nominal - level.lendable() {
            return true;
        }
        let bounded = || self.levels.values().filter(|one| one.config.response != Response::Exempt);
        let under_way: usize = bounded().map(|one| one.under_way).sum();
        // Rounding up makes a few more turns than there are.
        let all = bounded().map(|one| one.nominal).sum::<usize>().max(self.total);
        if under_way >= all {
            return false;
        }
        if level.under_way < level.nominal {
            return true;
        }
        let most = level.config.borrowing_percent.map(|percent| level.nominal * percent / 100);
        if most.is_some_and(|most| level.borrowed() >= most) {
            return false;
        }
        let lent: usize = bounded().map(Level::idle).sum();
        lent > bounded().map(Level::borrowed).sum()
    }

    fn arrive(&mut self, name: &Arc<str>, flow: u64) -> Result<Arrival, Refused> {
        if !self.levels.contains_key(name) {
            let config = LevelConfig { shares: 0, ..LevelConfig::whole(Arc::clone(name)) };
            self.levels.insert(Arc::clone(name), Level::new(config));
        }
        let Some(level) = self.levels.get(name) else { return Err(Refused::NoTurn) };
        let is_free = level.waiting == 0 && self.may_begin(level);
        let queue = match level.config.response {
            Response::Exempt | Response::Refuse if is_free => 0,
            Response::Exempt | Response::Refuse => return Err(Refused::NoTurn),
            Response::Queue { queues, hand: size, .. } => {
                let load = |queue: usize| {
                    level.queues[queue].waiting.len() + level.queues[queue].under_way
                };
                let dealt = hand(flow, queues, size.clamp(1, queues));
                dealt.into_iter().min_by_key(|queue| load(*queue)).unwrap_or(0)
            }
        };
        self.next_id += 1;
        let id = self.next_id;
        let Some(level) = self.levels.get_mut(name) else { return Err(Refused::NoTurn) };
        if is_free {
            self.clock += 1;
            level.begin(queue, self.clock);
            return Ok(Arrival::Now { queue });
        }
        let Response::Queue { length, .. } = level.config.response else {
            return Err(Refused::NoTurn);
        };
        if level.queues[queue].waiting.len() >= length {
            return Err(Refused::QueueFull);
        }
        let (sender, go) = oneshot::channel();
        level.queues[queue].waiting.push_back(Waiter { id, go: sender });
        level.waiting += 1;
        // Others may wait at a queue that is not this one's turn while turns are free.
        self.dispatch();
        Ok(Arrival::Later { queue, id, go })
    }

    /// Gives turns to who waits, level after level, while there are any.
    fn dispatch(&mut self) {
        let names: Vec<Arc<str>> = self
            .levels
            .values()
            .filter(|level| level.waiting > 0)
            .map(|level| Arc::clone(&level.config.name))
            .collect();
        let mut goes_on = !names.is_empty();
        while goes_on {
            goes_on = false;
            for name in &names {
                goes_on |= self.begin_next(name);
            }
        }
    }

    /// Gives a turn to whoever has waited longest at the queue whose turn it is.
    fn begin_next(&mut self, name: &str) -> bool {
        let may = self.levels.get(name).is_some_and(|one| one.waiting > 0 && self.may_begin(one));
        if !may {
            return false;
        }
        let Some(level) = self.levels.get_mut(name) else { return false };
        let queues = level.queues.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        let next = queues.min_by_key(|(_, queue)| (queue.under_way, queue.last));
        let Some(next) = next.map(|(number, _)| number) else { return false };
        let Some(waiter) = level.queues[next].waiting.pop_front() else { return false };
        level.waiting -= 1;
        self.clock += 1;
        level.begin(next, self.clock);
        if waiter.go.send(()).is_err() {
            // It gives up just now, and does not find itself waiting: it ends the turn itself.
            tracing::trace!(level = name, "a turn for nobody");
        }
        true
    }

    /// Takes somebody out of those who wait; answers whether it was there.
    fn forget(&mut self, name: &str, queue: usize, id: u64) -> bool {
        let Some(level) = self.levels.get_mut(name) else { return false };
        let Some(queue) = level.queues.get_mut(queue) else { return false };
        let Some(place) = queue.waiting.iter().position(|one| one.id == id) else { return false };
        queue.waiting.remove(place);
        level.waiting -= 1;
        true
    }

    fn end(&mut self, name: &str, queue: usize) {
        if let Some(level) = self.levels.get_mut(name) {
            level.under_way = level.under_way.saturating_sub(1);
            if let Some(queue) = level.queues.get_mut(queue) {
                queue.under_way = queue.under_way.saturating_sub(1);
            }
        }
        self.dispatch();
    }
}

impl Level {
    fn new(config: LevelConfig) -> Self {
        let queues = match config.response {
            Response::Queue { queues, .. } => queues,
            _ => 1,
        };
        let queues = std::iter::repeat_with(Queue::default).take(queues).collect();
        Self { config, nominal: 0, under_way: 0, waiting: 0, queues }
    }

    fn begin(&mut self, queue: usize, clock: u64) {
        self.under_way += 1;
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.under_way += 1;
            queue.last = clock;
        }
    }

    /// How many of its turns others may have.
    fn lendable(&self) -> usize {
        self.nominal * self.config.lendable_percent.min(100) / 100
    }

    /// How many of those it does not need now.
    fn idle(&self) -> usize {
        self.nominal.saturating_sub(self.under_way + self.waiting).min(self.lendable())
    }

    /// How many it has of others'.
    fn borrowed(&self) -> usize {
        self.under_way.saturating_sub(self.nominal)
    }
}

#[cfg(test)]
mod tests;
