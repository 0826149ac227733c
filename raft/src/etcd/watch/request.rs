//! What a client asks to be told.

use bytes::Bytes;
use kontiki_storage::kv::{Event, EventKind, KeyRange, RangeEnd, Revision};
use thiserror::Error;

use super::super::convert;
use super::proto;

/// A watch to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Create {
    /// Its identity on its stream; 0 where one is to be chosen.
    pub(super) id: i64,
    pub(super) range: KeyRange,
    /// The first revision of which it has not been sent what there is.
    pub(super) start: Revision,
    pub(super) prev_kv: bool,
    pub(super) progress_notify: bool,
    pub(super) fragment: bool,
    pub(super) puts: bool,
    pub(super) deletes: bool,
}

/// Why a watch is not created. The texts are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
}

impl Create {
    /// What a request means in a store that is at `now`.
    pub(super) fn plan(request: proto::WatchCreateRequest, now: Revision) -> Result<Self, Refusal> {
        use proto::watch_create_request::FilterType;
        let leaves_out = |filter| request.filters.contains(&(filter as i32));
        let (puts, deletes) = (!leaves_out(FilterType::Noput), !leaves_out(FilterType::Nodelete));
        Ok(Self {
            id: request.watch_id,
            start: match request.start_revision {
                0 => now.next(),
                start => convert::revision(start).unwrap_or(Revision::EMPTY),
            },
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            fragment: request.fragment,
            puts,
            deletes,
            range: range(request.key, request.range_end)?,
        })
    }

    /// Whether an event is wanted.
    pub(super) fn wants(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }
}

/// An empty key is the smallest there is.
fn range(key: Bytes, end: Bytes) -> Result<KeyRange, Refusal> {
    let start = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
    let end = match &end[..] {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Unbounded,
        _ => RangeEnd::Before(end),
    };
    let range = KeyRange { start, end };
    if range.is_empty() { Err(Refusal::EmptyRange) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &'static str, end: &'static str) -> proto::WatchCreateRequest {
        proto::WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            ..proto::WatchCreateRequest::default()
        }
    }

    fn plan(request: proto::WatchCreateRequest) -> Result<Create, Refusal> {
        Create::plan(request, Revision::new(7))
    }

    #[test]
    fn a_watch_without_a_revision_begins_with_the_next_one() {
        assert_eq!(plan(request("a", "")).unwrap().start, Revision::new(8));
        let from =
            |start_revision| proto::WatchCreateRequest { start_revision, ..request("a", "") };
        assert_eq!(plan(from(3)).unwrap().start, Revision::new(3));
        assert_eq!(plan(from(99)).unwrap().start, Revision::new(99));
    }

    #[test]
    fn ranges_are_read_as_etcd_reads_them() {
        assert_eq!(plan(request("a", "")).unwrap().range, KeyRange::key("a"));
        assert_eq!(plan(request("", "")).unwrap().range, KeyRange::key("\0"));
        let all = KeyRange { start: "\0".into(), end: RangeEnd::Unbounded };
        assert_eq!(plan(request("", "\0")).unwrap().range, all);
        assert_eq!(plan(request("b", "a")), Err(Refusal::EmptyRange));
        assert_eq!(plan(request("b", "b")), Err(Refusal::EmptyRange));
    }
}
