//! Which occurrences become events of their own, which raise a count, and which are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{EventType, Occurrence};

/// How many events and objects are remembered.
const MEMORY: usize = 4096;
/// How many events an object may have at once …
const BURST: f64 = 25.0;
/// … and how soon it may have one more.
const SECONDS_PER_EVENT: f64 = 300.0;
/// From how many different messages of one reason on they become one event.
const SIMILAR_MAX: usize = 10;
/// How long messages of one reason count as similar, in seconds.
const SIMILAR_SECONDS: i64 = 600;

/// What to do with an occurrence.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Create this event.
    Create(Arc<Event>),
    /// The event exists: bring its count and time to these.
    Count {
        /// The event, with its new count.
        event: Arc<Event>,
    },
    /// Too many about this object.
    LeaveOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sameness {
    component: &'static str,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    field_path: Option<String>,
    event_type: EventType,
    reason: &'static str,
}

#[derive(Debug, Clone)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug, Default)]
struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    events: Memory<(Sameness, String), Arc<Event>>,
    similar: Memory<Sameness, Similar>,
    buckets: Memory<(&'static str, Option<String>), Bucket>,
}

impl Correlator {
    pub(super) fn decide(&mut self, occurrence: &Occurrence) -> Verdict {
        if !self.take_token(occurrence) {
            return Verdict::LeaveOut;
        }
        let sameness = sameness(occurrence);
        let message = if self.are_many(&sameness, occurrence) {
            format!("(combined from similar events): {}", occurrence.message)
        } else {
            occurrence.message.clone()
        };
        let identity = if message == occurrence.message { message.clone() } else { String::new() };
        let key = (sameness, identity);
        if let Some(known) = self.events.get(&key) {
            let mut event = Event::clone(known);
            event.count = event.count.map(|count| count.saturating_add(1));
            event.last_timestamp = Some(Time(occurrence.at));
            event.message = Some(message);
            let event = Arc::new(event);
            *known = Arc::clone(&event);
            return Verdict::Count { event };
        }
        let event = Arc::new(event(occurrence, message));
        self.events.insert(key, Arc::clone(&event));
        Verdict::Create(event)
    }

    fn take_token(&mut self, occurrence: &Occurrence) -> bool {
        let key = (occurrence.component, occurrence.object.uid.clone());
        let full = Bucket { tokens: BURST, at: occurrence.at };
        let bucket = self.buckets.get_or_insert(&key, full);
        let seconds = occurrence.at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + seconds / SECONDS_PER_EVENT).min(BURST);
        bucket.at = occurrence.at;
        let may = bucket.tokens >= 1.0;
        if may {
            bucket.tokens -= 1.0;
        }
        may
    }

    fn are_many(&mut self, sameness: &Sameness, occurrence: &Occurrence) -> bool {
        let similar = self.similar.get_or_insert(sameness, Similar::default());
        if occurrence.at.duration_since(similar.last).as_secs() > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.last = occurrence.at;
        if similar.messages.contains(&occurrence.message) {
            return false;
        }
        if similar.messages.len() < SIMILAR_MAX {
            similar.messages.push(occurrence.message.clone());
            return false;
        }
        true
    }
}

fn sameness(occurrence: &Occurrence) -> Sameness {
    let ObjectReference { namespace, name, uid, field_path, .. } = occurrence.object.clone();
    Sameness {
        component: occurrence.component,
        namespace,
        name,
        uid,
        field_path,
        event_type: occurrence.event_type,
        reason: occurrence.reason,
    }
}

fn event(occurrence: &Occurrence, message: String) -> Event {
    let name = occurrence.object.name.as_deref().unwrap_or_default();
    let namespace = occurrence.object.namespace.clone().filter(|namespace| !namespace.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", occurrence.at.as_nanosecond())),
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: occurrence.object.clone(),
        type_: Some(occurrence.event_type.as_str().to_owned()),
        reason: Some(occurrence.reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(occurrence.component.to_owned()), host: None }),
        reporting_component: Some(occurrence.component.to_owned()),
        reporting_instance: Some(String::new()),
        first_timestamp: Some(Time(occurrence.at)),
        last_timestamp: Some(Time(occurrence.at)),
        count: Some(1),
        ..Event::default()
    }
}

/// A map that forgets its oldest entry when it is full.
#[derive(Debug)]
struct Memory<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Memory<K, V> {
    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > MEMORY
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
        }
    }

    fn get_or_insert(&mut self, key: &K, value: V) -> &mut V {
        if !self.entries.contains_key(key) {
            self.insert(key.clone(), value);
        }
        self.entries.get_mut(key).expect("what was inserted just above must be there")
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn occurrence(uid: &str, message: &str, seconds: i64) -> Occurrence {
        Occurrence {
            object: ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some("shop".to_owned()),
                name: Some("web".to_owned()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            event_type: EventType::Warning,
            reason: "Failed",
            message: message.to_owned(),
            component: "tester",
            at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds),
        }
    }

    #[test]
    fn the_same_again_raises_the_count_of_the_first() {
        let mut correlator = Correlator::default();
        let Verdict::Create(first) = correlator.decide(&occurrence("a", "no room", 0)) else {
            panic!()
        };
        assert_eq!(first.metadata.namespace.as_deref(), Some("shop"));
        let Verdict::Count { event } = correlator.decide(&occurrence("a", "no room", 9)) else {
            panic!()
        };
        assert_eq!(event.metadata.name, first.metadata.name);
        assert_eq!(event.count, Some(2));
        assert!(event.last_timestamp > event.first_timestamp);
        let other = correlator.decide(&occurrence("b", "no room", 9));
        assert!(matches!(other, Verdict::Create(_)), "another object has its own event");
    }

    #[test]
    fn many_different_messages_become_one() {
        let mut correlator = Correlator::default();
        for number in 0..SIMILAR_MAX {
            let verdict = correlator.decide(&occurrence("a", &format!("try {number}"), 0));
            assert!(matches!(verdict, Verdict::Create(_)));
        }
        let Verdict::Create(combined) = correlator.decide(&occurrence("a", "try 98", 1)) else {
            panic!()
        };
        assert_eq!(combined.message.as_deref(), Some("(combined from similar events): try 98"));
        let Verdict::Count { event } = correlator.decide(&occurrence("a", "try 99", 2)) else {
            panic!()
        };
        assert_eq!(event.message.as_deref(), Some("(combined from similar events): try 99"));
    }

    #[test]
    fn an_object_that_floods_is_cut_off_and_may_speak_again_later() {
        let mut correlator = Correlator::default();
        let said = (0..100)
            .filter(|_| correlator.decide(&occurrence("a", "again", 0)) != Verdict::LeaveOut)
            .count();
        assert_eq!(said, 25);
        assert_ne!(correlator.decide(&occurrence("a", "again", 301)), Verdict::LeaveOut);
        assert_eq!(correlator.decide(&occurrence("a", "again", 301)), Verdict::LeaveOut);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for number in 0..(MEMORY * 2) {
            memory.insert(number, ());
        }
        assert_eq!(memory.entries.len(), MEMORY);
        assert!(memory.get(&(MEMORY * 2 - 1)).is_some() && memory.get(&0).is_none());
    }
}
