//! Priority and fairness: whose requests wait for whose (KEP-1040).
//!
//! ```text
//!  request ──▶ rules: the first FlowSchema about it ──▶ its priority level, its flow
//!                                                          │
//!  level: turns of its own, lent out while idle ◀──────────┘
//!     none free? one of the few queues dealt to the flow ──▶ a turn, in turns between queues
//! ```
//!
//! A flood of one flow fills its own few queues; other flows of the level find others, and other
//! levels do not notice. Requests that go on for ever take no turn.

mod deal;
mod figures;
mod rules;
mod turns;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::authn::User;
use crate::followed::Followed;
use crate::informer::Informers;
use crate::request_info::RequestInfo;
use crate::resources::flow_control::{FLOW_SCHEMA, PRIORITY_LEVEL};
use crate::status::Status;

pub(crate) use figures::Figures;
use rules::Rules;
use turns::{Turn, Turns};

/// How long a request may wait for its turn.
const WAIT: Duration = Duration::from_secs(15);
/// How many requests wait for somebody outside at once; more are refused (A4).
const OUTSIDE_MAX: usize = 1024;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Gives requests their turns.
pub(crate) struct Fairness {
    rules: Arc<Followed<Rules>>,
    turns: Arc<Turns>,
    outside: Arc<Semaphore>,
    figures: Figures,
}

/// What a request was taken for.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    schema: Arc<str>,
    level: Arc<str>,
    flow: u64,
    schema_uid: Option<HeaderValue>,
    level_uid: Option<HeaderValue>,
}

impl Class {
    /// Says in an answer what its request was taken for.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(SCHEMA_UID, &self.schema_uid), (LEVEL_UID, &self.level_uid)] {
            if let Some(uid) = uid {
                headers.insert(name, uid.clone());
            }
        }
    }
}

impl Fairness {
    /// With so many turns in all, as the stored flow schemas and levels say.
    pub(crate) fn new(turns: usize, informers: &Informers) -> Self {
        let turns = Arc::new(Turns::new(turns));
        let rules: Arc<Followed<Rules>> = Arc::default();
        let sources = [&FLOW_SCHEMA, &PRIORITY_LEVEL].map(|kind| informers.objects(kind)).to_vec();
        let (task, shared) = (Arc::clone(&rules), Arc::clone(&turns));
        informers.attend(|stop| {
            let make = move |lists: Vec<Vec<_>>| {
                let rules = Rules::of(&lists[0], &lists[1]);
                shared.configure(rules.levels());
                rules
            };
            task.follow(sources, make, stop)
        });
        let outside = Arc::new(Semaphore::new(OUTSIDE_MAX));
        Self { rules, turns, outside, figures: Figures::default() }
    }

    /// What is counted of it.
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// What a request is taken for.
    pub(crate) fn class(&self, info: &RequestInfo, user: &User) -> Class {
        let rules = self.rules.now();
        let (schema, level) = rules.of_request(info, user);
        let mut hasher = DefaultHasher::new();
        (&schema.name, schema.distinguisher(info, user)).hash(&mut hasher);
        Class {
            schema: Arc::clone(&schema.name),
            level: Arc::clone(&level.name),
            flow: hasher.finish(),
            schema_uid: schema.uid.clone(),
            level_uid: level.uid.clone(),
        }
    }

    /// A turn at once or after a bounded wait.
    pub(crate) async fn enter(self: &Arc<Self>, class: &Class) -> Result<Arc<Seat>, Status> {
        let turn = self.turn(class).await?;
        let held = Mutex::new(Held { turn: Some(turn), outside: 0 });
        Ok(Arc::new(Seat { fairness: Arc::clone(self), class: class.clone(), held }))
    }

    async fn turn(&self, class: &Class) -> Result<Turn, Status> {
        let waits = self.figures.waits(class);
        let turn = self.turns.take(&class.level, class.flow, WAIT).await;
        drop(waits);
        match turn {
            Ok(turn) => {
                self.figures.dispatched(class);
                Ok(turn)
            }
            Err(refused) => {
                self.figures.rejected(class, refused.reason());
                Err(many())
            }
        }
    }
}

fn many() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", 1)
}

/// A request's turn. It is left while the request waits for a webhook, so that one that hangs holds
/// up nobody who does not ask it.
pub(crate) struct Seat {
    fairness: Arc<Fairness>,
    class: Class,
    held: Mutex<Held>,
}

/// What a request holds. Calls outside may overlap: the last one back takes a turn again.
#[derive(Default)]
struct Held {
    turn: Option<Turn>,
    outside: usize,
}

impl Seat {
    /// Gives the turn to somebody else.
    pub(crate) fn leave(&self) {
        let turn = self.held.lock().turn.take();
        drop(turn);
    }

    /// Does something that waits for others, with the turn left to somebody else meanwhile.
    pub(crate) async fn outside<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        let Ok(_outside) = Arc::clone(&self.fairness.outside).try_acquire_owned() else {
            return Err(many());
        };
        self.held.lock().outside += 1;
        self.leave();
        let done = work.await;
        let is_last = {
            let mut held = self.held.lock();
            held.outside -= 1;
            held.outside == 0
        };
        if is_last {
            let turn = self.fairness.turn(&self.class).await?;
            self.held.lock().turn = Some(turn);
        }
        Ok(done)
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("class", &self.class).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
