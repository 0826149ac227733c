//! Events in etcd's messages, divided where the client asks for it.

use kontiki_storage::kv::{Event, EventKind};
use prost::Message as _;

use super::super::{REQUEST_BYTES_MAX, convert};
use super::proto;
use super::request::Create;

/// How large a message becomes before it is divided: etcd's bound on requests and what it allows
/// the protocol beside it.
const FRAGMENT_BYTES_MAX: usize = REQUEST_BYTES_MAX + (512 << 10);

/// The answers that tell of `events`; none where none of them is wanted.
pub(super) fn of_events(create: &Create, events: Vec<Event>) -> Vec<proto::WatchResponse> {
    let wanted = events.into_iter().filter(|event| create.wants(event));
    let events: Vec<proto::Event> = wanted.map(message).collect();
    if events.is_empty() {
        return Vec::new();
    }
    let whole = proto::WatchResponse { watch_id: create.id, ..Default::default() };
    if create.fragment {
        divide(whole, events, FRAGMENT_BYTES_MAX)
    } else {
        vec![proto::WatchResponse { events, ..whole }]
    }
}

fn message(event: Event) -> proto::Event {
    use proto::mvccpb::event::EventType;
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    proto::Event {
        r#type: kind as i32,
        kv: Some(convert::key_value(event.kv)),
        prev_kv: event.prev_kv.map(convert::key_value),
    }
}

/// Answers of at most `most` bytes of events, or of one event; all but the last say that more of
/// the same follows.
fn divide(
    whole: proto::WatchResponse,
    events: Vec<proto::Event>,
    most: usize,
) -> Vec<proto::WatchResponse> {
    let mut answers = vec![whole.clone()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        let last = answers.last_mut().expect("there must be an answer to add to");
        if bytes + size > most && !last.events.is_empty() {
            last.fragment = true;
            answers.push(proto::WatchResponse { events: vec![event], ..whole.clone() });
            bytes = size;
        } else {
            last.events.push(event);
            bytes += size;
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_divided_and_only_the_last_part_says_that_it_is_whole() {
        let event = |bytes: usize| proto::Event {
            kv: Some(proto::KeyValue { value: vec![b'v'; bytes].into(), ..Default::default() }),
            ..Default::default()
        };
        let whole = proto::WatchResponse { watch_id: 3, ..Default::default() };
        let events = vec![event(10), event(10), event(500), event(10)];
        let answers = divide(whole.clone(), events, 100);
        let shape: Vec<_> = answers.iter().map(|a| (a.events.len(), a.fragment)).collect();
        assert_eq!(shape, [(2, true), (1, true), (1, false)]);
        assert!(answers.iter().all(|answer| answer.watch_id == 3));
        assert_eq!(divide(whole, vec![event(10)], 100).len(), 1);
    }
}
